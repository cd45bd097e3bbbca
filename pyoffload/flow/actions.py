"""The words of an action list, one by one: each becomes a Step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from pyoffload import _abi as abi
from pyoffload.flow import fields as f, match as m
from pyoffload.flow.fields import FOREIGN_FIELDS, LATER_FIELDS, SET_FIELDS, Field
from pyoffload.flow.syntax import PortNames, fail, name_and_argument, name_end, parse_uint
from pyoffload.flow.values import ones, parse_masked, parse_value

Op = abi.action_op
_SET, _OUTPUT = Op.SET, Op.OUTPUT


# How a field was set: OpenFlow's dialects print the three in different ways.
Style = Literal["mod", "set_field", "load"]


class Step(NamedTuple):
    """One action. SET: ``value`` under ``mask``, both in bits of ``field``. Others: ``arg`` as in struct action."""

    op: abi.action_op
    arg: int = 0
    field: Field | None = None
    value: int = 0
    mask: int = 0
    style: Style = "mod"


DROP = Step(Op.DROP)
Steps = tuple[Step, ...]

NOT_YET = {
    "ct": "connection tracking",
    "ct_clear": "connection tracking",
    "set_tunnel": "tunnels",
    "set_tunnel64": "tunnels",
}

FOREIGN_ACTIONS = frozenset(
    {
        "controller", "enqueue", "table", "move", "push", "pop", "learn", "note", "exit", "bundle", "bundle_load",
        "multipath", "conjunction", "clone", "sample", "set_queue", "pop_queue", "push_mpls", "pop_mpls",
        "set_mpls_label", "set_mpls_tc", "set_mpls_ttl", "dec_mpls_ttl", "fin_timeout", "check_pkt_larger", "encap",
        "decap", "dec_nsh_ttl", "nat", "delete_field", "debug_recirc", "debug_slow", "write_actions",
        "clear_actions", "write_metadata", "apply_actions",
    }
)  # fmt: skip

_HINTS = {
    "write_metadata": "set_field:VALUE/MASK->metadata does the same",
    "move": "load:VALUE->FIELD[] sets a fixed value",
}

_PORT_STEPS: dict[int, Step] = {
    m.IN_PORT: Step(Op.IN_PORT),
    m.NORMAL: Step(Op.NORMAL),
    m.FLOOD: Step(Op.FLOOD),
    m.ALL: Step(Op.ALL),
}


def parse_action(word: str, names: PortNames) -> Step:
    """One word of an action list; ``drop`` is DROP. BadWordError if it is none."""
    head = word[: name_end(word)].lower()
    parse = _PARSERS.get(head)
    if parse is not None:
        return parse(name_and_argument(word)[1] or "", names)
    if head in NOT_YET:
        fail(f"action {head} is not yet supported: it comes with {NOT_YET[head]}", word)
    if head in FOREIGN_ACTIONS:
        fail(f"action {head} is not supported", word, _HINTS.get(head))
    name, argument = name_and_argument(word)
    if argument is not None or not _may_be_port(name, names):
        fail(f"'{name}' is neither an action nor a port of this bridge", name)
    return _output(name, names)


def _may_be_port(name: str, names: PortNames) -> bool:
    return (
        name.isdecimal()
        or name[:1] == '"'
        or name.lower() in m.RESERVED_PORTS
        or names.number(name) is not None
    )


def _output(text: str, names: PortNames) -> Step:
    if not text:
        fail("output: a port is missing", text)
    register = SET_FIELDS.get(text.partition("[")[0])
    if text.startswith("port=") or (register is not None and register.set_name):
        fail("output to a port that a field names, or with max_len, is not supported", text)
    port = m.parse_port(text, names)
    step = _PORT_STEPS.get(port)
    if step is not None:
        return step
    if port > m.PORT_MAX and port != abi.OFPORT_LOCAL:
        fail(f"output to '{text}' is not supported", text)
    return Step(_OUTPUT, port)


def _to(port: int) -> Callable[[str, PortNames], Step]:
    step = _PORT_STEPS.get(port, Step(_OUTPUT, port))
    return lambda _text, _names: step


def _drop(_text: str, _names: PortNames) -> Step:
    return DROP


def _number(op: abi.action_op, limit: int, what: str, low: int = 0) -> Callable[[str, PortNames], Step]:
    def parse(text: str, _names: PortNames) -> Step:
        if not text:
            fail(f"{what}: a number is missing")
        value = parse_uint(text, limit, what)
        if value < low:
            fail(f"{what}: {text} is less than {low}", text)
        return Step(op, value)

    return parse


def _set(name: str, limit: int | None = None, step: int = 1) -> Callable[[str, PortNames], Step]:
    """mod_…: the whole of a field, numbers at most ``limit`` and multiples of ``step``."""
    entry = SET_FIELDS[name]

    def parse(text: str, _names: PortNames) -> Step:
        if not text:
            fail(f"{entry.mod or name}: a value is missing")
        value = parse_value(entry.kind, entry.bits, text, entry.mod or name)
        if limit is not None and (value > limit or value % step):
            fail(
                f"{entry.mod or name}: {text} is no such value (at most {limit}, a multiple of {step})", text
            )
        return Step(_SET, 0, entry, value, entry.ones, "mod")

    return parse


def _push_vlan(text: str, _names: PortNames) -> Step:
    tpid = parse_uint(text, 0xFFFF, "push_vlan") if text else 0
    if tpid not in {0x8100, 0x88A8}:
        fail(f"push_vlan: '{text}' is neither 0x8100 nor 0x88a8", text)
    return Step(Op.PUSH_VLAN, tpid)


def _pop_vlan(_text: str, _names: PortNames) -> Step:
    return Step(Op.POP_VLAN)


def _dec_ttl(text: str, _names: PortNames) -> Step:
    if text:
        fail("dec_ttl: controller ids are not supported", text, "write dec_ttl")
    return Step(Op.DEC_TTL)


def _table(text: str, what: str) -> int:
    table = parse_uint(text, 0xFFFF, what)
    if table >= abi.MAX_TABLES:
        fail(f"{what}: tables are 0 to {abi.MAX_TABLES - 1}, not {text}", text)
    return table


def _goto(text: str, _names: PortNames) -> Step:
    if not text:
        fail("goto_table: a table is missing")
    return Step(Op.GOTO, _table(text, "goto_table"))


def _resubmit(text: str, names: PortNames) -> Step:
    port, comma, table = text.partition(",")
    port, table = port.strip(), table.strip()
    if port and m.parse_port(port, names) != m.IN_PORT:
        fail(f"resubmit: packets cannot be given another in_port ('{port}')", port, "write resubmit(,TABLE)")
    if not comma or not table:
        fail("resubmit: a table is missing", text, "write resubmit(,TABLE)")
    if "," in table:
        fail("resubmit(…,ct) is not yet supported: it comes with connection tracking", table)
    return Step(Op.RESUBMIT, _table(table, "resubmit"))


def settable(name: str, whole: str) -> Field:
    """The field that set_field or load calls ``name``; ``whole`` is what an error points at."""
    bare = name.removesuffix("[]")
    entry = SET_FIELDS.get(bare)
    if entry is None:
        if bare in LATER_FIELDS:
            fail(f"setting {bare} is not yet supported: it comes with {LATER_FIELDS[bare]}", whole)
        if bare in FOREIGN_FIELDS or bare.removeprefix("NXM_NX_").lower() in FOREIGN_FIELDS:
            fail(
                f"setting {bare} is not supported",
                whole,
                "registers are reg0 to reg3" if "reg" in bare else None,
            )
        fail(f"'{bare}' is no field", whole)
    if not entry.set_name:
        other = {"dl_vlan": "vlan_vid", "dl_vlan_pcp": "vlan_pcp"}.get(entry.name)
        hint = f"set {other}" if other else "action in_port sends back" if entry.name == "in_port" else None
        fail(f"{bare} cannot be set", whole, hint)
    return entry


def _halves(text: str, what: str) -> tuple[str, str]:
    value, arrow, target = text.partition("->")
    if not arrow or not target:
        fail(f"{what}: '->FIELD' is missing after the value", text)
    if not value:
        fail(f"{what}: a value is missing before '->'", text)
    return value.strip(), target.strip()


def _set_field(text: str, _names: PortNames) -> Step:
    value_text, target = _halves(text, "set_field")
    entry = settable(target, target)
    # vlan_vid is written with the bit that says "there is a tag", or without.
    bits = 13 if entry.special == "vlan_vid" else entry.bits
    value, mask = parse_masked(entry.kind, bits, value_text, f"set_field: {entry.set_name}")
    if mask != ones(bits) and not entry.maskable:
        fail(f"set_field: {entry.set_name} takes no mask", value_text)
    if entry.name == "nw_tos" and value & 3:
        fail(f"set_field: nw_tos is a multiple of 4, not {value_text}", value_text)
    return Step(_SET, 0, entry, value & entry.ones, mask & entry.ones, "set_field")


def _load(text: str, _names: PortNames) -> Step:
    value_text, target = _halves(text, "load")
    name, first, last = _bits_of(target)
    entry = settable(name, target)
    last = entry.bits - 1 if last is None else last
    if first > last:
        fail(f"load: bit {first} is after bit {last}", target)
    if last >= entry.bits:
        fail(f"load: {name} has {entry.bits} bits, none is {last}", target)
    value = parse_uint(value_text, ones(64), "load")
    if value >> (last - first + 1):
        fail(f"load: {value_text} does not fit into {last - first + 1} bits", value_text)
    return Step(_SET, 0, entry, value << first, ones(last - first + 1) << first, "load")


def _bits_of(target: str) -> tuple[str, int, int | None]:
    """``FIELD``, ``FIELD[]``, ``FIELD[3]`` or ``FIELD[0..11]``: name, first and last bit (None: the field's last)."""
    name, bracket, rest = target.partition("[")
    if not bracket or rest == "]":
        return name, 0, None
    if not rest.endswith("]"):
        fail(f"load: a closing bracket is missing in '{target}'", target)
    first, dots, last = rest[:-1].partition("..")
    low = parse_uint(first, 1023, "load: bit")
    return name, low, parse_uint(last, 1023, "load: bit") if dots else low


_PARSERS: dict[str, Callable[[str, PortNames], Step]] = {
    "drop": _drop,
    "output": _output,
    "normal": _to(m.NORMAL),
    "flood": _to(m.FLOOD),
    "all": _to(m.ALL),
    "in_port": _to(m.IN_PORT),
    "local": _to(abi.OFPORT_LOCAL),
    "mod_dl_src": _set("dl_src"),
    "mod_dl_dst": _set("dl_dst"),
    "mod_vlan_vid": _number(Op.SET_VID, 4095, "mod_vlan_vid"),
    "set_vlan_vid": _number(Op.SET_VID, 4095, "set_vlan_vid"),
    "mod_vlan_pcp": _number(Op.SET_PCP, 7, "mod_vlan_pcp"),
    "set_vlan_pcp": _number(Op.SET_PCP, 7, "set_vlan_pcp"),
    "push_vlan": _push_vlan,
    "strip_vlan": _pop_vlan,
    "pop_vlan": _pop_vlan,
    "mod_nw_src": _set("nw_src"),
    "mod_nw_dst": _set("nw_dst"),
    "mod_nw_tos": _set("nw_tos", limit=252, step=4),
    "mod_nw_ecn": _set("nw_ecn", limit=3),
    "mod_nw_ttl": _set("nw_ttl", limit=255),
    "mod_tp_src": _set("tp_src"),
    "mod_tp_dst": _set("tp_dst"),
    "dec_ttl": _dec_ttl,
    "set_field": _set_field,
    "load": _load,
    "goto_table": _goto,
    "resubmit": _resubmit,
    "meter": _number(Op.METER, 0xFFFF0000, "meter", low=1),
    "group": _number(Op.GROUP, 0xFFFFFF00, "group"),
}

# Facts about a packet that let a field be set at run time; narrower than what lets it be matched.
_SETS_ON = {
    abi.prereq.NONE: 0,
    abi.prereq.IPV4: f.IPV4,
    abi.prereq.IPV6: f.IPV6,
    abi.prereq.IP: f.IP,
    abi.prereq.TCP: f.TCP,
    abi.prereq.UDP: f.UDP,
    abi.prereq.SCTP: f.SCTP,
    abi.prereq.PORTS: f.PORTS,
    abi.prereq.ICMP4: f.ICMP4,
    abi.prereq.ICMP6: f.ICMP6,
    abi.prereq.ARP: f.ARP,
    abi.prereq.ND: f.ND,
    abi.prereq.VLAN: f.VLAN,
}


def needs_to_set(entry: Field) -> int:
    return entry.needs & _SETS_ON[entry.prereq]
