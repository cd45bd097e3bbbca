"""Lines of dump-flows; tests/ovs compares 241 of them with Open vSwitch's."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from pyoffload.flow.dialects import translate_actions
from pyoffload.flow.format import NATIVE, OPENFLOW10, OPENFLOW13, format_duration, format_flow, format_match


@dataclass
class Counted:
    packets: int
    bytes: int
    age_s: float
    idle_s: float


def test_statistics_stand_where_ovs_ofctl_puts_them(parser):
    flow = parser.parse("cookie=7,table=2,priority=3,ip,idle_timeout=60,hard_timeout=600,actions=drop")
    assert format_flow(flow, flow.match_text, flow.actions_text, Counted(5, 490, 1.5, 0.9)) == (
        " cookie=0x7, duration=1.5s, table=2, n_packets=5, n_bytes=490, idle_timeout=60, hard_timeout=600, "
        "idle_age=0, priority=3,ip actions=drop"
    )
    assert format_flow(flow, flow.match_text, flow.actions_text) == (
        " cookie=0x7, table=2, idle_timeout=60, hard_timeout=600, priority=3,ip actions=drop"
    )


def test_a_flow_of_nothing_but_defaults(parser):
    flow = parser.parse("actions=drop")
    assert format_flow(flow, flow.match_text, flow.actions_text) == " actions=drop"
    assert format_flow(flow, flow.match_text, flow.actions_text, Counted(0, 0, 0, 0)) == (
        " cookie=0x0, duration=0s, table=0, n_packets=0, n_bytes=0, idle_age=0, actions=drop"
    )


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (1, "1s"), (0.005, "0.005s"), (1.25, "1.25s"), (86400.1, "86400.1s")]
)
def test_durations(seconds, text):
    assert format_duration(seconds) == text


def test_ports_by_name_in_matches(parser, names):
    flow = parser.parse("in_port=40,actions=drop")
    assert format_match(flow.key, flow.mask) == "in_port=40"
    assert format_match(flow.key, flow.mask, names) == "in_port=wan"


@pytest.mark.parametrize(
    ("dialect", "text"),
    [
        (NATIVE, "set_field:80->tcp_dst,mod_tp_src:5,goto_table:3"),
        (OPENFLOW10, "mod_tp_dst:80,mod_tp_src:5,resubmit(,3)"),
        (OPENFLOW13, "set_field:80->tcp_dst,set_field:5->tcp_src,goto_table:3"),
    ],
)
def test_stored_actions_in_other_words(parser, dialect, text):
    flow = parser.parse("tcp,actions=set_field:80->tcp_dst,mod_tp_src:5,goto_table:3")
    assert translate_actions(flow.actions_text, flow.key, flow.mask, dialect) == text
