import struct

import pytest

from pyoffload import _abi as abi, policy
from pyoffload.errors import AlreadyExists, NotFound, OffloadError, TableFull
from pyoffload.flow.groups_syntax import parse_group
from pyoffload.flowtable import FlowTables
from pyoffload.groupinfo import read_groups
from pyoffload.groups import BUCKET, Groups, weight_ends
from tests.tables.rig import KilledError, Names, index_size, spec

pytestmark = pytest.mark.kernel


def put(rig, text, *, exists=False, bridge="br0"):
    with rig.change() as change:
        return Groups(rig.tables(change, bridge)).put(parse_group(text, Names()), text, exists=exists)


def delete(rig, group_id=None):
    with rig.change() as change:
        return Groups(rig.tables(change)).delete(group_id)


def slot_of(rig, group_id):
    return rig.conn.execute("SELECT slot FROM flow_groups WHERE group_id = ?", (group_id,)).fetchone()[0]


def live(rig, group_id):
    """(type, buckets) as the datapath reads them; a bucket is (actions, weight_end, watch_port, watch_group)."""
    first, count, kind = struct.unpack_from("<IHH", rig.maps.mmap("groups"), slot_of(rig, group_id) * 8)
    actions = rig.maps.mmap("actions")
    buckets = []
    for place in range(first, first + count):
        start, n, end, port, _, group = BUCKET.unpack_from(rig.maps.mmap("buckets"), place * BUCKET.size)
        buckets.append((bytes(actions[start * 24 : (start + n) * 24]), end, port, group))
    return kind, buckets


def infos(rig):
    return read_groups(rig.store, rig.maps, 0)


def ops(text):
    return spec("actions=" + text).ops


def test_a_group_is_in_the_maps_with_its_buckets(rig):
    put(rig, "group_id=7,type=select,bucket=weight:1,actions=output:1,bucket=weight:3,actions=output:2")
    kind, buckets = live(rig, 7)
    assert kind == abi.group_type.SELECT
    assert [(bucket[0], bucket[1]) for bucket in buckets] == [
        (ops("output:1"), 16383),
        (ops("output:2"), 65535),
    ]
    assert buckets[0][2:] == (abi.OFPORT_NONE, 0xFFFFFFFF)


def test_weights_share_the_whole_range_and_zero_gets_nothing():
    assert weight_ends([1, 1]) == [32767, 65535]
    assert weight_ends([0, 5, 0]) == [0, 65535, 65535]
    assert weight_ends([0, 0]) == [0, 0]
    assert weight_ends([1] * 32)[-1] == 65535


def test_a_flow_that_uses_a_group_carries_its_slot(rig):
    put(rig, "group_id=4294967040,type=all,bucket=output:1", bridge="br5")
    put(rig, "group_id=7,type=all,bucket=output:1")
    rig.replace("priority=1,ip,actions=group:7")
    _, actions = rig.reader().lookup(0, int.from_bytes(spec("ip,actions=drop").key, "little"))
    assert actions[0] == abi.action_op.GROUP
    assert int.from_bytes(actions[4:8], "little") == slot_of(rig, 7)


def test_groups_of_another_bridge_cannot_be_used(rig):
    put(rig, "group_id=7,type=all,bucket=output:1", bridge="br5")
    with pytest.raises(NotFound, match="group 7 does not exist on bridge br0"):
        rig.add("ip,actions=group:7")


def test_deleting_a_group_takes_its_flows_along(rig):
    put(rig, "group_id=7,type=all,bucket=output:1")
    put(rig, "group_id=8,type=all,bucket=output:2")
    rig.replace(
        "priority=1,ip,actions=group:7",
        "priority=2,arp,actions=output:1,group:7",
        "priority=3,udp,actions=group:8",
    )
    slot = slot_of(rig, 7)
    change = delete(rig, 7)
    assert (change.groups, change.flows_removed) == (1, 2)
    assert [row[1] for row in rig.rows()] == [3]
    assert rig.maps.mmap("groups")[slot * 8 : slot * 8 + 8] == bytes(8)
    assert index_size(rig.maps) == 1
    assert delete(rig).groups == 1
    assert infos(rig) == []
    assert rig.conn.execute("SELECT count(*) FROM action_lists").fetchone() == (0,)


