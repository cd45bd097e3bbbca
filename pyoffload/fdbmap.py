"""MAC addresses in the maps: list them, place static ones, let learned ones expire.

Learned entries belong to the datapath, which counts them. The control side deletes none of a bridge that runs: it sets
the time of its last frame to zero, which is expired for everybody, and the datapath reclaims the place.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Collection, Iterator
from ctypes import c_uint64, sizeof
from typing import TYPE_CHECKING, NamedTuple

from pyoffload import _abi as abi
from pyoffload.errors import NotFound
from pyoffload.units import parse_mac

if TYPE_CHECKING:
    from pyoffload.mapset import MapSet
    from pyoffload.model import StaticMac
    from pyoffload.store import Store
    from pyoffload.survey import Survey

_KEY = struct.Struct("<6sHI")
_VALUE = struct.Struct("<QHHI")


class FdbRecord(NamedTuple):
    """An entry as it is in the map; ``seen_ns`` 0 and not static: expired."""

    mac: bytes
    vlan: int
    bridge: int
    seen_ns: int
    port: int
    static: bool

    @property
    def key(self) -> bytes:
        return _KEY.pack(self.mac, self.vlan, self.bridge)


def read(maps: MapSet) -> Iterator[FdbRecord]:
    """All entries of the instance, expired ones included."""
    keys, values = maps["fdb"].lookup_batch()
    for (mac, vlan, bridge), (seen_ns, port, flags, _) in zip(
        _KEY.iter_unpack(keys), _VALUE.iter_unpack(values), strict=True
    ):
        yield FdbRecord(mac, vlan, bridge, seen_ns, port, bool(flags & abi.fdb_flag.STATIC))


def expire(maps: MapSet, which: Callable[[FdbRecord], bool]) -> int:
    """Let learned entries expire at once; returns how many. Takes effect with the bridge's next generation."""
    from pyoffload.kernel.map import EXIST

    count = 0
    for record in list(read(maps)):
        if record.static or not record.seen_ns or not which(record):
            continue
        try:
            maps["fdb"].update(record.key, _VALUE.pack(0, record.port, 0, 0), EXIST)
        except NotFound:  # the datapath reclaimed it meanwhile
            continue
        count += 1
    return count


def forget_bridges(maps: MapSet, known: Collection[int]) -> None:
    """Delete what was learned on bridges other than the ``known`` ones, so that the next one in such a slot counts from 0.

    The caller has waited until no packet is under way on them.
    """
    from pyoffload import policy

    counted = {slot for slot in range(abi.MAX_BRIDGES) if slot not in known and learned_count(maps, slot)}
    if not counted:
        return
    stale = [entry.key for entry in read(maps) if entry.bridge in counted and not entry.static]
    maps["fdb"].delete_batch(b"".join(stale), len(stale))
    policy.grace()  # the datapath may be counting what it has just reclaimed itself
    for slot in counted:
        _count_at(maps, slot).value = 0


def key_of(bridge: int, mac: str, vlan: int) -> bytes:
    """struct fdb_key."""
    return _KEY.pack(bytes.fromhex(parse_mac(mac, "mac").replace(":", "")), vlan, bridge)


def put_static(maps: MapSet, bridge: int, mac: str, vlan: int, port_slot: int) -> None:
    """Place a static entry; a learned one of the same address becomes it and is no longer counted."""
    key = key_of(bridge, mac, vlan)
    before = maps["fdb"].lookup(key)
    value = _VALUE.pack(0, port_slot, abi.fdb_flag.STATIC, 0)
    if before == value:
        return
    maps["fdb"].update(key, value)
    if before is not None and not _VALUE.unpack(before)[2] & abi.fdb_flag.STATIC:
        _count_one_less(maps, bridge)


def delete_static(maps: MapSet, bridge: int, mac: str, vlan: int) -> None:
    """Take a static entry away; the address may be learned again."""
    maps["fdb"].delete(key_of(bridge, mac, vlan))


def settle(maps: MapSet, store: Store, found: Survey, *, full: bool) -> None:
    """After ports or bridges changed: no entry points to a slot that is somebody else's, static ones to the right one."""
    written = {write.slot for write in found.plan.writes if write.fresh}
    gone = {record.slot for record in found.plan.removals} | written
    bridges_gone = {record.slot for record in found.bridge_removals}
    if found.actual and (gone or bridges_gone or full):
        known = {bridge.slot for bridge in found.bridges}
        expire(
            maps,
            lambda entry: entry.port in gone or entry.bridge in bridges_gone or entry.bridge not in known,
        )
    if not (gone or bridges_gone or full):
        return
    wanted = {
        key_of(bridge, entry.mac, entry.vlan): (bridge, entry, slot)
        for bridge, entry, slot in static_entries(store, found)
    }
    if found.actual or full:
        for record in list(read(maps)):
            if record.static and record.key not in wanted:
                maps["fdb"].delete(record.key)
    for bridge, entry, slot in wanted.values():
        put_static(maps, bridge, entry.mac, entry.vlan, slot)


def static_entries(store: Store, found: Survey) -> Iterator[tuple[int, StaticMac, int]]:
    """(bridge slot, entry, port slot) of every configured static address."""
    bridges = {bridge.name: bridge.slot for bridge in found.bridges}
    ofports = {port.ifname: port.ofport for port in store.ports()}
    for entry in store.static_fdb():
        bridge = bridges[entry.bridge]
        yield bridge, entry, found.plan.slots[bridge, ofports[entry.ifname]]


def learned_count(maps: MapSet, bridge: int) -> int:
    """What the datapath holds against mac_limit: learned entries, expired ones included until they are reclaimed."""
    at = bridge * sizeof(abi.fdb_state)
    return int.from_bytes(maps.mmap("fdb_state")[at : at + 8], "little")


def _count_one_less(maps: MapSet, bridge: int) -> None:
    # Not atomic beside the datapath's atomic additions: one that falls between load and store of this line is lost,
    # and mac_limit is off by one for it. The count only decides when learning stops.
    count = _count_at(maps, bridge)
    if count.value:
        count.value -= 1


def _count_at(maps: MapSet, bridge: int) -> c_uint64:
    return c_uint64.from_buffer(maps.mmap("fdb_state"), bridge * sizeof(abi.fdb_state))


def is_alive(record: FdbRecord, mac_age_ns: int) -> bool:
    """Whether the datapath still goes by an entry."""
    if record.static:
        return True
    # Established traffic refreshes its entry once a tick only.
    return bool(record.seen_ns) and age_ns(record) <= mac_age_ns + (1 << abi.TICK_SHIFT)


def age_ns(record: FdbRecord) -> int:
    """Since its last frame."""
    return max(0, time.clock_gettime_ns(time.CLOCK_MONOTONIC) - record.seen_ns)
