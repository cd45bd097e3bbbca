"""Make the maps hold the flow tables, groups and meters of a bridge as the store has them.

After `up` the maps are fresh: everything is written, counters begin at zero. After a command was killed the maps are
live and may hold half a change, of which some is visible. Nothing of that is repaired in place: all flows of the bridge
are written anew beside it, in slots and subtables that nothing refers to, and one store of `policy` makes them those in
force. Their counters go on: what the old slots counted is added.
"""

from __future__ import annotations

import struct
import time
from array import array
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING

from pyoffload import _abi as abi, actionpool, classifier, flowstore, policy
from pyoffload.classifier import SUBTABLE, effective
from pyoffload.errors import TableFull
from pyoffload.flowedit import Match
from pyoffload.flowstore import NS_PER_S, Flow, Subtable
from pyoffload.flowswap import FLOW, NEXT_AT, NONE, USED_AT, FlowSwap, index_keys, write_flows, zero_stats
from pyoffload.slots import Places

if TYPE_CHECKING:
    import sqlite3

    from pyoffload.kernel import Map
    from pyoffload.mapset import MapSet

_KEY_BYTES = 8 + classifier.KEY_SIZE


class _Quiet:
    """A context without checkpoints: a restore that is killed is begun again."""

    def __init__(self, maps: MapSet, conn: sqlite3.Connection) -> None:
        self.maps = maps
        self.conn = conn

    def checkpoint(self, step: str) -> None:
        from pyoffload.checkpoints import checkpoint

        checkpoint(f"restore.{step}")


