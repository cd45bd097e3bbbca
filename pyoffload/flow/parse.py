"""Whole flows, and the filters of mod, del and dump.

A file of 65,536 flows has few distinct words compared to its length, so a FlowParser remembers what each word, each
action list and each combination of fields came to; a line then costs a dictionary lookup per word. Text is printed from
key and mask when somebody wants it (format.py), never here.
"""

from __future__ import annotations

from typing import Any, Literal, NoReturn

from pyoffload import _abi as abi
from pyoffload.flow.actions import parse_action
from pyoffload.flow.fields import KEY_BYTES, NEED_WORDS
from pyoffload.flow.match import (
    Shape,
    UnmetNeedError,
    explain_need,
    field_bit,
    parse_match_word,
    parse_port,
    resolve_shape,
)
from pyoffload.flow.ops import (
    CACHE_ALWAYS,
    CACHE_L3,
    L3_BITS,
    FlowActions,
    MisplacedError,
    Piece,
    cache_bytes,
    compile_actions,
    compile_word,
    jump,
)
from pyoffload.flow.spec import DEFAULT_PRIORITY, FlowFilter, FlowSpec
from pyoffload.flow.syntax import (
    BadWordError,
    FlowSyntaxError,
    PortNames,
    fail,
    locate,
    name_and_argument,
    parse_uint,
    split_words,
    words,
)

Verb = Literal["add", "mod", "del", "dump"]

# Words of a flow that are not part of the match, and their highest values.
_PROPERTIES: dict[str, int] = {
    "table": abi.MAX_TABLES - 1,
    "priority": 0xFFFF,
    "cookie": 0xFFFFFFFFFFFFFFFF,
    "idle_timeout": 0xFFFF,
    "hard_timeout": 0xFFFF,
    "importance": 0xFFFF,
    "out_port": 0,
    "out_group": 0xFFFFFFFF,
}
_ALLOWED: dict[Verb, frozenset[str]] = {
    "add": frozenset({"table", "priority", "cookie", "idle_timeout", "hard_timeout", "importance"}),
    "mod": frozenset({"table", "priority", "cookie", "idle_timeout", "hard_timeout", "importance"}),
    "del": frozenset({"table", "cookie", "out_port", "out_group", "priority"}),
    "dump": frozenset({"table", "cookie", "out_port", "out_group"}),
}
# What dump-flows prints and add-flows takes back without a look.
_STATISTICS = frozenset({"duration", "n_packets", "n_bytes", "idle_age", "hard_age"})
_FLAGS = {
    "send_flow_rem": "send_flow_rem is ignored: there is no controller to tell",
    "check_overlap": "check_overlap is ignored",
    "reset_counts": "",
    "no_packet_counts": "no_packet_counts is ignored",
    "no_byte_counts": "no_byte_counts is ignored",
}

# A word: the part of the match that it is (MatchPart), the attribute of _Line that it sets, and to what.
_Word = tuple[int, int, int, str, Any]
_NOTHING: _Word = (0, 0, 0, "", None)

# Words and action lists beyond so many are parsed again each time: whoever has more has few that come twice.
_REMEMBERED = 16384


