"""fdb list, add, del, flush."""

from __future__ import annotations

import pytest
from scapy.layers.l2 import Dot1Q, Ether

from pyoffload import datapath, fdb, fdbmap, reconcile
from pyoffload.errors import AlreadyExists, NotFound, UsageError
from pyoffload.mapset import MapSet
from pyoffload.records import read_ports

pytestmark = pytest.mark.traffic

STATION = "52:54:00:00:00:42"
OTHER = "52:54:00:00:00:43"


def frame(src: str, dst: str) -> bytes:
    return bytes(Ether(src=src, dst=dst, type=0x88B5) / (b"fdb" * 20))


@pytest.fixture
def wired(switch, lab):
    """Three silent ports on br0."""
    switch.bridge("br0")
    wires = lab.wires(3)
    switch.join(wires)
    return switch, lab, wires


def learned(switch) -> int:
    """What the datapath holds against mac_limit."""
    with switch.inside() as instance:
        return fdbmap.learned_count(MapSet(instance, writable=False), 0)


def test_a_learned_address_is_listed_in_the_shape_of_the_contract(wired):
    switch, lab, (one, two, three) = wired
    lab.exchange(one, [frame(STATION, "ff:ff:ff:ff:ff:ff")], [two, three])
    (entry,) = switch.fdb()
    shown = entry.as_dict()
    assert shown.pop("age_s") in {0, 1}
    assert shown == {"mac": STATION, "vlan": 0, "port": one.ifname, "remote": None, "static": False}


def test_a_static_address_gets_its_frames_and_is_not_learned_elsewhere(wired):
    switch, lab, (one, two, three) = wired
    switch.fdb_add(STATION, two)
    wanted = frame(OTHER, STATION)
    got = lab.exchange(one, [wanted], [two, three])
    assert (got[two], got[three]) == ([wanted], [])
    lab.exchange(three, [frame(STATION, "ff:ff:ff:ff:ff:ff")], [one, two])
    assert switch.macs()[STATION, 0] == two.ifname
    got = lab.exchange(one, [wanted], [two, three])
    assert (got[two], got[three]) == ([wanted], [])


def test_a_static_address_over_a_learned_one_takes_effect_at_once_and_is_not_counted(wired):
    switch, lab, (one, two, three) = wired
    lab.exchange(two, [frame(STATION, "ff:ff:ff:ff:ff:ff")], [one, three])
    wanted = frame(OTHER, STATION)
    assert lab.exchange(one, [wanted], [two, three])[two] == [wanted]  # decided, and cached
    before = learned(switch)
    switch.fdb_add(STATION, three)
    assert learned(switch) == before - 1
    got = lab.exchange(one, [wanted], [two, three])
    assert (got[two], got[three]) == ([], [wanted])


def test_a_deleted_static_address_is_flooded_and_learned_again(wired):
    switch, lab, (one, two, three) = wired
    switch.fdb_add(STATION, two)
    assert switch.fdb_del(STATION) == 1
    wanted = frame(OTHER, STATION)
    got = lab.exchange(one, [wanted], [two, three])
    assert (got[two], got[three]) == ([wanted], [wanted])
    lab.exchange(three, [frame(STATION, OTHER)], [one, two])
    got = lab.exchange(one, [wanted], [two, three])
    assert (got[two], got[three]) == ([], [wanted])


def test_flush_forgets_learned_addresses_and_keeps_static_ones(wired):
    switch, lab, (one, two, three) = wired
    switch.fdb_add(OTHER, two)
    lab.exchange(one, [frame(STATION, "ff:ff:ff:ff:ff:ff")], [two, three])
    assert switch.fdb_flush() == 1
    assert switch.macs() == {(OTHER, 0): two.ifname}
    wanted = frame(OTHER, STATION)
    got = lab.exchange(two, [wanted], [one, three])
    assert (got[one], got[three]) == ([wanted], [wanted])
    assert switch.fdb_flush() == 0


def test_a_flushed_address_that_speaks_again_is_learned_again(wired):
    switch, lab, (one, two, three) = wired
    hello = frame(STATION, "ff:ff:ff:ff:ff:ff")
    lab.exchange(one, [hello], [two, three])
    switch.fdb_flush()
    lab.exchange(two, [hello], [one, three])
    assert switch.macs() == {(STATION, 0): two.ifname}


def test_one_learned_address_can_be_deleted(wired):
    switch, lab, (one, two, three) = wired
    for mac in (STATION, OTHER):
        lab.exchange(one, [frame(mac, "ff:ff:ff:ff:ff:ff")], [two, three])
    assert switch.fdb_del(STATION) == 1
    assert set(switch.macs()) == {(OTHER, 0)}


