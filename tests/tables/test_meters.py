import struct

import pytest

from pyoffload.errors import AlreadyExists, NotFound
from pyoffload.flow.meters_syntax import parse_meter
from pyoffload.meters import METER_SIZE, Meters, parameters, read_meters

pytestmark = pytest.mark.kernel


def put(rig, text, *, exists=False):
    with rig.change() as change:
        return Meters(rig.tables(change)).put(parse_meter(text), text, exists=exists)


def delete(rig, meter_id=None):
    with rig.change() as change:
        return Meters(rig.tables(change)).delete(meter_id)


def live(rig, meter_id):
    """(tat, burst_ns, ns_per_unit_q16, per_packet, enabled)"""
    slot = rig.conn.execute("SELECT slot FROM flow_meters WHERE meter_id = ?", (meter_id,)).fetchone()[0]
    return struct.unpack_from("<QQQII", rig.maps.mmap("meters"), slot * METER_SIZE)


@pytest.fixture(autouse=True)
def empty(rig):
    view = rig.maps.mmap("meters")
    view[:] = bytes(len(view))


def test_rate_and_burst_become_times():
    # 8000 kbit/s are a byte each microsecond; 80 kbit of burst take 10 ms.
    assert parameters(per_packet=False, rate=8000, burst=80) == (10_000_000, 1000 << 16)
    assert parameters(per_packet=True, rate=1000, burst=10) == (10_000_000, 1_000_000 << 16)
    # The largest rate still has 6 bits of resolution at a byte.
    assert parameters(per_packet=False, rate=400_000_000, burst=1)[1] == (8 << 16) // 400


def test_a_meter_without_burst_has_one_second_of_it(rig):
    put(rig, "meter=3,kbps,band=type=drop,rate=8000")
    assert live(rig, 3) == (0, 1_000_000_000, 1000 << 16, 0, 1)
    put(rig, "meter=4,pktps,burst,band=type=drop,rate=100,burst_size=5")
    assert live(rig, 4) == (0, 50_000_000, 10_000_000 << 16, 1, 1)


def test_a_changed_meter_remembers_what_it_let_through(rig):
    put(rig, "meter=3,kbps,band=type=drop,rate=8000")
    slot = rig.conn.execute("SELECT slot FROM flow_meters").fetchone()[0]
    struct.pack_into("<Q", rig.maps.mmap("meters"), slot * METER_SIZE, 4711)
    put(rig, "meter=3,pktps,band=type=drop,rate=1000", exists=True)
    assert live(rig, 3) == (4711, 1_000_000_000, 1_000_000 << 16, 1, 1)


def test_deleting_a_meter_takes_its_flows_along(rig):
    put(rig, "meter=3,kbps,band=type=drop,rate=8000")
    put(rig, "meter=4,kbps,band=type=drop,rate=8000")
    rig.replace("priority=1,ip,actions=meter:3,output:1", "priority=2,arp,actions=meter:4,output:1")
    change = delete(rig, 3)
    assert (change.meters, change.flows_removed) == (1, 1)
    assert [row[1] for row in rig.rows()] == [2]
    assert delete(rig).flows_removed == 1
    assert not any(rig.maps.mmap("meters")[at] for at in range(24, 4 * METER_SIZE, METER_SIZE))


def test_ids_are_looked_up(rig):
    with pytest.raises(NotFound, match="meter 3 does not exist on bridge br0"):
        delete(rig, 3)
    with pytest.raises(NotFound):
        put(rig, "meter=3,kbps,band=type=drop,rate=8000", exists=True)
    put(rig, "meter=3,kbps,band=type=drop,rate=8000")
    with pytest.raises(AlreadyExists):
        put(rig, "meter=3,kbps,band=type=drop,rate=8000")


def test_what_a_meter_is_and_dropped_is_told(rig):
    put(rig, "meter=3,kbps,burst,band=type=drop,rate=8000,burst_size=100")
    rig.replace("priority=1,ip,actions=meter:3,output:1")
    slot = rig.conn.execute("SELECT slot FROM flow_meters").fetchone()[0]
    value = rig.maps["meter_stats"].lookup(slot)
    rig.maps["meter_stats"].update(slot, struct.pack("<QQ", 9, 900) + value[16:])
    (meter,) = read_meters(rig.store, rig.maps, 0)
    shown = meter.as_dict()
    assert shown.pop("age_s") >= 0
    assert shown == {
        "meter_id": 3,
        "unit": "kbps",
        "rate": 8000,
        "burst": 100,
        "dropped_packets": 9,
        "dropped_bytes": 900,
        "flows": 1,
    }
    assert meter.text(stats=False).splitlines() == [
        "meter=3 kbps burst bands=",
        "type=drop rate=8000 burst_size=100",
    ]


def test_after_up_meters_are_there_again(rig):
    put(rig, "meter=3,kbps,band=type=drop,rate=8000")
    before = live(rig, 3)
    view = rig.maps.mmap("meters")
    view[:] = bytes(len(view))
    rig.maps.wipe()
    rig.restore()
    assert live(rig, 3) == before
