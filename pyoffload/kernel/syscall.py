"""The bpf(2) system call: numbers, attributes, pins, and what its errors mean to the operator.

Layouts and numbers are those of `union bpf_attr` in include/uapi/linux/bpf.h. Nothing here needs bcc or libbpf.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from pyoffload.errors import (
    AlreadyExists,
    HostError,
    KernelError,
    NotFound,
    NotPermitted,
    OffloadError,
    TableFull,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# The system calls' numbers differ between architectures; libc has no wrappers for them.
_NUMBERS = {"x86_64": (321, 308), "aarch64": (280, 268)}
_MACHINE = os.uname().machine
_BPF, _SETNS = _NUMBERS.get(_MACHINE, (None, None))

MAP_CREATE = 0
MAP_LOOKUP_ELEM = 1
MAP_UPDATE_ELEM = 2
MAP_DELETE_ELEM = 3
MAP_GET_NEXT_KEY = 4
PROG_LOAD = 5
OBJ_PIN = 6
OBJ_GET = 7
PROG_TEST_RUN = 10
PROG_GET_NEXT_ID = 11
PROG_GET_FD_BY_ID = 13
OBJ_GET_INFO_BY_FD = 15
PROG_QUERY = 16
MAP_LOOKUP_BATCH = 24
MAP_UPDATE_BATCH = 26
MAP_DELETE_BATCH = 27
LINK_CREATE = 28
LINK_UPDATE = 29
LINK_GET_FD_BY_ID = 30
LINK_DETACH = 34

F_RDONLY = 1 << 3  # of OBJ_GET

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_long)

_CAPABILITIES = "it needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON: run it as root (sudo)"


def bpf(command: int, attr: bytes | bytearray | ctypes.Array[Any]) -> int:
    """Call the kernel. Returns its result, or -errno; the caller knows what to say about it.

    The kernel writes its answers into ``attr`` where that is a bytearray.
    """
    if _BPF is None:
        raise HostError(
            f"processor architecture '{_MACHINE}' is not supported", hint="x86_64 and aarch64 are"
        )
    pointer = (ctypes.c_char * len(attr)).from_buffer(attr) if isinstance(attr, bytearray) else attr
    result: int = _syscall(_BPF, command, pointer, len(attr))
    return result if result >= 0 else -ctypes.get_errno()


def setns(fd: int, kind: int) -> None:
    """Move this thread into the namespace behind ``fd``; ``kind`` is a CLONE_NEW... flag (Python 3.12 has os.setns)."""
    if _syscall(_SETNS, fd, kind, 0) != 0:
        raise error(ctypes.get_errno(), "entering the namespace")


def address(data: bytes | bytearray) -> int:
    """Where ``data`` lies in memory; the caller keeps it alive and, if a bytearray, unchanged in size."""
    if isinstance(data, bytearray):
        return ctypes.addressof(ctypes.c_char.from_buffer(data)) if data else 0
    return ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0


def error(number: int, what: str, *, hint: str | None = None) -> OffloadError:
    """The exception for errno ``number`` of an operation described by ``what``."""
    why = os.strerror(number)
    message = f"{what}: {why}"
    match number:
        case errno.EPERM | errno.EACCES:
            return NotPermitted(f"{what}: not permitted", hint=hint or _CAPABILITIES, errno=number)
        case errno.E2BIG | errno.ENOSPC:
            return TableFull(f"{what}: the table is full", hint=hint, errno=number)
        case errno.ENOSYS:
            return HostError(
                f"{what}: this kernel has no bpf(2)", hint=hint or "needs CONFIG_BPF_SYSCALL=y", errno=number
            )
        case errno.EEXIST:
            return AlreadyExists(message, hint=hint, errno=number)
        case errno.ENOENT:
            return NotFound(message, hint=hint, errno=number)
    return KernelError(message, hint=hint, errno=number)


def obj_pin(fd: int, path: str) -> None:
    """Pin a map, program or link. An existing name is AlreadyExists: pin beside it and rename over it to replace."""
    name = os.fsencode(path) + b"\0"
    result = bpf(OBJ_PIN, struct.pack("<QII", address(name), fd, 0))
    if result < 0:
        raise error(-result, f"pinning {path}")


def obj_get(path: str, *, read_only: bool = False) -> int:
    """A new descriptor of what is pinned at ``path``."""
    name = os.fsencode(path) + b"\0"
    result = bpf(OBJ_GET, struct.pack("<QII", address(name), 0, F_RDONLY if read_only else 0))
    if result < 0:
        raise error(
            -result, f"opening {path}", hint="run it as root (sudo)" if result == -errno.EACCES else None
        )
    return result


def obj_info(fd: int, size: int) -> bytearray:
    """First ``size`` bytes of struct bpf_map_info, bpf_prog_info or bpf_link_info; zeros where the kernel is older."""
    info = bytearray(size)
    attr = bytearray(struct.pack("<IIQ", fd, size, address(info)))
    result = bpf(OBJ_GET_INFO_BY_FD, attr)
    if result < 0:
        raise error(-result, f"asking about descriptor {fd}")
    return info


def c_name(raw: bytes | bytearray) -> str:
    return bytes(raw).split(b"\0", 1)[0].decode("ascii", "replace")
