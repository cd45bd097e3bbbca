"""port add, set, del, list, show; interfaces that go and come back."""

from __future__ import annotations

import pytest

from pyoffload import _abi as abi, attach, bridges, datapath, netlink, ports
from pyoffload.errors import AlreadyExists, HookBusy, HostError, NotFound, TableFull, UsageError
from pyoffload.mapset import MapSet
from pyoffload.records import PORT_SIZE, read_members, read_ports
from pyoffload.store import Store
from tests.support.hoststate import assert_unchanged, host_state
from tests.support.traffic import no_ping, pings

pytestmark = pytest.mark.traffic

JSON_KEYS = {
    "bridge", "ifname", "ifindex", "ofport", "hook", "vlan", "trunk", "mac", "ip", "sg",
    "rx_packets", "rx_bytes", "tx_packets", "tx_bytes", "drops",
}  # fmt: skip


@pytest.fixture
def bridge(switch):
    switch.bridge("br0")
    return switch


def drift(switch) -> tuple[str, ...]:
    with switch.inside() as instance:
        return datapath.status(instance).drift


def test_two_guests_reach_each_other_through_a_bridge(bridge, lab):
    one, two = lab.guests(2)
    no_ping(one.ns, two.ip)
    bridge.join([one, two])
    pings(one.ns, two.ip)
    assert drift(bridge) == ()


def test_port_list_has_the_shape_of_the_contract(bridge, lab):
    one, two = lab.guests(2)
    bridge.join([one], vlan=10)
    bridge.join([two], trunk="10,20-22", native=5, isolated=True)
    with bridge.inside() as instance:
        first, second = (port.as_dict() for port in ports.list_ports(instance, "br0"))
    assert first.keys() >= JSON_KEYS
    assert (first["bridge"], first["ifname"], first["ofport"]) == ("br0", one.ifname, 1)
    assert first["ifindex"] == lab.host.ifindex(one.ifname)
    assert (first["vlan"], first["trunk"], first["deliver"]) == (10, None, "peer")
    assert (second["vlan"], second["trunk"], second["native"]) == (None, [10, 20, 21, 22], 5)
    assert second["isolated"] is True
    assert first["drops"] == {}


def test_openflow_numbers_are_the_lowest_free_ones(bridge, lab):
    guests = lab.guests(3)
    assert [port.ofport for port in bridge.join(guests)] == [1, 2, 3]
    bridge.port_del(guests[1])
    (again,) = bridge.join([guests[1]])
    assert again.ofport == 2


def test_a_port_is_taken_off_and_the_host_is_as_before(bridge, lab):
    (guest,) = lab.guests(1)
    before = host_state(lab.host)
    bridge.join([guest])
    bridge.port_del(guest)
    assert_unchanged(before, lab.host)
    assert drift(bridge) == ()
    with bridge.inside() as instance:
        assert ports.list_ports(instance) == []


def test_a_guest_is_cut_off_when_its_port_goes(bridge, lab):
    one, two, three = lab.guests(3)
    bridge.join([one, two, three])
    pings(one.ns, two.ip)
    bridge.port_del(two)
    no_ping(one.ns, two.ip)
    pings(one.ns, three.ip)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"vlan": 4095}, "4095"),
        ({"vlan": 1, "trunk": "2"}, "both"),
        ({"trunk": "7-5"}, "7-5"),
        ({"trunk": "ten"}, "ten"),
        ({"native": 5}, "native"),
        ({"hook": "magic"}, "magic"),
        ({"sg": ("web",)}, "sg.*not there yet"),
        ({"mac": ("52:54:00:00:00:01",)}, "mac.*not there yet"),
        ({"ip": ("192.0.2.1",)}, "ip.*not there yet"),
    ],
)
def test_a_wrong_option_is_named_and_changes_nothing(bridge, lab, options, word):
    (guest,) = lab.guests(1)
    with bridge.inside() as instance:
        with pytest.raises(UsageError, match=word):
            ports.add(instance, "br0", guest.ifname, **options)
        assert ports.list_ports(instance) == []


def test_what_is_missing_is_named(bridge, lab):
    (guest,) = lab.guests(1)
    with bridge.inside() as instance:
        with pytest.raises(NotFound, match="nope"):
            ports.add(instance, "nope", guest.ifname)
        with pytest.raises(NotFound, match="veth99"):
            ports.add(instance, "br0", "veth99")
        with pytest.raises(NotFound, match="veth99"):
            ports.delete(instance, "veth99")
        assert ports.delete(instance, "veth99", missing_ok=True) is False
        with pytest.raises(NotFound, match="veth99"):
            ports.show(instance, "veth99")
        assert ports.list_ports(instance) == []


def test_an_interface_is_a_port_of_one_bridge_only(bridge, lab):
    (guest,) = lab.guests(1)
    bridge.bridge("br1")
    bridge.join([guest])
    with bridge.inside() as instance:
        with pytest.raises(AlreadyExists, match="br0"):
            ports.add(instance, "br0", guest.ifname)
        with pytest.raises(AlreadyExists, match="br0"):
            ports.add(instance, "br1", guest.ifname)
        assert ports.add(instance, "br0", guest.ifname, vlan=9, exist_ok=True).vlan == 9


