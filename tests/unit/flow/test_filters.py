"""The arguments of flow mod, del and dump."""

from __future__ import annotations

import pytest

from pyoffload.flow.syntax import FlowSyntaxError


@pytest.fixture
def selects(parser):
    def selects(match, flow, *, verb="dump", strict=False):
        spec = parser.parse(flow)
        wanted = parser.parse_filter(match, verb, strict=strict)
        return wanted.selects(
            spec.table, spec.priority, spec.cookie, spec.key, spec.mask, spec.actions, strict=strict
        )

    return selects


FLOW = "table=3,priority=7,cookie=0x15,tcp,nw_src=10.1.0.0/16,tp_dst=80,actions=output:2,group:9,normal"


@pytest.mark.parametrize(
    "match",
    [
        "", "table=3", "table=255", "ip", "tcp", "tcp,nw_src=10.0.0.0/8", "tcp,tp_dst=80", "ip,nw_src=10.1.0.0/16",
        "cookie=0x15/-1", "cookie=0x5/0xf", "out_port=2", "out_port=tap2", "out_group=9", "out_port=any",
        "table=3,tcp,cookie=1/1,out_port=2,out_group=9",
    ],
)  # fmt: skip
def test_it_selects_flows_that_are_at_least_as_narrow(selects, match):
    assert selects(match, FLOW)


@pytest.mark.parametrize(
    "match",
    [
        "table=2", "udp", "ipv6", "tcp,nw_src=10.2.0.0/16", "tcp,nw_src=10.1.0.0/17", "tcp,tp_dst=81", "tcp,tp_src=1",
        "in_port=1", "cookie=0x16/-1", "out_port=1", "out_port=local", "out_group=8", "arp",
    ],
)  # fmt: skip
def test_it_leaves_the_others(selects, match):
    assert not selects(match, FLOW)


def test_strict_wants_the_very_match_and_priority(selects):
    very = "table=3,priority=7,tcp,nw_src=10.1.0.0/16,tp_dst=80"
    assert selects(very, FLOW, verb="del", strict=True)
    assert not selects(very.replace("priority=7,", ""), FLOW, verb="del", strict=True)
    assert not selects("priority=7,tcp,nw_src=10.1.0.0/16", FLOW, verb="del", strict=True)
    assert selects("ip", "ip,actions=drop", verb="del", strict=True)


def test_mod_takes_actions_and_tells_what_was_asked_for(parser):
    asked = parser.parse_filter("table=1,priority=3,cookie=5,tcp,actions=output:1", "mod")
    assert (asked.table, asked.priority, asked.new_cookie, asked.cookie_mask) == (1, 3, 5, 0)
    assert asked.actions is not None
    asked = parser.parse_filter("cookie=5/0xf,actions=drop", "mod")
    assert (asked.table, asked.priority, asked.new_cookie) == (None, None, None)
    assert (asked.cookie, asked.cookie_mask) == (5, 0xF)


@pytest.mark.parametrize(
    ("verb", "strict", "text", "word"),
    [
        ("dump", False, "actions=drop", "actions=drop"),
        ("del", False, "ip,actions=drop", "actions=drop"),
        ("mod", False, "ip", ""),
        ("del", False, "priority=5", "priority=5"),
        ("dump", False, "priority=5", "priority=5"),
        ("dump", False, "ip,idle_timeout=5", "idle_timeout=5"),
        ("del", False, "cookie=5", "cookie=5"),
        ("dump", False, "ip,cookie=5", "cookie=5"),
        ("del", False, "send_flow_rem", "send_flow_rem"),
        ("mod", False, "out_port=1,actions=drop", "out_port=1"),
        ("dump", False, "tp_dst=80", "tp_dst=80"),
        ("mod", False, "table=4,actions=goto_table:4", "goto_table:4"),
    ],
)
def test_what_a_verb_does_not_take_is_pointed_at(parser, verb, strict, text, word):
    with pytest.raises(FlowSyntaxError) as caught:
        parser.parse_filter(text, verb, strict=strict)
    error = caught.value
    assert text[error.offset : error.offset + error.length] == word
