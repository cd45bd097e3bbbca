"""Reading the flow tables: what `flow dump` shows. Changes nothing, takes no lock."""

from __future__ import annotations

import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyoffload import flowstore
from pyoffload.classifier import KEY_SIZE
from pyoffload.flowselect import Selector
from pyoffload.flowstore import FLOW_COLUMNS, NS_PER_S, Flow
from pyoffload.flowswap import FLOW, USED_AT, expired

if TYPE_CHECKING:
    from pyoffload.flow.syntax import PortNames
    from pyoffload.instance import Instance
    from pyoffload.mapset import MapSet
    from pyoffload.store import Store


@dataclass(frozen=True, slots=True)
class FlowInfo:
    """One flow as it runs. ``id`` is what traces and cache entries call it; ages in seconds; ``raw_match`` is key and
    mask as struct flow_key.
    """

    id: int
    table: int
    priority: int
    cookie: int
    match: str
    actions: str
    packets: int
    bytes: int
    age_s: float
    idle_s: float
    idle_timeout: int
    hard_timeout: int
    flags: tuple[str, ...]
    raw_match: tuple[Any, Any]

    def as_dict(self) -> dict[str, Any]:
        """`flow dump -j`."""
        return {
            "table": self.table,
            "priority": self.priority,
            "cookie": f"{self.cookie:#x}",
            "match": self.match,
            "actions": self.actions,
            "packets": self.packets,
            "bytes": self.bytes,
            "age_s": round(self.age_s, 3),
            "idle_s": round(self.idle_s, 3),
            "idle_timeout": self.idle_timeout,
            "hard_timeout": self.hard_timeout,
            "id": self.id,
        }

    def text(self, stats: bool = True) -> str:
        """The line that ovs-ofctl dump-flows prints, actions in the words that OpenFlow 1.0 has for them."""
        from pyoffload.flow.dialects import translate_actions
        from pyoffload.flow.format import format_flow

        actions = translate_actions(self.actions, *self.raw_match)
        return format_flow(self, self.match, actions, self if stats else None)


def dump(
    instance: Instance, bridge: str, match: str = "", *, table: int | None = None, stats: bool = True
) -> list[FlowInfo]:
    """Flows equal to the match or more specific, by table, falling priority and order of adding.

    Flows that timed out are left out: no packet meets them. ``stats`` False: counters are not read, and zero.
    """
    from pyoffload.change import require_bridge
    from pyoffload.mapset import MapSet
    from pyoffload.ports import BridgePortNames
    from pyoffload.store import Store

    store = Store.open_readonly(instance)
    config = require_bridge(store, bridge)
    if store is None:
        return []
    with store:
        chosen = _selector(match, BridgePortNames(store, bridge), table)
        maps = MapSet(instance, writable=False) if instance.is_up() else None
        try:
            return Dump(store, maps, config.slot).flows(chosen, stats=stats)
        finally:
            if maps is not None:
                maps.close()


def _selector(match: str, names: PortNames, table: int | None) -> Selector:
    if not match:
        return Selector(0, 0, table=table)
    from pyoffload.flow.parse import parse_match

    return Selector.of_filter(parse_match(match, names, "dump"), table=table)


