"""What the maps say about bridges and ports, as values; and the ordered single stores that change a live record.

The datapath reads these records while they are written. Therefore: a port's fields are stored while its ifindex is
0 (no packet finds it), the ifindex last; what belongs together and changes under traffic (VLAN mode; delivery) is one
8-byte store; a bridge's member list only ever gains at a hole or at its end and loses by becoming a hole.
"""

from __future__ import annotations

import struct
from ctypes import c_uint16, c_uint32, c_uint64, sizeof
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyoffload import _abi as abi

if TYPE_CHECKING:
    from pyoffload.mapset import MapSet

PORT_SIZE = sizeof(abi.port)
BRIDGE_SIZE = sizeof(abi.bridge)
BRIDGE_PORTS_SIZE = sizeof(abi.bridge_ports)
PROFILE_SIZE = sizeof(abi.vlan_profile)

_PORT = struct.Struct("<IHHQQQ")
_MODE = struct.Struct("<BBHI")
_DELIVERY = struct.Struct("<IHH")
_BRIDGE_HEAD = struct.Struct("<IIIHHQI")
_FLAGS_AT, _LOCAL_AT, _AGE_AT, _LIMIT_AT = 8, 12, 16, 24
_DEVICE_AT = 24  # of the interface that had the slot: the next one's must not be taken for it
_MEMBERS_AT = 8
_BY_OFPORT_AT = _MEMBERS_AT + 2 * (abi.MAX_BRIDGE_PORTS + 4)


@dataclass(frozen=True, slots=True)
class PortRecord:
    """ports[slot] of a slot in use; ``mode`` and ``delivery`` are the 8 bytes as stored."""

    slot: int
    ifindex: int
    bridge: int
    ofport: int
    mode: int
    delivery: int

    @property
    def key(self) -> tuple[int, int]:
        """(bridge slot, OpenFlow number): what a port is, wherever its slot."""
        return self.bridge, self.ofport

    @property
    def vlan_profile(self) -> int | None:
        """Index into vlan_profiles, for a trunk."""
        kind, _flags, _pvid, profile = _MODE.unpack(self.mode.to_bytes(8, "little"))
        return int(profile) if kind == abi.vlan_mode.TRUNK else None

    @property
    def out_ifindex(self) -> int:
        return self.delivery & 0xFFFFFFFF

    @property
    def deliver(self) -> int:
        """enum port_deliver."""
        return self.delivery >> 32 & 0xFFFF

    @property
    def flags(self) -> int:
        """enum port_flag."""
        return self.delivery >> 48


@dataclass(frozen=True, slots=True)
class BridgeRecord:
    """bridges[slot]."""

    slot: int
    generation: int
    version: int
    flags: int
    local: int
    n_flows_nonzero: int
    mac_age_ns: int
    mac_limit: int


def pack_mode(vlan_mode: int, flags: int, pvid: int, profile: int) -> int:
    """struct port_mode as the number that one store writes."""
    return int.from_bytes(_MODE.pack(vlan_mode, flags, pvid, profile), "little")


def pack_delivery(out_ifindex: int, deliver: int, flags: int) -> int:
    """out_ifindex, deliver and flags of struct port as the number that one store writes."""
    return int.from_bytes(_DELIVERY.pack(out_ifindex, deliver, flags), "little")


def profile_bytes(vlans: tuple[int, ...]) -> bytes:
    """struct vlan_profile of these VLANs."""
    bits = 0
    for vlan in vlans:
        bits |= 1 << vlan
    return bits.to_bytes(PROFILE_SIZE, "little")


def cache_enabled(maps: MapSet) -> bool:
    """Whether this datapath uses its flow cache."""
    flags = int.from_bytes(maps.mmap("config")[4:8], "little")
    return bool(flags & abi.config_flag.CACHE)


def read_ports(maps: MapSet) -> list[PortRecord]:
    """All slots in use: a slot is free if it has no OpenFlow number."""
    return [
        PortRecord(slot, ifindex, bridge, ofport, mode, delivery)
        for slot, (ifindex, bridge, ofport, mode, delivery, _) in enumerate(
            _PORT.iter_unpack(maps.mmap("ports"))
        )
        if ofport
    ]


def read_bridges(maps: MapSet) -> list[BridgeRecord]:
    """All bridges that are up."""
    view = maps.mmap("bridges")
    found = []
    for slot in range(abi.MAX_BRIDGES):
        generation, version, flags, local, nonzero, age, limit = _BRIDGE_HEAD.unpack_from(
            view, slot * BRIDGE_SIZE
        )
        if flags & abi.bridge_flag.UP:
            found.append(BridgeRecord(slot, generation, version, flags, local, nonzero, age, limit))
    return found


def read_members(maps: MapSet, bridge: int) -> tuple[set[int], dict[int, int]]:
    """(slots in the member list, OpenFlow number -> slot) of one bridge."""
    view = maps.mmap("bridge_ports")
    at = bridge * BRIDGE_PORTS_SIZE
    n_members = min(int.from_bytes(view[at : at + 4], "little"), abi.MAX_BRIDGE_PORTS + 2)
    members = struct.unpack_from(f"<{n_members}H", view, at + _MEMBERS_AT)
    by_ofport = struct.unpack_from(f"<{abi.MAX_OFPORT + 1}H", view, at + _BY_OFPORT_AT)
    none = abi.PORT_SLOT_NONE
    # A bridge_ports record that was never written is all zeros; 0 is a slot, therefore n_members decides for members
    # and OpenFlow number 0, which no port has, tells whether by_ofport was initialised.
    numbers = (
        {n: slot for n, slot in enumerate(by_ofport) if slot != none and n} if by_ofport[0] == none else {}
    )
    return {slot for slot in members if slot != none}, numbers


