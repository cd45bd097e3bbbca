"""up, down, upgrade, sync and status."""

from __future__ import annotations

import os

import pytest

from pyoffload import bridges, datapath, loader, ports
from pyoffload.errors import DatapathDown, LockTimeout, OffloadError, UsageError
from pyoffload.instance import Instance
from pyoffload.lifecycle import crc32c_shifts
from pyoffload.mapset import MapSet
from tests.support.hoststate import assert_unchanged, host_state
from tests.support.netns import Netns
from tests.support.switch import Switch
from tests.support.traffic import TcpStream, no_ping, pings

pytestmark = pytest.mark.traffic


@pytest.mark.parametrize("tc", ["tcx", "clsact"])
def test_down_leaves_the_host_exactly_as_it_was(own_lab, tc):
    guests = own_lab.guests(2)
    (tap,) = own_lab.taps(1)
    before = host_state(own_lab.host)
    switch = Switch(own_lab.host, tc=tc)
    switch.bridge("br0")
    switch.bridge("br1")
    switch.join([guests[0]], hook="xdp")
    switch.join([guests[1], tap])
    pings(guests[0].ns, guests[1].ip)
    with switch.inside() as instance:
        assert datapath.down(instance) is True
        assert not os.path.exists(instance.pin_dir)
        assert datapath.down(instance) is False
        assert [bridge.name for bridge in bridges.list_bridges(instance)] == ["br0", "br1"]
    assert_unchanged(before, own_lab.host)
    with switch.inside() as instance:
        assert datapath.down(instance, purge=True) is True
        assert bridges.list_bridges(instance) == []
        assert not os.path.exists(instance.state_dir)


def test_a_qdisc_of_somebody_else_stays(own_lab):
    (guest,) = own_lab.guests(1)
    own_lab.host.ip("link set lo up")
    own_lab.host.run("tc", "qdisc", "add", "dev", guest.ifname, "clsact")
    before = host_state(own_lab.host)
    switch = Switch(own_lab.host, tc="clsact")
    switch.bridge("br0")
    switch.join([guest])
    with switch.inside() as instance:
        datapath.down(instance)
    assert_unchanged(before, own_lab.host)


def test_up_is_idempotent(switch, lab):
    one, two = lab.guests(2)
    switch.bridge("br0")
    switch.join([one, two])
    before = host_state(lab.host)
    with switch.inside() as instance:
        again = datapath.up(instance)
    assert (again.already_up, again.compiled, again.ports_attached) == (True, False, ())
    assert_unchanged(before, lab.host)
    pings(one.ns, two.ip)


def test_a_second_namespace_of_the_same_name_begins_anew(own_lab):
    switch = Switch(own_lab.host)
    switch.bridge("br0")
    name = own_lab.host.name
    with switch.inside() as instance:
        first = instance.netns_cookie
    own_lab.host.run("ip", "netns", "del", name)
    own_lab.host.run("ip", "netns", "add", name)
    with Netns("tmp") as stranger:
        reborn = Reborn(stranger, name)
        with reborn.entered():
            instance = Instance.current()
            assert instance.name == name
            assert instance.netns_cookie != first
            assert instance.is_stale()
            assert not datapath.status(instance).up
            assert datapath.up(instance).already_up is False
            assert datapath.status(instance).drift == ()
            assert [bridge.name for bridge in bridges.list_bridges(instance)] == ["br0"]
            datapath.down(instance, purge=True)


class Reborn:
    """The namespace that has a name now, whoever had it before."""

    def __init__(self, home: Netns, name: str) -> None:
        self._home = home
        self._path = f"/run/netns/{name}"

    def entered(self):
        from contextlib import contextmanager

        from tests.support.netns import setns

        @contextmanager
        def inside():
            with self._home.entered():
                fd = os.open(self._path, os.O_RDONLY)
                try:
                    setns(fd)
                finally:
                    os.close(fd)
                yield

        return inside()


def test_upgrade_swaps_the_programs_and_no_session_notices(switch, lab):
    one, two = lab.guests(2)
    switch.bridge("br0")
    switch.join([one, two])
    with TcpStream(one.ns, two.ns, two.ip) as stream:
        stream.exchange()
        with switch.inside() as instance:
            before = loader.open_current(instance).generation
            assert datapath.upgrade(instance).programs >= 5
            after = loader.open_current(instance)
            assert after.generation > before
            assert os.listdir(instance.progs_dir) == [str(after.generation)]
            assert datapath.status(instance).drift == ()
        stream.exchange()
    assert switch.port_show(one).rx_packets > 0


def test_upgrade_needs_a_datapath(own_lab):
    with own_lab.host.entered(), pytest.raises(DatapathDown):
        datapath.upgrade(Instance.current())


