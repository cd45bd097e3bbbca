"""Meters of a bridge: drop what exceeds a rate (OpenFlow 1.3, 5.7; one band of type drop).

The datapath keeps a meter as the generic cell rate algorithm does: one time stamp that runs ahead of the clock by what
was let through, at most by the burst.
"""

from __future__ import annotations

import time
from ctypes import c_uint64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from pyoffload import _abi as abi, flowstore, policy
from pyoffload.actionpool import lists_using
from pyoffload.errors import AlreadyExists, NotFound, TableFull
from pyoffload.flowstore import NS_PER_S
from pyoffload.flowswap import zero_stats
from pyoffload.flowtable import BridgeTables
from pyoffload.groupinfo import count_users
from pyoffload.slots import Places

if TYPE_CHECKING:
    import sqlite3

    from pyoffload.flow.meters_syntax import MeterSpec
    from pyoffload.instance import Instance
    from pyoffload.mapset import MapSet
    from pyoffload.store import Store

METER_SIZE = 32
_TAT_AT, _BURST_AT, _RATE_AT, _MODE_AT = 0, 8, 16, 24
_COLUMNS = "slot, bridge_slot, meter_id, per_packet, rate, burst, text, added_ns"


class _Meter(NamedTuple):
    """A row of flow_meters. ``rate``: kbit/s or packets/s; ``burst``: kbit or packets."""

    slot: int
    bridge_slot: int
    meter_id: int
    per_packet: int
    rate: int
    burst: int
    text: str
    added_ns: int


@dataclass(frozen=True, slots=True)
class MeterChange:
    """What a verb did. ``flows_removed``: flows that used a deleted meter go with it, as OpenFlow says."""

    meters: int
    flows_removed: int = 0
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return {"meters": self.meters, "flows_removed": self.flows_removed, "warnings": list(self.warnings)}


def add(instance: Instance, bridge: str, text: str) -> MeterChange:
    """Add a meter, written as for ovs-ofctl add-meter. AlreadyExists if its id is taken."""
    return _put(instance, bridge, text, "meter add")


def modify(instance: Instance, bridge: str, text: str) -> MeterChange:
    """Give a meter another rate; what it let through so far counts on."""
    return _put(instance, bridge, text, "meter mod")


def delete(instance: Instance, bridge: str, meter_id: int | None) -> MeterChange:
    """Delete a meter, or all of them, with the flows that use them."""
    from pyoffload.change import change as begin

    with begin(instance, "meter del") as change:
        return Meters(BridgeTables(change, bridge)).delete(meter_id)


def _put(instance: Instance, bridge: str, text: str, verb: str) -> MeterChange:
    from pyoffload.change import change as begin
    from pyoffload.flow.meters_syntax import parse_meter

    with begin(instance, verb) as change:
        spec = parse_meter(text)
        return Meters(BridgeTables(change, bridge)).put(spec, text, exists=verb == "meter mod")


class Meters:
    """A bridge's meters inside a change."""

    def __init__(self, tables: BridgeTables) -> None:
        self._tables = tables
        self._change = tables.change
        self._conn = tables.change.conn

    def put(self, spec: MeterSpec, text: str, *, exists: bool) -> MeterChange:
        """Add the meter, or change the one that ``exists``."""
        bridge = self._tables.config.name
        row = self._conn.execute(
            "SELECT slot, added_ns FROM flow_meters WHERE bridge_slot = ? AND meter_id = ?",
            (self._tables.slot, spec.meter_id),
        ).fetchone()
        if exists and row is None:
            raise NotFound(
                f"meter {spec.meter_id} does not exist on bridge {bridge}",
                hint=f"pyoffload meter list {bridge}",
            )
        if not exists and row is not None:
            raise AlreadyExists(
                f"meter {spec.meter_id} exists on bridge {bridge} already",
                hint="pyoffload meter mod changes it",
            )
        slot, added_ns = row or (self._free_slot(), self._tables.now_ns)
        burst = spec.burst if spec.burst is not None else spec.rate  # as OVS: one second's worth
        meter = _Meter(
            slot, self._tables.slot, spec.meter_id, int(spec.per_packet), spec.rate, burst, text, added_ns
        )
        self._conn.execute("INSERT OR REPLACE INTO flow_meters VALUES (?, ?, ?, ?, ?, ?, ?, ?)", meter)
        if flowstore.clock(self._conn, self._tables.slot) is None:
            flowstore.note_clock(self._conn, self._tables.slot, time.time_ns() - self._tables.now_ns)
        if self._change.live:
            maps = self._change.maps
            if row is None:
                zero_stats(maps, "meter_stats", [slot])
                c_uint64.from_buffer(maps.mmap("meters"), slot * METER_SIZE + _TAT_AT).value = 0
            self._change.on_visible(lambda: _write(maps, meter))
        return MeterChange(1)

    def delete(self, meter_id: int | None) -> MeterChange:
        """Delete one, or all of the bridge."""
        rows = self._conn.execute(
            "SELECT slot FROM flow_meters WHERE bridge_slot = ?1 AND (?2 IS NULL OR meter_id = ?2)",
            (self._tables.slot, meter_id),
        )
        slots = {slot for (slot,) in rows}
        if not slots:
            if meter_id is not None:
                bridge = self._tables.config.name
                raise NotFound(
                    f"meter {meter_id} does not exist on bridge {bridge}",
                    hint=f"pyoffload meter list {bridge}",
                )
            self._change.changed = False
            return MeterChange(0)
        users = lists_using(self._conn, "meter", slots)
        edit = self._tables.edit
        flows = [f for s in list(edit.subtables.values()) for f in edit.after(s) if f.actions in users]
        edit.remove(flows)
        self._conn.executemany("DELETE FROM flow_meters WHERE slot = ?", [(slot,) for slot in slots])
        self._tables.stage()
        if self._change.live:
            self._change.on_applied(lambda: _disable(self._change.maps, slots))
        return MeterChange(len(slots), len(flows))

    def _free_slot(self) -> int:
        rows = self._conn.execute("SELECT slot FROM flow_meters").fetchall()
        places = Places(
            abi.MAX_METERS, 1 + max((s for (s,) in rows), default=-1), lambda: [(s, 1) for (s,) in rows]
        )
        slot = places.run(1)
        if slot is None:
            raise TableFull(
                f"the instance has {abi.MAX_METERS} meters already", hint="delete one that is not needed"
            )
        return slot


