"""Files of flows."""

from __future__ import annotations

import gc

import pytest

from pyoffload.flow.files import parse_flows
from pyoffload.flow.parse import parse_flow
from pyoffload.flow.syntax import FlowSyntaxError


def test_comments_blank_lines_and_headings_are_passed_over(names):
    lines = [
        "# a comment",
        "",
        "   \t",
        "NXST_FLOW reply (xid=0x4):",
        " cookie=0x7, duration=1.2s, table=3, n_packets=5, n_bytes=6, idle_age=1, priority=9,ip actions=drop",
        "OFPST_FLOW reply (OF1.3) (xid=0x2):",
        "\tpriority=1,ip,actions=drop   # and why",
        "add priority=2,ip,actions=output:tap1",
    ]
    flows = parse_flows(lines, names)
    assert [flow.priority for flow in flows] == [9, 1, 2]
    assert (flows[0].cookie, flows[0].table) == (7, 3)


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("ip,foo=1,actions=drop", "foo"),
        ("add ip,foo=1,actions=drop", "foo"),
        ("delete ip", "delete"),
        ("modify_strict ip,actions=drop", "modify_strict"),
    ],
)
def test_an_error_names_the_line(names, line, word):
    with pytest.raises(FlowSyntaxError) as caught:
        parse_flows(["# first", "ip,actions=drop", line, "ip,bar,actions=drop"], names, source="flows.txt")
    error = caught.value
    assert (error.line, error.source) == (3, "flows.txt")
    assert line[error.offset : error.offset + error.length] == word


def test_warnings_tell_what_is_ignored(names):
    flow = parse_flow("importance=3,send_flow_rem,reset_counts,check_overlap,actions=drop", names)
    assert flow.flags == ("send_flow_rem", "reset_counts", "check_overlap")
    assert len(flow.warnings) == 3
    assert any("importance" in warning for warning in flow.warnings)
    assert parse_flow("actions=drop", names).warnings == ()


def test_many_flows_with_words_that_come_once_and_words_that_come_again(names):
    count = 40_000
    lines = [
        f"table={n % 8},priority={n},tcp,nw_src=10.{n >> 16}.{n >> 8 & 255}.{n & 255},tp_dst={n % 7},actions=output:{n % 5}"
        for n in range(count)
    ]
    seen = []
    flows = parse_flows(lines, names, progress=seen.append)
    assert len(flows) == count
    assert len({(flow.key, flow.mask) for flow in flows}) == count
    assert len({id(flow.actions) for flow in flows}) == 5, "equal action lists are one object"
    for n in (0, 1, 16_384, 30_001, count - 1):
        assert flows[n] == parse_flow(lines[n], names)._replace(actions=flows[n].actions)
        assert flows[n].ops == parse_flow(lines[n], names).ops
    assert seen == sorted(seen)
    assert seen


def test_the_collector_is_left_as_it_was(names):
    assert gc.isenabled()
    with pytest.raises(FlowSyntaxError):
        parse_flows(["nonsense"], names)
    assert gc.isenabled()