class LivePort:
    """Writes to ports[slot]."""

    def __init__(self, maps: MapSet, slot: int) -> None:
        self._view = maps.mmap("ports")
        self._at = slot * PORT_SIZE

    def reserve(self, bridge: int, ofport: int) -> bytes:
        """Take the slot without making it a port that packets find; returns what was there, for `restore`."""
        before = bytes(self._view[self._at : self._at + PORT_SIZE])
        c_uint32.from_buffer(self._view, self._at).value = 0
        self._u64(_DEVICE_AT, 0)
        self._u64(16, 0)
        self._u64(8, 0)
        c_uint16.from_buffer(self._view, self._at + 4).value = bridge
        c_uint16.from_buffer(self._view, self._at + 6).value = ofport
        return before

    def restore(self, before: bytes) -> None:
        """Undo `reserve`."""
        self._view[self._at + 4 : self._at + PORT_SIZE] = before[4:]
        self.set_ifindex(int.from_bytes(before[:4], "little"))

    def set_mode(self, mode: int) -> None:
        self._u64(8, mode)

    def set_delivery(self, delivery: int) -> None:
        self._u64(16, delivery)

    def set_ifindex(self, ifindex: int) -> None:
        """From here on the interface's packets find the port; 0: no longer."""
        c_uint32.from_buffer(self._view, self._at).value = ifindex

    def free(self) -> None:
        """Give the slot back."""
        self.set_ifindex(0)
        self._u64(_DEVICE_AT, 0)
        self._u64(16, 0)
        self._u64(8, 0)
        c_uint32.from_buffer(self._view, self._at + 4).value = 0

    def _u64(self, offset: int, value: int) -> None:
        c_uint64.from_buffer(self._view, self._at + offset).value = value


class LiveBridge:
    """Writes to bridges[slot] and bridge_ports[slot]."""

    def __init__(self, maps: MapSet, slot: int) -> None:
        self._bridge = maps.mmap("bridges")
        self._ports = maps.mmap("bridge_ports")
        self._at = slot * BRIDGE_SIZE
        self._ports_at = slot * BRIDGE_PORTS_SIZE

    def clear(self) -> None:
        """Not up, no ports, no flows. The generation stays: it counts on."""
        self._bridge[self._at + _FLAGS_AT : self._at + BRIDGE_SIZE] = bytes(BRIDGE_SIZE - _FLAGS_AT)
        empty = abi.bridge_ports()
        for n in range(abi.MAX_OFPORT + 1):
            empty.by_ofport[n] = abi.PORT_SLOT_NONE
        self._ports[self._ports_at : self._ports_at + BRIDGE_PORTS_SIZE] = bytes(empty)

    def set_options(self, mac_age_ns: int, mac_limit: int) -> None:
        c_uint64.from_buffer(self._bridge, self._at + _AGE_AT).value = mac_age_ns
        c_uint32.from_buffer(self._bridge, self._at + _LIMIT_AT).value = mac_limit

    def set_local(self, slot: int) -> None:
        c_uint16.from_buffer(self._bridge, self._at + _LOCAL_AT).value = slot

    @property
    def flags(self) -> int:
        """enum bridge_flag."""
        return int(c_uint32.from_buffer(self._bridge, self._at + _FLAGS_AT).value)

    def set_flags(self, flags: int) -> None:
        c_uint32.from_buffer(self._bridge, self._at + _FLAGS_AT).value = flags

    def set_cache_masks(self, mask: bytes) -> None:
        """Both halves; for a bridge that is not up."""
        start = self._at + 32
        self._bridge[start : start + 2 * len(mask)] = mask * 2

    def add_member(self, slot: int) -> None:
        """Flood to this port as well; nothing if it is there."""
        members = self._members()
        if slot in members:
            return
        hole = members.index(abi.PORT_SLOT_NONE) if abi.PORT_SLOT_NONE in members else len(members)
        self._store_member(hole, slot)
        if hole == len(members):
            self._set_count(hole + 1)

    def remove_member(self, slot: int) -> None:
        """Flood to this port no longer; the others keep their places."""
        members = self._members()
        if slot not in members:
            return
        members[members.index(slot)] = abi.PORT_SLOT_NONE
        self._store_member(self._members().index(slot), abi.PORT_SLOT_NONE)
        while members and members[-1] == abi.PORT_SLOT_NONE:
            members.pop()
        self._set_count(len(members))

    def set_ofport(self, ofport: int, slot: int) -> None:
        """Outputs to this OpenFlow number go to that slot (PORT_SLOT_NONE: to nobody)."""
        c_uint16.from_buffer(self._ports, self._ports_at + _BY_OFPORT_AT + 2 * ofport).value = slot

    def _members(self) -> list[int]:
        n_members = c_uint32.from_buffer(self._ports, self._ports_at).value
        return list(struct.unpack_from(f"<{n_members}H", self._ports, self._ports_at + _MEMBERS_AT))

    def _store_member(self, index: int, slot: int) -> None:
        c_uint16.from_buffer(self._ports, self._ports_at + _MEMBERS_AT + 2 * index).value = slot

    def _set_count(self, count: int) -> None:
        c_uint32.from_buffer(self._ports, self._ports_at).value = count
