"""Flows, action lists, groups and meters as rows of the configuration store.

The store says what should run; slots of the kernel's arrays are part of it, so that a command finds what another one
wrote without reading the arrays. Keys and masks are struct flow_key without trailing zero bytes. Every function
works inside the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from pyoffload import _abi as abi

if TYPE_CHECKING:
    import sqlite3

NS_PER_S = 1_000_000_000

SCHEMA = (
    # When the bridge's times were taken: CLOCK_MONOTONIC begins anew at every boot.
    """CREATE TABLE flow_clocks (
        bridge_slot INTEGER PRIMARY KEY,
        boot_id TEXT NOT NULL,
        wall_offset_ns INTEGER NOT NULL
    )""",
    # Bridges whose table 0 is empty because its last flow timed out: what nothing matches goes on being dropped.
    "CREATE TABLE flow_closed (bridge_slot INTEGER PRIMARY KEY)",
    """CREATE TABLE flow_subtables (
        id INTEGER PRIMARY KEY,
        bridge_slot INTEGER NOT NULL,
        tbl INTEGER NOT NULL,
        mask BLOB NOT NULL,
        cache_mask BLOB NOT NULL,
        needs_l3 INTEGER NOT NULL,
        UNIQUE (bridge_slot, tbl, mask)
    )""",
    """CREATE TABLE flows (
        slot INTEGER PRIMARY KEY,
        bridge_slot INTEGER NOT NULL,
        subtable INTEGER NOT NULL,
        priority INTEGER NOT NULL,
        key BLOB NOT NULL,
        cookie INTEGER NOT NULL,
        idle_s INTEGER NOT NULL,
        hard_s INTEGER NOT NULL,
        flags TEXT NOT NULL,
        actions INTEGER NOT NULL,
        added_ns INTEGER NOT NULL,
        packets INTEGER NOT NULL,
        bytes INTEGER NOT NULL
    )""",
    "CREATE UNIQUE INDEX flows_match ON flows (subtable, key, priority)",
    "CREATE INDEX flows_timed ON flows (bridge_slot) WHERE idle_s OR hard_s",
    # A modified flow has a new slot; until its old one is folded into packets and bytes, both count for it.
    """CREATE TABLE flow_carries (
        old_slot INTEGER PRIMARY KEY,
        slot INTEGER NOT NULL,
        bridge_slot INTEGER NOT NULL
    )""",
    """CREATE TABLE action_lists (
        first INTEGER PRIMARY KEY,
        ops BLOB NOT NULL,
        text TEXT NOT NULL,
        digest INTEGER NOT NULL,
        refs INTEGER NOT NULL
    )""",
    "CREATE INDEX action_lists_digest ON action_lists (digest)",
    # Which groups and meters (by slot) an action list uses.
    """CREATE TABLE action_uses (
        kind TEXT NOT NULL,
        used INTEGER NOT NULL,
        list INTEGER NOT NULL,
        PRIMARY KEY (kind, used, list)
    ) WITHOUT ROWID""",
    """CREATE TABLE flow_groups (
        slot INTEGER PRIMARY KEY,
        bridge_slot INTEGER NOT NULL,
        group_id INTEGER NOT NULL,
        type INTEGER NOT NULL,
        text TEXT NOT NULL,
        first_bucket INTEGER NOT NULL,
        n_buckets INTEGER NOT NULL,
        cache_mask BLOB NOT NULL,
        needs_l3 INTEGER NOT NULL,
        added_ns INTEGER NOT NULL,
        UNIQUE (bridge_slot, group_id)
    )""",
    """CREATE TABLE flow_buckets (
        place INTEGER PRIMARY KEY,
        group_slot INTEGER NOT NULL,
        bucket_id INTEGER NOT NULL,
        actions INTEGER NOT NULL,
        weight INTEGER NOT NULL,
        weight_end INTEGER NOT NULL,
        watch_port INTEGER NOT NULL,
        watch_group INTEGER NOT NULL
    )""",
    """CREATE TABLE flow_meters (
        slot INTEGER PRIMARY KEY,
        bridge_slot INTEGER NOT NULL,
        meter_id INTEGER NOT NULL,
        per_packet INTEGER NOT NULL,
        rate INTEGER NOT NULL,
        burst INTEGER NOT NULL,
        text TEXT NOT NULL,
        added_ns INTEGER NOT NULL,
        UNIQUE (bridge_slot, meter_id)
    )""",
)


class Flow(NamedTuple):
    """One flow: a row of `flows`, in the columns' order. ``key`` without trailing zeros; ``actions`` names the list;
    ``packets`` and ``bytes`` are what it counted under slots it no longer has.
    """

    slot: int
    bridge_slot: int
    subtable: int
    priority: int
    key: bytes
    cookie: int
    idle_s: int
    hard_s: int
    flags: str
    actions: int
    added_ns: int
    packets: int
    bytes: int

    @property
    def timed(self) -> bool:
        return bool(self.idle_s or self.hard_s)


class Subtable(NamedTuple):
    """One distinct mask of one flow table."""

    id: int
    bridge_slot: int
    table: int
    mask: bytes
    cache_mask: bytes
    needs_l3: bool


class Group(NamedTuple):
    """A row of flow_groups."""

    slot: int
    bridge_slot: int
    group_id: int
    type: int
    text: str
    first_bucket: int
    n_buckets: int
    cache_mask: bytes
    needs_l3: int
    added_ns: int


class Bucket(NamedTuple):
    """A row of flow_buckets; ``watch_group`` is a slot."""

    place: int
    group_slot: int
    bucket_id: int
    actions: int
    weight: int
    weight_end: int
    watch_port: int
    watch_group: int


NO_GROUP = 0xFFFFFFFF  # Bucket.watch_group: watches none
GROUP_COLUMNS = ", ".join(Group._fields)
FLOW_COLUMNS = ", ".join(Flow._fields)
_INSERT_FLOW = f"INSERT INTO flows VALUES ({', '.join('?' * len(Flow._fields))})"


def flowtable_schema(conn: sqlite3.Connection) -> None:
    """Create this module's tables in an empty store."""
    for statement in SCHEMA:
        conn.execute(statement)


