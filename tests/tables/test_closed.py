"""A timeout never opens a bridge: where misses of table 0 were dropped, they are until the admin says otherwise."""

import pytest

from pyoffload.flowdump import Dump
from pyoffload.flowselect import Selector
from tests.tables.rig import NORMAL, KilledError, spec

pytestmark = pytest.mark.kernel

ARP = int.from_bytes(spec("arp,actions=drop").key, "little")


def pass_time(rig):
    rig.conn.execute("UPDATE flows SET added_ns = added_ns - 11000000000 WHERE hard_s > 0")


def arp(rig):
    return rig.reader().lookup(0, ARP)


@pytest.fixture
def timed_out(rig):
    """The only flow of a replaced table 0 is over, but not cleared away yet."""
    rig.replace("ip,hard_timeout=10,actions=normal")
    pass_time(rig)
    return rig


@pytest.fixture
def closed(timed_out):
    """Another change has cleared it away."""
    change = timed_out.add("table=5,actions=drop")
    assert (change.added, change.expired, change.removed) == (1, 1, 0)
    return timed_out


def test_the_last_flow_of_a_replaced_table_times_out_and_misses_are_dropped_on(closed):
    assert closed.reader().nonzero == 1
    assert arp(closed) is None
    closed.add("table=6,actions=drop")
    closed.delete("table=5")
    assert arp(closed) is None


def test_the_timeout_is_remembered_by_a_restore_of_live_maps(closed):
    closed.restore()
    assert arp(closed) is None


@pytest.mark.parametrize("cleared", [False, True])
def test_the_timeout_is_remembered_by_an_up(timed_out, cleared):
    if cleared:
        timed_out.add("table=5,actions=drop")
        timed_out.delete("table=5")
    timed_out.maps.wipe()
    timed_out.restore()
    assert arp(timed_out) is None
    assert Dump(timed_out.store, timed_out.maps, 0).flows(Selector(0, 0)) == []
    timed_out.maps.wipe()
    timed_out.restore()
    assert arp(timed_out) is None


@pytest.mark.parametrize("step", ["staged", "committed", "published", "visible"])
def test_a_command_that_is_killed_while_it_clears_the_flow_away_opens_nothing(timed_out, step):
    def die(at):
        if at == step:
            raise KilledError

    timed_out.probe = die
    with pytest.raises(KilledError):
        timed_out.add("table=5,actions=drop")
    timed_out.probe = None
    assert timed_out.reader().nonzero == 1
    timed_out.restore()
    assert arp(timed_out) is None


def test_a_flow_that_is_added_later_has_no_permissive_one_behind_it(closed):
    closed.add("ip,actions=normal")
    assert arp(closed) is None
    closed.delete("ip")
    assert arp(closed) == "normal"


@pytest.mark.parametrize("match", ["", "table=0"])
def test_the_admin_opens_it_by_emptying_the_table(closed, match):
    closed.delete(match)
    assert arp(closed) == "normal"
    closed.add("ip,actions=drop")
    assert arp(closed) == (-1, NORMAL)


def test_the_admin_opens_it_by_an_empty_file(closed):
    closed.replace()
    assert arp(closed) == "normal"
    closed.maps.wipe()
    closed.restore()
    assert arp(closed) == "normal"


@pytest.mark.parametrize("match", ["tcp", "table=5", "cookie=1/-1", "out_port=1"])
def test_a_deletion_of_something_else_does_not_open_it(closed, match):
    closed.delete(match)
    assert arp(closed) is None


def test_the_admin_empties_the_table_of_what_has_timed_out_and_what_has_not(rig):
    rig.replace("ip,hard_timeout=10,actions=normal", "arp,actions=normal")
    pass_time(rig)
    rig.delete("arp")
    assert arp(rig) == "normal"


def test_flows_in_front_of_the_built_in_one_time_out_and_everything_is_switched_as_before(rig):
    rig.add("arp,hard_timeout=10,actions=drop")
    pass_time(rig)
    rig.add("table=5,actions=drop")
    assert arp(rig) == "normal"


def test_a_new_bridge_in_the_place_of_a_closed_one_is_open(closed):
    from pyoffload.flowtable import FlowTables

    with closed.change():
        clear = FlowTables(closed.maps, closed.conn).remove_bridge(0)
    clear()
    closed.restore()
    assert arp(closed) == "normal"
