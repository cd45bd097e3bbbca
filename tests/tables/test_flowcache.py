"""Entries as the datapath leaves them in the map, read back as people see them. Real traffic: tests/datapath."""

import struct
import time

import pytest

from pyoffload import _abi as abi
from pyoffload.flowcache import ENTRY_SIZE, CacheReader
from pyoffload.model import BridgeConfig, PortConfig
from tests.tables.rig import spec

pytestmark = pytest.mark.kernel


@pytest.fixture
def bridge(rig):
    with rig.store.transaction():
        rig.store.put_bridge(BridgeConfig("br0", 0))
        for ofport, name in enumerate(("tap1", "tap2"), 1):
            rig.store.put_port(PortConfig(name, "br0", ofport))
    ports = rig.maps.mmap("ports")
    for slot, ofport in ((11, 1), (12, 2)):
        struct.pack_into("<IHH", ports, slot * 32, 100 + slot, 0, ofport)
    struct.pack_into("<I", rig.maps.mmap("bridges"), 8, abi.bridge_flag.UP | abi.bridge_flag.CACHE)
    rig.add("tcp,tp_dst=80,actions=output:2")
    yield rig
    for name in ("ports", "flow_cache", "cache_tags"):
        view = rig.maps.mmap(name)
        view[:] = bytes(len(view))


def put(rig, index, match, in_slot=11, **fields):
    key = bytearray(spec(match + ",actions=drop").key[:72])
    struct.pack_into("<H", key, 16, in_slot)
    words = struct.unpack("<9Q", key)
    generation = struct.unpack_from("<I", rig.maps.mmap("bridges"))[0]
    entry = abi.cache_entry(
        seq=2,
        key=words[:5],
        key_long=words[5:],
        generation=generation,
        seen=time.clock_gettime_ns(time.CLOCK_MONOTONIC) >> abi.TICK_SHIFT,
        n_out=1,
        out=12,
    )
    for name, value in fields.items():
        setattr(entry, name, value)
    rig.maps.mmap("flow_cache")[index * ENTRY_SIZE : (index + 1) * ENTRY_SIZE] = bytes(entry)
    struct.pack_into("<I", rig.maps.mmap("cache_tags"), index * rig.maps["cache_tags"].stride, 1)


def entries(rig, bridge=None, port=None, top=None):
    return CacheReader(rig.maps, rig.store).entries(bridge, port, top)


MATCH = "dl_src=00:00:00:00:00:01,dl_dst=00:00:00:00:00:02,tcp,nw_src=10.0.0.1,nw_dst=10.0.0.2,tp_src=5000,tp_dst=80"


def test_an_entry_is_told_in_words(bridge):
    slot = bridge.flow(32768).slot
    hidden = bridge.flow(-1).slot
    put(bridge, 5, MATCH, packets=10, bytes=1000, hits=3 << 40 | 200, n_flows=2, flow0=slot, flow=(hidden,))
    (entry,) = entries(bridge)
    # Addresses and source port are no part of the decision: no flow looks at them.
    assert entry.match == "tcp,dl_src=00:00:00:00:00:01,dl_dst=00:00:00:00:00:02,tp_dst=80"
    assert entry.as_dict() == {
        "bridge": "br0",
        "in_port": "tap1",
        "match": entry.match,
        "actions": "output:tap2",
        "packets": 13,
        "bytes": 1200,
        "idle_s": entry.as_dict()["idle_s"],
        "flows": [slot],
    }
    assert 0 <= entry.idle_s < 3


def test_edits_and_several_outputs_are_told(bridge):
    edit = abi.cache_entry().edit
    edit.fields = abi.edit_field.NW_DST | abi.edit_field.DEC_TTL | abi.edit_field.VLAN
    edit.n_pop, edit.ttl = 1, 1
    edit.nw_dst[0] = 0x0A000063
    put(
        bridge,
        5,
        MATCH,
        flags=abi.cache_flag.EDIT | abi.cache_flag.MULTI,
        edit=edit,
        n_out=2,
        outs=(11, 12),
        out=12,
    )
    assert entries(bridge)[0].actions == "pop_vlan,mod_nw_dst:10.0.0.99,dec_ttl:1,output:tap1,output:tap2"


def test_a_dropped_flow_has_its_reason(bridge):
    put(bridge, 5, MATCH, flags=abi.cache_flag.DROP, reason=abi.drop_reason.TABLE_MISS)
    assert entries(bridge)[0].actions == "drop (table_miss)"


def test_only_entries_in_force_count_and_the_busiest_come_first(bridge):
    put(bridge, 1, MATCH, packets=1)
    put(bridge, 2, MATCH, packets=9, in_slot=12)
    put(bridge, 3, MATCH, packets=99, generation=1)
    put(bridge, 4, MATCH, packets=99, seq=3)
    put(bridge, 6, MATCH, packets=99, seq=0)
    assert [entry.packets for entry in entries(bridge)] == [9, 1]
    assert [entry.packets for entry in entries(bridge, top=1)] == [9]
    assert [entry.packets for entry in entries(bridge, port="tap1")] == [1]
    assert entries(bridge, bridge="br1") == []
    bridge.add("udp,actions=drop")
    assert entries(bridge) == []