def test_a_static_address_can_be_in_one_vlan_only(wired):
    switch, lab, (one, two, three) = wired
    switch.fdb_add(STATION, two, vlan=10)
    switch.fdb_add(STATION, three, vlan=20)
    assert switch.macs() == {(STATION, 10): two.ifname, (STATION, 20): three.ifname}
    for vlan, port, other in ((10, two, three), (20, three, two)):
        tagged = bytes(Ether(src=OTHER, dst=STATION) / Dot1Q(vlan=vlan, type=0x88B5) / (b"fdb" * 20))
        got = lab.exchange(one, [tagged], [two, three])
        assert (got[port], got[other]) == ([tagged], [])
    switch.fdb_flush()
    assert switch.fdb_del(STATION, 10) == 1
    assert switch.macs() == {(STATION, 20): three.ifname}


def test_what_exists_and_what_is_missing_are_errors_unless_told_otherwise(wired):
    switch, _lab, (one, two, _three) = wired
    switch.fdb_add(STATION, one)
    with switch.inside() as instance:
        with pytest.raises(AlreadyExists, match=one.ifname):
            fdb.add(instance, "br0", STATION, two.ifname)
        assert fdb.add(instance, "br0", STATION, two.ifname, exist_ok=True).port == two.ifname
        with pytest.raises(NotFound, match=OTHER):
            fdb.delete(instance, "br0", OTHER)
        assert fdb.delete(instance, "br0", OTHER, missing_ok=True) == 0
        with pytest.raises(NotFound, match="br9"):
            fdb.list_macs(instance, "br9")
        with pytest.raises(NotFound, match="veth99"):
            fdb.add(instance, "br0", OTHER, "veth99")
        with pytest.raises(UsageError, match="01:00"):
            fdb.add(instance, "br0", "01:00:5e:00:00:01", one.ifname)


def test_addresses_of_a_port_go_with_it(wired):
    switch, lab, (one, two, three) = wired
    switch.fdb_add(OTHER, one)
    lab.exchange(one, [frame(STATION, "ff:ff:ff:ff:ff:ff")], [two, three])
    switch.port_del(one)
    assert switch.macs() == {}
    wanted = frame("52:54:00:00:00:44", STATION)
    got = lab.exchange(two, [wanted], [one, three])
    assert (got[one], got[three]) == ([], [wanted])


def test_static_addresses_are_back_after_down_and_up(wired):
    switch, lab, (one, two, three) = wired
    switch.fdb_add(STATION, two)
    with switch.inside() as instance:
        datapath.down(instance)
        assert [entry.as_dict()["port"] for entry in fdb.list_macs(instance, "br0")] == [two.ifname]
        datapath.up(instance)
    wanted = frame(OTHER, STATION)
    got = lab.exchange(one, [wanted], [two, three])
    assert (got[two], got[three]) == ([wanted], [])


def test_a_bridge_takes_what_it_learned_along_and_the_next_one_counts_from_zero(wired):
    switch, lab, (one, two, three) = wired
    hellos = [frame(f"52:54:00:00:01:{n:02x}", "ff:ff:ff:ff:ff:ff") for n in range(40)]
    lab.exchange(one, hellos, [two, three])
    assert learned(switch) == 40
    switch.bridge_del("br0")
    assert learned(switch) == 0
    with switch.inside() as instance:
        maps = MapSet(instance, writable=False)
        assert list(fdbmap.read(maps)) == []
    switch.bridge("br0", mac_limit=1)
    switch.join([one, two, three])
    lab.exchange(one, [frame(STATION, "ff:ff:ff:ff:ff:ff")], [two, three])
    assert switch.macs() == {(STATION, 0): one.ifname}


def test_a_static_address_is_in_its_new_place_before_anything_is_decided_anew(wired, monkeypatch):
    switch, lab, (_one, two, _three) = wired
    switch.fdb_add(STATION, two)
    lab.host.ip(f"link del {two.ifname}", f"link add {two.ifname} type veth peer name again")
    places = []
    publish = reconcile.policy.publish

    def look(maps, *args, **options):
        places.append([entry.port for entry in fdbmap.read(maps) if entry.static])
        return publish(maps, *args, **options)

    monkeypatch.setattr(reconcile.policy, "publish", look)
    with switch.inside() as instance:
        assert datapath.sync(instance).ports_attached == (two.ifname,)
        (port,) = (p for p in read_ports(MapSet(instance, writable=False)) if p.ofport == 2)
    assert places
    assert all(place == [port.slot] for place in places)
    assert switch.macs()[STATION, 0] == two.ifname
