"""Offload features of an interface by SIOCETHTOOL: what ``ethtool -k`` shows and ``ethtool -K`` sets.

Source: linux/ethtool.h, net/ethtool/ioctl.c. Features carry the kernel's own names; `GROUPS` has ethtool's words.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from fcntl import ioctl

from tests.support.netns import SIOCETHTOOL, LabError, Netns

ETHTOOL_GSTRINGS = 0x1B
ETHTOOL_GSSET_INFO = 0x37
ETHTOOL_GFEATURES = 0x3A
ETHTOOL_SFEATURES = 0x3B
ETH_SS_FEATURES = 4
ETH_GSTRING_LEN = 32

GROUPS = {
    "rx": ("rx-checksum",),
    "tx": ("tx-checksum-ip-generic", "tx-checksum-ipv4", "tx-checksum-ipv6", "tx-checksum-sctp"),
    "sg": ("tx-scatter-gather",),
    "tso": (
        "tx-tcp-segmentation",
        "tx-tcp6-segmentation",
        "tx-tcp-ecn-segmentation",
        "tx-tcp-mangleid-segmentation",
    ),
    "gso": ("tx-generic-segmentation",),
    "gro": ("rx-gro",),
    "uso": ("tx-udp-segmentation",),
    "rxvlan": ("rx-vlan-hw-parse", "rx-vlan-stag-hw-parse"),
    "txvlan": ("tx-vlan-hw-insert", "tx-vlan-stag-hw-insert"),
}


def features(ns: Netns, ifname: str) -> dict[str, bool]:
    """Every feature of the interface and whether it is on, by the kernel's names."""
    with ns.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ctl:
        return _read(ctl, ifname)[0]


def set_features(ns: Netns, ifname: str, **wanted: bool) -> None:
    """Switch features: ``set_features(ns, "veth1", tx=False, gro=True)``.

    Keywords are words of `GROUPS` or kernel names with underscores. LabError when the kernel refuses one.
    """
    names: dict[str, bool] = {}
    for word, on in wanted.items():
        for name in GROUPS.get(word, (word.replace("_", "-"),)):
            names[name] = on
    with ns.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ctl:
        before, fixed = _read(ctl, ifname)
        order = list(before)
        blocks = [[0, 0] for _ in range((len(order) + 31) // 32)]
        for name, on in names.items():
            if name not in before:
                raise LabError(f"{ifname}: this kernel has no feature {name!r}")
            if name in fixed:
                continue
            block, bit = divmod(order.index(name), 32)
            blocks[block][0] |= 1 << bit
            blocks[block][1] |= on << bit
        body = b"".join(struct.pack("II", valid, value) for valid, value in blocks)
        _ethtool(ctl, ifname, struct.pack("II", ETHTOOL_SFEATURES, len(blocks)) + body)
        after, _ = _read(ctl, ifname)
    refused = [name for name, on in names.items() if name not in fixed and after[name] != on]
    if refused:
        raise LabError(f"{ns.name}: {ifname}: the kernel did not switch {', '.join(refused)}")


def _read(ctl: socket.socket, ifname: str) -> tuple[dict[str, bool], set[str]]:
    info = _ethtool(ctl, ifname, struct.pack("=IIQI", ETHTOOL_GSSET_INFO, 0, 1 << ETH_SS_FEATURES, 0))
    count = struct.unpack_from("=I", info, 16)[0]
    head = struct.pack("III", ETHTOOL_GSTRINGS, ETH_SS_FEATURES, count)
    strings = _ethtool(ctl, ifname, head + bytes(count * ETH_GSTRING_LEN))[12:]
    names = [
        strings[i * ETH_GSTRING_LEN : (i + 1) * ETH_GSTRING_LEN].split(b"\0", 1)[0].decode()
        for i in range(count)
    ]
    n_blocks = (count + 31) // 32
    raw = _ethtool(ctl, ifname, struct.pack("II", ETHTOOL_GFEATURES, n_blocks) + bytes(16 * n_blocks))
    state, fixed = {}, set()
    for i, name in enumerate(names):
        available, _requested, active, never_changed = struct.unpack_from("IIII", raw, 8 + 16 * (i // 32))
        bit = 1 << (i % 32)
        state[name or f"unnamed-{i}"] = bool(active & bit)
        if never_changed & bit or not available & bit:
            fixed.add(name)
    return state, fixed


def _ethtool(ctl: socket.socket, ifname: str, command: bytes) -> bytes:
    buffer = ctypes.create_string_buffer(command, len(command))
    ioctl(ctl, SIOCETHTOOL, struct.pack("16sP16x", ifname.encode(), ctypes.addressof(buffer)))
    return buffer.raw
