"""What the verbs do to flows: the store, the maps and what dump tells."""

import pytest

from pyoffload import _abi as abi, policy
from pyoffload.errors import NotFound, TableFull
from pyoffload.flowdump import Dump
from pyoffload.flowselect import Selector
from tests.tables.rig import NORMAL, Reader, index_size, spec

pytestmark = pytest.mark.kernel


def key(text):
    return int.from_bytes(spec(text + ",actions=drop").key, "little")


def dump(rig, **how):
    return Dump(rig.store, rig.maps, 0).flows(Selector(0, 0, **how))


def ops(text):
    return spec("actions=" + text).ops


def test_an_added_flow_is_found_and_the_rest_is_switched_as_before(rig):
    change = rig.add("priority=10,ip,nw_src=10.0.0.1,actions=output:2")
    assert (change.added, change.removed, change.changed) == (1, 0, 0)
    reader = rig.reader()
    assert reader.nonzero == 1
    assert reader.lookup(0, key("ip,nw_src=10.0.0.1")) == (10, ops("output:2"))
    assert reader.lookup(0, key("ip,nw_src=10.0.0.2")) == (-1, NORMAL)
    assert reader.lookup(1, key("ip,nw_src=10.0.0.2")) is None


def test_the_built_in_flow_is_never_shown(rig):
    rig.add("priority=10,ip,actions=drop")
    assert [flow.match for flow in dump(rig)] == ["ip"]


def test_replace_takes_the_built_in_flow_away(rig):
    rig.add("priority=10,ip,actions=drop")
    rig.replace("priority=10,ip,actions=drop")
    assert rig.reader().lookup(0, key("arp")) is None


def test_an_empty_table_zero_switches_again(rig):
    rig.replace("priority=10,ip,actions=drop", "table=1,actions=drop")
    rig.delete("table=0")
    assert rig.reader().lookup(0, key("arp")) == "normal"
    rig.add("priority=10,ip,actions=drop")
    assert rig.reader().lookup(0, key("arp")) == (-1, NORMAL)


def test_an_own_flow_of_priority_zero_takes_the_place_of_the_built_in_one_for_good(rig):
    rig.add("priority=10,ip,actions=drop")
    rig.add("priority=0,actions=drop")
    assert rig.reader().lookup(0, key("arp")) == (0, b"")
    rig.delete("priority=0", strict=True)
    assert rig.reader().lookup(0, key("arp")) is None


def test_adding_an_equal_flow_replaces_it_and_its_counters_begin_anew(rig):
    rig.add("priority=10,ip,actions=drop")
    rig.count(rig.flow(10).slot, 5, 500)
    change = rig.add("priority=10,ip,cookie=7,actions=output:1")
    assert (change.added, change.changed) == (0, 1)
    (flow,) = dump(rig)
    assert (flow.packets, flow.cookie, flow.actions) == (0, 7, "output:1")


def test_the_last_of_several_equal_flows_of_a_file_wins(rig):
    rig.add("priority=10,ip,actions=drop", "priority=10,ip,actions=output:1")
    (flow,) = dump(rig)
    assert flow.actions == "output:1"
    assert rig.reader().lookup(0, key("ip")) == (10, ops("output:1"))


def test_modify_keeps_counters_and_cookie(rig):
    rig.add("priority=10,ip,nw_src=10.0.0.1,cookie=9,actions=drop", "priority=20,arp,actions=drop")
    slot = rig.flow(10).slot
    rig.count(slot, 5, 500)
    change = rig.modify("ip,actions=output:3")
    assert (change.added, change.changed) == (0, 1)
    arp, ip = dump(rig)
    assert (ip.packets, ip.bytes, ip.cookie, ip.actions) == (5, 500, 9, "output:3")
    assert arp.actions == "drop"
    rig.count(rig.flow(10).slot, 2, 200)
    rig.modify("ip,cookie=1,actions=output:1")
    assert [(f.packets, f.cookie) for f in dump(rig) if f.match != "arp"] == [(7, 1)]


