"""Fixtures for every test directory. See tests/support for what they give."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.support.cli import Cli
from tests.support.lab import Lab
from tests.support.leftovers import Leftovers

ROOT_MARKERS = ("traffic", "kernel")
ROOT_FIXTURES = ("lab", "jumbo_lab", "shared_lab")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests on the lab or marked so need root; with CI=true a skip is made a failure by tests/support/ci.py."""
    marked = any(item.get_closest_marker(name) for name in ROOT_MARKERS)
    if os.geteuid() != 0 and (marked or set(ROOT_FIXTURES) & set(getattr(item, "fixturenames", ()))):
        pytest.skip("needs root: it makes network namespaces or loads BPF programs")


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """At the end of each test process nothing of it may be left on the machine."""
    if os.geteuid() != 0:
        yield
        return
    leftovers = Leftovers()
    yield
    try:
        left = leftovers.found()
    finally:
        leftovers.close()
    if left:
        pytest.fail("the tests left behind: " + "; ".join(left), pytrace=False)


@pytest.fixture
def lab() -> Iterator[Lab]:
    """An empty lab of its own for the test: one host namespace, ports on demand, MTU 1500."""
    with Lab() as made:
        yield made


@pytest.fixture
def jumbo_lab() -> Iterator[Lab]:
    """The same with MTU 9000 on every cable."""
    with Lab(mtu=9000) as made:
        yield made


@pytest.fixture(scope="module")
def shared_lab() -> Iterator[Lab]:
    """One lab for all tests of a module: for many short cases that change nothing for each other."""
    with Lab() as made:
        yield made


@pytest.fixture
def cli(lab: Lab) -> Cli:
    """The command, working in the lab's host namespace."""
    return Cli(lab.host)