class FlowParser:
    """Parses flows of one bridge. Not for several threads at once."""

    def __init__(self, names: PortNames) -> None:
        self._names = names
        self._words: dict[Verb, dict[str, _Word]] = {}
        self._actions: dict[str, FlowActions] = {}
        self._pieces: dict[str, Piece] = {}
        self._jumps: dict[FlowActions, FlowActions] = {}
        self._shapes: dict[int, Shape] = {}
        self._cache_masks: dict[tuple[int, int], tuple[bytes, bytes, bool]] = {}

    # ---- one line ----

    def parse(self, text: str) -> FlowSpec:
        """``text`` as ``ovs-ofctl add-flow`` takes it. FlowSyntaxError points at the first wrong word."""
        head, actions_at = _split_actions(text)
        if actions_at < 0:
            raise FlowSyntaxError("the flow has no actions", text, len(text), 0, hint="…,actions=drop")
        line = self._read_words(text, head, "add")
        actions = self.actions(text, actions_at)
        cookie, cookie_mask = line.cookie or (0, None)
        if cookie_mask is not None:
            _fail_at(text, head, "cookie", "a new flow's cookie has no mask")
        key, mask, shape = line.key, line.mask, self._resolve(text, head, line)
        table = line.table or 0
        if actions.needs or actions.goto >= 0:
            self._check_actions(text, actions_at, actions, shape, table)
        if actions.tail > table:
            actions = self._jumps.setdefault(actions, jump(actions))
        mask_bytes, cache_mask, needs_l3 = self._masks(mask | shape.valid, actions)
        return FlowSpec(
            table,
            DEFAULT_PRIORITY if line.priority is None else line.priority,
            cookie,
            line.idle_timeout,
            line.hard_timeout,
            (key | shape.valid).to_bytes(KEY_BYTES, "little"),
            mask_bytes,
            actions,
            cache_mask,
            needs_l3,
            line.flags,
            line.warnings,
        )

    def parse_filter(self, text: str, verb: Verb, *, strict: bool = False) -> FlowFilter:
        """What follows mod, del or dump; for mod with its actions."""
        head, actions_at = _split_actions(text)
        if actions_at >= 0 and verb != "mod":
            at = text.index("action", len(head))
            raise FlowSyntaxError(f"flow {verb} takes no actions", text, at, len(text) - at)
        if actions_at < 0 and verb == "mod":
            raise FlowSyntaxError("the actions are missing", text, len(text), 0, hint="…,actions=drop")
        line = self._read_words(text, head, verb)
        if line.priority is not None and verb == "del" and not strict:
            _fail_at(text, head, "priority", "a priority counts only with --strict")
        actions = self.actions(text, actions_at) if actions_at >= 0 else None
        shape = self._resolve(text, head, line)
        if actions is not None:
            self._check_actions(text, actions_at, actions, shape, line.table or 0)
        value, cookie_mask = line.cookie or (0, None)
        if cookie_mask is None and line.cookie is not None and verb != "mod":
            _fail_at(text, head, "cookie", "to look for a cookie takes a mask", f"cookie={value:#x}/-1")
        mask_bytes, cache_mask, needs_l3 = self._masks(line.mask | shape.valid, actions)
        return FlowFilter(
            line.table,
            (line.key | shape.valid).to_bytes(KEY_BYTES, "little"),
            mask_bytes,
            line.priority,
            value if cookie_mask is not None else 0,
            cookie_mask or 0,
            value if line.cookie is not None and cookie_mask is None else None,
            line.out_port,
            line.out_group,
            actions,
            line.idle_timeout,
            line.hard_timeout,
            cache_mask,
            needs_l3,
            line.flags,
            line.warnings,
        )

    def actions(self, text: str, start: int = 0, *, bucket: bool = False) -> FlowActions:
        """The action list ``text[start:]``."""
        listed = text[start:]
        known = self._actions.get(listed)
        if known is not None and not bucket:
            return known
        index = 0
        try:
            pieces: list[Piece] = []
            for index, word in enumerate(split_words(listed)):  # noqa: B007  (index: where it went wrong)
                piece = self._pieces.get(word)
                if piece is None:
                    piece = compile_word(parse_action(word, self._names))
                    if len(self._pieces) < _REMEMBERED:
                        self._pieces[word] = piece
                pieces.append(piece)
        except BadWordError as error:
            word, at = list(words(text, start))[index]
            raise locate(text, at, word, error) from None
        try:
            actions = compile_actions(pieces, bucket=bucket)
        except MisplacedError as error:
            word, at = list(words(text, start))[error.index]
            raise locate(text, at, word, error) from None
        except BadWordError as error:
            raise locate(text, start, listed, error) from None
        if not bucket and len(self._actions) < _REMEMBERED:
            self._actions[listed] = actions
        return actions

    # ---- parts of it ----

    def _read_words(self, text: str, head: str, verb: Verb) -> _Line:
        line = _Line()
        key = mask = shape = 0
        known = self._words.setdefault(verb, {})
        index = 0
        try:
            for index, word in enumerate(split_words(head)):  # noqa: B007  (index: where it went wrong)
                part = known.get(word)
                if part is None:
                    part = self._word(word, verb)
                    if part[3] != "cookie" and part is not _NOTHING and len(known) < _REMEMBERED:
                        known[word] = part
                value, bits, more, name, argument = part
                if name:
                    line.say(name, argument)
                    continue
                if mask & bits and (key ^ value) & mask & bits:
                    fail("this contradicts what is said before it")
                key |= value
                mask |= bits
                shape |= more
        except BadWordError as error:
            word, at = list(words(head))[index]
            raise locate(text, at, word, error) from None
        line.key, line.mask, line.shape = key, mask, shape
        return line

    def _word(self, word: str, verb: Verb) -> _Word:
        name = word[: word.find("=")]
        if name in _STATISTICS:
            return _NOTHING
        if name not in _PROPERTIES:
            part = parse_match_word(word, self._names)
            if part is not None:
                return (*part, "", None)
        return self._property(word, verb)

    def _property(self, word: str, verb: Verb) -> _Word:
        name, argument = name_and_argument(word)
        if name in _STATISTICS:
            return _NOTHING
        if name in _FLAGS and argument is None:
            if verb not in {"add", "mod"}:
                fail(f"flow {verb} takes no {name}", name)
            return 0, 0, 0, "flag", name
        limit = _PROPERTIES.get(name)
        if limit is None:
            fail(f"'{name}' is no field of a flow", name)
        if name not in _ALLOWED[verb]:
            fail(f"flow {verb} takes no {name}", word)
        if not argument:
            fail(f"{name}: a value is missing", word)
        if name == "cookie":
            value, slash, mask = argument.partition("/")
            return 0, 0, 0, name, (_cookie(value), _cookie(mask) if slash else None)
        if name == "out_port":
            port = parse_port(argument, self._names)
            return 0, 0, 0, name, None if port == abi.OFPORT_NONE else port
        if name == "table" and argument == "255" and verb != "add":
            return 0, 0, 0, name, None  # OpenFlow 1.0's OFPTT_ALL
        number = parse_uint(argument, limit, name)
        if name == "importance":
            return 0, 0, 0, "warning", "importance is ignored"
        return 0, 0, 0, name, number

    def _resolve(self, text: str, head: str, line: _Line) -> Shape:
        shape = self._shapes.get(line.shape)
        if shape is None:
            try:
                shape = self._shapes[line.shape] = resolve_shape(line.shape)
            except UnmetNeedError as error:
                bit = field_bit(error.entry)
                for word, at in words(head):
                    part = self._word(word, "mod")
                    if part[2] & bit:
                        raise FlowSyntaxError(
                            explain_need(error.entry),
                            text,
                            at,
                            len(word),
                            hint="without it the flow would match more",
                        ) from None
                raise AssertionError(error.entry.name) from None
        return shape

    @staticmethod
    def _check_actions(text: str, start: int, actions: FlowActions, shape: Shape, table: int) -> None:
        for need, index in actions.needs:
            if not need & shape.facts:
                word, at = list(words(text, start))[index]
                raise FlowSyntaxError(f"this needs {NEED_WORDS[need]} in the match", text, at, len(word))
        if 0 <= actions.goto <= table:
            word, at = list(words(text, start))[-1]
            raise FlowSyntaxError(
                f"goto_table goes to a later table than {table}, not to {actions.goto}", text, at, len(word)
            )

    def _masks(self, mask: int, actions: FlowActions | None) -> tuple[bytes, bytes, bool]:
        reads, acts_l3 = (0, False) if actions is None else (actions.reads, actions.needs_l3)
        memo = (mask, reads << 1 | acts_l3)
        known = self._cache_masks.get(memo)
        if known is None:
            needs_l3 = acts_l3 or bool(mask & L3_BITS)
            cached = mask | reads | CACHE_ALWAYS | (CACHE_L3 if needs_l3 else 0)
            known = self._cache_masks[memo] = (
                mask.to_bytes(KEY_BYTES, "little"),
                cache_bytes(cached),
                needs_l3,
            )
        return known


