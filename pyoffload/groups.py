"""Groups of a bridge: all, select, indirect, fast_failover (OpenFlow 1.3, 5.6 and 6.5).

A group's buckets are written to free places; one 8-byte store of groups[slot] then makes them those in force.
"""

from __future__ import annotations

import struct
import time
from collections import Counter
from ctypes import c_uint64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyoffload import _abi as abi, flowstore, policy
from pyoffload.actionpool import list_lengths, lists_using
from pyoffload.errors import AlreadyExists, NotFound, OffloadError, TableFull
from pyoffload.flowstore import GROUP_COLUMNS, NO_GROUP, Bucket, Group
from pyoffload.flowswap import Publication, zero_stats
from pyoffload.flowtable import BridgeTables
from pyoffload.groupinfo import BucketInfo, GroupInfo, list_groups, show
from pyoffload.slots import Places

if TYPE_CHECKING:
    import sqlite3

    from pyoffload.flow.groups_syntax import GroupSpec
    from pyoffload.instance import Instance
    from pyoffload.mapset import MapSet

__all__ = [
    "BucketInfo", "GroupChange", "GroupInfo", "Groups", "add", "delete", "list_groups", "modify", "show", "write_groups",
]  # fmt: skip

GROUP_SIZE = 8
BUCKET = struct.Struct("<IHHHHI")
_WEIGHT_SUM = 65535  # weight_end of the last bucket


@dataclass(frozen=True, slots=True)
class GroupChange:
    """What a verb did. ``flows_removed``: flows that used a deleted group go with it, as OpenFlow says."""

    groups: int
    flows_removed: int = 0
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return {"groups": self.groups, "flows_removed": self.flows_removed, "warnings": list(self.warnings)}


def add(instance: Instance, bridge: str, text: str) -> GroupChange:
    """Add a group, written as for ovs-ofctl add-group. AlreadyExists if its id is taken."""
    return _put(instance, bridge, text, "group add")


def modify(instance: Instance, bridge: str, text: str) -> GroupChange:
    """Give a group another type and other buckets; its counters go on, its buckets' begin anew."""
    return _put(instance, bridge, text, "group mod")


def delete(instance: Instance, bridge: str, group_id: int | None) -> GroupChange:
    """Delete a group, or all of them, with the flows that use them. Refused while another group uses it."""
    from pyoffload.change import change as begin

    with begin(instance, "group del") as change:
        return Groups(BridgeTables(change, bridge)).delete(group_id)


def _put(instance: Instance, bridge: str, text: str, verb: str) -> GroupChange:
    from pyoffload.change import change as begin
    from pyoffload.flow.groups_syntax import parse_group

    with begin(instance, verb) as change:
        tables = BridgeTables(change, bridge)
        spec = parse_group(text, tables.names)
        return Groups(tables).put(spec, text, exists=verb == "group mod")


