"""What the flow cache has to look at because of a flow."""

from __future__ import annotations

import pytest

from pyoffload import _abi as abi

SIZE = 8 * abi.CACHE_KEY_WORDS


def looked_at(parser, line):
    """Members of flow_key that are wholly or partly in the flow's cache mask, beyond those that always are."""
    flow = parser.parse(line)
    assert len(flow.cache_mask) == SIZE
    mask = abi.flow_key.from_buffer_copy(flow.cache_mask.ljust(144, b"\0"))
    always = ("dl_dst", "vlan_tci0", "dl_src", "dl_type", "in_port", "vlan_tci1", "tpids")
    for member in always:
        field = getattr(type(mask), member)
        raw = flow.cache_mask[field.offset : field.offset + field.size]
        assert raw == b"\xff" * field.size, member
    rest = {}
    for name, *_ in abi.flow_key._fields_:
        field = getattr(type(mask), name)
        raw = flow.cache_mask[field.offset : field.offset + field.size]
        if name not in always and raw.strip(b"\0"):
            rest[name] = raw.hex()
    return rest, flow.needs_l3


L3 = {"nw_proto": "ff", "nw_frag": "ff", "valid": "ff"}


@pytest.mark.parametrize(
    ("line", "members", "needs_l3"),
    [
        ("actions=normal", {}, False),
        ("in_port=1,dl_vlan=5,dl_dst=02:00:00:00:00:01,actions=output:2", {}, False),
        ("ip,actions=drop", {}, False),
        ("reg0=1,metadata=2,actions=drop", {}, False),
        ("actions=mod_dl_src:02:00:00:00:00:01,mod_vlan_vid:4,push_vlan:0x8100,output:1", {}, False),
        ("actions=set_field:3/7->reg0,resubmit(,1)", {}, False),
        ("dl_vlan=1,actions=set_field:3->vlan_pcp,output:1", {}, False),
        ("tcp,actions=drop", L3, True),
        ("ip,nw_src=10.0.0.0/8,actions=drop", L3 | {"nw_src": "ff000000"}, True),
        ("tcp,tp_dst=80/0xfff0,actions=drop", L3 | {"tp_dst": "fff0"}, True),
        ("arp,arp_sha=02:00:00:00:00:01,actions=drop", L3, True),
        ("actions=mod_nw_src:1.2.3.4,output:1", L3, True),
        ("actions=mod_tp_dst:1,output:1", L3, True),
        ("actions=dec_ttl,output:1", L3, True),
        ("actions=mod_nw_tos:4,output:1", L3 | {"nw_tos": "ff"}, True),
        ("ip,actions=set_field:1.2.0.0/16->ip_src,output:1", L3 | {"nw_src": "ffffffff"}, True),
        ("icmp6,icmp_type=135,actions=set_field:::1->nd_target,output:1", L3 | {"tp_src": "ffff"}, True),
    ],
)
def test_members(parser, line, members, needs_l3):
    assert looked_at(parser, line) == (members, needs_l3)
