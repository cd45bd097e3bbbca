"""Groups and meters as ovs-ofctl takes them."""

from __future__ import annotations

import pytest

from pyoffload import _abi as abi
from pyoffload.flow.format import format_actions
from pyoffload.flow.groups_syntax import parse_group
from pyoffload.flow.meters_syntax import MeterSpec, parse_meter
from pyoffload.flow.syntax import FlowSyntaxError

Type = abi.group_type


def shown(names, text):
    group = parse_group(text, names)
    buckets = [
        (b.bucket_id, b.weight, b.watch_port, b.watch_group, format_actions(b.actions.steps))
        for b in group.buckets
    ]
    return group.group_id, group.type, buckets


@pytest.mark.parametrize(
    ("text", "group"),
    [
        ("group_id=1,type=all,bucket=output:1,bucket=actions=output:tap2",
         (1, Type.ALL, [(0, 1, None, None, "output:1"), (1, 1, None, None, "output:2")])),
        ("group_id=0 type=select bucket=weight:10,output:1 bucket=weight=0,actions=mod_vlan_vid:5,output:2",
         (0, Type.SELECT, [(0, 10, None, None, "output:1"), (1, 0, None, None, "mod_vlan_vid:5,output:2")])),
        ("group_id=2,type=indirect,bucket=bucket_id:7,actions=output:1,dec_ttl,output:2",
         (2, Type.INDIRECT, [(7, 1, None, None, "output:1,dec_ttl,output:2")])),
        ("group_id=3,type=ff,bucket=watch_port:tap1,output:1,bucket=watch_group:9,group:9",
         (3, Type.FAST_FAILOVER, [(0, 1, 1, None, "output:1"), (1, 1, None, 9, "group:9")])),
        ("group_id=4,type=fast_failover,bucket=output:1,watch_port:wan",
         (4, Type.FAST_FAILOVER, [(0, 1, 40, None, "output:1")])),
        ("group_id=5,type=select,selection_method=dp_hash,bucket=resubmit(,3),normal",
         (5, Type.SELECT, [(0, 1, None, None, "resubmit(,3),NORMAL")])),
        ("group_id=6,type=all,bucket=drop,bucket=set_field:1.2.3.4->ip_src,output:1",
         (6, Type.ALL, [(0, 1, None, None, "drop"), (1, 1, None, None, "set_field:1.2.3.4->ip_src,output:1")])),
        ("group_id=4294967040,type=all", (4294967040, Type.ALL, [])),
    ],
)  # fmt: skip
def test_groups(names, text, group):
    assert shown(names, text) == group


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("type=all,bucket=output:1", ""),
        ("group_id=1,bucket=output:1", ""),
        ("group_id=-1,type=all", "-1"),
        ("group_id=4294967041,type=all", "4294967041"),
        ("group_id=1,type=other", "type=other"),
        ("group_id=1,type=all,foo=1,bucket=output:1", "foo"),
        ("group_id=1,type=select,selection_method=roulette", "selection_method=roulette"),
        ("group_id=1,type=select,fields(ip_src),bucket=output:1", "fields(ip_src)"),
        ("group_id=1,type=all,bucket=weight:3,output:1", "weight:3"),
        ("group_id=1,type=select,bucket=weight:65536,output:1", "65536"),
        ("group_id=1,type=all,bucket=watch_port:1,output:1", "watch_port:1"),
        ("group_id=1,type=ff,bucket=watch_port:tap77,output:1", "tap77"),
        ("group_id=1,type=all,bucket=", ""),
        ("group_id=1,type=all,bucket=output:1,bucket=output:tap77", "tap77"),
        ("group_id=1,type=all,bucket=output:1,goto_table:3", "goto_table:3"),
        ("group_id=1,type=all,bucket=meter:1,output:1", "meter:1"),
        ("group_id=1,type=all,bucket=output:1,bucket=actions=output:1,drop", "drop"),
    ],
)
def test_a_wrong_word_of_a_group_is_pointed_at(names, text, word):
    with pytest.raises(FlowSyntaxError) as caught:
        parse_group(text, names)
    error = caught.value
    assert error.text == text
    assert text[error.offset : error.offset + error.length] == word


@pytest.mark.parametrize(
    ("text", "meter"),
    [
        ("meter=1,kbps,band=type=drop,rate=100", MeterSpec(1, False, 100, None)),
        ("meter=1 kbps bands=type=drop rate=100", MeterSpec(1, False, 100, None)),
        ("meter=2,pktps,burst,stats,band=type=drop,rate=5,burst_size=10", MeterSpec(2, True, 5, 10)),
        (
            "meter=4294901760,kbps,band=type=drop,rate=0xffffffff",
            MeterSpec(4294901760, False, 0xFFFFFFFF, None),
        ),
    ],
)
def test_meters(text, meter):
    assert parse_meter(text) == meter


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("kbps,band=type=drop,rate=1", ""),
        ("meter=0,kbps,band=type=drop,rate=1", "0"),
        ("meter=x,kbps,band=type=drop,rate=1", "x"),
        ("meter=4294901761,kbps,band=type=drop,rate=1", "4294901761"),
        ("meter=1,band=type=drop,rate=1", ""),
        ("meter=1,kbps,pktps,band=type=drop,rate=1", "pktps"),
        ("meter=1,kbps", ""),
        ("meter=1,kbps,rate=1", "rate=1"),
        ("meter=1,kbps,band=rate=1", "rate=1"),
        ("meter=1,kbps,band=type=drop", ""),
        ("meter=1,kbps,band=type=drop,rate=0", "0"),
        ("meter=1,kbps,band=type=drop,rate=1gbit", "1gbit"),
        ("meter=1,kbps,band=type=drop,rate=4294967296", "4294967296"),
        ("meter=1,kbps,band=type=dscp_remark,rate=1", "type=dscp_remark"),
        ("meter=1,kbps,band=type=drop,rate=1,band=type=drop,rate=2", "band=type=drop"),
        ("meter=1,kbps,burst,band=type=drop,rate=1", "burst"),
        ("meter=1,kbps,band=type=drop,rate=1,burst_size=2", "burst_size"),
        ("meter=1,kbps,foo,band=type=drop,rate=1", "foo"),
    ],
)
def test_a_wrong_word_of_a_meter_is_pointed_at(text, word):
    with pytest.raises(FlowSyntaxError) as caught:
        parse_meter(text)
    error = caught.value
    assert text[error.offset : error.offset + error.length] == word
