"""What action lists come to in struct action."""

from __future__ import annotations

import ctypes
import struct

import pytest

from pyoffload import _abi as abi
from pyoffload.flow.format import OPENFLOW10, OPENFLOW13, format_actions

Op, Prereq = abi.action_op, abi.prereq
SIZE = ctypes.sizeof(abi.action)


def ops(parser, text):
    raw = parser.actions(text).ops
    return [abi.action.from_buffer_copy(raw, at) for at in range(0, len(raw), SIZE)]


def written(parser, text):
    """The key of all zeros, and the key of all ones, after the list's sets; and the sets' prerequisites."""
    zeros, ones = bytearray(144), bytearray(b"\xff" * 144)
    for op in ops(parser, text):
        assert op.op == Op.SET
        assert op.value & ~op.mask == 0
        for key in (zeros, ones):
            (old,) = struct.unpack_from("<Q", key, 8 * op.word)
            struct.pack_into("<Q", key, 8 * op.word, old & ~op.mask & (1 << 64) - 1 | op.value)
    return abi.flow_key.from_buffer_copy(zeros), abi.flow_key.from_buffer_copy(ones)


@pytest.mark.parametrize(
    ("text", "op", "arg"),
    [
        ("output:3", Op.OUTPUT, 3),
        ("tap3", Op.OUTPUT, 3),
        ("40", Op.OUTPUT, 40),
        ("output(wan)", Op.OUTPUT, 40),
        ('"wan"', Op.OUTPUT, 40),
        ("LOCAL", Op.OUTPUT, abi.OFPORT_LOCAL),
        ("output:br0", Op.OUTPUT, abi.OFPORT_LOCAL),
        ("in_port", Op.IN_PORT, 0),
        ("output:IN_PORT", Op.IN_PORT, 0),
        ("normal", Op.NORMAL, 0),
        ("flood", Op.FLOOD, 0),
        ("all", Op.ALL, 0),
        ("push_vlan:0x88a8", Op.PUSH_VLAN, 0x88A8),
        ("strip_vlan", Op.POP_VLAN, 0),
        ("pop_vlan", Op.POP_VLAN, 0),
        ("mod_vlan_vid:5", Op.SET_VID, 5),
        ("set_vlan_pcp:5", Op.SET_PCP, 5),
        ("dec_ttl", Op.DEC_TTL, 0),
        ("goto_table:31", Op.GOTO, 31),
        ("resubmit(,7)", Op.RESUBMIT, 7),
        ("resubmit(in_port,7)", Op.RESUBMIT, 7),
        ("meter:9", Op.METER, 9),
        ("group:0", Op.GROUP, 0),
    ],
)
def test_one_word_is_one_operation(parser, text, op, arg):
    (only,) = ops(parser, text)
    assert (only.op, only.arg) == (op, arg)
    assert (only.word, only.mask, only.value) == (0, 0, 0)


def test_drop_is_no_operation(parser):
    assert parser.actions("drop").ops == parser.actions("").ops == b""


def test_sets_change_their_field_and_nothing_else(parser):
    text = "mod_dl_src:02:00:00:00:00:01,mod_nw_dst:1.2.3.4,mod_tp_dst:80,mod_nw_ttl:9,set_field:7->reg1"
    zeros, ones = written(parser, text)
    for key, rest in ((zeros, 0), (ones, 0xFF)):
        assert bytes(key.dl_src) == bytes.fromhex("020000000001")
        assert (key.nw_dst, key.tp_dst, key.nw_ttl, key.reg[1]) == (0x01020304, 80, 9, 7)
        assert bytes(key.dl_dst) == bytes([rest]) * 6
        assert (key.nw_tos, key.nw_frag, key.valid) == (rest, rest, rest)
        assert (key.nw_src, key.reg[0]) == (rest * 0x01010101, rest * 0x01010101)


def test_dscp_leaves_ecn_alone_and_the_other_way_round(parser):
    for text, from_zeros, from_ones in (
        ("mod_nw_tos:40", 40, 43),
        ("set_field:10->ip_dscp", 40, 43),
        ("load:5->NXM_OF_IP_TOS[]", 4, 7),
        ("mod_nw_ecn:1", 1, 0xFD),
        ("load:1->NXM_NX_IP_ECN[]", 1, 0xFD),
    ):
        zeros, ones = written(parser, text)
        assert (zeros.nw_tos, ones.nw_tos) == (from_zeros, from_ones), text


def test_loads_set_bits(parser):
    zeros, ones = written(parser, "load:5->NXM_NX_REG0[4..7],load:0x102->NXM_OF_IP_SRC[16..31]")
    assert (zeros.reg[0], ones.reg[0]) == (0x50, 0xFFFFFF5F)
    assert (zeros.nw_src, ones.nw_src) == (0x01020000, 0x0102FFFF)


