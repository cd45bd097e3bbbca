"""Every wrong word is pointed at."""

from __future__ import annotations

import pytest

from pyoffload.flow.syntax import FlowSyntaxError

# line, the word pointed at, a part of the message
WRONG = [
    # the line as a whole
    ("", "", "no actions"),
    ("ip", "", "no actions"),
    ("ip,tcp", "", "no actions"),
    # properties
    ("priority=65536,actions=drop", "65536", "more than 65535"),
    ("priority=-1,actions=drop", "-1", "no number"),
    ("priority=0b1,actions=drop", "0b1", "no number"),
    ("priority=1_0,actions=drop", "1_0", "no number"),
    ("priority=010,actions=drop", "010", "no number"),
    ("priority=0x,actions=drop", "0x", "no number"),
    ("priority,actions=drop", "priority", "missing"),
    ("table=32,actions=drop", "32", "more than 31"),
    ("table=255,actions=drop", "255", "more than 31"),
    ("cookie=5/6,actions=drop", "cookie=5/6", "no mask"),
    ("cookie=0x10000000000000000,actions=drop", "0x10000000000000000", "more than"),
    ("idle_timeout=65536,actions=drop", "65536", "more than 65535"),
    ("hard_timeout=1s,actions=drop", "1s", "no number"),
    ("out_port=1,actions=drop", "out_port=1", "takes no out_port"),
    ("ip,foo=1,actions=drop", "foo", "no field"),
    ("ip,foo,actions=drop", "foo", "no field"),
    ("ip,IP,actions=drop", "IP", "no field"),
    # ports
    ("in_port=tap99,actions=drop", "tap99", "no port"),
    ("in_port=65280,actions=drop", "65280", "more than"),
    ('in_port="LOCAL",actions=drop', '"LOCAL"', "no port"),
    ("in_port=controller,actions=drop", "controller", "no packet comes"),
    # addresses and masks
    ("dl_src=1:2:3:4:5,actions=drop", "1:2:3:4:5", "Ethernet"),
    ("dl_src=00:11:22:33:44:5g,actions=drop", "00:11:22:33:44:5g", "Ethernet"),
    ("dl_src=00:11:22:33:44:+5,actions=drop", "00:11:22:33:44:+5", "Ethernet"),
    ("dl_src=00:11:22:33:44: 5,actions=drop", "00:11:22:33:44:", "Ethernet"),
    ("dl_src=00:11:22:33:44:55/24,actions=drop", "24", "Ethernet"),
    ("ip,nw_src=256.0.0.1,actions=drop", "256.0.0.1", "IPv4"),
    ("ip,nw_src=10.0.0,actions=drop", "10.0.0", "IPv4"),
    ("ip,nw_src=10.0.0.0/33,actions=drop", "33", "at most 32"),
    ("ip,nw_src=10.0.0.0/x,actions=drop", "x", "IPv4"),
    ("ip,nw_src=,actions=drop", "nw_src=", "missing"),
    ("ipv6,ipv6_src=1.2.3.4,actions=drop", "1.2.3.4", "IPv6"),
    ("ipv6,ipv6_src=::1/129,actions=drop", "129", "at most 128"),
    ("ipv6,ipv6_src=fe80::1%eth0,actions=drop", "fe80::1%eth0", "IPv6"),
    ("ipv6,ipv6_label=0x100000,actions=drop", "0x100000", "more than"),
    ("dl_type=0x800/0xff00,actions=drop", "/0xff00", "no mask"),
    ("ip,nw_ttl=64/0xc0,actions=drop", "/0xc0", "no mask"),
    # ranges
    ("dl_vlan=4096,actions=drop", "4096", "more than 4095"),
    ("dl_vlan_pcp=8,actions=drop", "8", "more than 7"),
    ("vlan_vid=5,actions=drop", "5", "0x1000"),
    ("vlan_tci=0x10000,actions=drop", "0x10000", "more than"),
    ("ip,ip_dscp=64,actions=drop", "64", "more than 63"),
    ("ip,nw_ecn=4,actions=drop", "4", "more than 3"),
    ("ip,nw_tos=256,actions=drop", "256", "more than 255"),
    ("ip,nw_frag=maybe,actions=drop", "maybe", "none of"),
    ("arp,arp_op=256,actions=drop", "256", "more than 255"),
    ("tcp,tp_dst=65536,actions=drop", "65536", "more than 65535"),
    ("tcp,tp_dst=http,actions=drop", "http", "no number"),
    ("tcp,tcp_flags=+syn-syn,actions=drop", "syn", "twice"),
    ("tcp,tcp_flags=+,actions=drop", "tcp_flags=+", "none of"),
    ("tcp,tcp_flags=syn|hello,actions=drop", "hello", "none of"),
    ("tcp,tcp_flags=0x1000,actions=drop", "0x1000", "more than"),
    ("icmp,icmp_type=256,actions=drop", "256", "more than 255"),
    ("reg0=0x100000000,actions=drop", "0x100000000", "more than"),
    # what belongs together
    ("tp_dst=80,actions=drop", "tp_dst=80", "needs tcp, udp"),
    ("ip,tp_dst=80,actions=drop", "tp_dst=80", "needs tcp, udp"),
    ("udp,tcp_dst=80,actions=drop", "tcp_dst=80", "needs tcp"),
    ("ipv6,nw_src=1.2.3.4,actions=drop", "nw_src=1.2.3.4", "needs ip or arp"),
    ("ip,ipv6_src=::1,actions=drop", "ipv6_src=::1", "needs ipv6"),
    ("icmp6,nd_target=::1,actions=drop", "nd_target=::1", "icmp_type=135"),
    (
        "icmp6,icmp_type=136,nd_sll=00:00:00:00:00:01,actions=drop",
        "nd_sll=00:00:00:00:00:01",
        "icmp_type=135",
    ),
    ("ip,arp_op=1,actions=drop", "arp_op=1", "needs arp"),
    ("tcp6,icmp_type=1,actions=drop", "icmp_type=1", "needs icmp"),
    ("ip,ipv6,actions=drop", "ipv6", "contradicts"),
    ("tcp,udp,actions=drop", "udp", "contradicts"),
    ("in_port=1,in_port=2,actions=drop", "in_port=2", "contradicts"),
    ("ip,nw_src=10.0.0.0/8,nw_src=11.0.0.0/8,actions=drop", "nw_src=11.0.0.0/8", "contradicts"),
    # not here, or not yet
    ("tun_id=5,actions=drop", "tun_id=5", "not yet supported"),
    ("ct_state=+trk,actions=drop", "ct_state=+trk", "not yet supported"),
    ("ct_mark=1,actions=drop", "ct_mark=1", "not yet supported"),
    ("reg4=1,actions=drop", "reg4=1", "not supported"),
    ("actions=ct(commit,zone=1),output:1", "ct(commit,zone=1)", "not yet supported"),
    ("actions=ct(table=1)", "ct(table=1)", "not yet supported"),
    ("actions=set_tunnel:5,output:1", "set_tunnel:5", "not yet supported"),
    ("actions=set_field:5->tun_id,output:1", "tun_id", "not yet supported"),
    ("actions=learn(table=1,output:1)", "learn(table=1,output:1)", "not supported"),
    ("actions=write_actions(output:1)", "write_actions(output:1)", "not supported"),
    ("actions=clear_actions", "clear_actions", "not supported"),
    ("actions=controller", "controller", "not supported"),
    ("actions=move:reg0[]->reg1[]", "move:reg0[]->reg1[]", "not supported"),
    ("actions=check_pkt_larger(100)->reg0[0]", "check_pkt_larger(100)->reg0[0]", "not supported"),
    # actions
    ("ip,actions=output:1,foo", "foo", "neither an action nor a port"),
    ("ip,actions=output:tap99", "tap99", "no port"),
    ("ip,actions=output", "output", "missing"),
    ("ip,actions=output:reg0[0..15]", "reg0[0..15]", "not supported"),
    ("ip,actions=output:70000", "70000", "more than"),
    ("ip,actions=output:1,drop", "drop", "only action"),
    ("ip,actions=drop,drop", "drop", "only action"),
    ("actions=mod_vlan_vid:4096", "4096", "more than 4095"),
    ("actions=mod_vlan_pcp:8", "8", "more than 7"),
    ("actions=mod_dl_src:1:2", "1:2", "Ethernet"),
    ("actions=mod_nw_tos:33", "33", "multiple of 4"),
    ("actions=mod_nw_src:10.0.0.0/8", "10.0.0.0/8", "IPv4"),
    ("actions=mod_tp_dst:65536", "65536", "more than"),
    ("actions=mod_dl_src", "mod_dl_src", "missing"),
    ("actions=push_vlan:0x9100", "0x9100", "neither 0x8100"),
    ("actions=push_vlan", "push_vlan", "neither 0x8100"),
    ("actions=dec_ttl(1)", "1", "not supported"),
    ("ip,actions=set_field:1.2.3.4", "1.2.3.4", "'->FIELD' is missing"),
    ("ip,actions=set_field:1.2.3.4->nosuch", "nosuch", "no field"),
    ("ip,actions=set_field:->ip_src", "->ip_src", "value is missing"),
    ("ip,actions=set_field:0x800->eth_type", "eth_type", "cannot be set"),
    ("ip,actions=set_field:5->dl_vlan", "dl_vlan", "cannot be set"),
    ("ip,actions=set_field:64/0xc0->nw_ttl", "64/0xc0", "no mask"),
    ("ip,actions=set_field:80->tcp_dst", "set_field:80->tcp_dst", "needs tcp"),
    ("actions=set_field:5->vlan_vid", "set_field:5->vlan_vid", "VLAN tag"),
    ("dl_vlan=1,actions=strip_vlan,set_field:5->vlan_vid", "set_field:5->vlan_vid", "tag is gone"),
    ("arp,actions=set_field:1.2.3.4->ip_src", "set_field:1.2.3.4->ip_src", "needs ip"),
    ("actions=load:2->reg0[3]", "2", "does not fit"),
    ("actions=load:1->reg0[5..3]", "reg0[5..3]", "after bit"),
    ("actions=load:1->reg0[0..32]", "reg0[0..32]", "has 32 bits"),
    ("actions=load:1->reg0[0..3", "reg0[0..3", "bracket"),
    ("actions=load:-1->reg0[]", "-1", "no number"),
    ("actions=load:0->NXM_OF_IN_PORT[]", "NXM_OF_IN_PORT[]", "cannot be set"),
    ("actions=goto_table", "goto_table", "missing"),
    ("actions=goto_table:32", "32", "tables are 0 to 31"),
    ("actions=goto_table:0", "goto_table:0", "later table"),
    ("table=5,actions=goto_table:5", "goto_table:5", "later table"),
    ("actions=goto_table:5,output:1", "goto_table:5", "last action"),
    ("actions=resubmit:5", "5", "another in_port"),
    ("actions=resubmit(tap2,5)", "tap2", "another in_port"),
    ("actions=resubmit()", "resubmit()", "table is missing"),
    ("actions=resubmit(,32)", "32", "tables are 0 to 31"),
    ("actions=resubmit(,5,ct)", "5,ct", "not yet supported"),
    ("actions=resubmit(,5", "resubmit(,5", "parenthesis"),
    ("actions=output(1)2", "2", "after the parenthesis"),
    ("actions=output:1,meter:1", "meter:1", "first action"),
    ("actions=meter:0", "0", "less than 1"),
    ("actions=group:x", "x", "no number"),
    ("actions=" + ",".join(["output:1"] * 65), ",".join(["output:1"] * 65), "more than 64"),
]