def signed(value: int) -> int:
    """A 64-bit cookie as SQLite holds integers."""
    return value - (1 << 64) if value >> 63 else value


def unsigned(value: int) -> int:
    return value & 0xFFFFFFFFFFFFFFFF


def boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


# Subtables ------------------------------------------------------------------------------------------------------


def subtables(conn: sqlite3.Connection, bridge_slot: int) -> list[Subtable]:
    rows = conn.execute(
        "SELECT id, bridge_slot, tbl, mask, cache_mask, needs_l3 FROM flow_subtables WHERE bridge_slot = ?",
        (bridge_slot,),
    )
    return [Subtable(*row)._replace(needs_l3=bool(row[5])) for row in rows]


def put_subtables(conn: sqlite3.Connection, rows: Iterable[Subtable]) -> None:
    """Add them, or widen the ones that exist."""
    conn.executemany(
        "INSERT INTO flow_subtables VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET"
        " cache_mask = excluded.cache_mask, needs_l3 = excluded.needs_l3",
        rows,
    )


def delete_empty_subtables(conn: sqlite3.Connection, bridge_slot: int) -> None:
    conn.execute(
        "DELETE FROM flow_subtables WHERE bridge_slot = ?"
        " AND NOT EXISTS (SELECT 1 FROM flows WHERE subtable = flow_subtables.id)",
        (bridge_slot,),
    )


def top_subtable(conn: sqlite3.Connection) -> int:
    """Highest id in use."""
    return int(conn.execute("SELECT max(id) FROM flow_subtables").fetchone()[0] or 0)


def priorities(conn: sqlite3.Connection) -> dict[int, int]:
    """Highest priority by subtable, of all bridges. Reads the index only."""
    return dict(conn.execute("SELECT subtable, max(priority) FROM flows GROUP BY subtable").fetchall())


