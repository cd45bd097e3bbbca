"""The tuple-space classifier as the datapath reads it.

classifiers[bridge] is an array: one header per table (where its subtables begin, how many), then the subtables, in each
table by falling highest priority. flow_index leads from (subtable, masked key) to the first of a chain of flows
with that match. A chain holds, by falling priority, only flows that a packet can come to: behind a flow without
timeouts none is. During a change a chain holds what either version of the tables needs.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from pyoffload import _abi as abi
from pyoffload.errors import TableFull

if TYPE_CHECKING:
    from pyoffload.flowstore import Flow, Subtable
    from pyoffload.kernel import Map
    from pyoffload.mapset import MapSet

KEY_SIZE = 8 * abi.FLOW_KEY_WORDS
SUBTABLE = struct.Struct(f"<{KEY_SIZE}sIIIIQ")
_MAP_GET_FD_BY_ID = 14  # include/uapi/linux/bpf.h, enum bpf_cmd


def effective(flows: Iterable[Flow]) -> list[Flow]:
    """Of flows with equal match those that a packet can come to, by falling priority."""
    chain: list[Flow] = []
    for flow in sorted(flows, key=_falling):
        chain.append(flow)
        if not (flow.idle_s or flow.hard_s):
            break
    return chain


def merged(old: Sequence[Flow], new: Sequence[Flow]) -> list[Flow]:
    """One chain that is right for the readers of both versions: of equal priority the new one comes first."""
    slots = {flow.slot for flow in old}
    fresh = [flow for flow in new if flow.slot not in slots]
    return sorted([*fresh, *old], key=_falling)  # stable: fresh ones stay in front


def _falling(flow: Flow) -> int:
    return -flow.priority


def check_chain(chain: Sequence[Flow], mask: bytes) -> None:
    """The datapath looks at MAX_FLOW_CHAIN flows of a chain, old and new ones."""
    if len(chain) > abi.MAX_FLOW_CHAIN:
        from pyoffload.flow.format import format_match

        match = format_match(chain[0].key.ljust(KEY_SIZE, b"\0"), mask.ljust(KEY_SIZE, b"\0"))
        raise TableFull(
            f"match '{match}': {len(chain)} flows with timeouts wait behind each other;"
            f" {abi.MAX_FLOW_CHAIN} can (during a change old and new ones)",
            hint="flows of equal match differ by priority only; delete some first",
        )


def check_masks(subtables: Iterable[Subtable], bridge: str) -> None:
    """Each distinct mask of a table costs a look-up."""
    counts: dict[int, int] = {}
    for subtable in subtables:
        counts[subtable.table] = counts.get(subtable.table, 0) + 1
    for table, count in counts.items():
        if count > abi.MAX_SUBTABLES:
            raise TableFull(
                f"bridge {bridge}, table {table}: {count} different masks; a table holds {abi.MAX_SUBTABLES}",
                hint="spread the flows over several tables with goto_table, or use fewer prefix lengths",
            )


def image(ranked: Iterable[tuple[Subtable, int]], version: int) -> bytes:
    """The elements of a classifier, sizeof(struct subtable) bytes each; a subtable comes with its highest priority."""
    by_table: list[list[tuple[int, int, bytes]]] = [[] for _ in range(abi.MAX_TABLES)]
    for subtable, priority in ranked:
        by_table[subtable.table].append((-priority, subtable.id, subtable.mask))
    headers = bytearray()
    body = bytearray()
    first = abi.MAX_TABLES
    for table, members in enumerate(by_table):
        headers += SUBTABLE.pack(b"", 0, 0, first, len(members), 0 if table else version)
        for falling, number, mask in sorted(members):
            body += SUBTABLE.pack(mask, number, -falling, 0, 0, 0)
        first += len(members)
    return bytes(headers + body)


def put(maps: MapSet, bridge_slot: int, elements: bytes) -> None:
    """Swap the bridge's classifier. Returns when no packet uses the old one any more (the kernel waits for RCU)."""
    from pyoffload.kernel import Map, MapType
    from pyoffload.kernel.map import F_INNER_MAP

    count = len(elements) // SUBTABLE.size
    with Map.create(MapType.ARRAY, 4, SUBTABLE.size, count, flags=F_INNER_MAP, name="classifier") as inner:
        inner.update_batch(struct.pack(f"<{count}I", *range(count)), elements, count)
        maps["classifiers"].update_fd(bridge_slot, inner.fd)


def read(maps: MapSet, bridge_slot: int) -> bytes | None:
    """The elements of the classifier in force, or None when the bridge never had one."""
    raw = maps["classifiers"].lookup(bridge_slot)
    if raw is None:
        return None
    with _by_id(int.from_bytes(raw, "little")) as inner:
        return inner.lookup_batch()[1]


def subtable_ids(elements: bytes) -> set[int]:
    """Ids of the subtables in a classifier."""
    found = set()
    for at in range(abi.MAX_TABLES * SUBTABLE.size, len(elements), SUBTABLE.size):
        found.add(SUBTABLE.unpack_from(elements, at)[1])
    return found


def _by_id(map_id: int) -> Map:
    from pyoffload.kernel import Map
    from pyoffload.kernel.syscall import bpf, error

    fd = bpf(_MAP_GET_FD_BY_ID, struct.pack("<III", map_id, 0, 0))
    if fd < 0:
        raise error(-fd, f"opening map {map_id}")
    return Map(fd)
