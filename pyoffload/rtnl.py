"""Changes of interfaces and traffic control through rtnetlink(7), each one message with the kernel's answer.

The counterpart of netlink.py, which only asks. Numbers are those of include/uapi/linux/{rtnetlink,if_link,pkt_sched,
pkt_cls}.h. Everything is about the network namespace the thread is in.
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import Final

from pyoffload.errors import OffloadError
from pyoffload.kernel.syscall import error

_NLM_F_REQUEST: Final = 1
_NLM_F_ACK: Final = 4
_NLM_F_EXCL: Final = 0x200
_NLM_F_CREATE: Final = 0x400
_NLA_F_NESTED: Final = 0x8000
_NLMSG_ERROR: Final = 2
_SOL_NETLINK: Final = 270
_NETLINK_EXT_ACK: Final = 11
_NETLINK_CAP_ACK: Final = 10
_NLM_F_ACK_TLVS: Final = 0x200
_NLMSGERR_ATTR_MSG: Final = 1

_RTM_NEWLINK: Final = 16
_RTM_DELLINK: Final = 17
_RTM_NEWQDISC: Final = 36
_RTM_DELQDISC: Final = 37
_RTM_NEWTFILTER: Final = 44
_RTM_DELTFILTER: Final = 45

_IFLA_IFNAME: Final = 3
_IFLA_LINKINFO: Final = 18
_IFLA_IFALIAS: Final = 20
_IFLA_INFO_KIND: Final = 1
_IFLA_INFO_DATA: Final = 2
_VETH_INFO_PEER: Final = 1
_IFF_UP: Final = 0x1
_IFF_PROMISC: Final = 0x100

_TCA_KIND: Final = 1
_TCA_OPTIONS: Final = 2
_TCA_BPF_FD: Final = 6
_TCA_BPF_NAME: Final = 7
_TCA_BPF_FLAGS: Final = 8
_TCA_BPF_FLAG_ACT_DIRECT: Final = 1
_TC_H_CLSACT: Final = 0xFFFFFFF1
_CLSACT_HANDLE: Final = 0xFFFF0000
_CLSACT_INGRESS: Final = 0xFFFFFFF2
_ETH_P_ALL: Final = 3


# ---- interfaces


def create_veth(name: str, peer: str) -> None:
    """A pair of interfaces, both in this namespace, both down. AlreadyExists if a name is taken."""
    peer_data = struct.pack("=BxHiII", 0, 0, 0, 0, 0) + _attribute(_IFLA_IFNAME, _string(peer))
    info = _attribute(_IFLA_INFO_KIND, b"veth") + _attribute(
        _IFLA_INFO_DATA | _NLA_F_NESTED, _attribute(_VETH_INFO_PEER | _NLA_F_NESTED, peer_data)
    )
    body = struct.pack("=BxHiII", 0, 0, 0, 0, 0)
    body += _attribute(_IFLA_IFNAME, _string(name)) + _attribute(_IFLA_LINKINFO | _NLA_F_NESTED, info)
    _request(_RTM_NEWLINK, _NLM_F_CREATE | _NLM_F_EXCL, body, f"making the veth pair {name}, {peer}")


def delete_link(ifindex: int) -> bool:
    """Whether there was such an interface."""
    body = struct.pack("=BxHiII", 0, 0, ifindex, 0, 0)
    return _request_unless({errno.ENODEV}, _RTM_DELLINK, 0, body, f"deleting interface {ifindex}")


def set_up(ifindex: int) -> None:
    _set_flag(ifindex, _IFF_UP, on=True)


def set_promiscuous(ifindex: int, *, on: bool) -> None:
    _set_flag(ifindex, _IFF_PROMISC, on=on)


def set_alias(ifindex: int, alias: str) -> None:
    body = struct.pack("=BxHiII", 0, 0, ifindex, 0, 0) + _attribute(_IFLA_IFALIAS, alias.encode())
    _request(_RTM_NEWLINK, 0, body, f"naming interface {ifindex}")


def _set_flag(ifindex: int, flag: int, *, on: bool) -> None:
    body = struct.pack("=BxHiII", 0, 0, ifindex, flag if on else 0, flag)
    _request(_RTM_NEWLINK, 0, body, f"changing interface {ifindex}")


# ---- traffic control


def add_clsact(ifindex: int) -> bool:
    """Make the clsact qdisc; False if there is one already. HostError without CONFIG_NET_SCH_INGRESS."""
    body = _tcmsg(ifindex, _CLSACT_HANDLE, _TC_H_CLSACT, 0) + _attribute(_TCA_KIND, _string("clsact"))
    return _request_unless(
        {errno.EEXIST},
        _RTM_NEWQDISC,
        _NLM_F_CREATE | _NLM_F_EXCL,
        body,
        f"adding the clsact qdisc to interface {ifindex}",
    )


def delete_clsact(ifindex: int) -> bool:
    """Remove the clsact qdisc with all filters in it; False if there is none."""
    body = _tcmsg(ifindex, _CLSACT_HANDLE, _TC_H_CLSACT, 0)
    return _request_unless(
        {errno.ENODEV, errno.ENOENT, errno.EINVAL},
        _RTM_DELQDISC,
        0,
        body,
        f"removing the clsact qdisc of interface {ifindex}",
    )


def replace_ingress_filter(ifindex: int, prio: int, handle: int, name: str, prog_fd: int) -> None:
    """Put a program on clsact's ingress, in place of the one with this prio and handle if there is one.

    No packet passes in between without a program.
    """
    options = (
        _attribute(_TCA_BPF_FD, struct.pack("=I", prog_fd))
        + _attribute(_TCA_BPF_NAME, _string(name))
        + _attribute(_TCA_BPF_FLAGS, struct.pack("=I", _TCA_BPF_FLAG_ACT_DIRECT))
    )
    body = (
        _tcmsg(ifindex, handle, _CLSACT_INGRESS, _prio(prio))
        + _attribute(_TCA_KIND, _string("bpf"))
        + _attribute(_TCA_OPTIONS | _NLA_F_NESTED, options)
    )
    _request(_RTM_NEWTFILTER, _NLM_F_CREATE, body, f"attaching a filter to interface {ifindex}")


def delete_ingress_filter(ifindex: int, prio: int, handle: int) -> bool:
    """Whether there was such a filter."""
    body = _tcmsg(ifindex, handle, _CLSACT_INGRESS, _prio(prio)) + _attribute(_TCA_KIND, _string("bpf"))
    return _request_unless(
        {errno.ENODEV, errno.ENOENT, errno.EINVAL},
        _RTM_DELTFILTER,
        0,
        body,
        f"removing a filter of interface {ifindex}",
    )


def _prio(prio: int) -> int:
    return prio << 16 | socket.htons(_ETH_P_ALL)


def _tcmsg(ifindex: int, handle: int, parent: int, info: int) -> bytes:
    return struct.pack("=BxHiIII", 0, 0, ifindex, handle, parent, info)


# ---- messages


def _string(text: str) -> bytes:
    return text.encode(errors="surrogateescape") + b"\0"


def _attribute(kind: int, payload: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(payload), kind) + payload + b"\0" * (-len(payload) % 4)


def _attributes(data: bytes) -> dict[int, bytes]:
    found = {}
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        if length < 4:
            break
        found[kind & 0x3FFF] = data[4:length]
        data = data[(length + 3) & ~3 :]
    return found


def _request_unless(harmless: set[int], kind: int, flags: int, body: bytes, what: str) -> bool:
    """Whether it was done; False for an errno that means there was nothing to do."""
    try:
        _request(kind, flags, body, what)
    except OffloadError as err:
        if err.errno in harmless:
            return False
        raise
    return True


def _request(kind: int, flags: int, body: bytes, what: str) -> None:
    """Send one request and wait for the acknowledgement."""
    header = struct.pack("=IHHII", 16 + len(body), kind, flags | _NLM_F_REQUEST | _NLM_F_ACK, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC) as sock:
        sock.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
        sock.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        sock.bind((0, 0))
        sock.send(header + body)
        while True:
            data = sock.recv(1 << 16)
            while len(data) >= 16:
                length, message, message_flags, _, _ = struct.unpack_from("=IHHII", data)
                payload = data[16:length]
                data = data[(length + 3) & ~3 :]
                if message == _NLMSG_ERROR:
                    (number,) = struct.unpack_from("=i", payload)
                    if number:
                        raise _failure(-number, what, payload if message_flags & _NLM_F_ACK_TLVS else b"")
                    return


def _failure(number: int, what: str, payload: bytes) -> OffloadError:
    """The kernel's own words, where it has some, say more than the errno."""
    words = _attributes(payload[20:]).get(_NLMSGERR_ATTR_MSG, b"").rstrip(b"\0").decode("utf-8", "replace")
    return error(number, f"{what}: {words}" if words else what)
