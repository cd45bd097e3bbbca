"""Slots, VLAN profiles and differences: plain functions, against what they promise."""

from __future__ import annotations

import pytest
from hypothesis import event, given, strategies as st

from pyoffload import _abi as abi
from pyoffload.errors import TableFull, UsageError
from pyoffload.model import PortConfig, as_trunk, check_vlan_options, unicast_mac
from pyoffload.plan import ABSENT, NoSlot, WantedPort, assign_slots, home_slots, make_plan, port_mode
from pyoffload.policy import next_generation
from pyoffload.records import PortRecord, pack_delivery, pack_mode, profile_bytes

ACCESS, TRUNK = abi.vlan_mode.ACCESS, abi.vlan_mode.TRUNK


def port(ofport: int, ifindex: int, bridge: int = 0, **options) -> WantedPort:
    delivery = pack_delivery(ifindex, abi.port_deliver.REDIRECT, 0) if ifindex else ABSENT
    return WantedPort(bridge, ofport, f"if{bridge}-{ofport}", ifindex, delivery=delivery, **options)


def carried_out(wanted, actual=(), profiles=None):
    """Records and profiles after a plan has been carried out."""
    profiles = dict(profiles or {})
    plan = make_plan(wanted, actual, profiles)
    profiles.update(plan.profiles)
    removed = {record.slot for record in plan.removals}
    records = {record.slot: record for record in actual if record.slot not in removed}
    for write in plan.writes:
        records[write.slot] = PortRecord(
            write.slot, write.port.ifindex, write.port.bridge, write.port.ofport, write.mode, write.delivery
        )
    return list(records.values()), profiles


@st.composite
def port_sets(draw):
    numbers = draw(st.lists(st.integers(1, 30), unique=True, max_size=20))
    indexes = draw(
        st.lists(
            st.integers(1, 12) | st.integers(4090, 4110),
            unique=True,
            min_size=len(numbers),
            max_size=len(numbers),
        )
    )
    there = draw(st.lists(st.booleans(), min_size=len(numbers), max_size=len(numbers)))
    return [port(n, index if up else 0) for n, index, up in zip(numbers, indexes, there, strict=True)]


@given(port_sets(), port_sets())
def test_every_port_gets_a_slot_of_its_own_where_the_datapath_looks(before, after):
    try:
        actual, _ = carried_out(before)
        slots = assign_slots(after, actual)
    except NoSlot as err:
        event(f"no slot for {err.ifname}")
        return
    assert set(slots) == {p.key for p in after}
    assert len(set(slots.values())) == len(slots)
    for p in after:
        if p.ifindex:
            assert slots[p.key] in home_slots(p.ifindex)


@given(port_sets(), port_sets())
def test_a_plan_leads_to_what_is_wanted_and_then_there_is_nothing_to_do(before, after):
    try:
        actual, profiles = carried_out(before)
        actual, profiles = carried_out(after, actual, profiles)
    except NoSlot as err:
        event(f"no slot for {err.ifname}")
        return
    assert {(r.key, r.ifindex) for r in actual} == {(p.key, p.ifindex) for p in after}
    again = make_plan(after, actual, profiles)
    assert not again.writes
    assert not again.removals
    assert not again.profiles


@given(port_sets())
def test_slots_of_removed_ports_are_not_given_away_in_the_same_change(before):
    actual, _ = carried_out(before)
    try:
        slots = assign_slots([port(99, 5)], actual)
    except NoSlot:
        assert set(home_slots(5)) <= {r.slot for r in actual}
        return
    assert slots[0, 99] not in {r.slot for r in actual}


def test_a_port_that_stays_keeps_its_slot_and_is_not_written():
    actual, profiles = carried_out([port(1, 7), port(2, 8)])
    plan = make_plan([port(1, 7), port(2, 8), port(3, 9)], actual, profiles)
    assert [write.port.ofport for write in plan.writes] == [3]


