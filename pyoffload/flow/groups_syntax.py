"""Groups as ``ovs-ofctl add-group`` takes them: ``group_id=1,type=select,bucket=weight:2,actions=output:1,bucket=…``."""

from __future__ import annotations

from dataclasses import dataclass

from pyoffload import _abi as abi
from pyoffload.flow.match import parse_port
from pyoffload.flow.ops import FlowActions
from pyoffload.flow.parse import FlowParser
from pyoffload.flow.syntax import (
    BadWordError,
    FlowSyntaxError,
    PortNames,
    fail,
    locate,
    name_and_argument,
    parse_uint,
    words,
)

GROUP_ID_MAX = 0xFFFFFF00  # OpenFlow 1.3 A.4.2.9, OFPG_MAX
_TYPES = {
    "all": abi.group_type.ALL,
    "select": abi.group_type.SELECT,
    "indirect": abi.group_type.INDIRECT,
    "ff": abi.group_type.FAST_FAILOVER,
    "fast_failover": abi.group_type.FAST_FAILOVER,
}
_HASHES = ("hash", "dp_hash")


@dataclass(frozen=True, slots=True)
class BucketSpec:
    """One bucket. ``weight`` counts in groups of type select, the watched port or group in fast_failover."""

    bucket_id: int
    weight: int
    watch_port: int | None
    watch_group: int | None
    actions: FlowActions


@dataclass(frozen=True, slots=True)
class GroupSpec:
    group_id: int
    type: abi.group_type
    buckets: tuple[BucketSpec, ...]


Word = tuple[str, int]  # and where it begins in the text


def parse_group(text: str, names: PortNames) -> GroupSpec:
    """FlowSyntaxError points at the first wrong word. How many buckets a type has is not looked at here."""
    head, buckets = _split(text)
    group_id: int | None = None
    kind: abi.group_type | None = None
    for word, at in head:
        try:
            name, argument = name_and_argument(word)
            if name == "group_id":
                group_id = parse_uint(argument or "", GROUP_ID_MAX, name)
            elif name == "type":
                kind = _TYPES.get(argument or "")
                if kind is None:
                    fail(
                        f"'{argument or ''}' is no type of group",
                        word,
                        "all, select, indirect or fast_failover",
                    )
            elif name == "selection_method":
                if argument not in _HASHES:
                    fail(
                        f"selection_method {argument} is not supported",
                        word,
                        "without it, a flow keeps its bucket",
                    )
            else:
                _unknown(name, word)
        except BadWordError as error:
            raise locate(text, at, word, error) from None
    if group_id is None:
        raise FlowSyntaxError(
            "a group needs group_id=NUMBER", text, 0, 0, hint="group_id=1,type=all,bucket=…"
        )
    if kind is None:
        raise FlowSyntaxError(
            "a group needs type=…", text, 0, 0, hint="type=all, select, indirect or fast_failover"
        )
    parser = FlowParser(names)
    return GroupSpec(
        group_id,
        kind,
        tuple(_bucket(text, bucket, kind, parser, names, n) for n, bucket in enumerate(buckets)),
    )


def _unknown(name: str, word: str) -> None:
    if name in {"selection_method_param", "fields", "command_bucket_id"}:
        fail(f"{name} is not supported", word)
    fail(f"'{name}' is no word of a group", name)


def _split(text: str) -> tuple[list[Word], list[list[Word]]]:
    """The words before the first ``bucket=``, and those of each bucket."""
    head: list[Word] = []
    buckets: list[list[Word]] = []
    for word, at in words(text):
        if word.startswith(("bucket=", "bucket:")):
            rest = word[len("bucket=") :]
            buckets.append([(rest, at + len("bucket="))] if rest else [])
        elif buckets:
            buckets[-1].append((word, at))
        else:
            head.append((word, at))
    return head, buckets


def _bucket(
    text: str, listed: list[Word], kind: abi.group_type, parser: FlowParser, names: PortNames, position: int
) -> BucketSpec:
    values: dict[str, int] = {}
    actions: list[Word] = []
    for word, at in listed:
        try:
            name, argument = name_and_argument(word)
            if name in {"weight", "bucket_id", "watch_port", "watch_group"}:
                _check_allowed(name, kind)
                values[name] = _number(name, argument or "", names)
            elif name in {"actions", "action"} and argument is not None:
                if argument:
                    actions.append((argument, at + len(word) - len(argument)))
            else:
                actions.append((word, at))
        except BadWordError as error:
            raise locate(text, at, word, error) from None
    if not actions:
        where = listed[0][1] if listed else len(text)
        raise FlowSyntaxError("a bucket without actions", text, where, 0, hint="bucket=actions=output:1")
    return BucketSpec(
        values.get("bucket_id", position),
        values.get("weight", 1),
        values.get("watch_port"),
        values.get("watch_group"),
        _actions(text, actions, parser),
    )


def _check_allowed(name: str, kind: abi.group_type) -> None:
    if name == "weight" and kind != abi.group_type.SELECT:
        fail("only buckets of a group of type select have weights")
    if name.startswith("watch") and kind != abi.group_type.FAST_FAILOVER:
        fail(f"{name} is for groups of type fast_failover")


def _number(name: str, argument: str, names: PortNames) -> int:
    if name == "watch_port":
        return parse_port(argument, names)
    limit = {"weight": 0xFFFF, "bucket_id": 0xFFFFFF00}.get(name, GROUP_ID_MAX)
    return parse_uint(argument, limit, name)


def _actions(text: str, listed: list[Word], parser: FlowParser) -> FlowActions:
    """The words of a bucket that are actions. Blanks stand for the others, so that errors find their place."""
    blanked = [" "] * len(text)
    for word, at in listed:
        blanked[at : at + len(word)] = word
    try:
        return parser.actions("".join(blanked), bucket=True)
    except FlowSyntaxError as error:
        error.text = text
        raise
