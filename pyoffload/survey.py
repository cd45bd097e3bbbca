"""Compare the configuration and the host with the maps. Reads only: `status` shows the result, reconcile.py acts on it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pyoffload import _abi as abi, netlink
from pyoffload.links import local_names
from pyoffload.model import BridgeConfig, PortConfig
from pyoffload.plan import ABSENT, Key, NoSlot, Plan, WantedPort, bridge_differs, make_plan, port_mode
from pyoffload.records import (
    BridgeRecord,
    PortRecord,
    pack_delivery,
    read_bridges,
    read_members,
    read_ports,
)

if TYPE_CHECKING:
    from pyoffload.mapset import MapSet
    from pyoffload.store import Store


@dataclass(slots=True)
class Members:
    """How bridge_ports of one bridge differs from what it should be."""

    missing: set[int] = field(default_factory=set)  # slots
    stray: set[int] = field(default_factory=set)
    ofports: dict[int, int] = field(default_factory=dict)  # OpenFlow number -> slot to be written


@dataclass(slots=True)
class Survey:
    """Everything that differs, and what it was compared with."""

    bridges: list[BridgeConfig]
    bridge_records: dict[int, BridgeRecord]
    wanted: list[WantedPort]
    actual: list[PortRecord]
    plan: Plan
    members: dict[int, Members]  # by bridge slot; only bridges that differ
    bridge_changes: list[BridgeConfig]
    bridge_removals: list[BridgeRecord]
    no_slot: dict[str, NoSlot]  # interfaces that the datapath could not find; they count as absent

    @property
    def in_order(self) -> bool:
        """Nothing differs."""
        plan = self.plan
        return not (
            plan.writes or plan.removals or self.members or self.bridge_changes or self.bridge_removals
        )

    @property
    def touched(self) -> set[int]:
        """Slots of the bridges that any difference concerns."""
        return (
            self.plan.bridges
            | set(self.members)
            | {bridge.slot for bridge in self.bridge_changes}
            | {record.slot for record in self.bridge_removals}
        )


@dataclass(frozen=True, slots=True)
class Host:
    """The interfaces of this namespace by name, and which take frames from a devmap (by index)."""

    links: dict[str, netlink.Link]
    takes_xdp: frozenset[int]

    def get(self, ifname: str) -> netlink.Link | None:
        return self.links.get(ifname)

    @classmethod
    def look(cls) -> Host:
        """Ask the kernel; a few milliseconds."""
        features = netlink.xdp_features() or {}
        takes = frozenset(index for index, bits in features.items() if bits & netlink.XDP_NDO_XMIT)
        return cls({link.ifname: link for link in netlink.dump_links()}, takes)


def wanted_ports(store: Store, host: Host, unusable: Collection[str] = ()) -> list[WantedPort]:
    """The ports that should be in the maps: configured ones and each bridge's `local`.

    Interfaces in ``unusable`` (their hook is held by somebody else) count as absent.
    """
    bridges = store.bridges()
    slots = {bridge.name: bridge.slot for bridge in bridges}
    wanted = [_local_port(bridge, host) for bridge in bridges]
    for port in store.ports():
        link = None if port.ifname in unusable else host.get(port.ifname)
        wanted.append(_wanted(port, slots[port.bridge], link, host))
    return wanted


def survey(
    store: Store,
    maps: MapSet,
    host: Host,
    *,
    cache: bool,
    unusable: Collection[str] = (),
) -> Survey:
    """Compare."""
    bridges = store.bridges()
    records = {record.slot: record for record in read_bridges(maps)}
    actual = read_ports(maps)
    profiles = _profiles_in_use(maps, actual)
    no_slot: dict[str, NoSlot] = {}
    while True:
        wanted = wanted_ports(store, host, {*unusable, *no_slot})
        try:
            plan = make_plan(wanted, actual, profiles)
            break
        except NoSlot as err:
            if err.ifname in no_slot:  # a bridge's own interface, which is never unusable
                raise
            no_slot[err.ifname] = err
    members = {}
    for slot in {bridge.slot for bridge in bridges} | set(records):
        difference = _members(maps, slot, wanted, plan.slots, known=slot in records)
        if difference is not None:
            members[slot] = difference
    locals_ = {port.bridge: plan.slots[port.key] for port in wanted if port.ofport == abi.OFPORT_LOCAL}
    return Survey(
        bridges=bridges,
        bridge_records=records,
        wanted=wanted,
        actual=actual,
        plan=plan,
        members=members,
        bridge_changes=[
            bridge
            for bridge in bridges
            if bridge_differs(bridge, records.get(bridge.slot), locals_[bridge.slot], cache=cache)
        ],
        no_slot=no_slot,
        bridge_removals=[
            record for slot, record in records.items() if slot not in {bridge.slot for bridge in bridges}
        ],
    )


def describe(survey: Survey) -> list[str]:
    """One sentence per difference, for people."""
    names = {bridge.slot: bridge.name for bridge in survey.bridges}
    said = [
        f"bridge {bridge.name}: "
        + ("its options differ in the maps" if bridge.slot in survey.bridge_records else "is not in the maps")
        for bridge in survey.bridge_changes
    ]
    said += [f"port {err.message}" for err in survey.no_slot.values()]
    said += [f"bridge slot {record.slot}: in the maps, not configured" for record in survey.bridge_removals]
    records = {record.key: record for record in survey.actual}
    for write in survey.plan.writes:
        said.append(_describe_write(write.port, records.get(write.port.key)))
    wanted = {port.key for port in survey.wanted}
    for record in survey.plan.removals:
        if record.key not in wanted:
            where = names.get(record.bridge, f"bridge slot {record.bridge}")
            said.append(f"port {record.ofport} of {where}: in the maps, not configured")
    if not said:  # else it follows from what was said
        said += [f"bridge {names.get(slot, slot)}: its list of ports differs" for slot in survey.members]
    return said


def _describe_write(port: WantedPort, record: PortRecord | None) -> str:
    if port.ifindex and (record is None or not record.ifindex):
        return f"port {port.ifname}: its interface is there, but it is not attached"
    if record is None:
        return f"port {port.ifname}: is not in the maps"
    if port.ifindex != record.ifindex:
        return f"port {port.ifname}: " + (
            "its interface was made again" if port.ifindex else "its interface is gone"
        )
    if record.delivery != port.delivery:
        return f"port {port.ifname}: frames have to be delivered another way"
    return f"port {port.ifname}: its VLANs differ in the maps"


def _local_port(bridge: BridgeConfig, host: Host) -> WantedPort:
    host_end, port_end = local_names(bridge.name)
    inner, outer = host.get(port_end), host.get(host_end)
    if inner is None or outer is None:
        return WantedPort(bridge.slot, abi.OFPORT_LOCAL, port_end, 0, delivery=ABSENT)
    delivery = pack_delivery(outer.ifindex, abi.port_deliver.INGRESS, 0)
    return WantedPort(bridge.slot, abi.OFPORT_LOCAL, port_end, inner.ifindex, delivery=delivery)


def _wanted(port: PortConfig, bridge_slot: int, link: netlink.Link | None, host: Host) -> WantedPort:
    mode, flags, pvid, vlans = port_mode(port)
    ifindex = link.ifindex if link else 0
    delivery = ABSENT
    if link:
        delivery = _delivery(link, takes_xdp=link.ifindex in host.takes_xdp, on_xdp=port.hook == "xdp")
    return WantedPort(bridge_slot, port.ofport, port.ifname, ifindex, mode, flags, pvid, vlans, delivery)


def _delivery(link: netlink.Link, *, takes_xdp: bool, on_xdp: bool) -> int:
    """How frames get to the guest behind an interface."""
    to_peer = link.kind == "veth" and link.peer_netnsid is not None
    how = abi.port_deliver.PEER if to_peer else abi.port_deliver.REDIRECT
    flags = 0
    if takes_xdp:
        flags |= abi.port_flag.XDP_OUT
    if on_xdp:
        flags |= _xdp_sees(link)
    return pack_delivery(link.ifindex, how, flags)


def _xdp_sees(link: netlink.Link) -> int:
    """What an XDP program may rely on: enum port_flag. Nothing, where the guest's end cannot be asked."""
    if link.tun is not None:
        # Its frames carry their tags; without vnet_hdr a guest cannot leave checksums out.
        safe = link.tun.tap and not link.tun.vnet_hdr
        return abi.port_flag.XDP_TAGS_SEEN | (abi.port_flag.XDP_CSUM_SAFE if safe else 0)
    from pyoffload import peers

    guest = peers.offloads(link)
    if guest is None:
        return 0
    return (0 if guest.tx_vlan else abi.port_flag.XDP_TAGS_SEEN) | (
        0 if guest.tx_csum else abi.port_flag.XDP_CSUM_SAFE
    )


def _profiles_in_use(maps: MapSet, actual: list[PortRecord]) -> dict[int, bytes]:
    used = {record.vlan_profile for record in actual} - {None}
    return {index: maps["vlan_profiles"].lookup(index) or b"" for index in used if index is not None}


def _members(
    maps: MapSet, bridge: int, wanted: list[WantedPort], slots: Mapping[Key, int], *, known: bool
) -> Members | None:
    """What differs, or None. ``known``: the bridge is up, so that its record means something."""
    present, by_ofport = read_members(maps, bridge) if known else (set(), {})
    ports = [port for port in wanted if port.bridge == bridge]
    should = {slots[port.key] for port in ports if port.ifindex}
    numbers = {port.ofport: slots[port.key] for port in ports if port.ofport != abi.OFPORT_LOCAL}
    ofports = {number: slot for number, slot in numbers.items() if by_ofport.get(number) != slot}
    ofports.update({number: abi.PORT_SLOT_NONE for number in by_ofport if number not in numbers})
    difference = Members(should - present, present - should, ofports)
    return difference if difference.missing or difference.stray or ofports else None
