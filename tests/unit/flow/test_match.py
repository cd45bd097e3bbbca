"""What a match comes to in struct flow_key."""

from __future__ import annotations

import ctypes

import pytest

from pyoffload import _abi as abi

L3, L4, ND = abi.key_valid.L3, abi.key_valid.L4, abi.key_valid.ND


def compiled(parser, match):
    flow = parser.parse(f"{match},actions=drop")
    assert len(flow.key) == len(flow.mask) == ctypes.sizeof(abi.flow_key) == 144
    assert all(k & ~m == 0 for k, m in zip(flow.key, flow.mask, strict=True)), "key bits outside the mask"
    return abi.flow_key.from_buffer_copy(flow.key), abi.flow_key.from_buffer_copy(flow.mask)


def test_no_match_has_an_empty_mask(parser):
    flow = parser.parse("actions=drop")
    assert flow.mask == bytes(144)
    assert flow.match_text == ""


def test_tcp_alone_is_ipv4_and_needs_a_whole_ip_header(parser):
    key, mask = compiled(parser, "tcp")
    assert (key.dl_type, mask.dl_type) == (0x0800, 0xFFFF)
    assert (key.nw_proto, mask.nw_proto) == (6, 0xFF)
    assert key.valid == mask.valid == L3


def test_ip_alone_takes_broken_headers_too(parser):
    _, mask = compiled(parser, "ip")
    assert (mask.dl_type, mask.valid) == (0xFFFF, 0)


def test_ports_need_a_whole_transport_header(parser):
    key, mask = compiled(parser, "udp6,udp_dst=0x50/0xf0")
    assert (key.tp_dst, mask.tp_dst) == (0x50, 0xF0)
    assert (key.dl_type, key.nw_proto) == (0x86DD, 17)
    assert key.valid == mask.valid == L3 | L4


def test_icmp_type_and_code_lie_in_the_ports(parser):
    key, mask = compiled(parser, "icmp,icmp_type=3,icmp_code=4")
    assert (key.tp_src, mask.tp_src, key.tp_dst, mask.tp_dst) == (3, 0xFFFF, 4, 0xFFFF)
    assert compiled(parser, "icmp,tp_src=3,tp_dst=4")[0].tp_dst == 4


def test_neighbour_discovery_needs_its_body(parser):
    key, mask = compiled(parser, "icmp6,icmp_type=135,nd_target=fe80::1,nd_sll=02:00:00:00:00:01")
    assert key.valid == mask.valid == L3 | L4 | ND
    assert bytes(key.nd_target) == bytes.fromhex("fe80" + "00" * 13 + "01")
    assert bytes(key.arp_sha) == bytes.fromhex("020000000001")


def test_arp_has_its_opcode_in_nw_proto(parser):
    key, mask = compiled(parser, "arp,arp_op=2,arp_spa=10.0.0.1,arp_tha=02:00:00:00:00:01")
    assert (key.nw_proto, mask.nw_proto, key.nw_src) == (2, 0xFF, 0x0A000001)
    assert bytes(key.arp_tha) == bytes.fromhex("020000000001")
    assert mask.valid == L3


@pytest.mark.parametrize(
    ("match", "tci", "mask"),
    [
        ("dl_vlan=10", 0x100A, 0x1FFF),
        ("dl_vlan=0", 0x1000, 0x1FFF),
        ("dl_vlan=0xffff", 0, 0xFFFF),
        ("dl_vlan_pcp=5", 0xB000, 0xF000),
        ("dl_vlan=10,dl_vlan_pcp=5", 0xB00A, 0xFFFF),
        ("vlan_tci=0x1000/0x1000", 0x1000, 0x1000),
        ("vlan_tci=0/0x1000", 0, 0x1000),
        ("vlan_tci=0x0123", 0, 0xFFFF),
        ("vlan_vid=0x1007", 0x1007, 0x1FFF),
        ("vlan_vid=0", 0, 0xFFFF),
    ],
)
def test_a_tag_is_there_when_the_key_says_so(parser, match, tci, mask):
    key, bits = compiled(parser, match)
    assert (key.vlan_tci0, bits.vlan_tci0) == (tci, mask)


@pytest.mark.parametrize(
    ("word", "value", "mask"),
    [("no", 0, 3), ("yes", 1, 1), ("first", 1, 3), ("later", 3, 3), ("not_later", 0, 2)],
)
def test_fragments(parser, word, value, mask):
    key, bits = compiled(parser, f"ip,nw_frag={word}")
    assert (key.nw_frag, bits.nw_frag) == (value, mask)


def test_dscp_and_ecn_share_an_octet(parser):
    key, mask = compiled(parser, "ip,ip_dscp=10")
    assert (key.nw_tos, mask.nw_tos) == (40, 0xFC)
    key, mask = compiled(parser, "ip,nw_tos=40,nw_ecn=1")
    assert (key.nw_tos, mask.nw_tos) == (41, 0xFF)
    assert parser.parse("ip,nw_tos=43,actions=drop").match_text == "ip,nw_tos=40"


def test_registers_and_in_port_are_in_host_order(parser):
    key, mask = compiled(parser, "in_port=tap3,reg0=1,reg3=0x10/0xf0,metadata=0x0102030405060708")
    assert (key.in_port, mask.in_port) == (3, 0xFFFF)
    assert list(key.reg) == [1, 0, 0, 0x10]
    assert list(mask.reg) == [0xFFFFFFFF, 0, 0, 0xF0]
    assert key.metadata == 0x0102030405060708


def test_the_bridges_own_port_is_local(parser):
    assert compiled(parser, "in_port=br0")[0].in_port == abi.OFPORT_LOCAL
    assert compiled(parser, "in_port=local")[0].in_port == abi.OFPORT_LOCAL


def test_bits_outside_the_mask_do_not_count(parser):
    a = parser.parse("ip,nw_src=10.1.2.3/8,actions=drop")
    b = parser.parse("ip,nw_src=10.0.0.0/255.0.0.0,actions=drop")
    assert (a.key, a.mask) == (b.key, b.mask)


def test_wildcards_say_nothing(parser):
    assert parser.parse("dl_src=*,nw_src=1.2.3.4/0,tcp_flags=0/0,actions=drop").mask == bytes(144)


def test_the_order_of_words_does_not_matter(parser):
    a = parser.parse("tp_dst=80,nw_src=1.2.3.4,tcp,priority=3,in_port=1,actions=drop")
    b = parser.parse("in_port=1,tcp,priority=3,nw_src=1.2.3.4,tp_dst=80,actions=drop")
    assert a[:8] == b[:8]