def test_changing_a_group_swaps_its_buckets_and_nothing_else(rig):
    put(rig, "group_id=7,type=all,bucket=output:1,bucket=output:2")
    rig.replace("priority=1,ip,actions=group:7")
    before, old = policy.current(rig.maps, 0), live(rig, 7)
    seen = []
    rig.probe = lambda step: seen.append((step, live_before(rig, slot)))
    slot = slot_of(rig, 7)
    put(rig, "group_id=7,type=indirect,bucket=output:3", exists=True)
    rig.probe = None
    assert live(rig, 7) == (abi.group_type.INDIRECT, [(ops("output:3"), 65535, abi.OFPORT_NONE, 0xFFFFFFFF)])
    assert slot_of(rig, 7) == slot
    generation, version = policy.current(rig.maps, 0)
    assert generation != before[0]
    assert version == before[1]
    assert {step: kind for step, kind in seen if step in {"buckets", "staged", "visible"}} == {
        "buckets": old[0],
        "staged": old[0],
        "visible": abi.group_type.INDIRECT,
    }


def live_before(rig, slot):
    return struct.unpack_from("<IHH", rig.maps.mmap("groups"), slot * 8)[2]


def test_rules_of_the_types_are_kept(rig):
    with pytest.raises(OffloadError, match="indirect has one bucket, not 2"):
        put(rig, "group_id=1,type=indirect,bucket=output:1,bucket=output:2")
    with pytest.raises(OffloadError, match="watches nothing"):
        put(rig, "group_id=1,type=ff,bucket=output:1")
    with pytest.raises(TableFull, match="33 buckets; a group holds 32"):
        put(rig, "group_id=1,type=all" + ",bucket=output:1" * 33)
    with pytest.raises(NotFound, match="group 1 does not exist"):
        put(rig, "group_id=1,type=all,bucket=output:1", exists=True)
    put(rig, "group_id=1,type=all,bucket=output:1")
    with pytest.raises(AlreadyExists, match="group 1 exists"):
        put(rig, "group_id=1,type=all,bucket=output:1")
    assert len(infos(rig)) == 1


def test_groups_follow_each_other_but_not_in_a_circle(rig):
    put(rig, "group_id=1,type=all,bucket=output:1")
    put(rig, "group_id=2,type=all,bucket=group:1")
    put(rig, "group_id=3,type=ff,bucket=watch_group:2,actions=group:2,bucket=watch_port:1,actions=output:1")
    assert live(rig, 3)[1][0][3] == slot_of(rig, 2)
    for loop in (
        "group_id=1,type=all,bucket=group:3",
        "group_id=1,type=ff,bucket=watch_group:3,actions=output:1",
    ):
        with pytest.raises(OffloadError, match="back to itself"):
            put(rig, loop, exists=True)
    assert live(rig, 1)[1][0][0] == ops("output:1")
    with pytest.raises(OffloadError, match="group 2 uses a group"):
        delete(rig, 1)
    assert delete(rig).groups == 3


def test_a_select_group_makes_the_cache_look_at_the_five_tuple(rig):
    put(rig, "group_id=1,type=select,bucket=output:1")
    mask = policy.current_mask(rig.maps, 0)
    for name in ("nw_src", "nw_dst", "nw_proto", "tp_src", "tp_dst", "ipv6_dst"):
        assert mask[getattr(abi.flow_key, name).offset] == 0xFF
    delete(rig, 1)
    assert policy.current_mask(rig.maps, 0) == policy.base_cache_mask()


