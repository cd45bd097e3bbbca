"""A change of a bridge's flow tables, worked out before anything is written.

The edit knows, for every match it touches, the flows before and after. From that follow the rows of the store and
the chains of the datapath. OpenFlow 1.0 section 4.6 and ovs-ofctl(8) say what add, modify and delete mean.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from pyoffload import _abi as abi, flowstore
from pyoffload.actionpool import ActionPool
from pyoffload.classifier import KEY_SIZE, check_masks
from pyoffload.errors import TableFull
from pyoffload.flowstore import Flow, Subtable
from pyoffload.slots import Places

if TYPE_CHECKING:
    import sqlite3

    from pyoffload.flow.spec import FlowFilter, FlowSpec

Match = tuple[int, bytes]  # subtable id, key without trailing zeros
Chain = tuple[list[Flow], list[Flow]]  # flows of one match, before and after
Progress = Callable[[int, int], None]

# The flow that a bridge has from the start: it stands behind all others of table 0 and is never shown.
BUILTIN_PRIORITY = -1
_NORMAL = struct.pack("<BBHIQQ", abi.action_op.NORMAL, 0, 0, 0, 0, 0)

_ALL_AT_ONCE = 256  # from so many flows on, reading every row is cheaper than asking for each match
_PROGRESS_EVERY = 4096
_BULK_CACHE_KIB = (
    65536  # 65,536 flows are 10 MB of rows and index: SQLite's usual 2 MB would write them twice
)


class FlowEdit:
    """The flow tables of one bridge, before and after."""

    def __init__(
        self, conn: sqlite3.Connection, bridge: str, bridge_slot: int, pool: ActionPool, now_ns: int
    ) -> None:
        self.conn = conn
        self.bridge = bridge
        self.bridge_slot = bridge_slot
        self.pool = pool
        self.now_ns = now_ns
        self.chains: dict[Match, Chain] = {}
        self.moved: list[tuple[int, int]] = []  # (old slot, new slot) of flows that keep their counters
        self.subtables = {(s.table, s.mask): s for s in flowstore.subtables(conn, bridge_slot)}
        self.was_closed = self.closed = flowstore.is_closed(conn, bridge_slot)
        self._opened = False
        self._removed: set[int] = set()  # slots
        self._expired: set[int] = set()
        self._widened: set[int] = set()
        self._ids: dict[tuple[int, bytes, bytes, bool], int] = {}
        self._next_subtable = 0
        self._places: Places | None = None
        self._all = False

    # What is there ----------------------------------------------------------------------------------------------

    def load_all(self) -> None:
        """Read every flow of the bridge."""
        if self._all:
            return
        for flow in flowstore.flows(self.conn, self.bridge_slot):
            match = (flow.subtable, flow.key)
            chain = self.chains.get(match)
            if chain is None:
                self.chains[match] = ([flow], [flow])
            elif flow not in chain[0]:
                chain[0].append(flow)
                chain[1].append(flow)
        self._all = True

    def chain(self, match: Match) -> Chain:
        """Flows of that match before and after; the second list is there to be changed."""
        chain = self.chains.get(match)
        if chain is None:
            flows = [] if self._all else flowstore.flows_of_match(self.conn, *match)
            chain = self.chains[match] = (flows, list(flows))
        return chain

    def after(self, subtable: Subtable) -> list[Flow]:
        """The admin's flows of the subtable as they will be."""
        stored = [] if self._all else flowstore.flows_of_subtables(self.conn, [subtable.id])
        found = [flow for flow in stored if (flow.subtable, flow.key) not in self.chains]
        for match, (_, new) in self.chains.items():
            if match[0] == subtable.id:
                found += new
        return [flow for flow in found if flow.priority != BUILTIN_PRIORITY]

    # Verbs ------------------------------------------------------------------------------------------------------

    def remove(self, flows: Iterable[Flow]) -> None:
        for flow in flows:
            self.chain((flow.subtable, flow.key))[1].remove(flow)
            self._removed.add(flow.slot)

    def expire(self, flows: list[Flow]) -> None:
        """These go because their time is over, not because the admin wants it."""
        self.remove(flows)
        self._expired.update(flow.slot for flow in flows)

    def open(self) -> None:
        """The admin wants table 0 to be empty, if no flow is added to it: it is switched again then."""
        self._opened = True

    def clear(self) -> None:
        """Every flow of the admin goes."""
        self.open()
        self.load_all()
        for _, new in self.chains.values():
            new[:] = [flow for flow in new if flow.priority == BUILTIN_PRIORITY]

    def add(
        self, specs: list[FlowSpec], *, keep_equal: bool = False, progress: Progress | None = None
    ) -> int:
        """Add flows; one of equal table, priority and match is replaced, the last of several wins.

        ``keep_equal``: a flow that was there in every detail stays, with its slot and counters, unless it was removed
        before (it had timed out). Returns how many stayed.
        """
        if len(specs) >= _ALL_AT_ONCE:
            self.conn.execute(f"PRAGMA cache_size = -{_BULK_CACHE_KIB}")
            self.load_all()
            self.pool.load_all()
        slots = self._slots(len(specs))
        intern, subtable_of, chain_of, chains = self.pool.intern, self._subtable, self.chain, self.chains
        bridge_slot, now = self.bridge_slot, self.now_ns
        kept, removed = 0, self._removed
        for number, spec in enumerate(specs):
            if progress is not None and not number % _PROGRESS_EVERY:
                progress(number, len(specs))
            key = spec.key.rstrip(b"\0")
            subtable = subtable_of(spec.table, spec.mask, spec.cache_mask, spec.needs_l3)
            match = (subtable, key)
            old, new = chains.get(match) or chain_of(match)
            actions = intern(spec.actions)
            cookie = flowstore.signed(spec.cookie)
            flags = " ".join(spec.flags) if spec.flags else ""
            if new:
                new[:] = [flow for flow in new if flow.priority != spec.priority]
            if keep_equal and old:
                want = (spec.priority, key, cookie, spec.idle_timeout, spec.hard_timeout, flags, actions)
                equal = [flow for flow in old if flow[3:10] == want and flow.slot not in removed]
                if equal:
                    new.append(equal[0])
                    kept += 1
                    continue
            new.append(
                Flow(
                    next(slots),
                    bridge_slot,
                    subtable,
                    spec.priority,
                    key,
                    cookie,
                    spec.idle_timeout,
                    spec.hard_timeout,
                    flags,
                    actions,
                    now,
                    0,
                    0,
                )
            )
        return kept

    def modify(self, flows: list[Flow], wanted: FlowFilter) -> None:
        """Give these flows other actions, and another cookie if one is given; times and, unless reset_counts is said,
        counters go on.
        """
        if not flows or wanted.actions is None:
            return
        actions = self.pool.intern(wanted.actions)
        slots = self._slots(len(flows))
        subtables = {subtable.id: subtable for subtable in self.subtables.values()}
        for flow in flows:
            changed = flow._replace(actions=actions)
            if wanted.new_cookie is not None:
                changed = changed._replace(cookie=flowstore.signed(wanted.new_cookie))
            reset = "reset_counts" in wanted.flags
            if changed == flow and not reset:
                continue
            subtable = subtables[flow.subtable]
            self._subtable(subtable.table, subtable.mask, wanted.cache_mask, wanted.needs_l3)
            changed = changed._replace(slot=next(slots))
            if reset:
                changed = changed._replace(packets=0, bytes=0)
            else:
                self.moved.append((flow.slot, changed.slot))
            new = self.chain((flow.subtable, flow.key))[1]
            new[new.index(flow)] = changed

    # Outcome ----------------------------------------------------------------------------------------------------

    def settle(self, *, exactly: bool = False) -> tuple[list[Flow], list[Flow]]:
        """(flows that go, flows that come); what did not change is dropped from `chains`.

        ``exactly``: the tables hold what the admin gave and nothing else, so the built-in flow goes.
        """
        gone: list[Flow] = []
        come: list[Flow] = []
        for old, new in self.chains.values():
            if not old:
                come += new
            elif not new:
                gone += old
            elif old != new:
                before = {flow.slot for flow in old}
                after = {flow.slot for flow in new}
                gone += [flow for flow in old if flow.slot not in after]
                come += [flow for flow in new if flow.slot not in before]
        self._settle_builtin(gone, come, exactly=exactly)
        touched = {(flow.subtable, flow.key) for flow in gone}
        touched.update((flow.subtable, flow.key) for flow in come)
        if len(touched) < len(self.chains):
            self.chains = {match: chain for match, chain in self.chains.items() if match in touched}
        return gone, come

    def _settle_builtin(self, gone: list[Flow], come: list[Flow], *, exactly: bool) -> None:
        """Table 0 has the built-in flow behind the admin's, until he replaces it or the whole content.

        An empty table 0 needs none: the datapath then acts as if it were there. But a timeout opens nothing: where
        misses were dropped, they are until the admin himself empties the table.
        """
        table0 = {subtable.id for (table, _), subtable in self.subtables.items() if table == 0}
        before = flowstore.count_flows(self.conn, self.bridge_slot, table=0)
        after = before + sum(f.subtable in table0 for f in come) - sum(f.subtable in table0 for f in gone)
        subtable = self.subtables.get((0, b""))
        old, new = self.chain((subtable.id, b"")) if subtable else ([], [])
        had = next((flow for flow in old if flow.priority == BUILTIN_PRIORITY), None)
        replaced = any(flow.priority == 0 and not flow.timed for flow in new)
        fresh = before == 0 and not self.was_closed
        wanted = after > 0 and not exactly and not replaced and (had is not None or fresh)
        by_admin = self._opened or any(f.subtable in table0 and f.slot not in self._expired for f in gone)
        dropped = self.was_closed or (before > 0 and had is None)
        self.closed = after == 0 and dropped and not by_admin
        if had is not None and not wanted:
            new.remove(had)
            gone.append(had)
        elif had is None and wanted:
            builtin = self._builtin()
            self.chain((builtin.subtable, b""))[1].append(builtin)
            come.append(builtin)

    def _builtin(self) -> Flow:
        subtable = self._subtable(0, b"", bytes(8 * abi.CACHE_KEY_WORDS), needs_l3=False)
        slot = next(self._slots(1))
        actions = self.pool.intern_ops(_NORMAL, "NORMAL")
        return Flow(
            slot, self.bridge_slot, subtable, BUILTIN_PRIORITY, b"", 0, 0, 0, "", actions, self.now_ns, 0, 0
        )

    def save(self, gone: list[Flow], come: list[Flow], actions: memoryview | None) -> None:
        """Write the outcome to the store, and new action lists to the array."""
        more = Counter(flow.actions for flow in come)
        more.subtract(flow.actions for flow in gone)
        self.pool.flush(more, actions)
        used = {flow.subtable for flow in come} & self._widened
        flowstore.put_subtables(self.conn, [s for s in self.subtables.values() if s.id in used])
        flowstore.delete_flows(self.conn, self.bridge_slot, [flow.slot for flow in gone])
        flowstore.insert_flows(self.conn, come)
        self.conn.executemany(
            "INSERT INTO flow_carries VALUES (?, ?, ?)", [(*pair, self.bridge_slot) for pair in self.moved]
        )
        flowstore.delete_empty_subtables(self.conn, self.bridge_slot)
        flowstore.set_closed(self.conn, self.bridge_slot, closed=self.closed)
        count = flowstore.count_flows(self.conn, self.bridge_slot)
        if count > abi.MAX_FLOWS_PER_BRIDGE:
            raise TableFull(
                f"bridge {self.bridge}: {count} flows; a bridge holds {abi.MAX_FLOWS_PER_BRIDGE}",
                hint="nothing was changed; a wider mask or a group may replace many flows",
            )
        check_masks(
            [s for s in flowstore.subtables(self.conn, self.bridge_slot) if s.table or s.mask], self.bridge
        )

    # Places -----------------------------------------------------------------------------------------------------

    def _slots(self, count: int) -> Iterator[int]:
        if self._places is None:
            self._places = Places(
                abi.MAX_FLOWS,
                flowstore.top_flow_slot(self.conn),
                lambda: [(slot, 1) for slot in flowstore.flow_slots(self.conn)],
            )
        slots = self._places.singles(count)
        if slots is None:
            raise TableFull(
                f"the instance has no {count} flow slots left of {abi.MAX_FLOWS}",
                hint="a change needs room for old and new flows at once; delete flows of other bridges first",
            )
        return slots

    def _subtable(self, table: int, mask: bytes, cache_mask: bytes, needs_l3: bool) -> int:
        """Id of the mask's subtable; it looks at these bits of a packet from now on."""
        wanted = (table, mask, cache_mask, needs_l3)
        number = self._ids.get(wanted)
        if number is not None:
            return number
        trimmed = mask.rstrip(b"\0")
        subtable = self.subtables.get((table, trimmed))
        if subtable is None:
            if not self._next_subtable:
                self._next_subtable = flowstore.top_subtable(self.conn) + 1
            subtable = Subtable(
                self._next_subtable, self.bridge_slot, table, trimmed, bytes(len(cache_mask)), needs_l3
            )
            self._next_subtable += 1
        wider = bytes(a | b for a, b in zip(subtable.cache_mask, cache_mask, strict=True))
        self.subtables[table, trimmed] = subtable._replace(
            cache_mask=wider, needs_l3=subtable.needs_l3 or needs_l3
        )
        self._widened.add(subtable.id)
        self._ids[wanted] = subtable.id
        return subtable.id


def full_key(key: bytes) -> bytes:
    """A stored key or mask as struct flow_key has it."""
    return key.ljust(KEY_SIZE, b"\0")