class _Line:
    """What the words before the actions say."""

    key = mask = shape = 0
    table: int | None = None
    priority: int | None = None
    cookie: tuple[int, int | None] | None = None
    idle_timeout = hard_timeout = 0
    out_port: int | None = None
    out_group: int | None = None
    flags: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def say(self, what: str, value: Any) -> None:
        if what == "flag":
            self.flags += (value,)
            if _FLAGS[value]:
                self.warnings += (_FLAGS[value],)
        elif what == "warning":
            self.warnings += (value,)
        else:
            setattr(self, what, value)


def _cookie(text: str) -> int:
    if text == "-1":
        return 0xFFFFFFFFFFFFFFFF
    return parse_uint(text, 0xFFFFFFFFFFFFFFFF, "cookie")


def _split_actions(text: str) -> tuple[str, int]:
    """What stands before ``actions=`` and where the list begins, or -1 if there is none."""
    at = text.find("actions=")
    if at >= 0 and (at == 0 or text[at - 1] in ", \t"):
        return text[:at], at + 8
    for word, begin in words(text):
        for name in ("actions", "action"):
            if word.startswith(name):
                equals = text.find("=", begin)
                if equals >= 0 and text[begin:equals].strip() == name:
                    return text[:begin], equals + 1
    return text, -1


def _fail_at(text: str, head: str, name: str, message: str, hint: str | None = None) -> NoReturn:
    for word, at in words(head):
        if name_and_argument(word)[0] == name:
            raise FlowSyntaxError(message, text, at, len(word), hint=hint)
    raise AssertionError(name)


# ---- the module's functions ----


def parse_flow(text: str, names: PortNames) -> FlowSpec:
    """One flow. For many, keep a FlowParser."""
    return FlowParser(names).parse(text)


def parse_match(text: str, names: PortNames, verb: Verb = "dump", *, strict: bool = False) -> FlowFilter:
    """The argument of flow mod, del or dump."""
    return FlowParser(names).parse_filter(text, verb, strict=strict)
