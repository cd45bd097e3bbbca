"""Facts about interfaces straight from rtnetlink(7) and ethtool's ioctl: reading verbs have no time for a library.

Only questions, no changes. Everything is about the network namespace the process is in.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Iterator
from typing import Final, NamedTuple

from pyoffload.errors import KernelError

# include/uapi/linux/rtnetlink.h, netlink.h
_RTM_NEWLINK: Final = 16
_RTM_GETLINK: Final = 18
_RTM_GETQDISC: Final = 38
_RTM_GETTFILTER: Final = 46
_NLMSG_ERROR: Final = 2
_NLMSG_DONE: Final = 3
_NLM_F_REQUEST: Final = 1
_NLM_F_DUMP: Final = 0x300
_NLA_TYPE_MASK: Final = 0x3FFF

# include/uapi/linux/if_link.h
_IFLA_IFNAME: Final = 3
_IFLA_MTU: Final = 4
_IFLA_LINK: Final = 5
_IFLA_MASTER: Final = 10
_IFLA_LINKINFO: Final = 18
_IFLA_IFALIAS: Final = 20
_IFLA_NUM_TX_QUEUES: Final = 31
_IFLA_NUM_RX_QUEUES: Final = 32
_IFLA_LINK_NETNSID: Final = 37
_IFLA_XDP: Final = 43
_IFLA_INFO_KIND: Final = 1
_IFLA_INFO_DATA: Final = 2
_IFLA_TUN_TYPE: Final = 3
_IFLA_TUN_VNET_HDR: Final = 5
_IFLA_TUN_MULTI_QUEUE: Final = 7
_IFLA_XDP_ATTACHED: Final = 2
_IFLA_XDP_PROG_ID: Final = 4
_IFLA_XDP_DRV_PROG_ID: Final = 5
_IFLA_XDP_SKB_PROG_ID: Final = 6
_IFLA_XDP_HW_PROG_ID: Final = 7
_XDP_ATTACHED: Final = {
    _IFLA_XDP_DRV_PROG_ID: "native",
    _IFLA_XDP_SKB_PROG_ID: "generic",
    _IFLA_XDP_HW_PROG_ID: "offload",
}
_XDP_SINGLE: Final = {1: "native", 2: "generic", 3: "offload"}  # XDP_ATTACHED_DRV, _SKB, _HW

_IFF_UP: Final = 1
_IFF_PROMISC: Final = 0x100
_ARPHRD_ETHER: Final = 1
_IFF_TAP: Final = 2  # include/uapi/linux/if_tun.h

# include/uapi/linux/pkt_sched.h, pkt_cls.h
_TCA_KIND: Final = 1
_TCA_OPTIONS: Final = 2
_TCA_BPF_NAME: Final = 7
_TCA_BPF_ID: Final = 11
_CLSACT: Final = {0xFFFFFFF2: "ingress", 0xFFFFFFF3: "egress"}

# include/uapi/linux/genetlink.h, netdev.h
_NETLINK_ROUTE: Final = 0
_NETLINK_GENERIC: Final = 16
_GENL_ID_CTRL: Final = 16
_CTRL_CMD_GETFAMILY: Final = 3
_CTRL_ATTR_FAMILY_ID: Final = 1
_CTRL_ATTR_FAMILY_NAME: Final = 2
_NETDEV_CMD_DEV_GET: Final = 1
_NETDEV_A_DEV_IFINDEX: Final = 1
_NETDEV_A_DEV_XDP_FEATURES: Final = 3
XDP_BASIC: Final = 1  # enum netdev_xdp_act: native XDP at all
XDP_REDIRECT: Final = 2
XDP_NDO_XMIT: Final = 4  # takes frames that XDP redirects to it
XDP_RX_SG: Final = 32  # frames of more than one buffer (jumbo)

_SIOCETHTOOL: Final = 0x8946
_ETHTOOL_GDRVINFO: Final = 0x00000003
_ETHTOOL_GGSO: Final = 0x00000023
_ETHTOOL_GTXCSUM: Final = 0x00000016
_ETHTOOL_GTSO: Final = 0x0000001E
_ETHTOOL_GFLAGS: Final = 0x00000025
_ETHTOOL_GGRO: Final = 0x0000002B
_ETH_FLAG_LRO: Final = 1 << 15


class Tun(NamedTuple):
    """A tun or tap device. With `vnet_hdr` its guest may leave checksums partial and send super-packets."""

    tap: bool
    vnet_hdr: bool
    multi_queue: bool


class Link(NamedTuple):
    """One interface. `kind` is the driver's rtnetlink kind, '' for hardware; `peer_ifindex` is IFLA_LINK."""

    ifindex: int
    ifname: str
    kind: str
    mtu: int
    up: bool
    promiscuous: bool
    alias: str
    master: int
    peer_ifindex: int
    peer_netnsid: int | None
    xdp: tuple[tuple[str, int], ...]
    tx_queues: int
    rx_queues: int
    tun: Tun | None
    ethernet: bool


