"""kill -9 at every step of every changing verb: traffic goes on, and the next command works.

The steps are not listed here: a verb that runs to its end tells their names, so that a new step is tested as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from pyoffload import bridges, datapath, fdb, ports
from pyoffload.instance import Instance
from tests.control.conftest import in_child, killed_at, steps_of
from tests.support.hoststate import assert_unchanged, host_state
from tests.support.switch import Switch
from tests.support.traffic import pings

pytestmark = [pytest.mark.traffic, pytest.mark.serial]

STATION = "52:54:00:00:00:42"


@dataclass(frozen=True)
class Case:
    """A verb; what has to be there before; what takes it back. They get the instance and the third guest's interface."""

    verb: Callable[[Instance, str], object]
    before: Callable[[Instance, str], object] = lambda _instance, _ifname: None
    undo: Callable[[Instance, str], object] = lambda _instance, _ifname: None


def _join(instance: Instance, ifname: str) -> object:
    return ports.add(instance, "br0", ifname, exist_ok=True)


def _leave(instance: Instance, ifname: str) -> object:
    return ports.delete(instance, ifname, missing_ok=True)


def _no_second_bridge(instance: Instance, _ifname: str) -> object:
    return bridges.delete(instance, "br1", missing_ok=True)


def _second_bridge(instance: Instance, ifname: str) -> object:
    bridges.add(instance, "br1", exist_ok=True)
    return ports.add(instance, "br1", ifname, exist_ok=True)


def _static(instance: Instance, ifname: str) -> object:
    _join(instance, ifname)
    return fdb.add(instance, "br0", STATION, ifname, exist_ok=True)


CASES = {
    "bridge add": Case(lambda i, _: bridges.add(i, "br1"), _no_second_bridge, _no_second_bridge),
    "bridge del": Case(lambda i, _: bridges.delete(i, "br1"), _second_bridge, _no_second_bridge),
    "bridge set": Case(
        lambda i, _: bridges.change_bridge(i, "br0", mac_age_s=77),
        lambda i, _: bridges.change_bridge(i, "br0", mac_age_s=300),
    ),
    "port add": Case(lambda i, name: ports.add(i, "br0", name, trunk="5,6"), _leave, _leave),
    "port add xdp": Case(lambda i, name: ports.add(i, "br0", name, hook="xdp"), _leave, _leave),
    "port set": Case(
        lambda i, name: ports.change_port(i, name, vlan=7),
        lambda i, name: ports.add(i, "br0", name, vlan=9, exist_ok=True),
        _leave,
    ),
    "port del": Case(ports.delete, _static, _leave),
    "fdb add": Case(
        lambda i, name: fdb.add(i, "br0", STATION, name),
        lambda i, name: (_join(i, name), fdb.delete(i, "br0", STATION, missing_ok=True)),
        _leave,
    ),
    "fdb del": Case(lambda i, _: fdb.delete(i, "br0", STATION), _static, _leave),
    "up": Case(lambda i, _: datapath.up(i)),
    "upgrade": Case(lambda i, _: datapath.upgrade(i)),
}


@pytest.fixture
def two_guests(switch, lab):
    """Two guests that talk through br0, and a third one's interface."""
    one, two, third = lab.guests(3)
    switch.bridge("br0")
    switch.join([one, two])
    pings(one.ns, two.ip)
    return one, two, third.ifname


def configuration(instance: Instance) -> tuple[object, ...]:
    """What the verbs here can change, as users see it."""
    options = [
        (b.name, b.vni, b.mac_age_s, b.mac_limit, b.flood, b.ports) for b in bridges.list_bridges(instance)
    ]
    joined = [(p.bridge, p.ifname, p.vlan, p.trunk, p.hook) for p in ports.list_ports(instance)]
    static = [(e.mac, e.port) for e in fdb.list_macs(instance, "br0") if e.static]
    return tuple(options), tuple(joined), tuple(static)


@pytest.mark.parametrize("name", CASES)
def test_a_verb_killed_anywhere_happened_or_did_not(name, two_guests, switch, tmp_path):
    one, two, ifname = two_guests
    case = CASES[name]
    with switch.inside() as instance:
        case.before(instance, ifname)
        old = configuration(instance)
        steps = steps_of(lambda: case.verb(instance, ifname), tmp_path / "steps")
        new = configuration(instance)
        assert len(steps) >= 4 or name == "up", steps
        for step in steps:
            case.before(instance, ifname)
            assert configuration(instance) == old, step
            killed_at(step, lambda: case.verb(instance, ifname))
            pings(one.ns, two.ip, count=1)
            # The next command works, and repairs: it is another verb, which fails for a reason of its own.
            bridges.delete(instance, "none", missing_ok=True)
            assert datapath.status(instance).drift == (), step
            assert configuration(instance) in {old, new}, step
            pings(one.ns, two.ip, count=1)
        case.undo(instance, ifname)


def test_a_first_up_killed_anywhere_is_completed_by_the_next(own_lab, tmp_path):
    one, two = own_lab.guests(2)
    switch = Switch(own_lab.host)
    switch.bridge("br0")
    switch.join([one, two])
    with switch.inside() as instance:
        datapath.down(instance)
        before = host_state(own_lab.host)
        steps = steps_of(lambda: datapath.up(instance), tmp_path / "steps")
        assert {"up.maps", "up.loaded", "repair.done"} <= set(steps)
        for step in steps:
            datapath.down(instance)
            assert_unchanged(before, own_lab.host)
            killed_at(step, lambda: datapath.up(instance))
            datapath.up(instance)
            assert datapath.status(instance).drift == (), step
            pings(one.ns, two.ip, count=1)
        for step in steps[::2]:  # and `down` clears what a killed `up` left
            datapath.down(instance)
            killed_at(step, lambda: datapath.up(instance))
            datapath.down(instance)
            assert_unchanged(before, own_lab.host)


def test_a_down_killed_anywhere_is_completed_by_the_next_or_taken_back_by_up(own_lab, tmp_path):
    one, two = own_lab.guests(2)
    before = host_state(own_lab.host)
    switch = Switch(own_lab.host)
    switch.bridge("br0")
    switch.join([one], hook="xdp")
    switch.join([two])
    with switch.inside() as instance:
        steps = steps_of(lambda: datapath.down(instance), tmp_path / "steps")
        assert {"down.marked", "down.unpinned"} <= set(steps)
        for step in steps:
            datapath.up(instance)
            killed_at(step, lambda: datapath.down(instance))
            datapath.down(instance)
            assert_unchanged(before, own_lab.host)
            datapath.up(instance)
            killed_at(step, lambda: datapath.down(instance))
            datapath.up(instance)
            assert datapath.status(instance).drift == (), step
            pings(one.ns, two.ip, count=1)


def test_commands_at_the_same_time_all_take_effect(switch, lab):
    guests = lab.guests(6)
    switch.bridge("br0")
    import os

    with switch.inside() as instance:
        children = []
        for guest in guests:
            child = os.fork()
            if child == 0:
                os._exit(in_child(lambda name=guest.ifname: ports.add(instance, "br0", name)))
            children.append(child)
        assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 6
        assert sorted(port.ofport for port in ports.list_ports(instance)) == [1, 2, 3, 4, 5, 6]
        assert datapath.status(instance).drift == ()
    pings(guests[0].ns, guests[5].ip)
