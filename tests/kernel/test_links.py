"""Port `local`'s pair of interfaces, and what interfaces can do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from pyoffload import links, netlink, rtnl
from pyoffload.errors import AlreadyExists
from tests.support.hoststate import assert_unchanged, host_state

pytestmark = pytest.mark.kernel

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def test_the_pair_is_made_with_the_hosts_end_down_and_the_other_up(host):
    before = host_state(host)
    host_index, port_index = links.create_local_pair("br0")
    ends = {link.ifindex: link for link in netlink.dump_links()}
    assert (ends[host_index].ifname, ends[host_index].up, ends[host_index].alias) == (
        "br0",
        False,
        "pyoffload local",
    )
    port = ends[port_index]
    assert (port.ifname, port.up, port.alias) == (links.local_names("br0")[1], True, "pyoffload br0")
    assert len(port.ifname) <= 15
    assert port.peer_ifindex == host_index
    assert links.list_local_pairs() == ["br0"]
    assert links.delete_local_pair("br0") is True
    assert links.delete_local_pair("br0") is False
    assert_unchanged(before, host)


def test_the_datapaths_end_says_nothing_of_its_own(host):
    links.create_local_pair("br0")
    addresses = host.ip_json("-6", "addr", "show", "dev", links.local_names("br0")[1])
    assert not any(entry.get("addr_info") for entry in addresses)
    with open(
        f"/proc/sys/net/ipv6/conf/{links.local_names('br0')[1]}/disable_ipv6", encoding="ascii"
    ) as file:
        assert file.read() == "1\n"


def test_making_the_pair_again_finishes_it_and_keeps_it(host):
    first = links.create_local_pair("br0")
    host.ip("link set br0 up", "addr add 192.0.2.1/24 dev br0")
    assert links.create_local_pair("br0") == first
    assert netlink.get_link("br0").up
    assert host.ip_json("-4", "addr", "show", "dev", "br0")[0]["addr_info"]


def test_somebody_elses_interface_of_that_name_is_refused_and_kept(host):
    host.ip("link add br0 type veth peer name other")
    with pytest.raises(AlreadyExists, match="interface 'br0' already, which is not ours"):
        links.create_local_pair("br0")
    assert links.delete_local_pair("br0") is False
    assert host.has("br0")
    assert host.has("other")


@pytest.mark.parametrize("name", ["local.created", "local.named"])
def test_a_pair_that_a_killed_command_left_is_finished(host, name):
    done = subprocess.run(
        [sys.executable, "-c", "from pyoffload import links; links.create_local_pair('br0')"],
        env={**os.environ, "PYOFFLOAD_KILL_AT": name},
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    _, port_index = links.create_local_pair("br0")
    port = netlink.get_link(port_index)
    assert port is not None
    assert port.up
    assert links.list_local_pairs() == ["br0"]


def test_names_of_different_bridges_never_meet_among_the_usual(host):
    names = {links.local_names(f"br{number}")[1] for number in range(4096)}
    assert len(names) == 4096


def test_a_veth_takes_frames_from_xdp_only_when_its_peer_can_receive_them(host):
    host.ip("link add v0 type veth peer name v1", "link set v0 up", "link set v1 up")
    if netlink.xdp_features() is None:
        pytest.skip("this kernel does not tell XDP features (6.3)")
    v0 = netlink.get_link("v0")
    host.run("ethtool", "-K", "v1", "gro", "off")
    assert links.takes_xdp_frames(v0) is False
    host.run("ethtool", "-K", "v1", "gro", "on")
    assert links.takes_xdp_frames(v0) is True


def test_virtual_interfaces_are_not_taken_for_hardware(host):
    host.ip(
        "link add v0 type veth peer name v1", "tuntap add tap0 mode tap", "link add mv0 link v0 type macvlan"
    )
    assert [links.is_physical(link) for link in netlink.dump_links()] == [False] * 5
    assert links.takes_xdp_frames(netlink.get_link("tap0")) is True


def test_the_kernels_own_words_are_in_the_error(host):
    with pytest.raises(AlreadyExists):
        rtnl.create_veth("lo", "x")
    assert rtnl.delete_link(4242) is False
