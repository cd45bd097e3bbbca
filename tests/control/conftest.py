"""A switch in a lab of its own, and a way to let a verb die at a chosen step."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyoffload import bridges, datapath
from tests.support.lab import Lab
from tests.support.switch import Switch


@pytest.fixture
def lab(shared_lab: Lab) -> Lab:
    """One lab for a module: to bring the datapath up takes longer than most tests here."""
    return shared_lab


@pytest.fixture
def own_lab() -> Iterator[Lab]:
    """A lab whose host nobody else uses."""
    with Lab() as made:
        yield made


@pytest.fixture(scope="module")
def shared_switch(shared_lab: Lab) -> Switch:
    return Switch(shared_lab.host)


@pytest.fixture
def switch(shared_switch: Switch) -> Iterator[Switch]:
    """The datapath is up; nothing is configured, before and after."""
    yield shared_switch
    with shared_switch.inside() as instance:
        datapath.up(instance)
        for bridge in bridges.list_bridges(instance):
            bridges.delete(instance, bridge.name)
        assert datapath.status(instance).drift == ()


def in_child(verb: Callable[[], object], **environment: str) -> int:
    """Run a verb in a process of its own with these variables; returns its exit status, or minus the signal."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.environ.update(environment)
            verb()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def steps_of(verb: Callable[[], object], log: Path) -> list[str]:
    """Run a verb to its end; returns the names of all steps at which it can be killed, each once."""
    log.unlink(missing_ok=True)
    assert in_child(verb, PYOFFLOAD_KILL_AT="?", PYOFFLOAD_CHECKPOINT_LOG=str(log)) == 0
    return list(dict.fromkeys(log.read_text().split())) if log.exists() else []


def killed_at(step: str, verb: Callable[[], object]) -> None:
    """Run a verb that kills itself at the step."""
    assert in_child(verb, PYOFFLOAD_KILL_AT=step) == -signal.SIGKILL, f"{step} was not reached"