# Flows ----------------------------------------------------------------------------------------------------------


def flows(conn: sqlite3.Connection, bridge_slot: int) -> list[Flow]:
    """All flows of the bridge, in no order."""
    rows = conn.execute(f"SELECT {FLOW_COLUMNS} FROM flows WHERE bridge_slot = ?", (bridge_slot,)).fetchall()
    return list(map(Flow._make, rows))


def flows_of_match(conn: sqlite3.Connection, subtable: int, key: bytes) -> list[Flow]:
    """Flows with that match, whatever their priority."""
    rows = conn.execute(f"SELECT {FLOW_COLUMNS} FROM flows WHERE subtable = ? AND key = ?", (subtable, key))
    return list(map(Flow._make, rows))


def flows_of_subtables(conn: sqlite3.Connection, ids: Sequence[int]) -> list[Flow]:
    found: list[Flow] = []
    for subtable in ids:
        rows = conn.execute(f"SELECT {FLOW_COLUMNS} FROM flows WHERE subtable = ?", (subtable,))
        found += map(Flow._make, rows)
    return found


def timed_flows(conn: sqlite3.Connection, bridge_slot: int) -> list[Flow]:
    """Flows of the bridge that have a timeout."""
    rows = conn.execute(
        f"SELECT {FLOW_COLUMNS} FROM flows WHERE bridge_slot = ? AND (idle_s OR hard_s)", (bridge_slot,)
    )
    return list(map(Flow._make, rows))


def count_flows(conn: sqlite3.Connection, bridge_slot: int, *, table: int | None = None) -> int:
    """The admin's flows of a bridge, or of one of its tables; the built-in flow (priority -1) does not count."""
    row = conn.execute(
        "SELECT count(*) FROM flows WHERE priority >= 0 AND subtable IN"
        " (SELECT id FROM flow_subtables WHERE bridge_slot = ?1 AND (?2 IS NULL OR tbl = ?2))",
        (bridge_slot, table),
    ).fetchone()
    return int(row[0])


def is_closed(conn: sqlite3.Connection, bridge_slot: int) -> bool:
    """Whether the bridge's table 0 drops although it is empty."""
    return (
        conn.execute("SELECT 1 FROM flow_closed WHERE bridge_slot = ?", (bridge_slot,)).fetchone() is not None
    )


def set_closed(conn: sqlite3.Connection, bridge_slot: int, *, closed: bool) -> None:
    if closed:
        conn.execute("INSERT OR IGNORE INTO flow_closed VALUES (?)", (bridge_slot,))
    else:
        conn.execute("DELETE FROM flow_closed WHERE bridge_slot = ?", (bridge_slot,))


def asks_tables(conn: sqlite3.Connection, bridge_slot: int) -> bool:
    """bridges[].n_flows_nonzero: whether packets go through the flow tables, or are switched without them."""
    return count_flows(conn, bridge_slot, table=0) > 0 or is_closed(conn, bridge_slot)


def insert_flows(conn: sqlite3.Connection, rows: Iterable[Flow]) -> None:
    conn.executemany(_INSERT_FLOW, map(tuple, rows))  # sqlite3 reads plain tuples faster


def delete_flows(conn: sqlite3.Connection, bridge_slot: int, slots: Sequence[int]) -> None:
    """These flows of the bridge."""
    if len(slots) > 1024:
        (count,) = conn.execute("SELECT count(*) FROM flows WHERE bridge_slot = ?", (bridge_slot,)).fetchone()
        if count == len(slots):
            conn.execute("DELETE FROM flows WHERE bridge_slot = ?", (bridge_slot,))
            return
    conn.executemany("DELETE FROM flows WHERE slot = ?", ((slot,) for slot in slots))


def flow_slots(conn: sqlite3.Connection) -> list[int]:
    """Slots that flows hold, or held before they were modified."""
    rows = conn.execute("SELECT slot FROM flows UNION ALL SELECT old_slot FROM flow_carries")
    return [slot for (slot,) in rows]


