"""What the guest's end of a veth does: offloads of an interface that lives in another network namespace.

The kernel names that namespace by a number only (IFLA_LINK_NETNSID). The namespace itself is found among those that have a
name below /run/netns, and those of running processes.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import glob
import os
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from pyoffload import netlink
from pyoffload.errors import KernelError, OffloadError
from pyoffload.kernel.syscall import setns

CLONE_NEWNET: Final = 0x40000000
# include/uapi/linux/rtnetlink.h, net_namespace.h
_RTM_GETNSID: Final = 90
_NETNSA_NSID: Final = 1
_NETNSA_FD: Final = 3
# include/uapi/linux/sockios.h, ethtool.h
_SIOCGIFNAME: Final = 0x8910
_SIOCETHTOOL: Final = 0x8946
_ETHTOOL_GTXCSUM: Final = 0x16
_ETHTOOL_GFLAGS: Final = 0x25
_ETH_FLAG_TXVLAN: Final = 1 << 7


@dataclass(frozen=True, slots=True)
class PeerOffloads:
    """What the guest leaves to its hardware, which an XDP program on our end does not see."""

    tx_csum: bool  # checksums
    tx_vlan: bool  # VLAN tags: they are beside the frame


def offloads(link: netlink.Link) -> PeerOffloads | None:
    """Of the peer of a veth; None if its namespace cannot be found or entered."""
    if link.kind != "veth" or not link.peer_ifindex:
        return None
    try:
        sock = _own_socket() if link.peer_netnsid is None else _socket_in(link.peer_netnsid)
    except (OSError, KernelError):
        return None
    if sock is None:
        return None
    with sock:
        try:
            ifreq = fcntl.ioctl(sock, _SIOCGIFNAME, struct.pack("16si20x", b"", link.peer_ifindex))
            name = ifreq[:16].split(b"\0", 1)[0]
            flags = _ethtool(sock, name, _ETHTOOL_GFLAGS)
            return PeerOffloads(
                tx_csum=bool(_ethtool(sock, name, _ETHTOOL_GTXCSUM)),
                tx_vlan=bool(flags & _ETH_FLAG_TXVLAN),
            )
        except OSError:
            return None


def _own_socket() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)


def _ethtool(sock: socket.socket, name: bytes, command: int) -> int:
    value = ctypes.create_string_buffer(struct.pack("=II", command, 0), 8)
    fcntl.ioctl(sock, _SIOCETHTOOL, struct.pack("16sP16x", name, ctypes.addressof(value)))
    return int(struct.unpack_from("=I", value.raw, 4)[0])


def _socket_in(netnsid: int) -> socket.socket | None:
    """A socket of the namespace that we know by that number."""
    for fd in _namespaces():
        if _netnsid(fd) == netnsid:
            return _made_there(fd)
    return None


def _made_there(fd: int) -> socket.socket | None:
    made: list[socket.socket] = []

    def enter() -> None:  # a namespace is entered by one thread only; this one ends at once
        with contextlib.suppress(OSError, OffloadError):
            setns(fd, CLONE_NEWNET)
            made.append(_own_socket())

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    return made[0] if made else None


def _namespaces() -> Iterator[int]:
    """A descriptor of each network namespace that can be found, valid until the next one is asked for."""
    seen: set[tuple[int, int]] = set()
    for pattern in ("/run/netns/*", "/run/docker/netns/*", "/proc/[0-9]*/ns/net"):
        for path in glob.iglob(pattern):
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                continue
            try:
                status = os.fstat(fd)
                if (status.st_dev, status.st_ino) not in seen:
                    seen.add((status.st_dev, status.st_ino))
                    yield fd
            finally:
                os.close(fd)


def _netnsid(fd: int) -> int | None:
    body = struct.pack("=Bxxx", 0) + struct.pack("=HHI", 8, _NETNSA_FD, fd)
    try:
        for answer in netlink.ask(_RTM_GETNSID, body):
            value = netlink.parse_attributes(answer, 4).get(_NETNSA_NSID)
            return None if value is None else int(struct.unpack("=i", value)[0])
    except KernelError:
        return None
    return None