def test_an_ipv6_address_takes_two_words(parser):
    both = ops(parser, "set_field:2001:db8::1->ipv6_dst")
    assert [op.word for op in both] == [6, 7]
    assert {op.prereq for op in both} == {Prereq.IPV6}
    zeros, _ = written(parser, "set_field:2001:db8::1->ipv6_dst")
    assert bytes(zeros.ipv6_dst) == bytes.fromhex("20010db8" + "00" * 11 + "01")


def test_icmp_type_fills_the_place_of_a_port(parser):
    zeros, ones = written(parser, "set_field:8->icmp_type")
    assert zeros.tp_src == ones.tp_src == 8


@pytest.mark.parametrize(
    ("text", "prereq"),
    [
        ("mod_dl_dst:02:00:00:00:00:01", Prereq.NONE),
        ("mod_nw_src:1.2.3.4", Prereq.IPV4),
        ("mod_nw_tos:4", Prereq.IP),
        ("mod_tp_src:4", Prereq.PORTS),
        ("set_field:4->tcp_src", Prereq.TCP),
        ("set_field:4->udp_src", Prereq.UDP),
        ("set_field:4->sctp_src", Prereq.SCTP),
        ("set_field:4->icmp_code", Prereq.ICMP4),
        ("set_field:4->icmpv6_code", Prereq.ICMP6),
        ("set_field:4->arp_op", Prereq.ARP),
        ("set_field:::1->nd_target", Prereq.ND),
        ("set_field:4->vlan_pcp", Prereq.VLAN),
        ("load:4->vlan_tci[0..11]", Prereq.VLAN),
        ("set_field:4->metadata", Prereq.NONE),
    ],
)
def test_sets_happen_to_packets_that_have_the_field(parser, text, prereq):
    assert {op.prereq for op in ops(parser, text)} == {prereq}


def test_a_whole_tci_makes_a_tag_or_takes_it_off(parser):
    assert [(op.op, op.arg) for op in ops(parser, "set_field:0x7003->vlan_tci")] == [
        (Op.SET_VID, 3),
        (Op.SET_PCP, 3),
    ]
    assert [op.op for op in ops(parser, "set_field:0->vlan_tci")] == [Op.POP_VLAN]


def test_groups_and_meters_are_found_by_their_operation(parser):
    actions = parser.actions("meter:7,set_field:::1->ipv6_src,group:3,output:1,group:4")
    assert [(r.index, r.kind, r.id) for r in actions.relocations] == [
        (0, "meter", 7),
        (3, "group", 3),
        (5, "group", 4),
    ]
    assert (actions.groups, actions.meters, actions.outputs) == ((3, 4), (7,), frozenset({1}))


def test_a_last_resubmit_jumps_where_goto_table_could(parser):
    def last(line):
        return abi.action.from_buffer_copy(parser.parse(line).ops[-SIZE:]).op

    assert last("actions=output:1,resubmit(,7)") == Op.GOTO
    assert last("table=7,actions=resubmit(,7)") == Op.RESUBMIT
    assert last("table=8,actions=resubmit(,7)") == Op.RESUBMIT
    assert last("actions=resubmit(,7),output:1") == Op.OUTPUT
    assert parser.parse("actions=resubmit(,7)").actions_text == "resubmit(,7)"
    assert parser.actions("resubmit(,7)").ops != parser.parse("actions=resubmit(,7)").ops


def test_at_most_64_operations(parser):
    assert len(ops(parser, ",".join(["output:1"] * 64))) == abi.MAX_FLOW_ACTIONS


def test_each_openflow_version_has_its_words(parser):
    steps = parser.parse(
        "dl_vlan=1,tcp,actions=mod_nw_src:1.2.3.4,strip_vlan,mod_vlan_vid:5,goto_table:9"
    ).actions.steps
    assert format_actions(steps) == "mod_nw_src:1.2.3.4,strip_vlan,mod_vlan_vid:5,goto_table:9"
    assert format_actions(steps, OPENFLOW10) == "mod_nw_src:1.2.3.4,strip_vlan,mod_vlan_vid:5,resubmit(,9)"
    openflow13 = "set_field:1.2.3.4->ip_src,pop_vlan,push_vlan:0x8100,set_field:4101->vlan_vid,goto_table:9"
    assert format_actions(steps, OPENFLOW13) == openflow13


def test_ports_by_name(parser, names):
    steps = parser.actions("output:1,40,local,in_port").steps
    assert format_actions(steps, OPENFLOW10, names) == "output:tap1,output:wan,LOCAL,IN_PORT"
