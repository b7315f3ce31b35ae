# SPDX-License-Identifier: Apache-2.0
"""The real engine for tests that talk to it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tools.engine import Engine, EngineUnavailableError, Installation, find_or_install

# The first run downloads 48 MB; what the tests themselves do is bounded by their own deadlines.
TIMEOUT_S = 600


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests with the engine the time that fetching it may take."""
    for item in items:
        if "engine_installation" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.timeout(TIMEOUT_S))


@pytest.fixture(scope="session")
def engine_installation() -> Installation:
    """The engine on this machine; fetched on the first run.

    Where it cannot be had the test is skipped with the reason; with CI=true it fails.
    """
    try:
        return find_or_install()
    except EngineUnavailableError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{error}; with CI=true everything has to run")
        pytest.skip(str(error))


@pytest.fixture
def engine(engine_installation: Installation) -> Iterator[Engine]:
    """A running engine of the test's own, without a genome."""
    with Engine(engine_installation) as running:
        yield running
