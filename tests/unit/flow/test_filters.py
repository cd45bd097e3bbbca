"""The arguments of flow mod, del and dump."""

from __future__ import annotations

import pytest

from pyoffload.flow.syntax import FlowSyntaxError


def test_a_filter_is_a_match_like_a_flows(parser):
    flow = parser.parse("table=3,tcp,nw_src=10.1.0.0/16,tp_dst=80,actions=drop")
    wanted = parser.parse_filter("table=3,tp_dst=80,tcp,nw_src=10.1.0.0/16", "dump")
    assert (wanted.table, wanted.key, wanted.mask) == (3, flow.key, flow.mask)
    everything = parser.parse_filter("", "dump")
    assert (everything.table, everything.mask, everything.priority) == (None, bytes(144), None)
    assert (everything.out_port, everything.out_group, everything.cookie_mask) == (None, None, 0)


def test_what_del_and_dump_look_for(parser):
    wanted = parser.parse_filter("cookie=0x15/0xff,out_port=tap2,out_group=9,table=255", "del")
    assert (wanted.cookie, wanted.cookie_mask) == (0x15, 0xFF)
    assert (wanted.out_port, wanted.out_group, wanted.table) == (2, 9, None)
    assert parser.parse_filter("cookie=1/-1", "del").cookie_mask == 2**64 - 1
    assert parser.parse_filter("out_port=any", "dump").out_port is None
    assert parser.parse_filter("priority=5,ip", "del", strict=True).priority == 5


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
