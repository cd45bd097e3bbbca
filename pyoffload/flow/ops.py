"""Action lists: the rules for what may stand together, struct action, and what the flow cache has to look at."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from pyoffload import _abi as abi
from pyoffload.flow import fields as f
from pyoffload.flow.actions import DROP, Op, Step, Steps, needs_to_set
from pyoffload.flow.fields import CACHE_KEY_BYTES, Field
from pyoffload.flow.syntax import BadWordError, fail
from pyoffload.flow.values import ones

_ACTION = struct.Struct("<BBHIQQ")  # struct action
_WORD = ones(64)


def _member(name: str, size: int) -> int:
    offset: int = getattr(abi.flow_key, name).offset
    return ones(8 * size) << (8 * offset)


CACHE_KEY = ones(8 * CACHE_KEY_BYTES)
# What a cached decision always depends on: words 0 and 1, where the packet came from, its inner tag, the tags' types.
CACHE_ALWAYS = ones(128) | _member("in_port", 2) | _member("vlan_tci1", 2) | _member("tpids", 1)
# … and as soon as any flow looks at layer 3 or 4.
CACHE_L3 = _member("nw_proto", 1) | _member("nw_frag", 1) | _member("valid", 1)
# What a group of type select hashes.
CACHE_SELECT = CACHE_L3 | ones(256) << 256 | _member("tp_src", 2) | _member("tp_dst", 2)
_ICMP_TYPE = _member("tp_src", 2)
# Bits of a mask that make a flow look beyond layer 2: words 2 to 12 but for the members above.
L3_BITS = (ones(64 * 13) & ~CACHE_ALWAYS) & ~ones(128)

_NW_TOS_BITS = 0xFC
_VLAN_PRESENT = abi.VLAN_PRESENT


def cache_bytes(mask: int) -> bytes:
    return (mask & CACHE_KEY).to_bytes(CACHE_KEY_BYTES, "little")


# Members of enums are slow to reach, and these are reached for every word of every flow.
_SET, _OUTPUT, _GOTO, _METER, _GROUP = Op.SET, Op.OUTPUT, Op.GOTO, Op.METER, Op.GROUP
_PUSH_VLAN, _POP_VLAN, _SET_VID, _SET_PCP, _DEC_TTL = (
    Op.PUSH_VLAN,
    Op.POP_VLAN,
    Op.SET_VID,
    Op.SET_PCP,
    Op.DEC_TTL,
)
_ND, _VLAN = abi.prereq.ND, abi.prereq.VLAN
_ICMP = frozenset({abi.prereq.ICMP4, abi.prereq.ICMP6})
_NO_L3 = frozenset({abi.prereq.NONE, _VLAN})
_TAGGING = frozenset({_PUSH_VLAN, _SET_VID, _SET_PCP})
_BUCKETLESS = {_GOTO: "goto_table", _METER: "meter"}


@dataclass(frozen=True, slots=True)
class Relocation:
    """Micro-operation ``index`` has in `arg` the OpenFlow ``id`` of a group or meter, where a slot belongs."""

    index: int
    kind: Literal["group", "meter"]
    id: int


@dataclass(slots=True, eq=False)
class FlowActions:
    """An action list, compiled. ``ops`` are struct action one after the other, none for drop.

    ``needs``: facts the match must give, each with the index of the word that needs it. ``goto``: the table of a goto, or
    -1; ``tail``: table of a resubmit that is the last action, or -1. ``reads``: what the cache must look at because of it,
    as a key mask; ``needs_l3``: beyond layer 2. Never changed once made: equal lists may share one.
    """

    steps: Steps
    ops: bytes
    needs: tuple[tuple[int, int], ...]
    goto: int
    tail: int
    reads: int
    needs_l3: bool
    relocations: tuple[Relocation, ...]

    @property
    def groups(self) -> tuple[int, ...]:
        return tuple(step.arg for step in self.steps if step.op is _GROUP)

    @property
    def meters(self) -> tuple[int, ...]:
        return tuple(step.arg for step in self.steps if step.op is _METER)

    @property
    def outputs(self) -> frozenset[int]:
        """Ports named by output:PORT; what out_port= looks for."""
        return frozenset(step.arg for step in self.steps if step.op is _OUTPUT)


class MisplacedError(BadWordError):
    """Word number ``index`` of an action list cannot stand where it does."""

    def __init__(self, index: int, message: str, hint: str | None = None) -> None:
        super().__init__(message, "", hint)
        self.index = index


# What compile_actions() has to see to for a word.
_ORDER, _RELOCATE, _NEEDS, _TAIL = 1, 2, 4, 8
_ROLES = {
    Op.DROP: _ORDER,
    _GOTO: _ORDER,
    _METER: _ORDER | _RELOCATE,
    _GROUP: _RELOCATE,
    Op.RESUBMIT: _TAIL,
    _PUSH_VLAN: _NEEDS,
    _POP_VLAN: _NEEDS,
    _SET_VID: _NEEDS,
    _SET_PCP: _NEEDS,
}


class Piece(NamedTuple):
    """One word of an action list, compiled. ``need``: facts the match must give; ``tagged``: whether a VLAN tag is there
    after it, None if that stays as it is.
    """

    step: Step
    ops: bytes
    reads: int
    needs_l3: bool
    roles: int
    need: int
    tagged: bool | None


def compile_word(step: Step) -> Piece:
    """BadWordError if the step has no micro-operation."""
    op = step.op
    roles, need, tagged = _ROLES.get(op, 0), 0, None
    reads, needs_l3 = _cache_needs(step)
    if op is _SET and step.field is not None:
        # set_field and load want their protocol in the match, as in OVS; mod_… does nothing to other packets.
        if step.style != "mod":
            need = needs_to_set(step.field)
        if step.field.special == "vlan_tci" and step.mask & _VLAN_PRESENT:
            tagged = bool(step.value & _VLAN_PRESENT)
        if need or tagged is not None:
            roles = _NEEDS
    elif op in _TAGGING:
        tagged = True
    elif op is _POP_VLAN:
        tagged = False
    return Piece(step, step_ops(step), reads, needs_l3, roles, need, tagged)


def compile_actions(pieces: Sequence[Piece], *, bucket: bool = False) -> FlowActions:
    """In a group's bucket there is no goto_table and no meter.

    MisplacedError if a word cannot stand where it does, BadWordError if there are too many.
    """
    reads, needs_l3, roles = 0, False, 0
    for piece in pieces:
        reads |= piece.reads
        needs_l3 = needs_l3 or piece.needs_l3
        roles |= piece.roles
    ops = b"".join([piece.ops for piece in pieces])
    if len(ops) > abi.MAX_FLOW_ACTIONS * _ACTION.size:
        fail(f"more than {abi.MAX_FLOW_ACTIONS} actions")
    steps = tuple([piece.step for piece in pieces])
    goto = -1
    if roles & _ORDER:
        _check_order(steps, bucket=bucket)
        if steps[0] is DROP:
            steps, ops = (), b""
        elif steps[-1].op is _GOTO:
            goto = steps[-1].arg
    needs = _needs(pieces) if roles & _NEEDS else ()
    relocations = _relocations(pieces) if roles & _RELOCATE else ()
    tail = steps[-1].arg if roles & _TAIL and steps[-1].op is Op.RESUBMIT else -1
    return FlowActions(steps, ops, needs, goto, tail, reads, needs_l3, relocations)


def jump(actions: FlowActions) -> FlowActions:
    """The same with its last resubmit executed as goto_table: nothing comes after it, so there is nowhere to return to,
    and long chains of tables do not run into MAX_RESUBMIT_DEPTH.
    """
    ops = actions.ops[: -_ACTION.size] + _ACTION.pack(_GOTO, 0, 0, actions.tail, 0, 0)
    return replace(actions, ops=ops)


def _relocations(pieces: Sequence[Piece]) -> tuple[Relocation, ...]:
    found: list[Relocation] = []
    index = 0
    for piece in pieces:
        if piece.step.op is _GROUP:
            found.append(Relocation(index, "group", piece.step.arg))
        elif piece.step.op is _METER:
            found.append(Relocation(index, "meter", piece.step.arg))
        index += len(piece.ops) // _ACTION.size
    return tuple(found)


def _check_order(steps: Steps, *, bucket: bool) -> None:
    for index, step in enumerate(steps):
        op = step.op
        if step is DROP and len(steps) > 1:
            raise MisplacedError(index, "drop must be the only action")
        if bucket and op in _BUCKETLESS:
            raise MisplacedError(index, f"{_BUCKETLESS[op]} is not possible in a group's bucket")
        if op is _GOTO and index != len(steps) - 1:
            raise MisplacedError(index, "goto_table must be the last action")
        if op is _METER and index:
            raise MisplacedError(index, "meter must be the first action")


def _needs(pieces: Sequence[Piece]) -> tuple[tuple[int, int], ...]:
    needs: list[tuple[int, int]] = []
    tagged: bool | None = None  # None: as the match says
    for index, piece in enumerate(pieces):
        if piece.need == f.VLAN and tagged is False:
            raise MisplacedError(index, "the VLAN tag is gone before this")
        if piece.need and not (piece.need == f.VLAN and tagged):
            needs.append((piece.need, index))
        if piece.tagged is not None:
            tagged = piece.tagged
    return tuple(needs)


def step_ops(step: Step) -> bytes:
    """The micro-operations of one step."""
    if step.op is not _SET:
        return _ACTION.pack(step.op, 0, 0, step.arg, 0, 0)
    entry = step.field
    if entry is None:
        raise AssertionError("SET without a field")
    if entry.special == "vlan_tci" and step.mask & _VLAN_PRESENT:
        return _set_tci(step)
    mask = entry.full if step.mask == entry.ones else entry.place(step.mask)
    if entry.name == "nw_tos":
        mask &= entry.place(_NW_TOS_BITS)
    elif mask == entry.full and entry.prereq in _ICMP:
        mask = entry.whole
    value = entry.place(step.value) & mask
    prereq = _prereq(entry)
    ops = []
    for word in entry.words:
        bits = mask >> (64 * word) & _WORD
        if bits:
            ops.append(_ACTION.pack(_SET, prereq, word, 0, bits, value >> (64 * word) & _WORD))
    return b"".join(ops)


def _prereq(entry: Field) -> abi.prereq:
    return _VLAN if entry.special == "vlan_tci" else entry.prereq


def _set_tci(step: Step) -> bytes:
    """A tci with its CFI bit: a tag appears, changes, or goes."""
    if not step.value & _VLAN_PRESENT:
        return _ACTION.pack(_POP_VLAN, 0, 0, 0, 0, 0)
    if step.mask != 0xFFFF:
        fail("vlan_tci: bit 12 can only be set together with all others", "", "use push_vlan")
    vid = _ACTION.pack(_SET_VID, 0, 0, step.value & 0xFFF, 0, 0)
    return vid + _ACTION.pack(_SET_PCP, 0, 0, step.value >> 13, 0, 0)


def _cache_needs(step: Step) -> tuple[int, bool]:
    """What a decision with this step depends on: a partly set field on the rest of it, a prerequisite on its fields."""
    if step.op is _DEC_TTL:
        return CACHE_L3, True  # not on the TTL: the datapath looks at it whenever it subtracts
    entry = step.field
    if entry is None or entry.prereq in _NO_L3:
        return 0, False
    reads = CACHE_L3
    # Setting nw_tos keeps the two bits of ECN, which share its octet.
    if step.mask != entry.ones or entry.bits != 8 * entry.size or entry.name == "nw_tos":
        reads |= entry.whole
    if entry.prereq is _ND:
        reads |= _ICMP_TYPE
    return reads & CACHE_KEY, True


def select_group_cache_mask() -> bytes:
    """What a bridge's cache must look at as soon as it has a group of type select."""
    return cache_bytes(CACHE_SELECT | CACHE_ALWAYS)
