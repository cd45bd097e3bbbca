"""What a bridge's groups are and have counted."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyoffload import _abi as abi
from pyoffload.errors import NotFound
from pyoffload.flowstore import GROUP_COLUMNS, NO_GROUP, NS_PER_S, Group

if TYPE_CHECKING:
    from pyoffload.instance import Instance
    from pyoffload.mapset import MapSet
    from pyoffload.store import Store


@dataclass(frozen=True, slots=True)
class BucketInfo:
    """One bucket; None: watches nothing."""

    bucket_id: int
    weight: int
    watch_port: int | None
    watch_group: int | None
    actions: str
    packets: int
    bytes: int


@dataclass(frozen=True, slots=True)
class GroupInfo:
    """One group with its counters; ``flows``: how many flows use it."""

    group_id: int
    type: str
    buckets: tuple[BucketInfo, ...]
    packets: int
    bytes: int
    flows: int
    age_s: float

    def as_dict(self) -> dict[str, Any]:
        buckets = [
            {
                "bucket_id": b.bucket_id,
                "weight": b.weight,
                "watch_port": b.watch_port,
                "watch_group": b.watch_group,
                "actions": b.actions,
                "packets": b.packets,
                "bytes": b.bytes,
            }
            for b in self.buckets
        ]
        return {
            "group_id": self.group_id,
            "type": self.type,
            "buckets": buckets,
            "packets": self.packets,
            "bytes": self.bytes,
            "flows": self.flows,
            "age_s": round(self.age_s, 3),
        }

    def text(self, stats: bool = True) -> str:
        """The line of ovs-ofctl dump-groups; with ``stats`` that of dump-group-stats behind it."""
        words = [f" group_id={self.group_id},type={self.type}"]
        for bucket in self.buckets:
            parts = [f"bucket=bucket_id:{bucket.bucket_id}"]
            if self.type == "select":
                parts.append(f"weight:{bucket.weight}")
            if bucket.watch_port is not None:
                parts.append(f"watch_port:{bucket.watch_port}")
            if bucket.watch_group is not None:
                parts.append(f"watch_group:{bucket.watch_group}")
            words.append(",".join([*parts, f"actions={bucket.actions}"]))
        line = ",".join(words)
        if not stats:
            return line
        from pyoffload.flow.format import format_duration

        counters = [f"group_id={self.group_id},duration={format_duration(self.age_s)}"]
        counters.append(f"ref_count={self.flows},packet_count={self.packets},byte_count={self.bytes}")
        counters += [
            f"bucket{n}:packet_count={bucket.packets},byte_count={bucket.bytes}"
            for n, bucket in enumerate(self.buckets)
        ]
        return f"{line}\n {','.join(counters)}"


def list_groups(instance: Instance, bridge: str) -> list[GroupInfo]:
    """All groups of a bridge, by id."""
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
            return read_groups(store, maps, config.slot)
    finally:
        if maps is not None:
            maps.close()


def show(instance: Instance, bridge: str, group_id: int) -> GroupInfo:
    """One group, or NotFound."""
    for group in list_groups(instance, bridge):
        if group.group_id == group_id:
            return group
    raise NotFound(
        f"group {group_id} does not exist on bridge {bridge}", hint=f"pyoffload group list {bridge}"
    )


def read_groups(store: Store, maps: MapSet | None, bridge_slot: int) -> list[GroupInfo]:
    """Groups from the store with counters from the maps (zero where there are none)."""

    def count(name: str, slot: int) -> tuple[int, int]:
        if maps is None:
            return 0, 0
        packets, n_bytes = maps[name].lookup_percpu_sum(slot, "2Q")
        return packets, n_bytes

    now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    rows = store.rows(
        f"SELECT {GROUP_COLUMNS} FROM flow_groups WHERE bridge_slot = ? ORDER BY group_id", (bridge_slot,)
    )
    groups = [Group(*row) for row in rows]
    ids = {group.slot: group.group_id for group in groups}
    return [
        GroupInfo(
            group.group_id,
            abi.group_type(group.type).name.lower(),
            _buckets(store, group.slot, ids, count),
            *count("group_stats", group.slot),
            count_users(store, "group", group.slot),
            max(now - group.added_ns, 0) / NS_PER_S,
        )
        for group in groups
    ]


def _buckets(
    store: Store, slot: int, ids: dict[int, int], count: Callable[[str, int], tuple[int, int]]
) -> tuple[BucketInfo, ...]:
    rows = store.rows(
        "SELECT bucket_id, weight, watch_port, watch_group, text, place FROM flow_buckets"
        " JOIN action_lists ON first = actions WHERE group_slot = ? ORDER BY place",
        (slot,),
    )
    return tuple(
        BucketInfo(
            bucket_id,
            weight,
            None if port == abi.OFPORT_NONE else port,
            None if watched == NO_GROUP else ids[watched],
            text,
            *count("bucket_stats", place),
        )
        for bucket_id, weight, port, watched, text, place in rows
    )


def count_users(store: Store, kind: str, slot: int) -> int:
    """How many flows use a group or meter."""
    rows = store.rows(
        "SELECT count(*) FROM flows WHERE actions IN (SELECT list FROM action_uses WHERE kind = ? AND used = ?)",
        (kind, slot),
    )
    return int(rows[0][0])