class Groups:
    """A bridge's groups inside a change."""

    def __init__(self, tables: BridgeTables) -> None:
        self._tables = tables
        self._change = tables.change
        self._conn = tables.change.conn

    def put(self, spec: GroupSpec, text: str, *, exists: bool) -> GroupChange:
        """Add the group, or change the one that ``exists``."""
        old = self._find(spec.group_id)
        bridge = self._tables.config.name
        if exists and old is None:
            raise NotFound(
                f"group {spec.group_id} does not exist on bridge {bridge}",
                hint=f"pyoffload group list {bridge}",
            )
        if not exists and old is not None:
            raise AlreadyExists(
                f"group {spec.group_id} exists on bridge {bridge} already",
                hint="pyoffload group mod changes it",
            )
        _check(spec)
        slot = self._free_slot() if old is None else old.slot
        buckets = self._buckets(spec, slot)
        mask, needs_l3 = _cache_needs(spec)
        group = Group(
            slot,
            self._tables.slot,
            spec.group_id,
            int(spec.type),
            text,
            buckets[0].place if buckets else 0,
            len(buckets),
            mask,
            int(needs_l3),
            self._tables.now_ns if old is None else old.added_ns,
        )
        self._store(group, buckets, old)
        self._check_loops(slot, spec.group_id)
        if self._change.live:
            self._stage(group, buckets, fresh=old is None)
        return GroupChange(1)

    def delete(self, group_id: int | None) -> GroupChange:
        """Delete one, or all of the bridge."""
        rows = self._conn.execute(
            f"SELECT {GROUP_COLUMNS} FROM flow_groups WHERE bridge_slot = ?1 AND (?2 IS NULL OR group_id = ?2)",
            (self._tables.slot, group_id),
        )
        groups = [Group(*row) for row in rows]
        if not groups:
            if group_id is not None:
                bridge = self._tables.config.name
                raise NotFound(
                    f"group {group_id} does not exist on bridge {bridge}",
                    hint=f"pyoffload group list {bridge}",
                )
            self._change.changed = False
            return GroupChange(0)
        gone = {group.slot for group in groups}
        self._check_unused(gone)
        users = lists_using(self._conn, "group", gone)
        edit = self._tables.edit
        flows = [f for s in list(edit.subtables.values()) for f in edit.after(s) if f.actions in users]
        edit.remove(flows)
        self._forget(gone)
        staged = self._tables.stage()
        if self._change.live:
            if not any(staged):
                self._carry_out(self._publication())
            self._change.on_applied(lambda: self._clear(gone))
        return GroupChange(len(groups), len(flows))

    # Rows -------------------------------------------------------------------------------------------------------

    def _find(self, group_id: int) -> Group | None:
        row = self._conn.execute(
            f"SELECT {GROUP_COLUMNS} FROM flow_groups WHERE bridge_slot = ? AND group_id = ?",
            (self._tables.slot, group_id),
        ).fetchone()
        return Group(*row) if row else None

    def _free_slot(self) -> int:
        rows = self._conn.execute("SELECT slot FROM flow_groups").fetchall()
        slot = Places(
            abi.MAX_GROUPS, 1 + max((s for (s,) in rows), default=-1), lambda: [(s, 1) for (s,) in rows]
        )
        free = slot.run(1)
        if free is None:
            raise TableFull(
                f"the instance has {abi.MAX_GROUPS} groups already", hint="delete one that is not needed"
            )
        return free

    def _buckets(self, spec: GroupSpec, slot: int) -> list[Bucket]:
        rows = self._conn.execute("SELECT place FROM flow_buckets").fetchall()
        places = Places(
            abi.MAX_BUCKETS,
            1 + max((place for (place,) in rows), default=-1),
            lambda: [(p, 1) for (p,) in rows],
        )
        first = places.run(len(spec.buckets))
        if first is None:
            raise TableFull(f"the instance has no room for {len(spec.buckets)} buckets of {abi.MAX_BUCKETS}")
        ends = weight_ends([bucket.weight for bucket in spec.buckets])
        return [
            Bucket(
                first + n,
                slot,
                bucket.bucket_id,
                self._tables.pool.intern(bucket.actions),
                bucket.weight,
                ends[n],
                abi.OFPORT_NONE if bucket.watch_port is None else bucket.watch_port,
                NO_GROUP if bucket.watch_group is None else self._slot_of(bucket.watch_group),
            )
            for n, bucket in enumerate(spec.buckets)
        ]

    def _slot_of(self, group_id: int) -> int:
        slot = self._tables.pool.slot("group", group_id)
        if slot is None:
            raise NotFound(
                f"watch_group: group {group_id} does not exist on bridge {self._tables.config.name}"
            )
        return slot

    def _store(self, group: Group, buckets: list[Bucket], old: Group | None) -> None:
        more = Counter(bucket.actions for bucket in buckets)
        if old is not None:
            more.subtract(self._lists({old.slot}))
            self._conn.execute("DELETE FROM flow_buckets WHERE group_slot = ?", (old.slot,))
        self._tables.pool.flush(more, self._change.maps.mmap("actions") if self._change.live else None)
        self._conn.execute(
            f"INSERT OR REPLACE INTO flow_groups VALUES ({', '.join('?' * len(group))})", group
        )
        self._conn.executemany("INSERT INTO flow_buckets VALUES (?, ?, ?, ?, ?, ?, ?, ?)", buckets)
        if flowstore.clock(self._conn, self._tables.slot) is None:
            flowstore.note_clock(self._conn, self._tables.slot, time.time_ns() - self._tables.now_ns)

    def _lists(self, slots: set[int]) -> Counter[int]:
        return Counter(
            actions
            for slot in slots
            for (actions,) in self._conn.execute(
                "SELECT actions FROM flow_buckets WHERE group_slot = ?", (slot,)
            )
        )

    def _forget(self, slots: set[int]) -> None:
        less = self._lists(slots)
        for slot in slots:
            self._conn.execute("DELETE FROM flow_buckets WHERE group_slot = ?", (slot,))
            self._conn.execute("DELETE FROM flow_groups WHERE slot = ?", (slot,))
        self._tables.pool.flush({first: -count for first, count in less.items()}, None)

    # Rules ------------------------------------------------------------------------------------------------------

    def _uses(self, slot: int) -> set[int]:
        """Groups that a group's buckets send packets to."""
        return {
            used
            for (used,) in self._conn.execute(
                "SELECT used FROM action_uses WHERE kind = 'group' AND list IN"
                " (SELECT actions FROM flow_buckets WHERE group_slot = ?)"
                " UNION SELECT watch_group FROM flow_buckets WHERE group_slot = ? AND watch_group != ?",
                (slot, slot, NO_GROUP),
            )
        }

    def _check_loops(self, slot: int, group_id: int) -> None:
        seen: set[int] = set()
        ahead = self._uses(slot)
        while ahead:
            following = ahead.pop()
            if following == slot:
                raise OffloadError(
                    f"group {group_id} would lead back to itself",
                    hint="groups may follow each other, not in a circle",
                )
            if following not in seen:
                seen.add(following)
                ahead |= self._uses(following)

    def _check_unused(self, gone: set[int]) -> None:
        for slot, group_id in self._conn.execute(
            "SELECT slot, group_id FROM flow_groups WHERE bridge_slot = ?", (self._tables.slot,)
        ).fetchall():
            if slot not in gone and self._uses(slot) & gone:
                raise OffloadError(
                    f"group {group_id} uses a group that is to be deleted",
                    hint=f"delete or change {group_id} first",
                )

    # Maps -------------------------------------------------------------------------------------------------------

    def _stage(self, group: Group, buckets: list[Bucket], *, fresh: bool) -> None:
        maps = self._change.maps
        if fresh:
            zero_stats(maps, "group_stats", [group.slot])
        zero_stats(maps, "bucket_stats", [bucket.place for bucket in buckets])
        _write_buckets(self._conn, maps, buckets)
        self._change.checkpoint("buckets")
        publication = self._publication()
        publication.prepare()
        self._change.undo(publication.undo)
        self._change.on_visible(lambda: _write_group(maps, group))
        self._carry_out(publication)
        self._change.on_applied(policy.grace)  # the old buckets' places may be used again

    def _publication(self) -> Publication:
        return Publication(self._change.maps, self._conn, self._tables.slot)

    def _carry_out(self, publication: Publication) -> None:
        self._change.on_visible(publication.publish)
        self._change.on_applied(publication.clean)

    def _clear(self, slots: set[int]) -> None:
        view = self._change.maps.mmap("groups")
        for slot in slots:
            c_uint64.from_buffer(view, slot * GROUP_SIZE).value = 0