def test_modify_without_such_a_flow_adds_one_unless_it_looks_for_a_cookie(rig):
    assert rig.modify("priority=3,ip,cookie=5/-1,actions=drop").added == 0
    assert rig.modify("priority=3,ip,actions=drop").added == 1


def test_delete_takes_what_is_equal_or_narrower(rig):
    flows = (
        "ip,nw_src=10.0.0.0/8",
        "ip,nw_src=10.1.0.0/16",
        "ip,nw_src=11.0.0.0/8",
        "tcp,nw_src=10.2.0.1",
        "arp",
    )
    rig.add(*(f"priority={n},{text},actions=drop" for n, text in enumerate(flows, 1)))
    assert rig.delete("ip,nw_src=10.0.0.0/8").removed == 3
    assert {flow.match for flow in dump(rig)} == {"ip,nw_src=11.0.0.0/8", "arp"}
    assert index_size(rig.maps) == 3


def test_strict_delete_takes_one_match_and_priority(rig):
    rig.add("priority=1,ip,actions=drop", "priority=2,ip,actions=drop", "priority=2,tcp,actions=drop")
    assert rig.delete("priority=2,ip", strict=True).removed == 1
    assert {(flow.match, flow.priority) for flow in dump(rig)} == {("ip", 1), ("tcp", 2)}


def test_delete_by_output_port_and_cookie(rig):
    rig.add(
        "priority=1,ip,cookie=0x12,actions=output:1,output:2",
        "priority=2,ip,cookie=0x22,actions=output:3",
        "priority=3,ip,cookie=0x13,actions=normal",
    )
    assert rig.delete("out_port=2").removed == 1
    assert rig.delete("cookie=0x10/0xf0").removed == 1
    assert [flow.cookie for flow in dump(rig)] == [0x22]


def test_dump_finds_by_output_port(rig):
    rig.add("priority=1,ip,actions=output:1", "priority=2,ip,actions=output:2")
    assert [flow.priority for flow in dump(rig, out_port=2)] == [2]


def test_dump_is_by_table_priority_and_age(rig):
    rig.add("table=1,priority=5,ip,actions=drop")
    rig.add("priority=5,arp,actions=drop")
    rig.add("priority=9,ip,actions=drop", "priority=5,udp,actions=drop")
    assert [(f.table, f.priority, f.match) for f in dump(rig)] == [
        (0, 9, "ip"),
        (0, 5, "arp"),
        (0, 5, "udp"),
        (1, 5, "ip"),
    ]


def test_dump_as_json_has_the_words_of_the_contract(rig):
    rig.add("table=2,priority=5,cookie=0x1f,ip,actions=drop")
    shown = dump(rig)[0].as_dict()
    assert {
        k: shown[k] for k in ("table", "priority", "cookie", "match", "actions", "packets", "bytes", "id")
    } == {
        "table": 2,
        "priority": 5,
        "cookie": "0x1f",
        "match": "ip",
        "actions": "drop",
        "packets": 0,
        "bytes": 0,
        "id": rig.flow(5).slot,
    }
    assert shown["age_s"] >= 0
    assert shown["idle_s"] >= 0
    assert dump(rig)[0].text(stats=False) == " cookie=0x1f, table=2, priority=5,ip actions=drop"


def test_replace_keeps_what_is_equal_in_every_detail(rig):
    rig.add(
        "priority=1,ip,actions=drop", "priority=2,arp,cookie=1,actions=drop", "priority=3,udp,actions=drop"
    )
    kept = rig.flow(1).slot
    for priority in (1, 2, 3):
        rig.count(rig.flow(priority).slot, priority, 0)
    change = rig.replace(
        "priority=1,ip,actions=drop", "priority=2,arp,cookie=2,actions=drop", "priority=4,tcp,actions=drop"
    )
    assert (change.added, change.removed, change.changed, change.unchanged) == (1, 1, 1, 1)
    assert rig.flow(1).slot == kept
    assert {flow.priority: flow.packets for flow in dump(rig)} == {1: 1, 2: 0, 4: 0}