def test_a_port_that_goes_absent_keeps_its_slot_and_its_counters():
    actual, profiles = carried_out([port(1, 7)])
    plan = make_plan([port(1, 0)], actual, profiles)
    (write,) = plan.writes
    assert (write.slot, write.fresh) == (actual[0].slot, False)
    assert not plan.removals


def test_an_absent_port_gives_way_to_one_whose_interface_is_there():
    crowd = [port(n, 7 + abi.MAX_PORTS * (n - 1)) for n in range(1, 9)]  # eight interfaces with the same home
    actual, profiles = carried_out(crowd)
    wanted = [*crowd[:7], port(8, 0), port(9, 7 + abi.MAX_PORTS * 8)]
    after, _ = carried_out(wanted, actual, profiles)
    assert {(r.key, r.ifindex) for r in after} == {(p.key, p.ifindex) for p in wanted}


def test_a_ninth_interface_with_the_same_home_is_refused_with_a_way_out():
    crowd = [port(n, 7 + abi.MAX_PORTS * (n - 1)) for n in range(1, 10)]
    with pytest.raises(TableFull, match=r"if0-9.*slots") as caught:
        assign_slots(crowd, [])
    assert "another index" in caught.value.hint


def test_equal_trunks_share_a_profile_and_different_ones_do_not():
    wanted = [
        port(1, 1, vlan_mode=TRUNK, vlans=(10, 20)),
        port(2, 2, vlan_mode=TRUNK, vlans=(10, 20)),
        port(3, 3, vlan_mode=TRUNK, vlans=(10,)),
    ]
    records, profiles = carried_out(wanted)
    used = {r.ofport: r.vlan_profile for r in records}
    assert used[1] == used[2] != used[3]
    assert profiles == {used[1]: profile_bytes((10, 20)), used[3]: profile_bytes((10,))}


def test_a_profile_in_use_is_never_written_again():
    records, profiles = carried_out([port(1, 1, vlan_mode=TRUNK, vlans=(10,))])
    plan = make_plan([port(1, 1, vlan_mode=TRUNK, vlans=(11,))], records, profiles)
    assert set(plan.profiles) == {1}
    (write,) = plan.writes
    assert write.mode == pack_mode(TRUNK, 0, 0, 1)
    assert not write.fresh


def test_the_native_vlan_belongs_to_the_trunk():
    mode = port_mode(PortConfig("tap0", "br0", 1, trunk=(10, 20), native=5, isolated=True))
    assert mode == (TRUNK, abi.port_mode_flag.NATIVE | abi.port_mode_flag.ISOLATED, 5, (5, 10, 20))
    assert port_mode(PortConfig("tap0", "br0", 1, vlan=9)) == (ACCESS, 0, 9, ())
    assert port_mode(PortConfig("tap0", "br0", 1)) == (abi.vlan_mode.TRANSPARENT, 0, 0, ())


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 2**32 - 1), max_size=5))
def test_a_generation_is_new_in_the_instance_and_flips_the_half_of_the_mask(own, others):
    number = next_generation(own, [own, *others])
    assert 0 < number < 2**32
    assert (number ^ own) & 1
    if max([own, *others]) < 2**32 - 3:
        assert number > max([own, *others])


@pytest.mark.parametrize(
    ("text", "vlans"), [("10", (10,)), ("10,20-22", (10, 20, 21, 22)), ("20-22,10,21", (10, 20, 21, 22))]
)
def test_a_trunk_is_a_list_of_vlans_and_ranges(text, vlans):
    assert as_trunk(text) == vlans


@pytest.mark.parametrize(
    ("vlan", "trunk", "native", "word"),
    [(1, (2,), None, "both"), (None, None, 3, "native"), (4095, None, None, "4095"), (1, None, 2, "native")],
)
def test_vlan_options_that_contradict_each_other_are_refused(vlan, trunk, native, word):
    with pytest.raises(UsageError, match=word):
        check_vlan_options(vlan, trunk, native)


@pytest.mark.parametrize(
    "text", ["01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00", "52:54:00", "x"]
)
def test_only_the_address_of_one_station_can_be_on_a_port(text):
    with pytest.raises(UsageError, match=text):
        unicast_mac(text, "mac")
