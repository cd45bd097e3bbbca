"""The recorded texts against a running Open vSwitch, and the errors it makes against ours.

PYOFFLOAD_RECORD=1 writes the recordings anew.
"""

from __future__ import annotations

import os
import subprocess

import pytest

from pyoffload.flow.parse import parse_flow
from pyoffload.flow.syntax import FlowSyntaxError
from tests.ovs.recorded import HERE, RECORDINGS, FourPorts

# Lines that both refuse; the rest of what we refuse is in tests/unit/flow.
REFUSED = (
    "ip",
    "actions=output:1,ip",
    "foo=1,actions=drop",
    "foo,actions=drop",
    "ip  ,  tp_dst = 80,actions=drop",
    "ip;actions=drop",
    "priority=65536,actions=drop",
    "priority=-1,actions=drop",
    "priority=x,actions=drop",
    "table=x,actions=drop",
    "table=256,actions=drop",
    "cookie=5/6,actions=drop",
    "cookie=0x1ffffffffffffffff,actions=drop",
    "idle_timeout=65536,actions=drop",
    "out_port=1,actions=drop",
    "in_port=nosuch,actions=drop",
    "in_port=70000,actions=drop",
    "dl_type=0x10000,actions=drop",
    "dl_type=0x800/0xff00,actions=drop",
    "dl_dst=1:2:3:4:5,actions=drop",
    "dl_dst=01:02:03:04:05:06:07,actions=drop",
    "dl_vlan=5/0xf,actions=drop",
    "ip,nw_src=10.1.2,actions=drop",
    "ip,nw_src=10.1.2.3/33,actions=drop",
    "ip,nw_proto=256,actions=drop",
    "ip,nw_tos=0x20/0xe0,actions=drop",
    "ip,nw_frag=bogus,actions=drop",
    "ipv6,ipv6_src=1.2.3.4,actions=drop",
    "ipv6,ipv6_src=::1/129,actions=drop",
    "ipv6,ipv6_label=0x123456,actions=drop",
    "tcp,tp_dst=65536,actions=drop",
    "tcp,tcp_flags=+bogus,actions=drop",
    "tcp,tcp_flags=0x1fff,actions=drop",
    "icmp,icmp_type=256,actions=drop",
    "reg3=0x1ffffffff,actions=drop",
    "actions=output:1,drop",
    "actions=output:nosuch",
    "actions=nosuch",
    "actions=output",
    "actions=output:1;output:2",
    "actions=mod_dl_src:xx",
    "actions=mod_vlan_vid:4096",
    "actions=mod_vlan_pcp:8",
    "actions=push_vlan:0x9100",
    "ip,actions=mod_nw_tos:33",
    "ip,actions=mod_nw_ecn:4",
    "ip,actions=mod_nw_ttl:256",
    "tcp,actions=mod_tp_src:65536",
    "actions=set_field:0x800->eth_type",
    "actions=set_field:1->nosuch",
    "ip,actions=set_field:1.2.3.4",
    "udp,actions=set_field:80->tcp_src",
    "actions=set_field:5->vlan_vid",
    "actions=load:2->NXM_NX_REG0[3]",
    "actions=load:5->NXM_NX_REG0[16..40]",
    "actions=load:5->NXM_NX_REG0[5..3]",
    "actions=goto_table:5,output:1",
    "table=5,actions=goto_table:3",
    "actions=goto_table:x",
    "actions=resubmit()",
    "actions=resubmit(,256)",
    "actions=output:1,meter:1",
    "actions=group:x",
)


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda recording: recording.name)
def test_open_vswitch_still_prints_what_was_recorded(ovs, recording):
    for meter in recording.meters:
        ovs.ofctl(*recording.options, "add-meter", "br0", f"meter={meter},kbps,band=type=drop,rate=1000")
    for group in recording.groups:
        ovs.ofctl(*recording.options, "add-group", "br0", f"group_id={group},type=all,bucket=output:1")
    ovs.add_flows(recording.flows, *recording.options)
    dump = ovs.dump_flows(*recording.options)
    if os.environ.get("PYOFFLOAD_RECORD"):
        (HERE / f"{recording.name}.dump").write_text("\n".join(dump) + "\n")
    assert dump == recording.dump


@pytest.mark.parametrize("line", REFUSED)
def test_both_refuse(ovs, line):
    with pytest.raises(FlowSyntaxError):
        parse_flow(line, FourPorts())
    with pytest.raises(subprocess.CalledProcessError):
        ovs.ofctl("add-flow", "br0", line)