def test_an_unchanged_replace_changes_nothing(rig):
    rig.replace("priority=1,ip,actions=drop", "priority=2,arp,actions=drop")
    before = policy.current(rig.maps, 0)
    assert rig.replace("priority=2,arp,actions=drop", "priority=1,ip,actions=drop").unchanged == 2
    assert policy.current(rig.maps, 0) == before


def test_a_flow_in_the_shadow_of_another_comes_out_when_that_goes(rig):
    rig.add("priority=1,ip,actions=output:1", "priority=5,ip,actions=output:2")
    assert rig.reader().lookup(0, key("ip")) == (5, ops("output:2"))
    rig.delete("priority=5,ip", strict=True)
    assert rig.reader().lookup(0, key("ip")) == (1, ops("output:1"))


def test_a_flow_that_timed_out_lets_the_next_one_match(rig):
    rig.add("priority=1,ip,actions=output:1", "priority=5,ip,hard_timeout=10,actions=output:2")
    added = rig.flow(5).added_ns
    reader = rig.reader()
    assert reader.lookup(0, key("ip"), added + 9_999_999_999) == (5, ops("output:2"))
    assert reader.lookup(0, key("ip"), added + 10_000_000_000) == (1, ops("output:1"))


def test_a_flow_that_timed_out_is_hidden_and_cleared_by_the_next_change(rig):
    rig.add("priority=5,ip,hard_timeout=10,actions=drop", "priority=6,arp,idle_timeout=10,actions=drop")
    assert len(dump(rig)) == 2
    rig.conn.execute("UPDATE flows SET added_ns = added_ns - 11000000000")
    assert [flow.priority for flow in dump(rig)] == [6]
    change = rig.add("priority=7,udp,actions=drop")
    assert (change.added, change.expired, change.removed) == (1, 1, 0)
    assert {flow.priority for flow in dump(rig)} == {6, 7}


def test_too_many_masks_in_a_table_are_refused_and_nothing_changes(rig):
    flows = [
        f"priority=1,ip,nw_src=10.0.0.0/{n},nw_dst=10.0.0.0/{m},actions=drop"
        for n in range(8, 16)
        for m in range(8, 16)
    ]
    rig.add(*flows)
    before = rig.rows(), index_size(rig.maps), policy.current(rig.maps, 0)
    with pytest.raises(TableFull, match="65 different masks"):
        rig.add("priority=1,arp,actions=drop")
    assert (rig.rows(), index_size(rig.maps), policy.current(rig.maps, 0)) == before
    assert rig.add("table=1,priority=1,arp,actions=drop").added == 1


def test_all_masks_can_be_replaced_at_once(rig):
    def flows(first):
        return [
            f"priority=1,ip,nw_src=10.0.0.0/{n},nw_dst=10.0.0.0/{m},actions=drop"
            for n in range(first, first + 8)
            for m in range(8, 16)
        ]

    rig.replace(*flows(8))
    assert rig.replace(*flows(16)).added == 64
    reader = rig.reader()
    assert reader.lookup(0, key("ip,nw_src=10.0.0.0,nw_dst=10.0.0.0"))[0] == 1


def test_a_chain_that_is_too_long_is_refused_and_nothing_changes(rig):
    rig.add(*(f"priority={n},ip,hard_timeout=100,actions=drop" for n in range(1, 17)))
    before = rig.rows(), index_size(rig.maps)
    with pytest.raises(TableFull, match="17 flows"):
        rig.add("priority=99,ip,hard_timeout=100,actions=drop")
    assert (rig.rows(), index_size(rig.maps)) == before
    assert rig.reader().lookup(0, key("ip"))[0] == 16


def test_an_unknown_group_or_meter_is_named(rig):
    with pytest.raises(NotFound, match="group 5 does not exist on bridge br0"):
        rig.add("ip,actions=group:5")
    with pytest.raises(NotFound, match="meter 3 does not exist"):
        rig.add("ip,actions=meter:3,output:1")
    assert rig.rows() == []


