"""What parsing a flow, or a filter for flows, comes to."""

from __future__ import annotations

from typing import NamedTuple

from pyoffload.flow import format as flow_format
from pyoffload.flow.ops import FlowActions, Relocation

DEFAULT_PRIORITY = 32768


class FlowSpec(NamedTuple):
    """One flow as the admin wrote it, compiled. Equal table, priority, key and mask: the same flow.

    ``key`` and ``mask``: struct flow_key, prerequisites and key_valid bits included. ``idle_timeout`` and
    ``hard_timeout``: seconds, 0 for none. ``cache_mask``: the first words of a key mask, what the flow cache must look at
    as long as this flow exists. ``flags``: words of ovs-ofctl that were accepted and mean nothing here.
    """

    table: int
    priority: int
    cookie: int
    idle_timeout: int
    hard_timeout: int
    key: bytes
    mask: bytes
    actions: FlowActions
    cache_mask: bytes
    needs_l3: bool
    flags: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def ops(self) -> bytes:
        return self.actions.ops

    @property
    def relocations(self) -> tuple[Relocation, ...]:
        return self.actions.relocations

    @property
    def groups(self) -> tuple[int, ...]:
        return self.actions.groups

    @property
    def meters(self) -> tuple[int, ...]:
        return self.actions.meters

    @property
    def match_text(self) -> str:
        """The match alone, in ovs-ofctl's words and order; "" matches every packet."""
        return flow_format.format_match(self.key, self.mask)

    @property
    def actions_text(self) -> str:
        """The actions in the words they were written in."""
        return flow_format.format_actions(self.actions.steps)


class FlowFilter(NamedTuple):
    """What mod, del and dump look for; for mod also what the flows become. None: not asked for."""

    table: int | None
    key: bytes
    mask: bytes
    priority: int | None
    cookie: int
    cookie_mask: int
    new_cookie: int | None
    out_port: int | None
    out_group: int | None
    actions: FlowActions | None
    idle_timeout: int
    hard_timeout: int
    cache_mask: bytes
    needs_l3: bool
    flags: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