def test_the_cache_can_be_switched_off_and_the_choice_is_kept(switch, lab):
    one, two = lab.guests(2)
    switch.bridge("br0")
    switch.join([one, two])
    with switch.inside() as instance:
        datapath.up(instance, cache=False)
        assert datapath.status(instance).cache is False
        pings(one.ns, two.ip)
        datapath.down(instance)
        datapath.up(instance)
        assert datapath.status(instance).cache is False
        pings(one.ns, two.ip)
        assert bridges.show(instance, "br0").counters["cache_inserts"] == 0
        datapath.up(instance, cache=True)
        assert datapath.status(instance).cache is True
        pings(one.ns, two.ip, count=4)
        assert bridges.show(instance, "br0").counters["cache_inserts"] > 0


def test_the_cache_has_the_size_that_was_asked_for(own_lab):
    with own_lab.host.entered():
        instance = Instance.current()
        try:
            datapath.up(instance, cache_entries=1024)
            (cache,) = [table for table in datapath.status(instance).tables if table.name == "flow cache"]
            assert cache.capacity == 1024
            with pytest.raises(OffloadError, match="1024"):
                datapath.up(instance, cache_entries=2048)
            for wrong in (1000, 2, 1 << 30):
                with pytest.raises(UsageError, match=str(wrong)):
                    datapath.up(instance, cache_entries=wrong)
            datapath.down(instance)
            datapath.up(instance, cache_entries=2048)
        finally:
            datapath.down(instance, purge=True)


def test_status_tells_hooks_tables_and_no_drift(switch, lab):
    (one,) = lab.guests(1)
    switch.bridge("br0")
    switch.join([one])
    with switch.inside() as instance:
        shown = datapath.status(instance)
    assert (shown.up, shown.bridges, shown.ports, shown.drift) == (True, 1, 1, ())
    assert 0 <= shown.since_s < 600
    hooks = {hook.ifname: hook for hook in shown.hooks}
    assert (hooks[one.ifname].hook, hooks[one.ifname].owner) == ("tcx", "pyoffload")
    tables = {table.name: table for table in shown.tables}
    assert tables["ports"].used == 2  # with `local`
    assert {"flows", "fdb", "flow cache", "groups", "meters"} <= set(tables)
    assert all(0 <= table.used <= table.capacity for table in shown.tables)


def test_status_names_every_kind_of_drift_and_up_repairs_it(switch, lab):
    one, two, three = lab.guests(3)
    switch.bridge("br0")
    switch.join([one, two, three])
    with switch.inside() as instance:
        maps = MapSet(instance, writable=True)
        from pyoffload.records import LiveBridge, LivePort, read_ports

        slots = {record.ofport: record.slot for record in read_ports(maps)}
        LivePort(maps, slots[1]).set_mode(1 | 99 << 16)
        LiveBridge(maps, 0).remove_member(slots[2])
        LiveBridge(maps, 0).set_options(1, 1)
        lab.host.ip(f"link del {three.ifname}")
        said = "\n".join(datapath.status(instance).drift)
        for word in (
            f"{one.ifname}: its VLANs",
            "br0: its options",
            f"{three.ifname}: its interface is gone",
        ):
            assert word in said
        datapath.up(instance)
        assert datapath.status(instance).drift == ()
    pings(one.ns, two.ip)


def test_two_commands_at_once_wait_for_each_other(switch, monkeypatch):
    switch.bridge("br0")
    with switch.inside() as instance, instance.lock():
        monkeypatch.setenv("PYOFFLOAD_LOCK_TIMEOUT", "0.1")
        with pytest.raises(LockTimeout, match=str(os.getpid())):
            bridges.add(instance, "br1")
        assert [bridge.name for bridge in bridges.list_bridges(instance)] == ["br0"]  # readers need no lock


def test_a_port_that_somebody_else_took_meanwhile_does_not_stop_the_others(switch, lab):
    one, two, three = lab.guests(3)
    switch.bridge("br0")
    switch.join([one, two, three])
    with switch.inside() as instance:
        datapath.down(instance)
        lab.host.ip("link add lbr0 type bridge", f"link set {two.ifname} master lbr0")
        result = datapath.up(instance)
        assert [name for name, _ in result.ports_failed] == [two.ifname]
        assert "lbr0" in result.ports_failed[0][1]
        pings(one.ns, three.ip)
        no_ping(one.ns, two.ip)
        lab.host.ip("link del lbr0")
        datapath.sync(instance)
        assert not ports.show(instance, two.ifname).absent
    pings(one.ns, two.ip)


def test_sync_does_nothing_where_nothing_is_up(own_lab):
    with own_lab.host.entered():
        instance = Instance.current()
        assert datapath.sync(instance).already_up is False
        assert not instance.is_up()


def test_the_crc_table_is_that_of_appended_zero_bytes():
    # RFC 9260 appendix A's CRC32C, bit by bit, as the independent way to the same numbers
    def crc(data: bytes) -> int:
        value = 0
        for byte in data:
            value ^= byte
            for _ in range(8):
                value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        return value

    shifts = crc32c_shifts(300)
    for n in (0, 1, 2, 63, 299):
        if n >= 4:  # a CRC state of 1 in the highest bit is what the message 01 00 00 00 leaves behind
            assert crc(b"\x00\x00\x00\x80" + bytes(n - 4)) == shifts[n]
    assert shifts[0] == 0x80000000
