# SPDX-License-Identifier: Apache-2.0
"""The source of another release stands on the mirror of the machine's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.engine.apt_source import DEBIAN_KEYRING, AptSource, derived_source, sources_in
from tools.engine.errors import EngineUnavailableError

DEB822 = """\
# a comment
Types: deb
URIs: http://mirror.test/debian
Suites: oldie oldie-updates
# another
Components: main contrib
Signed-By: /keys/one.gpg

Types: deb-src
URIs: http://sources.test/
Suites: oldie
Components: main

Enabled: no
Types: deb
URIs: http://off.test/
Suites: oldie
Components: main

Types: deb
URIs: http://tools.test/
Suites: nodistro
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 Suites: of no key
"""
ONE_LINE = """\
# deb http://off.test/ oldie main
deb-src http://sources.test/ oldie main
deb [arch=amd64 signed-by=/keys/two.gpg] http://mirror.test/debian oldie main contrib # here
deb http://plain.test/ oldie-updates main
deb http://broken.test/
"""


def test_deb822() -> None:
    mirror = ("http://mirror.test/debian", ("main", "contrib"), "/keys/one.gpg")
    assert list(sources_in(DEB822, deb822=True)) == [
        AptSource(mirror[0], "oldie", *mirror[1:]),
        AptSource(mirror[0], "oldie-updates", *mirror[1:]),
        AptSource("http://tools.test/", "nodistro", ("main",), ""),
    ]


def test_one_line() -> None:
    mirror = ("http://mirror.test/debian", "oldie", ("main", "contrib"), "/keys/two.gpg")
    assert list(sources_in(ONE_LINE, deb822=False)) == [
        AptSource(*mirror),
        AptSource("http://plain.test/", "oldie-updates", ("main",), ""),
    ]


@pytest.mark.parametrize(
    ("name", "text"), [("sources.list.d/a.sources", DEB822), ("sources.list", ONE_LINE)]
)
def test_derived(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d/a.sources.bak").write_text("Types: deb\n")
    (tmp_path / name).write_text(text)
    release = tmp_path / "os-release"
    release.write_text('PRETTY_NAME="Old"\nID=debian\nVERSION_CODENAME=oldie\n')
    found = derived_source("newer", tmp_path, release)
    keys = {"/keys/one.gpg", "/keys/two.gpg", DEBIAN_KEYRING}
    assert found.signed_by in keys
    assert found.as_deb822() == (
        "Types: deb\nURIs: http://mirror.test/debian\nSuites: newer\nComponents: main\n"
        f"Signed-By: {found.signed_by}\n"
    )
    release.write_text("ID=debian\nVERSION_CODENAME=unlisted\n")
    with pytest.raises(EngineUnavailableError, match="no apt source of unlisted"):
        derived_source("newer", tmp_path, release)


def test_other_systems_are_refused_by_name(tmp_path: Path) -> None:
    release = tmp_path / "os-release"
    release.write_text('ID=other\nPRETTY_NAME="Other Linux 7"\n')
    with pytest.raises(EngineUnavailableError, match="Debian only; this is Other Linux 7"):
        derived_source("newer", tmp_path, release)
    with pytest.raises(EngineUnavailableError, match="something else"):
        derived_source("newer", tmp_path, tmp_path / "missing")


def test_without_a_keyring_the_machine_s_trust_decides() -> None:
    assert "Signed-By" not in AptSource("u", "s", ("main",)).as_deb822()