class Dump:
    """Flows of one bridge from the store, with what the maps say about them."""

    def __init__(self, store: Store, maps: MapSet | None, bridge_slot: int) -> None:
        self._store = store
        self._maps = maps
        self._slot = bridge_slot
        self._now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)

    def flows(self, chosen: Selector, *, stats: bool = True) -> list[FlowInfo]:
        """The chosen ones, in order."""
        subtables, rows = self._read(chosen)
        shift = self._shift()
        flows = [flow._replace(added_ns=flow.added_ns + shift) for flow in rows] if shift else rows
        if self._maps is not None:
            maps = self._maps
            flows = [flow for flow in flows if not flow.timed or not expired(flow, maps, self._now)]
        lists = dict(
            self._store.rows(
                "SELECT first, text FROM action_lists WHERE first IN"
                " (SELECT actions FROM flows WHERE bridge_slot = ?)",
                (self._slot,),
            )
        )
        counters = self._counters(flows) if stats and self._maps is not None else {}
        flows.sort(key=lambda flow: (subtables[flow.subtable][0], -flow.priority, flow.added_ns, flow.slot))
        return [self._info(flow, subtables[flow.subtable], lists[flow.actions], counters) for flow in flows]

    def _read(self, chosen: Selector) -> tuple[dict[int, tuple[int, bytes]], list[Flow]]:
        found = self._store.rows(
            "SELECT id, tbl, mask FROM flow_subtables WHERE bridge_slot = ?", (self._slot,)
        )
        subtables = {number: (table, mask.ljust(KEY_SIZE, b"\0")) for number, table, mask in found}
        wanted = [n for n, (table, mask) in subtables.items() if chosen.takes_subtable(table, mask)]
        flows: list[Flow] = []
        for number in wanted:
            rows = self._store.rows(
                f"SELECT {FLOW_COLUMNS} FROM flows WHERE subtable = ? AND priority >= 0", (number,)
            )
            flows += filter(chosen.takes, map(Flow._make, rows))
        if chosen.out_port is not None or chosen.out_group is not None:
            flows = self._by_actions(chosen, flows)
        return subtables, flows

    def _by_actions(self, chosen: Selector, flows: list[Flow]) -> list[Flow]:
        def ops_of(first: int) -> bytes:
            return bytes(self._store.rows("SELECT ops FROM action_lists WHERE first = ?", (first,))[0][0])

        group = self._store.rows(
            "SELECT slot FROM flow_groups WHERE bridge_slot = ? AND group_id = ?",
            (self._slot, chosen.out_group),
        )
        return chosen.by_actions(flows, ops_of, group[0][0] if group else None)

    def _shift(self) -> int:
        """What to add to stored times where they are of another boot and `up` has not put them right yet."""
        noted = self._store.rows(
            "SELECT boot_id, wall_offset_ns FROM flow_clocks WHERE bridge_slot = ?", (self._slot,)
        )
        if not noted or noted[0][0] == flowstore.boot_id():
            return 0
        return int(noted[0][1]) - (time.time_ns() - self._now)

    def _counters(self, flows: list[Flow]) -> dict[int, tuple[int, int]]:
        assert self._maps is not None  # noqa: S101  asked for only then
        stats = self._maps["flow_stats"]
        found = {flow.slot: (flow.packets, flow.bytes) for flow in flows}
        slots = [(flow.slot, flow.slot) for flow in flows]
        carried = self._store.rows(
            "SELECT old_slot, slot FROM flow_carries WHERE bridge_slot = ?", (self._slot,)
        )
        for old, slot in slots + [pair for pair in carried if pair[1] in found]:
            packets, n_bytes = stats.lookup_percpu_sum(old, "2Q")
            before = found[slot]
            found[slot] = (before[0] + packets, before[1] + n_bytes)
        return found

    def _info(
        self, flow: Flow, subtable: tuple[int, bytes], actions: str, counters: dict[int, tuple[int, int]]
    ) -> FlowInfo:
        from pyoffload.flow.dialects import translate_actions
        from pyoffload.flow.format import format_match

        table, mask = subtable
        key = flow.key.ljust(KEY_SIZE, b"\0")
        age_ns = idle_ns = self._now - flow.added_ns
        if self._maps is not None:
            (used_ns,) = struct.unpack_from("<Q", self._maps.mmap("flows"), flow.slot * FLOW.size + USED_AT)
            idle_ns = self._now - used_ns
        packets, n_bytes = counters.get(flow.slot, (0, 0))
        key = flow.key.ljust(KEY_SIZE, b"\0")
        return FlowInfo(
            flow.slot,
            table,
            flow.priority,
            flowstore.unsigned(flow.cookie),
            format_match(key, mask),
            translate_actions(actions, key, mask),
            packets,
            n_bytes,
            max(age_ns, 0) / NS_PER_S,
            max(idle_ns, 0) / NS_PER_S,
            flow.idle_s,
            flow.hard_s,
            tuple(flow.flags.split()),
            (key, mask),
        )
