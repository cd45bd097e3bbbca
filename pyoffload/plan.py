"""From what should be to what is: which port slots, VLAN profiles and records have to change. Pure; no kernel.

`up`, every change of ports and bridges, the repair after a crash and the drift that `status` shows all come from here,
so that they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pyoffload import _abi as abi
from pyoffload.errors import TableFull
from pyoffload.model import BridgeConfig, PortConfig
from pyoffload.records import BridgeRecord, PortRecord, pack_delivery, pack_mode, profile_bytes

Key = tuple[int, int]  # bridge slot, OpenFlow number


@dataclass(frozen=True, slots=True)
class WantedPort:
    """A port as it should be in the maps. ``ifindex`` 0: its interface is not there."""

    bridge: int
    ofport: int
    ifname: str
    ifindex: int
    vlan_mode: int = abi.vlan_mode.TRANSPARENT
    mode_flags: int = 0
    pvid: int = 0
    vlans: tuple[int, ...] = ()
    delivery: int = 0

    @property
    def key(self) -> Key:
        return self.bridge, self.ofport


class NoSlot(TableFull):
    """All the places where the datapath would look for this port's interface are taken."""

    def __init__(self, port: WantedPort) -> None:
        super().__init__(
            f"'{port.ifname}': the {abi.PORT_PROBES} port slots for interface index {port.ifindex} are taken",
            hint="delete the interface and make it again: it gets another index",
        )
        self.ifname = port.ifname


@dataclass(frozen=True, slots=True)
class PortWrite:
    """ports[slot] is to become this. ``fresh``: the slot held another port, another interface, or nothing."""

    slot: int
    port: WantedPort
    mode: int
    delivery: int
    fresh: bool


@dataclass(slots=True)
class Plan:
    """What has to be written, and the slots of all wanted ports afterwards."""

    writes: list[PortWrite] = field(default_factory=list)
    removals: list[PortRecord] = field(default_factory=list)  # records that no wanted port has
    profiles: dict[int, bytes] = field(default_factory=dict)  # vlan_profiles to write, none of them in use
    slots: dict[Key, int] = field(default_factory=dict)

    @property
    def bridges(self) -> set[int]:
        """Slots of the bridges that any write or removal concerns."""
        return {write.port.bridge for write in self.writes} | {record.bridge for record in self.removals}


def port_mode(port: PortConfig) -> tuple[int, int, int, tuple[int, ...]]:
    """(enum vlan_mode, enum port_mode_flag, pvid, VLANs of the profile) of a configured port.

    The native VLAN is in the profile: its frames are also taken tagged, as OVS's native-untagged ports do.
    """
    flags = abi.port_mode_flag.ISOLATED if port.isolated else 0
    if port.vlan is not None:
        return abi.vlan_mode.ACCESS, flags, port.vlan, ()
    if port.trunk is None:
        return abi.vlan_mode.TRANSPARENT, flags, 0, ()
    if port.native is None:
        return abi.vlan_mode.TRUNK, flags, 0, port.trunk
    flags |= abi.port_mode_flag.NATIVE
    return abi.vlan_mode.TRUNK, flags, port.native, tuple(sorted({*port.trunk, port.native}))


def home_slots(ifindex: int) -> list[int]:
    """The slots in which the datapath looks for an interface."""
    return [(ifindex + i) % abi.MAX_PORTS for i in range(abi.PORT_PROBES)]


def assign_slots(wanted: Sequence[WantedPort], actual: Sequence[PortRecord]) -> dict[Key, int]:
    """A slot for every wanted port; who has a fitting one keeps it. TableFull: see `NoSlot`.

    Slots of records that are to go are not given away in the same change: packets may still refer to them. Absent ports
    give way to ports whose interface is there.
    """
    held = {record.key: record.slot for record in actual}
    slots: dict[Key, int] = {}
    for port in wanted:
        slot = held.get(port.key)
        if port.ifindex and slot is not None and slot in home_slots(port.ifindex):
            slots[port.key] = slot
    absent = {held[port.key]: port.key for port in wanted if not port.ifindex and port.key in held}
    taken = {record.slot for record in actual} | set(slots.values())
    for port in wanted:
        if not port.ifindex or port.key in slots:
            continue
        homes = home_slots(port.ifindex)
        free = [slot for slot in homes if slot not in taken] or [slot for slot in homes if slot in absent]
        if not free:
            raise NoSlot(port)
        slots[port.key] = free[0]
        taken.add(free[0])
        absent.pop(free[0], None)
    slots.update({key: slot for slot, key in absent.items()})
    rest = (slot for slot in reversed(range(abi.MAX_PORTS)) if slot not in taken)
    for port in wanted:
        if port.key not in slots:
            slots[port.key] = _next(rest)
    return slots


def _next(slots: Iterable[int]) -> int:
    for slot in slots:
        return slot
    raise TableFull(f"all {abi.MAX_PORTS} port slots are taken", hint="delete ports that are not needed")


def make_plan(
    wanted: Sequence[WantedPort], actual: Sequence[PortRecord], profiles: Mapping[int, bytes]
) -> Plan:
    """The difference. ``profiles``: content of every VLAN profile that an actual record refers to."""
    plan = Plan(slots=assign_slots(wanted, actual))
    by_slot = {record.slot: record for record in actual}
    keys = {port.key for port in wanted}
    plan.removals = [
        record for record in actual if record.key not in keys or plan.slots[record.key] != record.slot
    ]
    in_use = dict(profiles)
    for port in wanted:
        slot = plan.slots[port.key]
        mode = pack_mode(port.vlan_mode, port.mode_flags, port.pvid, _profile(port, in_use, plan))
        record = by_slot.get(slot)
        fresh = record is None or record.key != port.key or port.ifindex not in {0, record.ifindex}
        now = (port.ifindex, mode, port.delivery)
        if fresh or record is None or (record.ifindex, record.mode, record.delivery) != now:
            plan.writes.append(PortWrite(slot, port, mode, port.delivery, fresh))
    return plan


def _profile(port: WantedPort, in_use: dict[int, bytes], plan: Plan) -> int:
    """Index of a VLAN profile of this content: one in use, or a new one."""
    if port.vlan_mode != abi.vlan_mode.TRUNK:
        return 0
    content = profile_bytes(port.vlans)
    for index, vlans in in_use.items():
        if vlans == content:
            return index
    for index in range(abi.MAX_VLAN_PROFILES):
        if index not in in_use:
            in_use[index] = plan.profiles[index] = content
            return index
    raise TableFull(
        f"{port.ifname}: all {abi.MAX_VLAN_PROFILES} trunk lists are in use",
        hint="give ports equal trunk lists",
    )


def bridge_flags(*, flood: bool, cache: bool, present: int = 0) -> int:
    """bridges[].flags; what the flow tables keep there (NEEDS_L3) stays as it is."""
    flags = abi.bridge_flag.UP | (present & abi.bridge_flag.NEEDS_L3)
    if flood:
        flags |= abi.bridge_flag.FLOOD
    if cache:
        flags |= abi.bridge_flag.CACHE
    return int(flags)


def bridge_differs(bridge: BridgeConfig, record: BridgeRecord | None, local: int, *, cache: bool) -> bool:
    """Whether bridges[slot] says something else than the configuration."""
    if record is None:
        return True
    flags = bridge_flags(flood=bridge.flood, cache=cache, present=record.flags)
    return (record.flags, record.local, record.mac_age_ns, record.mac_limit) != (
        flags,
        local,
        bridge.mac_age_ns,
        bridge.mac_limit,
    )


ABSENT = pack_delivery(0, abi.port_deliver.ABSENT, 0)
