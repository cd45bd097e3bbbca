"""The flow tables of a bridge: add, replace, modify, delete, and put back in force.

Every verb is one change (change.py): all of it happens or nothing. The work is done by flowedit (what is to change),
flowswap (the maps) and flowstore (the rows); flowdump reads.
"""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pyoffload import flowstore, policy
from pyoffload.actionpool import ActionPool
from pyoffload.flowedit import BUILTIN_PRIORITY, FlowEdit, Progress
from pyoffload.flowselect import Selector
from pyoffload.flowstore import Flow, flowtable_schema
from pyoffload.flowswap import FlowSwap, cache_mask, expired, ranked

if TYPE_CHECKING:
    import sqlite3

    from pyoffload.change import Change
    from pyoffload.flow.spec import FlowFilter, FlowSpec
    from pyoffload.flowdump import FlowInfo
    from pyoffload.instance import Instance
    from pyoffload.mapset import MapSet

__all__ = [
    "FlowChange",
    "FlowTables",
    "add",
    "add_file",
    "delete",
    "dump",
    "flowtable_schema",
    "modify",
    "replace",
]


@dataclass(frozen=True, slots=True)
class FlowChange:
    """What a verb did, in flows. ``changed``: replaced or modified; ``expired``: had timed out and were cleared away."""

    added: int = 0
    removed: int = 0
    changed: int = 0
    unchanged: int = 0
    expired: int = 0
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def add(instance: Instance, bridge: str, text: str, *, progress: Progress | None = None) -> FlowChange:
    """Add one flow; one of equal table, priority and match is replaced, its counters begin anew."""
    from pyoffload.flow.parse import parse_flow

    with _change(instance, "flow add") as change:
        tables = BridgeTables(change, bridge)
        spec = parse_flow(text, tables.names)
        tables.edit.add([spec], progress=progress)
        return tables.apply(spec.warnings)


def add_file(
    instance: Instance, bridge: str, text: str, *, source: str, progress: Progress | None = None
) -> FlowChange:
    """Add the flows of a file, given as its content; ``source`` is its name for messages."""
    with _change(instance, "flow add") as change, _without_collector():
        tables = BridgeTables(change, bridge)
        specs, progress = _parse_file(text, tables.names, source, progress)
        tables.edit.add(specs, progress=progress)
        return tables.apply(_warnings(specs))


def replace(
    instance: Instance, bridge: str, text: str, *, source: str, progress: Progress | None = None
) -> FlowChange:
    """Let the tables hold exactly the flows of a file. Flows that were there stay with their counters; packets see all
    of the old tables or all of the new ones.
    """
    with _change(instance, "flow replace") as change, _without_collector():
        tables = BridgeTables(change, bridge)
        specs, progress = _parse_file(text, tables.names, source, progress)
        tables.edit.clear()
        unchanged = tables.edit.add(specs, keep_equal=True, progress=progress)
        return tables.apply(_warnings(specs), exactly=True, unchanged=unchanged)