def parameters(*, per_packet: bool, rate: int, burst: int) -> tuple[int, int]:
    """(burst_ns, ns_per_unit_q16) of struct meter; a unit is a packet or a byte."""
    units_per_s_x8 = rate * 8 if per_packet else rate * 1000
    return burst * NS_PER_S // rate, (NS_PER_S << 16) * 8 // units_per_s_x8


def _write(maps: MapSet, meter: _Meter) -> None:
    view = maps.mmap("meters")
    at = meter.slot * METER_SIZE
    burst_ns, per_unit = parameters(per_packet=bool(meter.per_packet), rate=meter.rate, burst=meter.burst)
    c_uint64.from_buffer(view, at + _BURST_AT).value = burst_ns
    c_uint64.from_buffer(view, at + _RATE_AT).value = per_unit
    c_uint64.from_buffer(view, at + _MODE_AT).value = meter.per_packet | 1 << 32  # per_packet, enabled


def _disable(maps: MapSet, slots: set[int]) -> None:
    for slot in slots:
        c_uint64.from_buffer(maps.mmap("meters"), slot * METER_SIZE + _MODE_AT).value = 0
    policy.grace()


def write_meters(conn: sqlite3.Connection, maps: MapSet, bridge_slot: int, *, fresh: bool) -> None:
    """All meters of the bridge as the store has them; ``fresh``: their buckets are full."""
    for row in conn.execute(f"SELECT {_COLUMNS} FROM flow_meters WHERE bridge_slot = ?", (bridge_slot,)):
        meter = _Meter(*row)
        if fresh:
            c_uint64.from_buffer(maps.mmap("meters"), meter.slot * METER_SIZE + _TAT_AT).value = 0
        _write(maps, meter)


# Reading ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MeterInfo:
    """One meter. ``rate``: kbit/s or packets/s by ``unit``; ``burst``: kbit or packets; dropped_…: what exceeded it."""

    meter_id: int
    unit: str
    rate: int
    burst: int
    dropped_packets: int
    dropped_bytes: int
    flows: int
    age_s: float

    def as_dict(self) -> dict[str, Any]:
        return {
            "meter_id": self.meter_id,
            "unit": self.unit,
            "rate": self.rate,
            "burst": self.burst,
            "dropped_packets": self.dropped_packets,
            "dropped_bytes": self.dropped_bytes,
            "flows": self.flows,
            "age_s": round(self.age_s, 3),
        }

    def text(self, stats: bool = True) -> str:
        """As ovs-ofctl dump-meters prints it; with ``stats`` what was dropped behind it."""
        line = f"meter={self.meter_id} {self.unit} burst bands=\ntype=drop rate={self.rate} burst_size={self.burst}"
        if not stats:
            return line
        from pyoffload.flow.format import format_duration

        return (
            f"{line}\nmeter:{self.meter_id} flow_count:{self.flows} duration:{format_duration(self.age_s)} bands:\n"
            f"0: packet_count:{self.dropped_packets} byte_count:{self.dropped_bytes}"
        )


def list_meters(instance: Instance, bridge: str) -> list[MeterInfo]:
    """All meters of a bridge, by id."""
    from pyoffload.change import require_bridge
    from pyoffload.mapset import MapSet
    from pyoffload.store import Store

    store = Store.open_readonly(instance)
    config = require_bridge(store, bridge)
    if store is None:
        return []
    maps = MapSet(instance, writable=False) if instance.is_up() else None
    try:
        with store:
            return read_meters(store, maps, config.slot)
    finally:
        if maps is not None:
            maps.close()


def show(instance: Instance, bridge: str, meter_id: int) -> MeterInfo:
    """One meter, or NotFound."""
    for meter in list_meters(instance, bridge):
        if meter.meter_id == meter_id:
            return meter
    raise NotFound(
        f"meter {meter_id} does not exist on bridge {bridge}", hint=f"pyoffload meter list {bridge}"
    )


def read_meters(store: Store, maps: MapSet | None, bridge_slot: int) -> list[MeterInfo]:
    """Meters from the store with counters from the maps (zero where there are none)."""
    now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    found = []
    for row in store.rows(
        f"SELECT {_COLUMNS} FROM flow_meters WHERE bridge_slot = ? ORDER BY meter_id", (bridge_slot,)
    ):
        meter = _Meter(*row)
        packets, n_bytes = (0, 0) if maps is None else maps["meter_stats"].lookup_percpu_sum(meter.slot, "2Q")
        flows = count_users(store, "meter", meter.slot)
        unit = "pktps" if meter.per_packet else "kbps"
        age_s = max(now - meter.added_ns, 0) / NS_PER_S
        found.append(MeterInfo(meter.meter_id, unit, meter.rate, meter.burst, packets, n_bytes, flows, age_s))
    return found
