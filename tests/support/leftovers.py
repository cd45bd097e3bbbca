"""Did the tests leave anything on the machine? Asked once at the end of every test process.

Namespaces, interfaces, processes and instances carry the process' own tag (`netns.our_prefix`) and are told from other
people's for certain. BPF programs are not; they are counted only when nobody else is testing on the machine.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import platform
import shutil
import socket
import struct
from pathlib import Path

from tests.support import netns
from tests.support.eventually import eventually

RUN_DIR = Path("/run/pyoffload")
PIN_DIR = RUN_DIR / "bpf"
STATE_DIR = Path("/var/lib/pyoffload")
TESTERS_LOCK = Path("/run/lock/pyoffload-tests")
PROGRAM_PREFIX = "pyo_"

BPF_SYSCALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351}
BPF_PROG_GET_NEXT_ID = 11
BPF_PROG_GET_FD_BY_ID = 13
BPF_OBJ_GET_INFO_BY_FD = 15
BPF_LINK_GET_FD_BY_ID = 30
BPF_LINK_GET_NEXT_ID = 31
PROG_INFO_NAME = slice(64, 80)  # of struct bpf_prog_info; struct bpf_link_info has prog_id at byte 8

_libc = ctypes.CDLL(None, use_errno=True)


def instance_exists(name: str) -> bool:
    """Whether pins or a configuration of that instance are there; pyoffload names an instance by its namespace."""
    return (PIN_DIR / name).exists() or (STATE_DIR / name).exists()


def remove_instance(name: str) -> None:
    """Remove all files of an instance; its programs end with their last pin."""
    for base in (PIN_DIR, STATE_DIR, RUN_DIR):
        shutil.rmtree(base / name, ignore_errors=True)


class Leftovers:
    """Make one at the start; `found` at the end tells what was left, and `close` says that we are no longer testing."""

    def __init__(self) -> None:
        TESTERS_LOCK.parent.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(TESTERS_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_SH)
        self._before = our_programs()
        self._interfaces = _interfaces()

    def close(self) -> None:
        """Let go of the mark that somebody is testing."""
        os.close(self._lock)

    def found(self, within_s: float = 3.0) -> list[str]:
        """One line per thing that is ours and still there; the kernel gets a moment to finish deletions.

        Namespaces and instances are removed after they have been reported, so that the next run starts clean.
        """
        mine = netns.our_prefix()
        names = sorted(_entries(netns.NETNS_DIR, mine))
        left = [f"namespace {name}" for name in names]
        for base in (PIN_DIR, STATE_DIR):
            left += [f"{base / name}" for name in sorted(_entries(base, mine))]
        left += [f"process {pid} in namespace {name}" for name in names for pid in _processes(name)]
        left += [
            f"interface {name} in the test's own namespace" for name in sorted(self._new_interfaces(mine))
        ]
        if not left:
            left += self._programs(within_s)
        for name in names:
            netns.remove_forgotten(name)
        for base in (PIN_DIR, STATE_DIR, RUN_DIR):
            for name in _entries(base, mine):
                remove_instance(name)
        return left

    def _programs(self, within_s: float) -> list[str]:
        def extra() -> list[str]:
            programs = our_programs()
            links = link_targets()
            return [
                f"BPF program {number} ({name}){' with a link' if number in links else ''}"
                for number, name in sorted(programs.items())
                if number not in self._before
            ]

        if not self._alone():
            return []
        try:
            eventually(lambda: not extra(), within_s=within_s, why="our programs are unloaded")
        except AssertionError:
            return extra() if self._alone() else []
        return []

    def _alone(self) -> bool:
        """Whether no other test process and no other instance can own a program named like ours."""
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            fcntl.flock(self._lock, fcntl.LOCK_SH)
            return False
        fcntl.flock(self._lock, fcntl.LOCK_SH)
        return not _entries(PIN_DIR, "")

    def _new_interfaces(self, mine: str) -> set[str]:
        return {name for name in _interfaces() - self._interfaces if name.startswith(mine)}


def our_programs() -> dict[int, str]:
    """Loaded BPF programs whose name begins with pyo_: {id: name}. Empty where we may not ask."""
    found = {}
    for number in _ids(BPF_PROG_GET_NEXT_ID):
        info = _info(BPF_PROG_GET_FD_BY_ID, number, 96)
        name = info[PROG_INFO_NAME].split(b"\0", 1)[0].decode(errors="replace")
        if name.startswith(PROGRAM_PREFIX):
            found[number] = name
    return found


def link_targets() -> set[int]:
    """Ids of the programs that BPF links hold."""
    infos = (_info(BPF_LINK_GET_FD_BY_ID, number, 64) for number in _ids(BPF_LINK_GET_NEXT_ID))
    return {struct.unpack_from("I", info, 8)[0] for info in infos}


def _ids(command: int) -> list[int]:
    found: list[int] = []
    last = 0
    while True:
        attr = ctypes.create_string_buffer(struct.pack("III", last, 0, 0), 128)
        if bpf(command, attr) < 0:
            if ctypes.get_errno() in (errno.ENOENT, errno.EPERM, errno.EACCES):
                return found
            raise OSError(ctypes.get_errno(), "bpf: walk over ids")
        last = struct.unpack_from("I", attr, 4)[0]
        found.append(last)


def _info(open_command: int, number: int, size: int) -> bytes:
    fd = bpf(open_command, ctypes.create_string_buffer(struct.pack("I", number), 128))
    if fd < 0:
        return bytes(size)  # gone meanwhile
    try:
        info = ctypes.create_string_buffer(size)
        attr = ctypes.create_string_buffer(struct.pack("IIQ", fd, size, ctypes.addressof(info)), 128)
        return info.raw if bpf(BPF_OBJ_GET_INFO_BY_FD, attr) == 0 else bytes(size)
    finally:
        os.close(fd)


def bpf(command: int, attr: ctypes.Array[ctypes.c_char]) -> int:
    """bpf(2); -1 with the reason in ctypes.get_errno()."""
    return int(_libc.syscall(BPF_SYSCALL[platform.machine()], command, attr, len(attr)))


def _entries(directory: Path, prefix: str) -> list[str]:
    try:
        return [name for name in os.listdir(directory) if name.startswith(prefix)]
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []


def _interfaces() -> set[str]:
    return {name for _, name in socket.if_nameindex()}


def _processes(name: str) -> list[int]:
    with contextlib.suppress(OSError):
        return netns.processes_with((netns.NETNS_DIR / name).stat().st_ino)
    return []