def test_interfaces_that_cannot_be_ports_are_refused(bridge, lab):
    lab.host.ip("tuntap add tun9 mode tun")
    with bridge.inside() as instance:
        for name, error in (("tun9", HostError), ("br0", UsageError), ("lo", HostError)):
            with pytest.raises(error, match=name):
                ports.add(instance, "br0", name)
        assert ports.list_ports(instance) == []


def test_a_hook_that_a_linux_bridge_holds_is_refused_with_its_name(bridge, lab):
    (guest,) = lab.guests(1)
    lab.host.ip("link add lbr0 type bridge", f"link set {guest.ifname} master lbr0")
    with bridge.inside() as instance:
        with pytest.raises(HookBusy, match="lbr0"):
            ports.add(instance, "br0", guest.ifname)
        assert ports.list_ports(instance) == []
    assert drift(bridge) == ()


def test_the_port_after_the_last_is_refused(bridge, lab):
    (guest,) = lab.guests(1)
    with bridge.inside() as instance:
        from pyoffload.model import PortConfig

        with Store.open(instance) as store, store.transaction():
            for number in range(1, abi.MAX_BRIDGE_PORTS + 1):
                store.put_port(PortConfig(f"full{number}", "br0", number))
        with pytest.raises(TableFull, match="256 ports"):
            ports.add(instance, "br0", guest.ifname)
        assert len(ports.list_ports(instance)) == abi.MAX_BRIDGE_PORTS
        assert all(port.absent for port in ports.list_ports(instance))


def test_set_changes_what_is_given_and_keeps_the_rest(bridge, lab):
    (guest,) = lab.guests(1)
    bridge.join([guest], vlan=10, isolated=True)
    assert bridge.port_set(guest, vlan=20).isolated is True
    trunk = bridge.port_set(guest, trunk="5-7", native=9)
    assert (trunk.vlan, trunk.trunk, trunk.native) == (None, (5, 6, 7), 9)
    access = bridge.port_set(guest, vlan=3)
    assert (access.vlan, access.trunk, access.native) == (3, None, None)
    plain = bridge.port_set(guest, vlan=None, isolated=False)
    assert (plain.vlan, plain.trunk, plain.isolated) == (None, None, False)
    assert drift(bridge) == ()


def test_a_vlan_change_holds_from_the_next_packet(bridge, lab):
    one, two = lab.guests(2)
    bridge.join([one, two], vlan=10)
    pings(one.ns, two.ip)
    bridge.port_set(two, vlan=20)
    no_ping(one.ns, two.ip)
    bridge.port_set(two, vlan=10)
    pings(one.ns, two.ip)


def test_an_interface_made_again_is_attached_by_port_add(bridge, lab):
    one, two = lab.guests(2)
    bridge.join([one, two])
    lab.host.ip(f"link del {two.ifname}")
    assert bridge.port_show(two).hook in {"tcx", "tc", "absent"}
    recreate(lab, two)
    with bridge.inside() as instance:
        back = ports.add(instance, "br0", two.ifname, vlan=None)
    assert (back.ifindex, back.absent, back.ofport) == (lab.host.ifindex(two.ifname), False, 2)
    pings(one.ns, two.ip)
    assert drift(bridge) == ()


def test_an_interface_made_again_is_attached_by_sync(bridge, lab):
    one, two = lab.guests(2)
    bridge.join([one, two])
    lab.host.ip(f"link del {two.ifname}")
    with bridge.inside() as instance:
        assert any(two.ifname in sentence for sentence in datapath.status(instance).drift)
        assert datapath.sync(instance).ports_absent == (two.ifname,)
        gone = ports.show(instance, two.ifname)
        assert (gone.absent, gone.hook, gone.ifindex) == (True, "absent", None)
        assert datapath.status(instance).drift == ()
        recreate(lab, two)
        assert datapath.sync(instance).ports_attached == (two.ifname,)
    pings(one.ns, two.ip)


def test_any_changing_verb_attaches_an_interface_that_is_back(bridge, lab):
    one, two = lab.guests(2)
    bridge.join([one, two])
    lab.host.ip(f"link del {two.ifname}")
    recreate(lab, two)
    bridge.bridge("br9")
    pings(one.ns, two.ip)


def test_absent_ports_are_no_members_and_do_not_stop_others(bridge, lab):
    one, two, three = lab.guests(3)
    bridge.join([one, two, three])
    lab.host.ip(f"link del {two.ifname}")
    with bridge.inside() as instance:
        datapath.sync(instance)
        maps = MapSet(instance, writable=False)
        members, numbers = read_members(maps, 0)
        attached = {record.slot for record in read_ports(maps) if record.ifindex}
        assert members == attached
        assert set(numbers) == {1, 2, 3}
    pings(one.ns, three.ip)