def _parse_file(
    text: str, names: Any, source: str, progress: Progress | None
) -> tuple[list[FlowSpec], Progress | None]:
    """The file's flows, and how to tell the progress of what follows: parsing is the first half of the way."""
    from pyoffload.flow.files import parse_flows

    lines = text.splitlines()
    if progress is None:
        return parse_flows(lines, names, source=source), None
    tell, total = progress, len(lines)
    specs = parse_flows(lines, names, source=source, progress=lambda done: tell(done // 2, total))
    return specs, lambda done, _: tell((total + done) // 2, total)


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """The rows of a file are a million objects without cycles: looking for some in them takes as long as the rest."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def modify(instance: Instance, bridge: str, text: str, *, strict: bool = False) -> FlowChange:
    """Give the flows that match new actions, and the cookie if one is given; counters and times go on.

    Without any such flow one is added, unless cookie=VALUE/MASK chose among flows (OpenFlow 1.0 section 4.6).
    """
    from pyoffload.flow.parse import parse_match

    with _change(instance, "flow mod") as change:
        tables = BridgeTables(change, bridge)
        wanted = parse_match(text, tables.names, "mod", strict=strict)
        flows = Selector.of_filter(wanted, strict=strict).select(tables.edit)
        if flows:
            tables.edit.modify(flows, wanted)
        elif not wanted.cookie_mask:
            tables.edit.add([_as_new(wanted)])
        return tables.apply(wanted.warnings)


def delete(instance: Instance, bridge: str, match: str = "", *, strict: bool = False) -> FlowChange:
    """Delete the flows that are equal to the match or more specific; ``strict``: equal, of equal priority."""
    from pyoffload.flow.parse import parse_match

    with _change(instance, "flow del") as change:
        tables = BridgeTables(change, bridge)
        chosen = Selector.of_filter(parse_match(match, tables.names, "del", strict=strict), strict=strict)
        if chosen.takes_all:
            tables.edit.clear()
        else:
            tables.edit.remove(chosen.select(tables.edit))
            if chosen.takes_table(0):
                tables.edit.open()
        return tables.apply()


def _as_new(wanted: FlowFilter) -> FlowSpec:
    from pyoffload.flow.spec import DEFAULT_PRIORITY, FlowSpec

    if wanted.actions is None:
        raise AssertionError("mod without actions")
    return FlowSpec(
        wanted.table or 0,
        DEFAULT_PRIORITY if wanted.priority is None else wanted.priority,
        wanted.new_cookie or 0,
        wanted.idle_timeout,
        wanted.hard_timeout,
        wanted.key,
        wanted.mask,
        wanted.actions,
        wanted.cache_mask,
        wanted.needs_l3,
        wanted.flags,
        wanted.warnings,
    )


def _change(instance: Instance, verb: str) -> Any:
    from pyoffload.change import change

    return change(instance, verb)


def _warnings(specs: list[FlowSpec]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(warning for spec in specs if spec.warnings for warning in spec.warnings))


class BridgeTables:
    """A bridge's flow tables inside a change."""

    def __init__(self, change: Change, bridge: str) -> None:
        self.change = change
        self.config = change.bridge(bridge)
        self.slot = self.config.slot
        self.now_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        conn = change.conn
        self.pool = ActionPool(conn, bridge, slots_by_id(conn, self.slot))
        self.edit = FlowEdit(conn, bridge, self.slot, self.pool, self.now_ns)
        self.expired = self._clear_expired() if change.live else 0

    @property
    def names(self) -> Any:
        """Port names of the bridge, for the parser."""
        from pyoffload.ports import BridgePortNames

        return BridgePortNames(self.change.store, self.config.name)

    def apply(
        self, warnings: tuple[str, ...] = (), *, exactly: bool = False, unchanged: int = 0
    ) -> FlowChange:
        """Stage the edit; the change carries it out."""
        gone, come = self.stage(exactly=exactly)
        if not gone and not come and self.edit.closed == self.edit.was_closed:
            self.change.changed = False
        return self._tell(gone, come, warnings, unchanged)

    def stage(self, *, exactly: bool = False) -> tuple[list[Flow], list[Flow]]:
        """Write the outcome to the store and, invisibly, to the maps."""
        change, conn, edit = self.change, self.change.conn, self.edit
        before = ranked(conn, self.slot)
        gone, come = edit.settle(exactly=exactly)
        if not gone and not come and edit.closed == edit.was_closed:
            return gone, come
        if flowstore.clock(conn, self.slot) is None:
            flowstore.note_clock(conn, self.slot, time.time_ns() - self.now_ns)
        if not change.live:
            edit.moved.clear()
        edit.save(gone, come, change.maps.mmap("actions") if change.live else None)
        if change.live:
            swap = FlowSwap(change, self.slot)
            change.undo(swap.undo)
            swap.stage(gone, come, edit.chains, edit.moved, before, now_ns=self.now_ns)
            change.on_visible(swap.publish)
            change.on_applied(swap.clean)
        return gone, come

    def _clear_expired(self) -> int:
        """Flows that timed out match no packet; the next change of the bridge forgets them."""
        timed = flowstore.timed_flows(self.change.conn, self.slot)
        if not timed:
            return 0
        over = [flow for flow in timed if expired(flow, self.change.maps, self.now_ns)]
        self.edit.expire(over)
        return len(over)

    def _tell(
        self, gone: list[Flow], come: list[Flow], warnings: tuple[str, ...], unchanged: int
    ) -> FlowChange:
        def key(flow: Flow) -> tuple[int, bytes, int]:
            return flow.subtable, flow.key, flow.priority

        new = {key(flow) for flow in come if flow.priority != BUILTIN_PRIORITY}
        old = {key(flow) for flow in gone if flow.priority != BUILTIN_PRIORITY}
        changed = len(new & old)
        removed = len(old) - changed
        cleared = min(self.expired, removed)
        return FlowChange(len(new) - changed, removed - cleared, changed, unchanged, cleared, warnings)


def slots_by_id(conn: sqlite3.Connection, bridge_slot: int) -> dict[tuple[str, int], int]:
    """("group" or "meter", OpenFlow id) -> slot, for a bridge."""
    found: dict[tuple[str, int], int] = {}
    for kind in ("group", "meter"):
        rows = conn.execute(f"SELECT {kind}_id, slot FROM flow_{kind}s WHERE bridge_slot = ?", (bridge_slot,))
        found.update({(kind, number): slot for number, slot in rows})
    return found


class FlowTables:
    """The flow tables as the life cycle of datapath and bridges sees them."""

    def __init__(self, maps: MapSet, conn: sqlite3.Connection) -> None:
        self._maps = maps
        self._conn = conn

    def restore(self, bridge_slot: int) -> None:
        """Put the bridge's flows, groups and meters in force as the store has them; see flowrestore."""
        from pyoffload.flowrestore import Restore

        Restore(self._maps, self._conn, bridge_slot).run()

    def remove_bridge(self, bridge_slot: int) -> Callable[[], None]:
        """Forget the bridge's rows; the callable clears the maps, once no port leads to the bridge any more."""
        from pyoffload.flowrestore import remove_bridge

        return remove_bridge(self._maps, self._conn, bridge_slot)

    def cache_mask(self, bridge_slot: int) -> tuple[bytes, bool]:
        """(mask of the cached key, 8 * CACHE_KEY_WORDS bytes; whether BRIDGE_NEEDS_L3 is to be set)."""
        return cache_mask(self._conn, bridge_slot)

    def version(self, bridge_slot: int) -> int:
        """Of the flow tables in force."""
        return policy.current(self._maps, bridge_slot)[1]

    def usage(self) -> dict[str, tuple[int, int]]:
        """In use and capacity of flows, actions, groups, buckets and meters."""
        return flowstore.usage(self._conn)


def dump(
    instance: Instance, bridge: str, match: str = "", *, table: int | None = None, stats: bool = True
) -> list[FlowInfo]:
    """See flowdump.dump."""
    from pyoffload import flowdump

    return flowdump.dump(instance, bridge, match, table=table, stats=stats)
