"""Hosts with guests, and the command as a user types it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.cli import Cli
from tests.support.lab import Lab


@pytest.fixture(scope="module")
def lab(shared_lab: Lab) -> Lab:
    """One lab for a module: building guests and bringing the datapath up takes longer than most tests here."""
    return shared_lab


@pytest.fixture
def own_lab() -> Iterator[Lab]:
    """A lab whose host nobody else uses."""
    with Lab() as made:
        yield made


@pytest.fixture(scope="module")
def cli(lab: Lab) -> Cli:
    """The command, working in the host namespace of the module's lab."""
    return Cli(lab.host)