@pytest.mark.parametrize(("line", "word", "message"), WRONG)
def test_an_error_points_at_the_wrong_word(parser, line, word, message):
    with pytest.raises(FlowSyntaxError) as caught:
        parser.parse(line)
    error = caught.value
    assert error.text == line
    assert line[error.offset : error.offset + error.length] == word
    assert message in str(error)
    assert "\n" not in str(error)


def test_of_two_equal_words_the_wrong_one_is_pointed_at(parser):
    line = "table=1, ip , nw_src=1.2.3.4 , actions=output:1, output:tap99 , output:tap99"
    with pytest.raises(FlowSyntaxError) as caught:
        parser.parse(line)
    assert caught.value.offset == line.index("tap99")


def test_a_word_that_was_right_in_an_earlier_flow_is_still_wrong_elsewhere(parser):
    parser.parse("tcp,tp_dst=80,actions=set_field:81->tcp_dst,output:1")
    with pytest.raises(FlowSyntaxError):
        parser.parse("ip,tp_dst=80,actions=set_field:81->tcp_dst,output:1")
    with pytest.raises(FlowSyntaxError):
        parser.parse("ip,actions=set_field:81->tcp_dst,output:1")
    with pytest.raises(FlowSyntaxError):
        parser.parse_filter("priority=7,tcp", "del")


def test_exit_code_is_that_of_wrong_usage(parser):
    with pytest.raises(FlowSyntaxError) as caught:
        parser.parse("foo,actions=drop")
    assert caught.value.exit_code == 2