def test_what_a_group_counted_is_told(rig):
    put(rig, "group_id=1,type=all,bucket=output:1,bucket=output:2")
    rig.replace("priority=1,ip,actions=group:1")
    place = rig.conn.execute("SELECT max(place) FROM flow_buckets").fetchone()[0]
    for name, index in (("group_stats", slot_of(rig, 1)), ("bucket_stats", place)):
        value = rig.maps[name].lookup(index)
        rig.maps[name].update(index, struct.pack("<QQ", 5, 300) + value[16:])
    (group,) = infos(rig)
    assert (group.packets, group.bytes, group.flows) == (5, 300, 1)
    assert [bucket.packets for bucket in group.buckets] == [0, 5]
    assert (
        group.text(stats=False)
        == " group_id=1,type=all,bucket=bucket_id:0,actions=output:1,bucket=bucket_id:1,actions=output:2"
    )
    assert group.as_dict()["buckets"][1]["actions"] == "output:2"


@pytest.mark.parametrize("step", ["buckets", "staged", "committed", "visible", "cleaned"])
def test_a_group_change_killed_at_any_step_is_made_good_by_a_restore(rig, step):
    put(rig, "group_id=1,type=all,bucket=output:1")
    rig.replace("priority=1,ip,actions=group:1")

    def die(at):
        if at == step:
            raise KilledError

    rig.probe = die
    with pytest.raises(KilledError):
        put(rig, "group_id=1,type=indirect,bucket=output:3", exists=True)
    rig.probe = None
    rig.restore()
    committed = step not in {"buckets", "staged"}
    assert live(rig, 1)[1][0][0] == ops("output:3" if committed else "output:1")
    assert infos(rig)[0].type == ("indirect" if committed else "all")


def test_after_up_groups_are_there_again(rig):
    put(rig, "group_id=9,type=select,bucket=weight:2,output:1")
    before = live(rig, 9)
    for name in ("groups", "buckets", "actions"):
        view = rig.maps.mmap(name)
        view[:4096] = bytes(4096)
    rig.maps.wipe()
    FlowTables(rig.maps, rig.conn).restore(0)
    assert live(rig, 9) == before
    assert policy.current_mask(rig.maps, 0)[abi.flow_key.tp_src.offset] == 0xFF


def test_packets_are_read_as_far_as_a_group_looks_before_the_group_is_there(rig):
    rig.replace("in_port=1,actions=output:2")
    put(rig, "group_id=1,type=indirect,bucket=actions=output:1")
    seen = {}

    def look(step):
        kind, _ = live(rig, 1)
        seen[step] = kind, reads_l3(rig)

    rig.probe = look
    put(rig, "group_id=1,type=select,bucket=weight:1,actions=output:1", exists=True)
    rig.probe = None
    indirect, select = abi.group_type.INDIRECT, abi.group_type.SELECT
    assert seen == {
        "buckets": (indirect, False),
        "staged": (indirect, True),
        "committed": (indirect, True),
        "visible": (select, True),
        "cleaned": (select, True),
    }
    put(rig, "group_id=1,type=indirect,bucket=actions=output:1", exists=True)
    assert not reads_l3(rig)


@pytest.mark.parametrize("verb", ["group", "flow"])
def test_a_change_that_fails_does_not_let_packets_be_read_further(rig, verb):
    rig.replace("in_port=1,actions=output:2")

    def fail(step):
        if step == "staged":
            assert reads_l3(rig)
            raise OffloadError("no")

    verbs = {
        "group": lambda: put(rig, "group_id=1,type=select,bucket=weight:1,actions=output:1"),
        "flow": lambda: rig.add("tcp,tp_dst=80,actions=drop"),
    }
    rig.probe = fail
    with pytest.raises(OffloadError, match="no"):
        verbs[verb]()
    rig.probe = None
    assert not reads_l3(rig)


def reads_l3(rig):
    return bool(rig.maps.mmap("bridges")[8] & abi.bridge_flag.NEEDS_L3)
