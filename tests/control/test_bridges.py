"""bridge add, del, list, show."""

from __future__ import annotations

import pytest

from pyoffload import _abi as abi, bridges, datapath, ports
from pyoffload.change import Change
from pyoffload.errors import AlreadyExists, NotFound, TableFull, UsageError
from pyoffload.instance import Instance
from pyoffload.mapset import MapSet
from pyoffload.model import BridgeConfig
from pyoffload.store import Store
from tests.support.hoststate import assert_unchanged, host_state
from tests.support.switch import Switch

pytestmark = pytest.mark.traffic


def test_bridge_add_brings_a_datapath_up_that_is_down(own_lab):
    with own_lab.host.entered():
        instance = Instance.current()
        assert not datapath.status(instance).up
        try:
            made = bridges.add(instance, "br0", vni=7, mac_age_s=30, mac_limit=5, flood=False)
            assert made.up
            assert datapath.status(instance).up
            assert (made.vni, made.mac_age_s, made.mac_limit, made.flood) == (7, 30, 5, False)
            assert bridges.list_bridges(instance) == [made]
        finally:
            datapath.down(instance, purge=True)


def test_a_bridge_has_an_interface_of_its_name_and_it_goes_with_it(switch, lab):
    before = host_state(lab.host)
    switch.bridge("br0")
    assert lab.host.has("br0")
    with switch.inside() as instance:
        local = bridges.show(instance, "br0").local
    assert (local.ifname, local.ifindex, local.attached) == ("br0", lab.host.ifindex("br0"), True)
    switch.bridge_del("br0")
    assert_unchanged(before, lab.host)


def test_a_bridge_that_exists_is_an_error_unless_told_otherwise(switch):
    switch.bridge("br0", mac_limit=5)
    with switch.inside() as instance:
        with pytest.raises(AlreadyExists, match="br0"):
            bridges.add(instance, "br0")
        assert bridges.add(instance, "br0", mac_limit=9, exist_ok=True).mac_limit == 9


def test_an_interface_of_somebody_else_is_not_taken(switch, lab):
    lab.host.ip("link add br0 type veth peer name other")
    before = host_state(lab.host)
    with switch.inside() as instance:
        with pytest.raises(AlreadyExists, match="br0"):
            bridges.add(instance, "br0")
        assert bridges.list_bridges(instance) == []
        assert datapath.status(instance).drift == ()
    assert_unchanged(before, lab.host)
    lab.host.ip("link del br0")


def test_deleting_what_is_not_there_is_an_error_unless_told_otherwise(switch):
    with switch.inside() as instance:
        with pytest.raises(NotFound, match="br9"):
            bridges.delete(instance, "br9")
        assert bridges.delete(instance, "br9", missing_ok=True) is False


def test_deleting_a_bridge_frees_its_ports(switch, lab):
    (guest,) = lab.guests(1)
    switch.bridge("br0")
    switch.join([guest])
    switch.bridge_del("br0")
    with switch.inside() as instance:
        assert ports.list_ports(instance) == []
        assert datapath.status(instance).drift == ()
    switch.bridge("br1")
    (joined,) = switch.join([guest], "br1")
    assert joined.ofport == 1


@pytest.mark.parametrize(
    "options", [{"vni": 1 << 24}, {"mac_age_s": 0}, {"mac_limit": 0}, {"mac_limit": abi.MAX_FDB + 1}]
)
def test_options_out_of_range_are_refused_before_anything_happens(switch, options):
    with switch.inside() as instance:
        with pytest.raises(UsageError, match=next(iter(options)).split("_s")[0].replace("_", "-")):
            bridges.add(instance, "br0", **options)
        assert bridges.list_bridges(instance) == []


@pytest.mark.parametrize("name", ["", "x" * 16, "a/b", "a b", ".."])
def test_a_name_that_no_interface_can_have_is_refused(switch, name):
    with switch.inside() as instance, pytest.raises(UsageError):
        bridges.add(instance, name)


def test_the_bridge_after_the_last_is_refused(switch, tmp_path):
    # The limit is one of the configuration; 256 pairs of interfaces would take a minute to make.
    with switch.inside() as instance, Store.open_path(str(tmp_path / "config.db")) as store:
        store.begin()
        for slot in range(abi.MAX_BRIDGES):
            store.put_bridge(BridgeConfig(f"full{slot}", slot))
        with pytest.raises(TableFull, match="256 bridges"):
            bridges._free_slot(Change(instance, store, MapSet(instance, writable=False), "test", live=False))


def test_options_change_under_a_running_bridge(switch):
    switch.bridge("br0")
    with switch.inside() as instance:
        before = bridges.show(instance, "br0")
        after = bridges.change_bridge(instance, "br0", mac_age_s=60, flood=False)
        assert (after.mac_age_s, after.flood, after.mac_limit) == (60, False, before.mac_limit)
        assert after.generation > before.generation
        assert datapath.status(instance).drift == ()


def test_bridges_on_two_hosts_do_not_know_each_other(switch, own_lab):
    first, second = switch, Switch(own_lab.host)
    first.bridge("br0")
    second.bridge("br0")
    first.bridge_del("br0")
    with second.inside() as instance:
        assert [bridge.name for bridge in bridges.list_bridges(instance)] == ["br0"]
