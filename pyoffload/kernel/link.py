"""BPF links: what holds a program on an interface's XDP or TCX hook, and what is on such a hook already."""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass

from pyoffload.kernel import syscall
from pyoffload.kernel.descriptor import Descriptor
from pyoffload.kernel.syscall import address, bpf, error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

F_REPLACE = 1 << 2  # of LINK_UPDATE: only if the old program is the one named
XDP_MODE_GENERIC = 1 << 1
XDP_MODE_NATIVE = 1 << 2

LINK_TYPE_XDP = 6
LINK_TYPE_TCX = 11

_QUERY = struct.Struct("<IIIIQI4xQQQQ")
_MAX_ON_HOOK = 64  # BPF_MPROG_MAX


@dataclass(frozen=True, slots=True)
class LinkInfo:
    id: int
    type: int
    prog_id: int
    ifindex: int  # 0: the interface was deleted
    attach_type: int  # TCX only


@dataclass(frozen=True, slots=True)
class OnHook:
    """A program on a TCX hook, in the order of running; ``link_id`` 0 when it was attached without a link."""

    prog_id: int
    link_id: int


class Link(Descriptor):
    """A link; the attachment lasts as long as a descriptor or a pin of it."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def create(cls, prog_fd: int, ifindex: int, attach_type: int, flags: int = 0) -> Self:
        """Attach. ``ifindex`` is looked up in the caller's network namespace. Raises KernelError with errno
        EINVAL (no such hook in this kernel), EBUSY or EEXIST (held by another), EOPNOTSUPP (driver cannot).
        """
        fd = bpf(syscall.LINK_CREATE, struct.pack("<IIII48x", prog_fd, ifindex, attach_type, flags))
        if fd < 0:
            raise error(-fd, f"attaching to interface {ifindex}")
        return cls(fd)

    @classmethod
    def open(cls, path: str) -> Self:
        return cls(syscall.obj_get(path))

    @classmethod
    def by_id(cls, link_id: int) -> Self:
        fd = bpf(syscall.LINK_GET_FD_BY_ID, struct.pack("<III", link_id, 0, 0))
        if fd < 0:
            raise error(-fd, f"opening link {link_id}")
        return cls(fd)

    def update(self, prog_fd: int, old_prog_fd: int | None = None) -> None:
        """Swap the program; no packet misses it. With ``old_prog_fd``, only if that is the one attached (EPERM)."""
        flags = 0 if old_prog_fd is None else F_REPLACE
        result = bpf(syscall.LINK_UPDATE, struct.pack("<IIII", self.fd, prog_fd, flags, old_prog_fd or 0))
        if result < 0:
            raise error(-result, "swapping the program of a link")

    def detach(self) -> None:
        """Take the program off the hook; the link object stays, attached to nothing (`info().ifindex` is 0)."""
        result = bpf(syscall.LINK_DETACH, struct.pack("<I", self.fd))
        if result < 0 and result != -errno.ENOLINK:  # ENOLINK: the interface has gone
            raise error(-result, "detaching a link")

    def pin(self, path: str) -> None:
        syscall.obj_pin(self.fd, path)

    def info(self) -> LinkInfo:
        raw = syscall.obj_info(self.fd, 64)
        kind, link_id, prog_id = struct.unpack_from("<III", raw)
        ifindex, attach_type = struct.unpack_from("<II", raw, 16)
        return LinkInfo(link_id, kind, prog_id, ifindex, attach_type if kind == LINK_TYPE_TCX else 0)


def query(ifindex: int, attach_type: int) -> list[OnHook] | None:
    """What is on a TCX hook, or None when the kernel has no such hook (before 6.6)."""
    progs = bytearray(4 * _MAX_ON_HOOK)
    links = bytearray(4 * _MAX_ON_HOOK)
    attr = bytearray(
        _QUERY.pack(ifindex, attach_type, 0, 0, address(progs), _MAX_ON_HOOK, 0, address(links), 0, 0)
    )
    result = bpf(syscall.PROG_QUERY, attr)
    if result == -errno.EINVAL:
        return None
    if result == -errno.ENOENT:  # a hook that nothing was ever attached to
        return []
    if result < 0:
        raise error(-result, f"asking what is attached to interface {ifindex}")
    count: int = _QUERY.unpack(attr)[5]
    return [
        OnHook(prog_id, link_id)
        for prog_id, link_id in zip(
            struct.unpack_from(f"<{count}I", progs), struct.unpack_from(f"<{count}I", links), strict=True
        )
    ]
