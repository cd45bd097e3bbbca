"""A namespace to be in, and an instance of it with harmless programs, for tests of single modules."""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
from collections.abc import Iterator

import pytest

from pyoffload import attach, maps
from pyoffload.instance import Instance
from pyoffload.kernel.prog import ATTACH_TYPE_XDP, F_XDP_HAS_FRAGS, PROG_TYPE_SCHED_CLS, PROG_TYPE_XDP, Prog
from pyoffload.loader import LoadedPrograms
from tests.support.netns import Netns

SMALL_CACHE = 1 << 10


def returning(value: int) -> bytes:
    """Instructions of a program that only returns a number."""
    return struct.pack("<BBhi", 0xB7, 0, 0, value) + struct.pack("<BBhi", 0x95, 0, 0, 0)


def tc_program(value: int = -1, name: str = "pyo_tc_ingress") -> Prog:
    return Prog.load(PROG_TYPE_SCHED_CLS, returning(value), name=name)


def xdp_program(value: int = 2, name: str = "pyo_xdp_ingress") -> Prog:
    return Prog.load(
        PROG_TYPE_XDP,
        returning(value),
        name=name,
        flags=F_XDP_HAS_FRAGS,
        expected_attach_type=ATTACH_TYPE_XDP,
    )


def pin_programs(instance: Instance, generation: int, tc: int = -1, xdp: int = 2) -> LoadedPrograms:
    """A set of programs as the loader makes it, of two that let every packet pass."""
    directory = f"{instance.progs_dir}/{generation}"
    os.makedirs(directory)
    with tc_program(tc) as prog:
        prog.pin(f"{directory}/tc_ingress")
    with xdp_program(xdp) as prog:
        prog.pin(f"{directory}/xdp_ingress")
    return LoadedPrograms(generation, directory)


@pytest.fixture
def host() -> Iterator[Netns]:
    """A namespace; the test is inside."""
    with Netns("krn", ipv6=True) as ns, ns.entered():
        yield ns


@pytest.fixture
def instance(host: Netns) -> Iterator[Instance]:
    """The namespace's instance with its directories, nothing in them yet."""
    made = Instance.current()
    made.write_runtime()
    made.make_pin_dirs()
    yield made
    with made.lock():
        attach.detach_all(made)
        made.remove_pins()
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(made.state_dir)


@pytest.fixture
def up(instance: Instance) -> Instance:
    """The same with all maps."""
    maps.create_all(instance, cache_entries=SMALL_CACHE)
    return instance


@pytest.fixture
def programs(instance: Instance) -> LoadedPrograms:
    return pin_programs(instance, 1)
