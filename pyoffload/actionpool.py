"""Action lists: equal lists of micro-operations are kept once in the array `actions`, shared by flows and buckets."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

from pyoffload import _abi as abi
from pyoffload.errors import NotFound, OffloadError, TableFull
from pyoffload.flow.format import format_actions
from pyoffload.slots import Interval, Places

if TYPE_CHECKING:
    import sqlite3

    from pyoffload.flow.ops import FlowActions, Relocation

ACTION_SIZE = 24
_ARG_AT = 4  # offset of `arg` in struct action
_ARG = struct.Struct("<I")
_ALL_AT_ONCE = 256  # so many rows are read faster together
_PAD = bytes(ACTION_SIZE)  # ACTION_DROP: an empty list has one place as well, so that its place names it


class ActionList(NamedTuple):
    ops: bytes
    text: str

    @property
    def places(self) -> int:
        return max(1, len(self.ops) // ACTION_SIZE)


class ActionPool:
    """The action lists as a change sees and extends them. A list is named by its first place in the array."""

    def __init__(self, conn: sqlite3.Connection, bridge: str, slots: Mapping[tuple[str, int], int]) -> None:
        """``slots`` translates ("group" or "meter", OpenFlow id) of the bridge into a slot."""
        self._conn = conn
        self._bridge = bridge
        self._slots = slots
        self._known: dict[tuple[bytes, str], int] = {}
        self._by_object: dict[FlowActions, int] = {}
        self._all_loaded = False
        self._new: dict[int, ActionList] = {}
        self._uses: dict[int, set[tuple[str, int]]] = {}
        self._relocated: dict[tuple[bytes, tuple[Relocation, ...]], bytes] = {}
        self._places: Places | None = None

    def load_all(self) -> None:
        """Read every list: worth it before many are interned."""
        if not self._all_loaded:
            rows = self._conn.execute("SELECT ops, text, first FROM action_lists")
            self._known.update({(ops, text): first for ops, text, first in rows})
            self._all_loaded = True

    def intern(self, actions: FlowActions) -> int:
        """The list's first place; it is stored by `flush`. NotFound for an unknown group or meter."""
        first = self._by_object.get(actions)
        if first is None:
            text = format_actions(actions.steps)
            first = self._by_object[actions] = self.intern_ops(actions.ops, text, actions.relocations)
        return first

    def intern_ops(self, ops: bytes, text: str, relocations: tuple[Relocation, ...] = ()) -> int:
        """The same by content."""
        if relocations:
            ops = self._relocate(ops, relocations)
        first = self._known.get((ops, text))
        if first is None:
            first = self._find(ops, text)
        if first is None:
            first = self._add(ops, text)
            if relocations:
                self._uses[first] = {(r.kind, self._slots[r.kind, r.id]) for r in relocations}
        return first

    def get(self, first: int) -> ActionList:
        """The operations and text of a list."""
        if first in self._new:
            return self._new[first]
        row = self._conn.execute("SELECT ops, text FROM action_lists WHERE first = ?", (first,)).fetchone()
        return ActionList(*row)

    def slot(self, kind: str, number: int) -> int | None:
        """Slot of a group or meter of the bridge."""
        return self._slots.get((kind, number))

    def flush(self, more: Mapping[int, int], actions: memoryview | None) -> None:
        """Write new lists into the array (if there is one) and the store; ``more`` is how many references each gained.

        A list nobody refers to any more is forgotten; its places are free for the next change.
        """
        fresh = {first: content for first, content in self._new.items() if more.get(first)}
        if actions is not None:
            for first, (ops, _) in fresh.items():
                data = ops or _PAD
                actions[first * ACTION_SIZE : first * ACTION_SIZE + len(data)] = data
        self._conn.executemany(
            "INSERT INTO action_lists VALUES (?, ?, ?, ?, ?)",
            ((first, ops, text, _digest(ops, text), more[first]) for first, (ops, text) in fresh.items()),
        )
        changed = [(count, first) for first, count in more.items() if count and first not in self._new]
        self._conn.executemany("UPDATE action_lists SET refs = refs + ? WHERE first = ?", changed)
        gone = [(first,) for count, first in changed if count < 0]
        self._conn.executemany("DELETE FROM action_lists WHERE first = ? AND refs <= 0", gone)
        if self._conn.execute("SELECT 1 FROM action_uses LIMIT 1").fetchone():
            self._conn.executemany(
                "DELETE FROM action_uses WHERE list = ?1 AND NOT EXISTS"
                " (SELECT 1 FROM action_lists WHERE first = ?1)",
                gone,
            )
        self._conn.executemany(
            "INSERT INTO action_uses VALUES (?, ?, ?)",
            [(kind, used, first) for first in fresh for kind, used in self._uses.get(first, ())],
        )
        self._new.clear()

    def _find(self, ops: bytes, text: str) -> int | None:
        if self._all_loaded:
            return None
        row = self._conn.execute(
            "SELECT first FROM action_lists WHERE digest = ? AND ops = ? AND text = ?",
            (_digest(ops, text), ops, text),
        ).fetchone()
        if row is None:
            return None
        self._known[ops, text] = row[0]
        return int(row[0])

    def _add(self, ops: bytes, text: str) -> int:
        if len(ops) > abi.MAX_FLOW_ACTIONS * ACTION_SIZE:
            raise OffloadError(
                f"actions={text[:60]}…: {len(ops) // ACTION_SIZE} operations; one list holds"
                f" {abi.MAX_FLOW_ACTIONS}",
                hint="go on in another table with goto_table or resubmit",
            )
        content = ActionList(ops, text)
        if self._places is None:
            self._places = Places(abi.MAX_ACTIONS, _top(self._conn), lambda: _used(self._conn))
        first = self._places.run(content.places)
        if first is None:
            raise TableFull(
                f"the action table is full: {abi.MAX_ACTIONS} operations in the instance",
                hint="flows with equal actions share them; pyoffload status shows the fill",
            )
        self._known[ops, text] = first
        self._new[first] = content
        return first

    def _relocate(self, ops: bytes, relocations: tuple[Relocation, ...]) -> bytes:
        done = self._relocated.get((ops, relocations))
        if done is not None:
            return done
        patched = bytearray(ops)
        for entry in relocations:
            slot = self._slots.get((entry.kind, entry.id))
            if slot is None:
                word = "group_id" if entry.kind == "group" else "meter"
                raise NotFound(
                    f"{entry.kind} {entry.id} does not exist on bridge {self._bridge}",
                    hint=f"pyoffload {entry.kind} add {self._bridge} '{word}={entry.id},…'",
                )
            _ARG.pack_into(patched, entry.index * ACTION_SIZE + _ARG_AT, slot)
        self._relocated[ops, relocations] = bytes(patched)
        return bytes(patched)