def test_equal_action_lists_are_kept_once_and_go_with_their_last_flow(rig):
    rig.replace(
        "priority=1,ip,actions=output:1", "priority=2,arp,actions=output:1", "priority=3,udp,actions=drop"
    )
    assert rig.conn.execute("SELECT refs FROM action_lists ORDER BY refs").fetchall() == [(1,), (2,)]
    rig.delete("arp")
    rig.delete("udp")
    assert rig.conn.execute("SELECT text, refs FROM action_lists").fetchall() == [("output:1", 1)]


def test_bridges_do_not_see_each_others_flows(rig):
    rig.add("priority=1,ip,actions=output:1", bridge="br0")
    rig.add("priority=1,ip,actions=output:2", bridge="br7")
    assert rig.reader(0).lookup(0, key("ip")) == (1, ops("output:1"))
    assert rig.reader(7).lookup(0, key("ip")) == (1, ops("output:2"))
    rig.delete(bridge="br0")
    assert rig.reader(0).lookup(0, key("ip")) == "normal"
    assert rig.reader(7).lookup(0, key("ip")) == (1, ops("output:2"))


def test_what_the_cache_looks_at_follows_the_flows(rig):
    base = policy.base_cache_mask()
    rig.add("dl_dst=00:00:00:00:00:01,actions=drop")
    assert policy.current_mask(rig.maps, 0) == base
    flags = rig.maps.mmap("bridges")[8]
    assert not flags & abi.bridge_flag.NEEDS_L3
    rig.add("tcp,tp_dst=80,actions=drop")
    mask = policy.current_mask(rig.maps, 0)
    for name, size in (("nw_proto", 1), ("nw_frag", 1), ("valid", 1), ("tp_dst", 2)):
        at = getattr(abi.flow_key, name).offset
        assert mask[at : at + size] == b"\xff" * size
    assert mask[abi.flow_key.tp_src.offset] == 0
    assert rig.maps.mmap("bridges")[8] & abi.bridge_flag.NEEDS_L3
    rig.delete("tcp")
    assert policy.current_mask(rig.maps, 0) == base
    assert not rig.maps.mmap("bridges")[8] & abi.bridge_flag.NEEDS_L3


def test_a_failed_change_leaves_nothing_behind(rig):
    rig.add("priority=1,ip,actions=output:1", "priority=9,ip,hard_timeout=99,actions=output:2")

    def fail(step):
        if step == "staged":
            raise RuntimeError

    before = rig.rows(), index_size(rig.maps)
    rig.probe = fail
    for verb in (
        lambda: rig.add("priority=5,ip,actions=drop", "priority=1,arp,actions=drop"),
        lambda: rig.replace("priority=3,udp,actions=drop"),
        rig.delete,
        lambda: rig.modify("ip,actions=drop"),
    ):
        with pytest.raises(RuntimeError):
            verb()
        assert (rig.rows(), index_size(rig.maps)) == before
        assert rig.reader().lookup(0, key("ip")) == (9, ops("output:2"))
        assert rig.reader().lookup(0, key("arp")) == (-1, NORMAL)
    rig.probe = None
    rig.delete("priority=9,ip", strict=True)
    assert rig.reader().lookup(0, key("ip")) == (1, ops("output:1"))


def test_a_bridge_holds_65536_flows_and_not_one_more(rig):
    many = [f"ip,nw_src=10.1.{n >> 8}.{n & 255},actions=output:{1 + n % 3}" for n in range(65536)]
    seen = []
    change = rig.add(*many, progress=lambda done, total: seen.append((done, total)))
    assert change.added == 65536
    assert seen[-1][1] == 65536
    assert seen == sorted(seen)
    with pytest.raises(TableFull, match="65537 flows; a bridge holds 65536"):
        rig.add("arp,actions=drop")
    assert index_size(rig.maps) == 65537  # and the built-in one
    reader = Reader(rig.maps, 0)
    for n in (0, 1, 4711, 65535):
        assert reader.lookup(0, key(f"ip,nw_src=10.1.{n >> 8}.{n & 255}")) == (
            32768,
            ops(f"output:{1 + n % 3}"),
        )
    assert rig.delete().removed == 65536
    assert index_size(rig.maps) == 0