def test_a_veth_whose_peer_moves_home_is_delivered_another_way(bridge, lab):
    (guest,) = lab.guests(1)
    (info,) = bridge.join([guest])
    assert info.deliver == "peer"
    # The peer moves into the host's own namespace: bpf_redirect_peer would drop everything.
    guest.ns.ip("link set eth0 down", f"link set eth0 netns {lab.host.name}")
    with bridge.inside() as instance:
        datapath.sync(instance)
        assert ports.show(instance, guest.ifname).deliver == "redirect"


def test_counters_count_and_begin_anew_with_a_new_port(bridge, lab):
    one, two = lab.guests(2)
    bridge.join([one, two])
    pings(one.ns, two.ip)
    first = bridge.port_show(one)
    assert first.rx_packets >= 2
    assert first.tx_packets >= 2
    assert first.rx_bytes >= 2 * 98
    bridge.port_del(one)
    (again,) = bridge.join([one])
    assert again.rx_packets <= 2


def test_a_port_on_xdp_has_both_hooks_and_gives_both_back(bridge, lab):
    one, two = lab.guests(2)
    before = host_state(lab.host)
    (info,) = bridge.join([one], hook="xdp")
    bridge.join([two])
    assert info.hook == "xdp native"
    pings(one.ns, two.ip)
    assert bridge.port_set(one, hook="tc").hook in {"tcx", "tc"}
    pings(one.ns, two.ip)
    for guest in (one, two):
        bridge.port_del(guest)
    assert_unchanged(before, lab.host)


def test_a_bridge_remembers_its_ports_over_down_and_up(bridge, lab):
    one, two = lab.guests(2)
    bridge.join([one], vlan=10)
    bridge.join([two], vlan=10)
    with bridge.inside() as instance:
        datapath.down(instance)
        assert [port.hook for port in ports.list_ports(instance)] == ["down", "down"]
        result = datapath.up(instance)
        assert set(result.ports_attached) == {one.ifname, two.ifname}
        assert bridges.show(instance, "br0").ports == (one.ifname, two.ifname)
    pings(one.ns, two.ip)


def recreate(lab, guest) -> None:
    """The guest's cable under the same name, as after a restart of its machine."""
    guest.ns.ip(
        f"link add eth0 address {guest.mac} type veth peer name {guest.ifname} netns {lab.host.name}",
        f"addr add {guest.ip}/24 dev eth0",
        "link set eth0 up",
    )
    lab.host.ip(f"link set {guest.ifname} up")
    lab.host.wait_running([guest.ifname])


def test_drops_are_told_by_their_reason(bridge, lab):
    one, two = lab.wires(2)
    bridge.join([one, two], vlan=10)
    frame = bytes.fromhex("525400000002 525400000001 8100 0005 88b5") + b"drop" * 12
    lab.exchange(one, [frame] * 3, [two])
    assert bridge.port_show(one).drops == {"vlan_ingress": 3}
    assert bridge.port_show(two).drops == {}
    assert bridge.stats(one).drops == {"vlan_ingress": 3}


def test_a_slot_does_not_remember_the_device_of_the_interface_before(bridge, lab):
    one, two = lab.guests(2)
    bridge.join([one, two])
    pings(one.ns, two.ip)
    slot, device = noted_device(bridge, 1)
    assert device
    bridge.port_del(one)
    with bridge.inside() as instance:
        ports_map = MapSet(instance, writable=False).mmap("ports")
        assert bytes(ports_map[slot * PORT_SIZE : (slot + 1) * PORT_SIZE]) == bytes(PORT_SIZE)
    lab.host.ip(f"link del {two.ifname}")
    with bridge.inside() as instance:
        datapath.sync(instance)
    lab.host.ip(f"link add {two.ifname} type veth peer name silent")
    with bridge.inside() as instance:
        datapath.sync(instance)
    assert noted_device(bridge, 2)[1] == 0


def noted_device(switch, ofport: int) -> tuple[int, int]:
    """(slot, device) of a port."""
    with switch.inside() as instance:
        maps = MapSet(instance, writable=False)
        (slot,) = (record.slot for record in read_ports(maps) if record.ofport == ofport)
        return slot, abi.port.from_buffer_copy(maps.mmap("ports")[slot * PORT_SIZE :]).device


def test_a_change_asks_for_the_interfaces_once_and_for_the_hooks_once(bridge, lab, monkeypatch):
    wires = lab.wires(3)
    bridge.join(wires[:2])
    asked = []
    for module, name in ((netlink, "dump_links"), (attach, "attached")):
        function = getattr(module, name)

        def count(*args, name=name, function=function):
            asked.append(name)
            return function(*args)

        monkeypatch.setattr(module, name, count)
    with bridge.inside() as instance:
        ports.add(instance, "br0", wires[2].ifname)
        # The second time for the answer: what is really attached.
        assert sorted(asked) == ["attached", "attached", "dump_links"]
        asked.clear()
        ports.delete(instance, wires[2].ifname)
        assert sorted(asked) == ["attached", "dump_links"]
    assert drift(bridge) == ()