def write_all(conn: sqlite3.Connection, actions: memoryview) -> None:
    """Put every stored list into the array. Where it is there already the bytes are the same: readers see no change."""
    for first, ops in conn.execute("SELECT first, ops FROM action_lists"):
        data = ops or _PAD
        actions[first * ACTION_SIZE : first * ACTION_SIZE + len(data)] = data


def list_lengths(conn: sqlite3.Connection, lists: set[int]) -> dict[int, int]:
    """Number of operations of each list."""
    sql = f"SELECT first, length(ops) / {ACTION_SIZE} FROM action_lists"
    if len(lists) > _ALL_AT_ONCE:
        return dict(conn.execute(sql).fetchall())
    return dict(conn.execute(f"{sql} WHERE first = ?", (first,)).fetchone() for first in lists)


def lists_using(conn: sqlite3.Connection, kind: str, slots: Iterable[int]) -> set[int]:
    """Action lists that use any of these groups or meters."""
    return {
        first
        for slot in slots
        for (first,) in conn.execute("SELECT list FROM action_uses WHERE kind = ? AND used = ?", (kind, slot))
    }


def _digest(ops: bytes, text: str) -> int:
    return crc32(text.encode(), crc32(ops))


def _top(conn: sqlite3.Connection) -> int:
    row = conn.execute("SELECT first, ops FROM action_lists ORDER BY first DESC LIMIT 1").fetchone()
    return row[0] + ActionList(row[1], "").places if row else 0


def _used(conn: sqlite3.Connection) -> list[Interval]:
    return [
        (first, max(1, size // ACTION_SIZE))
        for first, size in conn.execute("SELECT first, length(ops) FROM action_lists")
    ]
