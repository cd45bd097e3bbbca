"""Carry out a change of a bridge's flow tables in the maps: no packet meets half of it.

stage     new flows are written and linked with the next version, invisible; the classifier knows old and new masks
publish   one store of `policy`: from now on packets see the next version
clean     when no packet reads the old version any more, what went is unlinked, and the classifier loses its masks
undo      takes stage back, when the change fails before it is committed

A chain is a valid list for its readers after each single store: the suffix is linked before what points to it.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable
from ctypes import sizeof
from typing import TYPE_CHECKING, Protocol

from pyoffload import _abi as abi, classifier, flowstore, policy
from pyoffload.actionpool import list_lengths
from pyoffload.classifier import KEY_SIZE, effective, merged
from pyoffload.flowedit import Chain, Match
from pyoffload.flowstore import NS_PER_S, Flow, Subtable

if TYPE_CHECKING:
    import sqlite3

    from pyoffload.mapset import MapSet

FLOW = struct.Struct("<IIIIIHHQQQ16x")
_U32 = struct.Struct("<I")
_U16 = struct.Struct("<H")
REMOVE_AT, NEXT_AT, USED_AT = 8, 12, 40  # offsets in struct flow
_FLAGS_AT, _NONZERO_AT = 8, 14  # offsets in struct bridge
_BRIDGE_SIZE = sizeof(abi.bridge)
NONE = abi.FLOW_SLOT_NONE
NEVER = abi.VERSION_NEVER
_BATCH = 8192  # per-CPU values of a batch are held in memory: 16 bytes for each CPU and entry


class Context(Protocol):
    """What a swap needs of a change."""

    maps: MapSet

    @property
    def conn(self) -> sqlite3.Connection: ...

    def checkpoint(self, step: str) -> None: ...


class FlowSwap:
    """One change of one bridge, from version to version + 1."""

    def __init__(self, context: Context, bridge_slot: int, *, version: int | None = None) -> None:
        self._context = context
        self._maps = context.maps
        self._conn = context.conn
        self._bridge_slot = bridge_slot
        self._flows = context.maps.mmap("flows")
        self.version = policy.current(context.maps, bridge_slot)[1] + 1 if version is None else version
        self._gone: list[Flow] = []
        self._moved: list[tuple[int, int]] = []
        self._links: list[tuple[Match, list[Flow], list[Flow], list[Flow]]] = []
        self._new_matches: list[tuple[Match, int]] = []
        self._lost_matches: list[Match] = []
        self._final = b""
        self._classifier_before: bytes | None = None
        self._cache_mask = b""
        self._needs_l3 = False
        self._needed_l3 = needs_l3(context.maps, bridge_slot)
        self._has_flows = False
        self._dirty = False  # the classifier has been swapped
        self._restored = False

    # Before the commit ------------------------------------------------------------------------------------------

    def stage(
        self,
        gone: list[Flow],
        come: list[Flow],
        chains: dict[Match, Chain],
        moved: list[tuple[int, int]],
        before: list[tuple[Subtable, int]],
        *,
        now_ns: int,
    ) -> None:
        """Prepare everything invisibly; the store holds the outcome already. ``before``: the subtables as they were,
        with their highest priorities.
        """
        self._gone, self._moved = gone, moved
        self._plan_chains(chains, before)
        both = self._plan_outcome(before)
        self._write_flows(come, now_ns)
        self._link()
        for flow in gone:
            _U32.pack_into(self._flows, flow.slot * FLOW.size + REMOVE_AT, self.version)
        self._context.checkpoint("linked")
        self._dirty = True
        classifier.put(self._maps, self._bridge_slot, both)

    def stage_restored(self, before: list[tuple[Subtable, int]]) -> None:
        """The same for flows that are written already, linked in subtables of their own; ``before``: what is live."""
        self._restored = True
        classifier.put(self._maps, self._bridge_slot, self._plan_outcome(before))

    def _plan_outcome(self, before: list[tuple[Subtable, int]]) -> bytes:
        """Work out what the bridge is to be; returns the classifier that serves old and new."""
        after = ranked(self._conn, self._bridge_slot)
        self._classifier_before = classifier.read(self._maps, self._bridge_slot)
        self._final = classifier.image(after, self.version)
        self._cache_mask, self._needs_l3 = cache_mask(self._conn, self._bridge_slot)
        self._has_flows = flowstore.asks_tables(self._conn, self._bridge_slot)
        if self._needs_l3:
            self._set_needs_l3(wanted=True)
        return classifier.image(union(before, after), self.version)

    def _plan_chains(self, chains: dict[Match, Chain], before: list[tuple[Subtable, int]]) -> None:
        masks = {subtable.id: subtable.mask for subtable, _ in before}
        for match, (old, new) in chains.items():
            if not old and len(new) == 1:
                self._new_matches.append((match, new[0].slot))
            elif not new and len(old) == 1:
                self._lost_matches.append(match)
            else:
                was, will = effective(old), effective(new)
                both = merged(was, will)
                if len(both) > 1:
                    classifier.check_chain(both, masks.get(match[0], b""))
                self._links.append((match, was, both, will))

    def _write_flows(self, come: list[Flow], now_ns: int) -> None:
        used = dict.fromkeys((flow.slot for flow in come), now_ns)
        for old, new in self._moved:
            if new in used:
                (used[new],) = struct.unpack_from("<Q", self._flows, old * FLOW.size + USED_AT)
        zero_stats(self._maps, "flow_stats", [flow.slot for flow in come])
        write_flows(self._conn, self._maps, self._bridge_slot, come, self.version, used)

    def _link(self) -> None:
        heads = self._new_matches
        for match, was, both, _ in self._links:
            self._chain_up(both)
            if not was or was[0].slot != both[0].slot:
                heads.append((match, both[0].slot))
        self._set_heads(heads)

    def _set_heads(self, heads: list[tuple[Match, int]]) -> None:
        slots = array("I", [slot for _, slot in heads])
        self._maps["flow_index"].update_batch(
            index_keys(match for match, _ in heads), slots.tobytes(), len(slots)
        )

    def _chain_up(self, chain: list[Flow]) -> None:
        following = NONE
        for flow in reversed(chain):
            _U32.pack_into(self._flows, flow.slot * FLOW.size + NEXT_AT, following)
            following = flow.slot

    def undo(self) -> None:
        """The maps as they were before `stage`, however far it came."""
        for flow in self._gone:
            _U32.pack_into(self._flows, flow.slot * FLOW.size + REMOVE_AT, NEVER)
        kept: dict[Match, int] = {}
        for match, was, _, _ in self._links:
            if was:
                kept[match] = was[0].slot
                self._chain_up(was)
        self._set_heads(list(kept.items()))
        fresh = [match for match, _ in self._new_matches if match not in kept]
        self._maps["flow_index"].delete_batch(index_keys(fresh), len(fresh))
        self._set_needs_l3(wanted=self._needed_l3)
        if not self._dirty:
            return
        if self._classifier_before is None:
            self._maps["classifiers"].delete(self._bridge_slot)
        else:
            classifier.put(self._maps, self._bridge_slot, self._classifier_before)

    # After the commit -------------------------------------------------------------------------------------------

    def publish(self) -> None:
        """Packets see the next version. Whether tables are asked at all lies beside `policy`: it changes while both values
        mean the same, before the last flow goes or after the first one came.
        """
        view = self._maps.mmap("bridges")
        at = self._bridge_slot * _BRIDGE_SIZE + _NONZERO_AT
        had_flows = _U16.unpack_from(view, at)[0] != 0
        if not self._has_flows:
            _U16.pack_into(view, at, 0)
        policy.publish(self._maps, self._bridge_slot, version=self.version, cache_mask=self._cache_mask)
        self._context.checkpoint("published")
        if self._has_flows and not had_flows:
            policy.grace()  # a packet that read the old version must not read that there are flows
            _U16.pack_into(view, at, 1)
            policy.publish(self._maps, self._bridge_slot)  # what was cached between the two is decided again

    def clean(self) -> None:
        """Unlink and forget what went. Its slots may be used again when this returns."""
        index = self._maps["flow_index"]
        policy.grace()
        if not self._needs_l3:
            self._set_needs_l3(wanted=False)
        lost = list(self._lost_matches)
        heads: list[tuple[Match, int]] = []
        for match, _, both, will in self._links:
            if not will:
                lost.append(match)
            elif both != will:
                self._chain_up(will)
                heads.append((match, will[0].slot))
        self._set_heads(heads)
        index.delete_batch(index_keys(lost), len(lost))
        self._context.checkpoint("unlinked")
        if self._gone or self._restored:
            classifier.put(self._maps, self._bridge_slot, self._final)
        fold_carries(self._conn, self._maps, self._bridge_slot)

    def _set_needs_l3(self, *, wanted: bool) -> None:
        set_needs_l3(self._maps, self._bridge_slot, wanted=wanted)


class Publication:
    """A change that leaves flows as they are but not what decisions depend on: groups."""

    def __init__(self, maps: MapSet, conn: sqlite3.Connection, bridge_slot: int) -> None:
        self._maps = maps
        self._bridge_slot = bridge_slot
        self._mask, self._needs_l3 = cache_mask(conn, bridge_slot)
        self._needed_l3 = needs_l3(maps, bridge_slot)

    def prepare(self) -> None:
        """Before the group is visible: from now on every packet is read as far as the new buckets look at it."""
        if self._needs_l3 and not self._needed_l3:
            set_needs_l3(self._maps, self._bridge_slot, wanted=True)
            policy.grace()

    def undo(self) -> None:
        """Take `prepare` back."""
        set_needs_l3(self._maps, self._bridge_slot, wanted=self._needed_l3)

    def publish(self) -> None:
        """What was cached is decided again."""
        policy.publish(self._maps, self._bridge_slot, cache_mask=self._mask)

    def clean(self) -> None:
        if not self._needs_l3:
            policy.grace()
            set_needs_l3(self._maps, self._bridge_slot, wanted=False)


# What a swap and a restore have in common --------------------------------------------------------------------------


def ranked(conn: sqlite3.Connection, bridge_slot: int) -> list[tuple[Subtable, int]]:
    """The bridge's subtables that have flows, with their highest priority as the maps hold it (OpenFlow's + 1)."""
    highest = flowstore.priorities(conn)
    return [(s, highest[s.id] + 1) for s in flowstore.subtables(conn, bridge_slot) if s.id in highest]


def set_needs_l3(maps: MapSet, bridge_slot: int, *, wanted: bool) -> None:
    """Whether packets of the bridge are parsed beyond layer 2 before the cache is asked."""
    view = maps.mmap("bridges")
    at = bridge_slot * _BRIDGE_SIZE + _FLAGS_AT
    flags = _U32.unpack_from(view, at)[0] & ~int(abi.bridge_flag.NEEDS_L3)
    _U32.pack_into(view, at, flags | (abi.bridge_flag.NEEDS_L3 if wanted else 0))


def needs_l3(maps: MapSet, bridge_slot: int) -> bool:
    """Whether they are now."""
    flags = _U32.unpack_from(maps.mmap("bridges"), bridge_slot * _BRIDGE_SIZE + _FLAGS_AT)[0]
    return bool(flags & abi.bridge_flag.NEEDS_L3)


def union(
    one: Iterable[tuple[Subtable, int]], other: Iterable[tuple[Subtable, int]]
) -> list[tuple[Subtable, int]]:
    """All subtables of both, each with the higher priority."""
    found: dict[int, tuple[Subtable, int]] = {}
    for subtable, priority in (*one, *other):
        known = found.get(subtable.id)
        found[subtable.id] = (subtable, max(priority, known[1] if known else 0))
    return list(found.values())


def expired(flow: Flow, maps: MapSet, now_ns: int) -> bool:
    """Whether a timeout of the flow has run out; the datapath judges by the same rule."""
    if flow.hard_s and now_ns >= flow.added_ns + flow.hard_s * NS_PER_S:
        return True
    if not flow.idle_s:
        return False
    (used_ns,) = struct.unpack_from("<Q", maps.mmap("flows"), flow.slot * FLOW.size + USED_AT)
    return bool(now_ns > used_ns + flow.idle_s * NS_PER_S)


def index_keys(matches: Iterable[Match]) -> bytes:
    """Keys of flow_index, concatenated."""
    head = struct.Struct("<II")
    return b"".join([head.pack(subtable, 0) + key.ljust(KEY_SIZE, b"\0") for subtable, key in matches])


def write_flows(
    conn: sqlite3.Connection,
    maps: MapSet,
    bridge_slot: int,
    flows: list[Flow],
    version: int,
    used_ns: dict[int, int],
) -> None:
    """Write struct flow of each, linked to nothing and visible from ``version`` on."""
    tables = {s.id: s.table for s in flowstore.subtables(conn, bridge_slot)}
    lengths = list_lengths(conn, {flow.actions for flow in flows})
    view = maps.mmap("flows")
    pack, size = FLOW.pack_into, FLOW.size
    for flow in flows:
        pack(
            view,
            flow.slot * size,
            flow.priority + 1,
            version,
            NEVER,
            NONE,
            flow.actions,
            lengths[flow.actions],
            tables[flow.subtable],
            flow.idle_s * NS_PER_S,
            flow.added_ns + flow.hard_s * NS_PER_S if flow.hard_s else 0,
            used_ns[flow.slot],
        )


def zero_stats(maps: MapSet, name: str, slots: list[int]) -> None:
    """Counters of these slots begin at zero."""
    maps[name].zero_percpu(slots)


def cache_mask(conn: sqlite3.Connection, bridge_slot: int) -> tuple[bytes, bool]:
    """What a cached decision of the bridge depends on (72 bytes), and whether layers 3 and 4 are part of it."""
    mask = int.from_bytes(policy.base_cache_mask(), "little")
    needs_l3 = False
    for name in ("flow_subtables", "flow_groups"):
        for bits, l3 in conn.execute(
            f"SELECT cache_mask, needs_l3 FROM {name} WHERE bridge_slot = ?", (bridge_slot,)
        ):
            mask |= int.from_bytes(bits, "little")
            needs_l3 = needs_l3 or bool(l3)
    if needs_l3:
        for member in ("nw_proto", "nw_frag", "valid"):
            mask |= 0xFF << 8 * getattr(abi.flow_key, member).offset
    return mask.to_bytes(policy.MASK_SIZE, "little"), needs_l3


def fold_carries(conn: sqlite3.Connection, maps: MapSet, bridge_slot: int) -> None:
    """Add what modified flows counted under their old slots to their rows, and give those slots back."""
    carried = flowstore.carries(conn, bridge_slot)
    if not carried:
        return
    stats = maps["flow_stats"]
    view = maps.mmap("flows")
    rows = []
    for slot, olds in carried.items():
        packets = n_bytes = 0
        for old in olds:
            counted = stats.lookup_percpu_sum(old, "2Q")
            packets += counted[0]
            n_bytes += counted[1]
            used = struct.unpack_from("<Q", view, old * FLOW.size + USED_AT)[0]
            if used > struct.unpack_from("<Q", view, slot * FLOW.size + USED_AT)[0]:
                struct.pack_into("<Q", view, slot * FLOW.size + USED_AT, used)
        rows.append((packets, n_bytes, slot))
    own = not conn.in_transaction
    if own:
        conn.execute("BEGIN IMMEDIATE")
    conn.executemany("UPDATE flows SET packets = packets + ?, bytes = bytes + ? WHERE slot = ?", rows)
    conn.execute("DELETE FROM flow_carries WHERE bridge_slot = ?", (bridge_slot,))
    if own:
        conn.execute("COMMIT")
