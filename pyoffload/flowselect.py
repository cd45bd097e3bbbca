"""Which flows a match means, in mod, del and dump (OpenFlow 1.0 section 4.6, ovs-ofctl(8))."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyoffload import _abi as abi, flowstore
from pyoffload.actionpool import ACTION_SIZE
from pyoffload.flow.format import DEFAULT_PRIORITY
from pyoffload.flowstore import Flow

if TYPE_CHECKING:
    from pyoffload.flow.spec import FlowFilter
    from pyoffload.flowedit import FlowEdit


@dataclass(frozen=True, slots=True)
class Selector:
    """``key`` and ``mask`` are struct flow_key as integers of the bytes in memory order; None: whatever it is.

    Loose: a flow equal to the match or more specific. ``strict``: equal in match and priority.
    """

    key: int
    mask: int
    strict: bool = False
    table: int | None = None
    priority: int | None = None
    cookie: int = 0
    cookie_mask: int = 0
    out_port: int | None = None
    out_group: int | None = None

    @classmethod
    def of_filter(cls, match: FlowFilter, *, strict: bool = False, table: int | None = None) -> Selector:
        """Of a parsed match; ``table`` as well where it is not None."""
        priority = DEFAULT_PRIORITY if match.priority is None else match.priority
        return cls(
            key=int.from_bytes(match.key, "little"),
            mask=int.from_bytes(match.mask, "little"),
            strict=strict,
            table=match.table if table is None else table,
            priority=priority if strict else None,
            cookie=match.cookie & match.cookie_mask,
            cookie_mask=match.cookie_mask,
            out_port=match.out_port,
            out_group=match.out_group,
        )

    @property
    def takes_all(self) -> bool:
        """Whether no flow is left out."""
        return self.table is None and self.takes_table(0)

    def takes_table(self, table: int) -> bool:
        """Whether no flow of that table is left out."""
        anything = self.out_port is None and self.out_group is None and self.table in {None, table}
        return anything and not (self.mask or self.cookie_mask or self.strict)

    def takes_subtable(self, table: int, mask: bytes) -> bool:
        if self.table is not None and table != self.table:
            return False
        bits = int.from_bytes(mask, "little")
        return bits == self.mask if self.strict else bits & self.mask == self.mask

    def takes(self, flow: Flow) -> bool:
        """Of a flow in such a subtable; actions are looked at elsewhere."""
        if self.mask and int.from_bytes(flow.key, "little") & self.mask != self.key:
            return False
        if self.strict and flow.priority != self.priority:
            return False
        return flowstore.unsigned(flow.cookie) & self.cookie_mask == self.cookie

    def takes_actions(self, ops: bytes, group_slot: int | None) -> bool:
        """Whether a list outputs to out_port and out_group."""
        if self.out_port is not None and not has_op(ops, _port_ops(self.out_port)):
            return False
        return self.out_group is None or (
            group_slot is not None and has_op(ops, {(int(abi.action_op.GROUP), group_slot)})
        )

    def select(self, edit: FlowEdit) -> list[Flow]:
        """Flows of an edit, as they stand in it."""
        found: list[Flow] = []
        for subtable in list(edit.subtables.values()):
            if self.takes_subtable(subtable.table, subtable.mask):
                found += filter(self.takes, edit.after(subtable))
        if self.out_port is None and self.out_group is None:
            return found
        group_slot = edit.pool.slot("group", self.out_group) if self.out_group is not None else None
        return self.by_actions(found, lambda first: edit.pool.get(first).ops, group_slot)

    def by_actions(
        self, flows: Iterable[Flow], ops_of: Callable[[int], bytes], group_slot: int | None
    ) -> list[Flow]:
        """Of these, the ones whose actions fit."""
        known: dict[int, bool] = {}
        found = []
        for flow in flows:
            if flow.actions not in known:
                known[flow.actions] = self.takes_actions(ops_of(flow.actions), group_slot)
            if known[flow.actions]:
                found.append(flow)
        return found


def _port_ops(port: int) -> set[tuple[int, int]]:
    """Operations (op, arg) that output to a port; arg -1 is any."""
    named = {0xFFF8: abi.action_op.IN_PORT, 0xFFFA: abi.action_op.NORMAL, 0xFFFB: abi.action_op.FLOOD}
    named[0xFFFC] = abi.action_op.ALL
    if port in named:
        return {(int(named[port]), -1)}
    return {(int(abi.action_op.OUTPUT), port)}


def has_op(ops: bytes, wanted: set[tuple[int, int]]) -> bool:
    """Whether one of the micro-operations is among the wanted ones."""
    for at in range(0, len(ops), ACTION_SIZE):
        op, arg = ops[at], int.from_bytes(ops[at + 4 : at + 8], "little")
        if (op, arg) in wanted or (op, -1) in wanted:
            return True
    return False
