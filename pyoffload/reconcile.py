"""Carry out what survey.py found: attach, write the maps in an order that no packet can trip over, detach, free.

Everything that changes bridges or ports comes through `stage`: a command's change, `up`, and the repair after
a crash. Before the commit: local interfaces are made, programs attached, slots and VLAN profiles reserved; no packet
sees any of it. After the commit: the records. Last, when no packet is under way by the old ones: the rest is freed.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from pyoffload import _abi as abi, attach, fdbmap, links, loader, policy
from pyoffload.errors import OffloadError
from pyoffload.plan import PortWrite, bridge_flags
from pyoffload.records import LiveBridge, LivePort, PortRecord, cache_enabled
from pyoffload.survey import Host, Survey, survey

if TYPE_CHECKING:
    from pyoffload.change import Change
    from pyoffload.mapset import MapSet
    from pyoffload.model import BridgeConfig
    from pyoffload.store import Store

_DEVMAP_VALUE = struct.Struct("<II")


@dataclass(slots=True)
class Outcome:
    """What staging found out about the interfaces of configured ports."""

    attached: list[str] = field(default_factory=list)  # newly
    absent: list[str] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)  # (interface, why)


def stage(change: Change, *, must_attach: Collection[str] = (), full: bool = False) -> Outcome:
    """Stage everything that makes the maps say what the store (inside the change's transaction) says.

    A configured port whose interface cannot be attached counts as absent, unless it is in ``must_attach``: then
    the error is raised. ``full``: also look for MAC addresses that do not belong there.
    """
    outcome = Outcome()
    host = _stage_local_pairs(change)
    attached = _stage_hooks(change, host, must_attach, outcome)
    failed = [ifname for ifname, _ in outcome.failed]
    found = survey(change.store, change.maps, host, cache=cache_enabled(change.maps), unusable=failed)
    for ifname, err in found.no_slot.items():
        if ifname in must_attach:
            raise err
        outcome.failed.append((ifname, err.message))
    for write in found.plan.writes:
        if write.fresh:
            _reserve(change, write)
    for index, vlans in found.plan.profiles.items():
        change.maps["vlan_profiles"].update(index, vlans)
    change.on_visible(lambda: _publish(change, found, full=full))
    change.on_applied(lambda: _clean_up(change, found, host, attached))
    return outcome


# ---- before the commit


def _stage_local_pairs(change: Change) -> Host:
    """Make the bridges' own interfaces that are missing; returns what there is on the host then."""
    host = change.host or Host.look()
    made = False
    for bridge in change.store.bridges():
        host_end, port_end = (host.get(name) for name in links.local_names(bridge.name))
        if links.is_complete(bridge.name, host_end, port_end):
            continue
        if port_end is None:
            change.undo(partial(links.delete_local_pair, bridge.name))
        links.create_local_pair(bridge.name)
        made = True
    return Host.look() if made else host


def _stage_hooks(
    change: Change, host: Host, must_attach: Collection[str], outcome: Outcome
) -> set[tuple[int, str]]:
    """Attach what should be attached and is not; returns (ifindex, hook) of all that is then."""
    attached = set(attach.attached(change.instance))
    programs = loader.open_current(change.instance)
    for ifname, hooks in wanted_hooks(change.store).items():
        link = host.get(ifname)
        if link is None:
            outcome.absent.append(ifname)
            continue
        for hook in hooks:
            if (link.ifindex, hook) in attached:
                continue
            try:
                attach.attach(change.instance, link.ifindex, ifname, hook, programs)
            except OffloadError as err:
                if ifname in must_attach:
                    raise
                outcome.failed.append((ifname, err.message))
                break
            attached.add((link.ifindex, hook))
            change.undo(partial(attach.detach, change.instance, link.ifindex, hook))
            if hook == hooks[-1]:
                outcome.attached.append(ifname)
            change.checkpoint("attached")
    return attached


def wanted_hooks(store: Store) -> dict[str, tuple[str, ...]]:
    """Interface -> the hooks it should have; an XDP port needs TC as well, for what XDP passes on."""
    hooks: dict[str, tuple[str, ...]] = {
        links.local_names(bridge.name)[1]: ("tc",) for bridge in store.bridges()
    }
    for port in store.ports():
        hooks[port.ifname] = ("tc", "xdp") if port.hook == "xdp" else ("tc",)
    return hooks


def _reserve(change: Change, write: PortWrite) -> None:
    """Take the slot and set its counters to zero; no packet finds it yet."""
    live = LivePort(change.maps, write.slot)
    before = live.reserve(write.port.bridge, write.port.ofport)
    change.undo(lambda: live.restore(before))
    zero_port_counters(change.maps, write.slot)


def zero_port_counters(maps: MapSet, slot: int) -> None:
    """A slot that begins a new life begins at zero."""
    n = abi.N_DROP_REASONS
    maps["port_stats"].zero_percpu([slot])
    maps["port_drops"].zero_percpu(range(slot * n, slot * n + n))


# ---- after the commit


def _publish(change: Change, found: Survey, *, full: bool) -> None:
    maps = change.maps
    slots_written = {write.slot for write in found.plan.writes if write.fresh}
    _prepare_new_bridges(change, found)
    live = {slot: LiveBridge(maps, slot) for slot in found.touched}
    for slot, members in found.members.items():
        for stray in members.stray:
            live[slot].remove_member(stray)
    for record in found.plan.removals:
        if record.slot not in slots_written:  # otherwise it has a new owner, reserved in its place
            LivePort(maps, record.slot).set_ifindex(0)
    for write in found.plan.writes:
        _write_port(maps, write)
    for slot, members in found.members.items():
        for ofport, port_slot in members.ofports.items():
            live[slot].set_ofport(ofport, port_slot)
        for missing in members.missing:
            live[slot].add_member(missing)
    _write_bridges(maps, found, live)
    fdbmap.settle(maps, change.store, found, full=full)
    # Last: what is decided under the new generation must have seen nothing of the old state.
    for slot in found.touched:
        policy.publish(maps, slot)


def _prepare_new_bridges(change: Change, found: Survey) -> None:
    """All of a bridge but its being up: it never forwards a packet before its flows are there."""
    from pyoffload.flowtable import FlowTables
    from pyoffload.kernel.map import possible_cpus

    maps = change.maps
    counters = maps["bridge_counters"]
    for bridge in found.bridge_changes:
        if bridge.slot in found.bridge_records:
            continue
        live = LiveBridge(maps, bridge.slot)
        live.clear()
        live.set_cache_masks(policy.base_cache_mask())
        counters.update(bridge.slot, bytes(counters.stride * possible_cpus()))
        if _has_tables(change, bridge.slot):
            FlowTables(maps, change.conn).restore(bridge.slot)


def _has_tables(change: Change, bridge: int) -> bool:
    tables = ("flows", "flow_closed", "flow_groups", "flow_meters")
    exists = " OR ".join(f"EXISTS (SELECT 1 FROM {table} WHERE bridge_slot = ?1)" for table in tables)
    return bool(change.store.rows(f"SELECT {exists}", (bridge,))[0][0])


def _write_port(maps: MapSet, write: PortWrite) -> None:
    live = LivePort(maps, write.slot)
    live.set_mode(write.mode)
    live.set_delivery(write.delivery)
    tx_ports = maps["tx_ports"]
    if write.delivery >> 48 & abi.port_flag.XDP_OUT:
        tx_ports.update(write.slot, _DEVMAP_VALUE.pack(write.delivery & 0xFFFFFFFF, 0))
    else:
        tx_ports.delete(write.slot)
    live.set_ifindex(write.port.ifindex)


def _write_bridges(maps: MapSet, found: Survey, live: Mapping[int, LiveBridge]) -> None:
    cache = cache_enabled(maps)
    for bridge in found.bridge_changes:
        _write_bridge(live[bridge.slot], bridge, found, cache=cache)
    for record in found.bridge_removals:
        live[record.slot].set_flags(0)


def _write_bridge(live: LiveBridge, bridge: BridgeConfig, found: Survey, *, cache: bool) -> None:
    live.set_options(bridge.mac_age_ns, bridge.mac_limit)
    live.set_local(found.plan.slots[bridge.slot, abi.OFPORT_LOCAL])
    live.set_flags(bridge_flags(flood=bridge.flood, cache=cache, present=live.flags))


# ---- when no packet is under way by the old records


def _clean_up(change: Change, found: Survey, host: Host, attached: set[tuple[int, str]]) -> None:
    policy.grace()
    _detach_strays(change, host, attached)
    fdbmap.forget_bridges(change.maps, {bridge.slot for bridge in found.bridges})
    written = {write.slot for write in found.plan.writes if write.fresh}
    freed = [record for record in found.plan.removals if record.slot not in written]
    _forget_late_learners(change, freed)
    for record in freed:
        _free(change.maps, record)
    wanted = {bridge.name for bridge in change.store.bridges()}
    for name in links.list_local_pairs(host.links.values()):
        if name not in wanted:
            links.delete_local_pair(name)


def _forget_late_learners(change: Change, freed: list[PortRecord]) -> None:
    """A packet that was under way when its port went may have been learned behind it after all."""
    slots = {record.slot for record in freed}
    if slots and fdbmap.expire(change.maps, lambda entry: entry.port in slots):
        for bridge in {record.bridge for record in freed}:
            policy.publish(change.maps, bridge)


def _detach_strays(change: Change, host: Host, attached: set[tuple[int, str]]) -> None:
    wanted = {
        (link.ifindex, hook)
        for ifname, hooks in wanted_hooks(change.store).items()
        if (link := host.get(ifname)) is not None
        for hook in hooks
    }
    for ifindex, hook in attached - wanted:
        attach.detach(change.instance, ifindex, hook)
    present = {link.ifindex for link in host.links.values()}
    attach.collect_garbage(change.instance, present, attached & wanted)


def _free(maps: MapSet, record: PortRecord) -> None:
    maps["tx_ports"].delete(record.slot)
    LivePort(maps, record.slot).free()