def weight_ends(weights: list[int]) -> list[int]:
    """Where each bucket's share of 65535 ends; a bucket of weight 0 has no share."""
    total, so_far, ends = sum(weights), 0, []
    for weight in weights:
        so_far += weight
        ends.append(so_far * _WEIGHT_SUM // total if total else 0)
    return ends


def _check(spec: GroupSpec) -> None:
    count = len(spec.buckets)
    if spec.type == abi.group_type.INDIRECT and count != 1:
        raise OffloadError(f"group {spec.group_id}: type indirect has one bucket, not {count}")
    if count > abi.MAX_GROUP_BUCKETS:
        raise TableFull(
            f"group {spec.group_id}: {count} buckets; a group holds {abi.MAX_GROUP_BUCKETS}",
            hint="a bucket may send packets to another group",
        )
    if spec.type == abi.group_type.FAST_FAILOVER:
        for bucket in spec.buckets:
            if bucket.watch_port is None and bucket.watch_group is None:
                raise OffloadError(
                    f"group {spec.group_id}: a bucket of type fast_failover watches nothing",
                    hint="give it watch_port:PORT or watch_group:GROUP",
                )


def _cache_needs(spec: GroupSpec) -> tuple[bytes, bool]:
    from pyoffload.flow.ops import cache_bytes, select_group_cache_mask

    reads = 0
    needs_l3 = False
    for bucket in spec.buckets:
        reads |= bucket.actions.reads
        needs_l3 = needs_l3 or bucket.actions.needs_l3
    if spec.type == abi.group_type.SELECT:
        return (int.from_bytes(select_group_cache_mask(), "little") | reads).to_bytes(
            policy.MASK_SIZE, "little"
        ), True
    return cache_bytes(reads), needs_l3


def _write_buckets(conn: sqlite3.Connection, maps: MapSet, buckets: list[Bucket]) -> None:
    lengths = list_lengths(conn, {bucket.actions for bucket in buckets})
    view = maps.mmap("buckets")
    for bucket in buckets:
        BUCKET.pack_into(
            view,
            bucket.place * BUCKET.size,
            bucket.actions,
            lengths[bucket.actions],
            bucket.weight_end,
            bucket.watch_port,
            0,
            bucket.watch_group,
        )


def _write_group(maps: MapSet, group: Group) -> None:
    value = struct.pack("<IHH", group.first_bucket, group.n_buckets, group.type)
    c_uint64.from_buffer(maps.mmap("groups"), group.slot * GROUP_SIZE).value = int.from_bytes(value, "little")


def write_groups(conn: sqlite3.Connection, maps: MapSet, bridge_slot: int) -> None:
    """All groups of the bridge as the store has them. What is there already is written with the same bytes."""
    buckets = [
        Bucket(*row)
        for row in conn.execute(
            "SELECT b.* FROM flow_buckets b JOIN flow_groups g ON g.slot = b.group_slot WHERE g.bridge_slot = ?",
            (bridge_slot,),
        )
    ]
    _write_buckets(conn, maps, buckets)
    for row in conn.execute(f"SELECT {GROUP_COLUMNS} FROM flow_groups WHERE bridge_slot = ?", (bridge_slot,)):
        _write_group(maps, Group(*row))