class Restore:
    """One bridge's flow tables."""

    def __init__(self, maps: MapSet, conn: sqlite3.Connection, bridge_slot: int) -> None:
        self._maps = maps
        self._conn = conn
        self._bridge_slot = bridge_slot
        self._now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        self._used: dict[int, int] = {}

    def run(self) -> None:
        """Everything, in the caller's transaction or its own."""
        own = not self._conn.in_transaction
        if own:
            self._conn.execute("BEGIN IMMEDIATE")
        try:
            self._run(commit=own)
        except BaseException:
            if own and self._conn.in_transaction:
                self._conn.execute("ROLLBACK")
            raise

    def _run(self, *, commit: bool) -> None:
        elements = classifier.read(self._maps, self._bridge_slot)
        flows = self._settle_times(flowstore.flows(self._conn, self._bridge_slot))
        if elements is None:
            flows = [flow._replace(packets=0, bytes=0) for flow in flows]
            self._conn.execute("DELETE FROM flow_carries WHERE bridge_slot = ?", (self._bridge_slot,))
            self._rewrite(flows)
        else:
            flows = self._move(flows, elements)
        swap = FlowSwap(
            _Quiet(self._maps, self._conn),
            self._bridge_slot,
            # Beyond what any killed command can have staged.
            version=policy.current(self._maps, self._bridge_slot)[1] + 2,
        )
        actionpool.write_all(self._conn, self._maps.mmap("actions"))
        from pyoffload.groups import write_groups
        from pyoffload.meters import write_meters

        write_groups(self._conn, self._maps, self._bridge_slot)
        write_meters(self._conn, self._maps, self._bridge_slot, fresh=elements is None)
        self._install(flows, swap.version)
        swap.stage_restored(_ranked_image(elements))
        if commit:
            self._conn.execute("COMMIT")
        swap.publish()
        swap.clean()
        self._sweep()

    # Rows -------------------------------------------------------------------------------------------------------

    def _settle_times(self, flows: list[Flow]) -> list[Flow]:
        """Times of another boot become times of this one; flows that timed out meanwhile are left out."""
        offset = time.time_ns() - self._now
        noted = flowstore.clock(self._conn, self._bridge_slot)
        shift = 0
        if noted is not None and noted[0] != flowstore.boot_id():
            shift = noted[1] - offset
            for kind in ("flow_groups", "flow_meters"):
                self._conn.execute(
                    f"UPDATE {kind} SET added_ns = added_ns + ? WHERE bridge_slot = ?",
                    (shift, self._bridge_slot),
                )
        if noted is None or shift:
            flowstore.note_clock(self._conn, self._bridge_slot, offset)
        if shift:
            flows = [flow._replace(added_ns=flow.added_ns + shift) for flow in flows]
        alive = [f for f in flows if not f.hard_s or f.added_ns + f.hard_s * NS_PER_S > self._now]
        self._settle_closed(flows, alive)
        return alive

    def _settle_closed(self, flows: list[Flow], alive: list[Flow]) -> None:
        """Table 0 drops on when its last flow has timed out, unless the built-in one is there."""
        subtables = flowstore.subtables(self._conn, self._bridge_slot)
        table0 = {subtable.id for subtable in subtables if subtable.table == 0}
        if any(f.subtable in table0 for f in flows) and not any(f.subtable in table0 for f in alive):
            flowstore.set_closed(self._conn, self._bridge_slot, closed=True)

    def _rewrite(self, flows: list[Flow]) -> None:
        self._conn.execute("DELETE FROM flows WHERE bridge_slot = ?", (self._bridge_slot,))
        flowstore.insert_flows(self._conn, flows)
        flowstore.delete_empty_subtables(self._conn, self._bridge_slot)
        flowstore.count_references(self._conn)

    def _move(self, flows: list[Flow], elements: bytes) -> list[Flow]:
        """The flows under new slots and in new subtables."""
        keys, heads = self._maps["flow_index"].lookup_batch()
        ids = array("I", keys)[:: _KEY_BYTES // 4]
        taken = set(flowstore.flow_slots(self._conn))
        slots = self._free(len(flows), taken | self._reachable(array("I", heads)))
        if slots is None:
            # No room beside the old flows: the bridge drops everything until the new ones are there.
            classifier.put(self._maps, self._bridge_slot, classifier.image([], 0))
            mine = classifier.subtable_ids(elements)
            others = (head for head, number in zip(array("I", heads), ids, strict=True) if number not in mine)
            slots = self._free(len(flows), taken | self._reachable(others))
        if slots is None:
            raise TableFull(f"no {len(flows)} free flow slots to restore a bridge with")
        first = 1 + max([flowstore.top_subtable(self._conn), *ids, *classifier.subtable_ids(elements)])
        new_id = {s.id: first + n for n, s in enumerate(flowstore.subtables(self._conn, self._bridge_slot))}
        view = self._maps.mmap("flows")
        moved = []
        for flow, slot in zip(flows, slots, strict=True):
            moved.append(flow._replace(slot=slot, subtable=new_id[flow.subtable]))
            (self._used[slot],) = struct.unpack_from("<Q", view, flow.slot * FLOW.size + USED_AT)
        self._conn.executemany(
            "UPDATE flow_carries SET slot = ? WHERE slot = ?",
            [(new.slot, old.slot) for old, new in zip(flows, moved, strict=True)],
        )
        self._renumber(flows, moved, new_id)
        return moved

    def _renumber(self, flows: list[Flow], moved: list[Flow], new_id: dict[int, int]) -> None:
        self._conn.execute("DELETE FROM flows WHERE bridge_slot = ?", (self._bridge_slot,))
        self._conn.executemany(
            "UPDATE flow_subtables SET id = ? WHERE id = ?", [(new, old) for old, new in new_id.items()]
        )
        self._rewrite(moved)
        self._conn.executemany(
            "INSERT INTO flow_carries VALUES (?, ?, ?)",
            [(old.slot, new.slot, self._bridge_slot) for old, new in zip(flows, moved, strict=True)],
        )

    def _free(self, count: int, taken: set[int]) -> list[int] | None:
        top = max(taken, default=-1) + 1
        slots = Places(abi.MAX_FLOWS, top, lambda: [(slot, 1) for slot in taken]).singles(count)
        return None if slots is None else list(slots)

    def _reachable(self, heads: object) -> set[int]:
        """Slots that a chain of the index leads to."""
        view = self._maps.mmap("flows").cast("B").cast("I")
        step, at = FLOW.size // 4, NEXT_AT // 4
        found: set[int] = set()
        for head in heads:  # type: ignore[attr-defined]
            slot = head
            while slot != NONE and slot < abi.MAX_FLOWS and slot not in found:
                found.add(slot)
                slot = view[slot * step + at]
        return found

    # Maps -------------------------------------------------------------------------------------------------------

    def _install(self, flows: list[Flow], version: int) -> None:
        zero_stats(self._maps, "flow_stats", [flow.slot for flow in flows])
        used = {flow.slot: self._used.get(flow.slot, self._now) for flow in flows}
        write_flows(self._conn, self._maps, self._bridge_slot, flows, version, used)
        chains: dict[Match, list[Flow]] = {}
        for flow in flows:
            chains.setdefault((flow.subtable, flow.key), []).append(flow)
        view = self._maps.mmap("flows")
        heads = array("I")
        for members in chains.values():
            chain = effective(members) if len(members) > 1 else members
            heads.append(chain[0].slot)
            for flow, following in pairwise(chain):
                struct.pack_into("<I", view, flow.slot * FLOW.size + NEXT_AT, following.slot)
        self._maps["flow_index"].update_batch(index_keys(chains), heads.tobytes(), len(heads))

    def _sweep(self) -> None:
        """Forget index entries of subtables that neither the store nor any classifier has."""
        known = {number for (number,) in self._conn.execute("SELECT id FROM flow_subtables")}
        for slot in range(abi.MAX_BRIDGES):
            elements = classifier.read(self._maps, slot)
            if elements is not None:
                known |= classifier.subtable_ids(elements)
        _delete_entries(self._maps["flow_index"], lambda number: number not in known)


def _ranked_image(elements: bytes | None) -> list[tuple[Subtable, int]]:
    """Subtables of a classifier as it lies in the map, with their priorities."""
    found: list[tuple[Subtable, int]] = []
    if elements is None:
        return found
    for table in range(abi.MAX_TABLES):
        _, _, _, first, count, _ = SUBTABLE.unpack_from(elements, table * SUBTABLE.size)
        for at in range(first, first + count):
            mask, number, priority, _, _, _ = SUBTABLE.unpack_from(elements, at * SUBTABLE.size)
            found.append((Subtable(number, 0, table, mask, b"", needs_l3=False), priority))
    return found


def remove_bridge(maps: MapSet, conn: sqlite3.Connection, bridge_slot: int) -> Callable[[], None]:
    """Forget the bridge's rows; the callable then clears the maps of what they stood for."""
    matches = [(flow.subtable, flow.key) for flow in flowstore.flows(conn, bridge_slot)]
    flowstore.delete_bridge(conn, bridge_slot)

    def clear() -> None:
        elements = classifier.read(maps, bridge_slot)
        if elements is None:
            return
        # Deleting from a map of maps waits, as an update does, until no packet uses the inner one any more.
        maps["classifiers"].delete(bridge_slot)
        index = maps["flow_index"]
        if matches:
            index.delete_batch(index_keys(matches), len(matches))
        else:  # the command that deleted the rows was killed: only the maps know
            ids = classifier.subtable_ids(elements)
            _delete_entries(index, lambda number: number in ids)

    return clear


def _delete_entries(index: Map, unwanted: Callable[[int], bool]) -> None:
    """Delete the entries of flow_index whose subtable is unwanted."""
    keys, _ = index.lookup_batch()
    ids = array("I", keys)[:: _KEY_BYTES // 4]
    stale = [keys[n * _KEY_BYTES : (n + 1) * _KEY_BYTES] for n, number in enumerate(ids) if unwanted(number)]
    index.delete_batch(b"".join(stale), len(stale))