def top_flow_slot(conn: sqlite3.Connection) -> int:
    """One above the highest flow slot in use."""
    tops = conn.execute(
        "SELECT max(slot) FROM flows UNION ALL SELECT max(old_slot) FROM flow_carries"
    ).fetchall()
    return 1 + max((slot for (slot,) in tops if slot is not None), default=-1)


def carries(conn: sqlite3.Connection, bridge_slot: int) -> dict[int, list[int]]:
    """Slot -> slots it had before and whose counters are not yet added to the row."""
    found: dict[int, list[int]] = {}
    for old, slot in conn.execute(
        "SELECT old_slot, slot FROM flow_carries WHERE bridge_slot = ?", (bridge_slot,)
    ):
        found.setdefault(slot, []).append(old)
    return found


# Clocks ---------------------------------------------------------------------------------------------------------


def note_clock(conn: sqlite3.Connection, bridge_slot: int, wall_offset_ns: int) -> None:
    """Times of the bridge's rows are CLOCK_MONOTONIC of this boot; the offset gives the time of day."""
    conn.execute(
        "INSERT OR REPLACE INTO flow_clocks VALUES (?, ?, ?)", (bridge_slot, boot_id(), wall_offset_ns)
    )


def clock(conn: sqlite3.Connection, bridge_slot: int) -> tuple[str, int] | None:
    """(boot id, time of day - monotonic time in ns) under which the bridge's times were taken."""
    row = conn.execute(
        "SELECT boot_id, wall_offset_ns FROM flow_clocks WHERE bridge_slot = ?", (bridge_slot,)
    ).fetchone()
    return (row[0], row[1]) if row else None


# The whole bridge -------------------------------------------------------------------------------------------------


def delete_bridge(conn: sqlite3.Connection, bridge_slot: int) -> None:
    """Every row of the bridge, and the action lists that only it used."""
    conn.execute(
        "DELETE FROM flow_buckets WHERE group_slot IN (SELECT slot FROM flow_groups WHERE bridge_slot = ?)",
        (bridge_slot,),
    )
    for table in (
        "flows", "flow_subtables", "flow_carries", "flow_groups", "flow_meters", "flow_clocks", "flow_closed",
    ):  # fmt: skip
        conn.execute(f"DELETE FROM {table} WHERE bridge_slot = ?", (bridge_slot,))
    count_references(conn)


def count_references(conn: sqlite3.Connection) -> None:
    """Count anew who refers to which action list, and forget the lists that nobody does."""
    conn.execute(
        "CREATE TEMP TABLE counted AS SELECT actions, count(*) AS n FROM"
        " (SELECT actions FROM flows UNION ALL SELECT actions FROM flow_buckets) GROUP BY actions"
    )
    conn.execute("DELETE FROM action_lists WHERE first NOT IN (SELECT actions FROM counted)")
    conn.execute("UPDATE action_lists SET refs = (SELECT n FROM counted WHERE actions = first)")
    conn.execute("DROP TABLE counted")
    conn.execute("DELETE FROM action_uses WHERE list NOT IN (SELECT first FROM action_lists)")


def usage(conn: sqlite3.Connection) -> dict[str, tuple[int, int]]:
    """What is in use of the arrays, and their capacity."""

    def one(sql: str) -> int:
        return int(conn.execute(sql).fetchone()[0] or 0)

    return {
        "flows": (one("SELECT count(*) FROM flows"), abi.MAX_FLOWS),
        "actions": (one("SELECT sum(max(length(ops) / 24, 1)) FROM action_lists"), abi.MAX_ACTIONS),
        "groups": (one("SELECT count(*) FROM flow_groups"), abi.MAX_GROUPS),
        "buckets": (one("SELECT count(*) FROM flow_buckets"), abi.MAX_BUCKETS),
        "meters": (one("SELECT count(*) FROM flow_meters"), abi.MAX_METERS),
    }
