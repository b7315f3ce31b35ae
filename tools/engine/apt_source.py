# SPDX-License-Identifier: Apache-2.0
"""The apt source of another Debian release, derived from the machine's own.

A machine knows which mirror it may use and which keys it trusts. The same mirror carries the other
releases, so only the suite is replaced; the machine's own sources and package lists stay as they
are, for the derived source lives in a folder of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.engine.errors import EngineUnavailableError

APT = Path("/etc/apt")
OS_RELEASE = Path("/etc/os-release")
DEBIAN_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

_ONE_LINE = re.compile(r"deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s+(.+)")


@dataclass(frozen=True)
class AptSource:
    """Where packages of one suite come from; `signed_by` is the path of a keyring or empty."""

    uri: str
    suite: str
    components: tuple[str, ...]
    signed_by: str = ""

    def as_deb822(self) -> str:
        """The text of a .sources file."""
        fields = {
            "Types": "deb",
            "URIs": self.uri,
            "Suites": self.suite,
            "Components": " ".join(self.components),
            "Signed-By": self.signed_by,
        }
        return "".join(f"{name}: {value}\n" for name, value in fields.items() if value)


def sources_in(text: str, *, deb822: bool) -> Iterator[AptSource]:
    """Yield what a sources file lists, one entry for each URI and suite; disabled ones left out."""
    if deb822:
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        for stanza in re.split(r"\n\s*\n", "\n".join(lines)):
            yield from _from_stanza(stanza)
        return
    for line in text.splitlines():
        match = _ONE_LINE.fullmatch(line.partition("#")[0].strip())
        if match:
            options, uri, suite, components = match.groups()
            signed_by = re.search(r"signed-by=(/\S+)", options or "")
            yield AptSource(
                uri, suite, tuple(components.split()), signed_by[1] if signed_by else ""
            )


def _from_stanza(stanza: str) -> Iterator[AptSource]:
    fields: dict[str, str] = {}
    for line in stanza.splitlines():
        # A line that is indented goes on with the field before it: an embedded key, mostly.
        if line[:1] not in (" ", "\t"):
            name, _, value = line.partition(":")
            fields[name.strip().lower()] = value.strip()
    if fields.get("enabled", "yes") == "no" or "deb" not in fields.get("types", "").split():
        return
    signed_by = fields.get("signed-by", "")
    for uri in fields.get("uris", "").split():
        for suite in fields.get("suites", "").split():
            yield AptSource(
                uri,
                suite,
                tuple(fields.get("components", "").split()),
                signed_by if signed_by.startswith("/") else "",
            )


def derived_source(suite: str, apt: Path = APT, os_release: Path = OS_RELEASE) -> AptSource:
    """Return the source of `suite` on the mirror this machine takes its own release from.

    Raises EngineUnavailableError when the machine is no Debian or lists no source of its release.
    """
    release = _os_release(os_release)
    if release.get("ID") != "debian":
        raise EngineUnavailableError(
            f"the engine needs a newer C library than this machine's, and those of Debian {suite} "
            f"are fetched on Debian only; this is {release.get('PRETTY_NAME', 'something else')}"
        )
    own = release.get("VERSION_CODENAME", "")
    found = [
        source
        for path in sorted([*apt.glob("sources.list.d/*"), apt / "sources.list"])
        if path.suffix in (".sources", ".list") and path.is_file()
        for source in sources_in(path.read_text(encoding="utf-8"), deb822=path.suffix == ".sources")
        if source.suite == own and "main" in source.components
    ]
    if not found:
        raise EngineUnavailableError(
            f"no apt source of {own or 'this release'} with the component main in {apt}; "
            f"the mirror for Debian {suite} is derived from it"
        )
    signed_by = DEBIAN_KEYRING if Path(DEBIAN_KEYRING).exists() else found[0].signed_by
    return AptSource(found[0].uri, suite, ("main",), signed_by)


def _os_release(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    pairs = (line.partition("=") for line in path.read_text(encoding="utf-8").splitlines())
    return {name: value.strip("\"'") for name, _, value in pairs if value}