class Filter(NamedTuple):
    """A tc filter below clsact; `prog_id` is None unless it is of kind bpf."""

    direction: str
    prio: int
    handle: int
    kind: str
    name: str
    prog_id: int | None


class Features(NamedTuple):
    gro: bool
    gso: bool
    tso: bool
    tx_csum: bool
    lro: bool


def dump_links() -> list[Link]:
    """Every interface of the namespace."""
    return [_link(message) for message in ask(_RTM_GETLINK, struct.pack("=BxHiII", 0, 0, 0, 0, 0), dump=True)]


def get_link(which: str | int) -> Link | None:
    """One interface by name or index; None if there is none."""
    index = which if isinstance(which, int) else 0
    body = struct.pack("=BxHiII", 0, 0, index, 0, 0)
    if isinstance(which, str):
        name = which.encode(errors="surrogateescape") + b"\0"
        if len(name) > 16:
            return None
        body += struct.pack("=HH", 4 + len(name), _IFLA_IFNAME) + name.ljust(-(-len(name) // 4) * 4, b"\0")
    try:
        return next((_link(message) for message in ask(_RTM_GETLINK, body, dump=False)), None)
    except KernelError as err:
        if err.errno in {19, 22}:  # ENODEV; EINVAL for an index of 0
            return None
        raise


def xdp_features() -> dict[int, int] | None:
    """Per interface index what its driver can do for XDP (XDP_BASIC, …); None before Linux 6.3, which first tells."""
    name = b"netdev\0\0"
    request = struct.pack("=BBxxHH", _CTRL_CMD_GETFAMILY, 1, 4 + 7, _CTRL_ATTR_FAMILY_NAME) + name
    try:
        family = next(ask(_GENL_ID_CTRL, request, dump=False, protocol=_NETLINK_GENERIC))
        number = _number(parse_attributes(family, 4).get(_CTRL_ATTR_FAMILY_ID))
        answers = list(
            ask(number, struct.pack("=BBxx", _NETDEV_CMD_DEV_GET, 1), dump=True, protocol=_NETLINK_GENERIC)
        )
    except (KernelError, OSError, StopIteration):
        return None
    devices = [parse_attributes(answer, 4) for answer in answers]
    return {
        _number(device.get(_NETDEV_A_DEV_IFINDEX)): _number(device.get(_NETDEV_A_DEV_XDP_FEATURES))
        for device in devices
    }


def has_clsact(ifindex: int) -> bool:
    return any(
        struct.unpack_from("=i", message, 4)[0] == ifindex
        and _text(parse_attributes(message, 20).get(_TCA_KIND)) == "clsact"
        for message in ask(_RTM_GETQDISC, struct.pack("=BxHiIII", 0, 0, ifindex, 0, 0, 0), dump=True)
    )


def clsact_filters(ifindex: int) -> list[Filter]:
    """The filters at both clsact hooks of an interface, in the order in which they run."""
    found: list[Filter] = []
    for parent, direction in _CLSACT.items():
        body = struct.pack("=BxHiIII", 0, 0, ifindex, 0, parent, 0)
        try:
            messages = list(ask(_RTM_GETTFILTER, body, dump=True))
        except KernelError:
            continue  # no clsact here
        for message in messages:
            handle, _, info = struct.unpack_from("=III", message, 8)
            attributes = parse_attributes(message, 20)
            kind = _text(attributes.get(_TCA_KIND))
            options = parse_attributes(attributes.get(_TCA_OPTIONS, b""), 0)
            if handle == 0:
                continue  # the head of a list of filters, which the kernel reports as well
            number = options.get(_TCA_BPF_ID)
            prog_id = struct.unpack("=I", number)[0] if number is not None and kind == "bpf" else None
            name = _text(options.get(_TCA_BPF_NAME)) if kind == "bpf" else ""
            found.append(Filter(direction, info >> 16, handle, kind, name, prog_id))
    return found


def driver(ifname: str) -> str:
    """The driver's name as `ethtool -i` prints it, or ''."""
    # struct ethtool_drvinfo: cmd, driver[32], version[32], fw_version[32], bus_info[32], erom_version[32], ...
    answer = _ethtool(ifname, struct.pack("=I", _ETHTOOL_GDRVINFO).ljust(196, b"\0"))
    return "" if answer is None else answer[4:36].split(b"\0", 1)[0].decode(errors="replace")


def features(ifname: str) -> Features:
    """Offloads of the interface; False where the driver does not say."""
    flags = _ethtool_value(ifname, _ETHTOOL_GFLAGS)
    return Features(
        gro=bool(_ethtool_value(ifname, _ETHTOOL_GGRO)),
        gso=bool(_ethtool_value(ifname, _ETHTOOL_GGSO)),
        tso=bool(_ethtool_value(ifname, _ETHTOOL_GTSO)),
        tx_csum=bool(_ethtool_value(ifname, _ETHTOOL_GTXCSUM)),
        lro=bool(flags & _ETH_FLAG_LRO),
    )


def _ethtool_value(ifname: str, command: int) -> int:
    answer = _ethtool(ifname, struct.pack("=II", command, 0))
    return 0 if answer is None else int(struct.unpack_from("=I", answer, 4)[0])


def _ethtool(ifname: str, request: bytes) -> bytes | None:
    """SIOCETHTOOL: struct ifreq holds a pointer to the request, which the kernel overwrites."""
    import ctypes
    import fcntl

    buffer = ctypes.create_string_buffer(request, len(request))
    name = ifname.encode(errors="surrogateescape")[:15]
    ifreq = struct.pack("16sP16x", name, ctypes.addressof(buffer))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            fcntl.ioctl(sock, _SIOCETHTOOL, ifreq)
        except OSError:
            return None
    return buffer.raw


def ask(
    message_type: int, body: bytes, *, dump: bool = False, protocol: int = _NETLINK_ROUTE
) -> Iterator[bytes]:
    """Send one request, yield the body of each answer. KernelError carries the errno of a refusal."""
    flags = _NLM_F_REQUEST | (_NLM_F_DUMP if dump else 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol) as sock:
        sock.bind((0, 0))
        sock.send(struct.pack("=IHHII", 16 + len(body), message_type, flags, 1, 0) + body)
        while True:
            data = sock.recv(1 << 20)
            offset = 0
            while offset + 16 <= len(data):
                length, kind, _, _, _ = struct.unpack_from("=IHHII", data, offset)
                payload = data[offset + 16 : offset + length]
                offset += (length + 3) & ~3
                if kind == _NLMSG_DONE:
                    return
                if kind == _NLMSG_ERROR:
                    error = -struct.unpack_from("=i", payload)[0]
                    if error:
                        raise KernelError(f"rtnetlink: {os.strerror(error)}", errno=error)
                    return
                yield payload
                if not dump:
                    return


def parse_attributes(data: bytes, offset: int) -> dict[int, bytes]:
    """The netlink attributes from `offset` on; of equal types the last."""
    found: dict[int, bytes] = {}
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4:
            break
        found[kind & _NLA_TYPE_MASK] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def _text(value: bytes | None) -> str:
    return "" if value is None else value.rstrip(b"\0").decode(errors="replace")


def _number(value: bytes | None) -> int:
    return int.from_bytes(value, sys.byteorder) if value else 0


def _link(message: bytes) -> Link:
    hardware, ifindex, flags = struct.unpack_from("=HiI", message, 2)
    attributes = parse_attributes(message, 16)
    info = parse_attributes(attributes.get(_IFLA_LINKINFO, b""), 0)
    kind = _text(info.get(_IFLA_INFO_KIND))
    netnsid = attributes.get(_IFLA_LINK_NETNSID)
    return Link(
        ifindex=ifindex,
        ifname=_text(attributes.get(_IFLA_IFNAME)),
        kind=kind,
        mtu=_number(attributes.get(_IFLA_MTU)),
        up=bool(flags & _IFF_UP),
        promiscuous=bool(flags & _IFF_PROMISC),
        alias=_text(attributes.get(_IFLA_IFALIAS)),
        master=_number(attributes.get(_IFLA_MASTER)),
        peer_ifindex=_number(attributes.get(_IFLA_LINK)),
        peer_netnsid=None if netnsid is None else struct.unpack("=i", netnsid)[0],
        xdp=_xdp(attributes.get(_IFLA_XDP, b"")),
        tx_queues=_number(attributes.get(_IFLA_NUM_TX_QUEUES)),
        rx_queues=_number(attributes.get(_IFLA_NUM_RX_QUEUES)),
        tun=_tun(parse_attributes(info.get(_IFLA_INFO_DATA, b""), 0)) if kind == "tun" else None,
        ethernet=hardware == _ARPHRD_ETHER,
    )


def _tun(data: dict[int, bytes]) -> Tun:
    return Tun(
        tap=_number(data.get(_IFLA_TUN_TYPE)) == _IFF_TAP,
        vnet_hdr=bool(_number(data.get(_IFLA_TUN_VNET_HDR))),
        multi_queue=bool(_number(data.get(_IFLA_TUN_MULTI_QUEUE))),
    )


def _xdp(data: bytes) -> tuple[tuple[str, int], ...]:
    """Mode and program id of each XDP program of an interface."""
    found = parse_attributes(data, 0)
    several = [(mode, _number(found[kind])) for kind, mode in _XDP_ATTACHED.items() if found.get(kind)]
    if several:
        return tuple(several)
    mode = _XDP_SINGLE.get(_number(found.get(_IFLA_XDP_ATTACHED)))
    return () if mode is None else ((mode, _number(found.get(_IFLA_XDP_PROG_ID))),)
