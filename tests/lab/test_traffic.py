"""Real traffic of real stacks across the kernel's bridge, from and to guests on veth and behind taps."""

from __future__ import annotations

import pytest

from tests.support import frames, traffic
from tests.support.lab import Lab, linux_bridge

pytestmark = pytest.mark.traffic


@pytest.fixture(scope="module")
def guests():
    """Two guests on veth and two behind taps (one of them multiqueue), MTU 9000."""
    with Lab(mtu=9000) as lab:
        made = [*lab.guests(2), *lab.tap_guests(1), *lab.tap_guests(1, queues=2)]
        linux_bridge(lab.host, lab.ports, mtu=9000)
        yield made


@pytest.fixture(params=[(0, 1), (0, 2), (2, 3), (3, 1)], ids=["veth-veth", "veth-tap", "tap-tap", "tap-veth"])
def pair(request, guests):
    first, second = request.param
    return guests[first], guests[second]


def test_ping_and_ping6(pair):
    a, b = pair
    assert traffic.pings(a.ns, b.ip).received == 3
    assert traffic.pings(a.ns, b.ip6, count=2).received == 2


def test_a_jumbo_ping_is_not_fragmented(pair):
    a, b = pair
    traffic.pings(a.ns, b.ip, size=9000 - 28, fragment=False)


def test_tcp_content_arrives_unchanged(pair):
    a, b = pair
    assert traffic.tcp_transfer(a.ns, b.ns, b.ip, megabytes=16).n_bytes == 16 << 20
    assert traffic.tcp_transfer(a.ns, b.ns, b.ip6, megabytes=2.5).n_bytes == 5 << 19


def test_udp_datagrams_of_every_size_come_back(pair):
    a, b = pair
    traffic.udp_echo(a.ns, b.ns, b.ip)
    traffic.udp_echo(a.ns, b.ns, b.ip6)


def test_broadcast_and_multicast_reach_everybody_once(guests):
    sender, *others = [guest.ns for guest in guests]
    traffic.broadcast(sender, others)
    traffic.multicast(sender, others)
    traffic.multicast(sender, others, v6=True)


def test_broadcast_that_does_not_arrive_is_noticed(lab):
    a, b = lab.guests(2)
    with pytest.raises(AssertionError, match="instead of one"):
        traffic.udp_one_way(a.ns, [b.ns], "10.0.0.255", within_s=0.1)


def test_a_dead_cable_fails_every_kind_of_traffic_with_a_reason(guests):
    a = guests[0]
    traffic.no_ping(a.ns, "10.0.0.99")
    with pytest.raises(AssertionError, match="2 of 2 lost"):
        traffic.pings(a.ns, "10.0.0.99", count=2, wait_s=0.1)
    assert not traffic.tcp_connects(a.ns, "10.0.0.99", 80, within_s=0.1)


def test_a_stream_survives_and_its_end_is_noticed(guests):
    a, b = guests[:2]
    with traffic.TcpStream(a.ns, b.ns, b.ip) as stream:
        for _ in range(3):
            stream.exchange()
        b.ns.ip("link set eth0 down")
        try:
            with pytest.raises(AssertionError, match="dead after 3 exchanges"):
                stream.exchange(within_s=0.1)
        finally:
            b.ns.ip("link set eth0 up", f"addr replace {b.ip6}/64 dev eth0 nodad")
            b.ns.wait_running(["eth0"])


def test_vlan_interfaces_of_guests_talk_and_the_tag_is_on_the_wire(lab):
    a, b = lab.guests(2)
    (wire,) = lab.wires(1)
    linux_bridge(lab.host, lab.ports)
    a.add_vlan(100)
    v4, v6 = b.add_vlan(100)
    assert (v4, v6) == ("10.16.100.2", "fd00:64::2")
    traffic.pings(a.ns, v4)
    traffic.pings(a.ns, v6)
    traffic.tcp_transfer(a.ns, b.ns, v4, megabytes=4)
    traffic.tcp_transfer(b.ns, a.ns, frames.ip6(a.number, 100), megabytes=4)
    asked = [frame for frame in wire.sniff() if b"\x08\x06" in frame[12:18]]
    assert frames.parse(asked[0])["Dot1Q"].vlan == 100


def test_partial_checksums_are_seen_and_gone_with_the_offload_off(lab):
    a, b = lab.guests(2)
    linux_bridge(lab.host, lab.ports)
    b.listen()
    traffic.udp_echo(a.ns, b.ns, b.ip, sizes=(100,))
    assert any(frame.csum_partial for frame in b.sniff())
    a.offload(tx=False)
    b.ns.ip("neigh flush all")
    traffic.udp_echo(a.ns, b.ns, b.ip, sizes=(100,))
    came = b.sniff()
    assert len(came) >= 1
    for frame in came:
        frames.checksums_right(frame)
    b.deaf()


def test_two_hosts_share_an_underlay(lab):
    other = lab.add_host()
    cable = lab.underlay(lab.host, other)
    traffic.pings(lab.host, cable.ip[1], size=1572, fragment=False)
    traffic.pings(lab.host, cable.ip6[1])
    (near,), (far,) = lab.guests(1), lab.guests(1, host=other)
    assert (near.number, far.number, other.has(far.ifname)) == (1, 2, True)


def test_iperf3_and_request_response_give_figures(guests):
    a, b = guests[:2]
    report = traffic.iperf3(a.ns, b.ns, b.ip, options=("-n", "20M"))
    assert report["end"]["sum_sent"]["bytes"] >= 20_000_000
    assert traffic.tcp_rr(a.ns, b.ns, b.ip, seconds=0.1) > 100
