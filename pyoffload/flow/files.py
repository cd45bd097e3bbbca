"""Files of flows."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable

from pyoffload.flow.parse import FlowParser
from pyoffload.flow.spec import FlowSpec
from pyoffload.flow.syntax import FlowSyntaxError, PortNames


def parse_flows(
    lines: Iterable[str],
    names: PortNames,
    *,
    source: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[FlowSpec]:
    """A file of flows: comments, empty lines and the heading that dump-flows prints are passed over.

    FlowSyntaxError has the line's number; ``progress`` is called with it now and then.
    """
    parse = FlowParser(names).parse
    flows: list[FlowSpec] = []
    add = flows.append
    number = 0
    # Nothing here makes cycles, and each flow leaves objects behind that every collection would look at again.
    collecting = gc.isenabled()
    gc.disable()
    try:
        for number, line in enumerate(lines, 1):
            text = line
            if "#" in text:
                text = text[: text.index("#")]
            if text.isspace() or not text:
                continue
            if not number & 1023 and progress is not None:
                progress(number)
            try:
                add(parse(text))
            except FlowSyntaxError:
                text = _without_prefix(text)
                if text:
                    add(parse(text))
    except FlowSyntaxError as error:
        error.line, error.source = number, source
        raise
    finally:
        if collecting:
            gc.enable()
    return flows


_HEADINGS = ("NXST_FLOW reply", "OFPST_FLOW reply")


def _without_prefix(line: str) -> str:
    """A line that could not be parsed as it is: ``add`` before a flow goes, a heading is nothing.

    FlowSyntaxError for the other verbs that ovs-ofctl takes in a file.
    """
    if line.startswith(_HEADINGS):
        return ""
    stripped = line.lstrip()
    verb = stripped.split(None, 1)[0] if stripped else ""
    if verb == "add":
        # Blanks keep the places of the words.
        return line.replace("add", "   ", 1)
    if verb in {"modify", "modify_strict", "delete", "delete_strict"}:
        raise FlowSyntaxError(
            f"'{verb}': a file holds flows to add only",
            line,
            line.index(verb),
            len(verb),
            hint="use flow mod or flow del",
        )
    return line
