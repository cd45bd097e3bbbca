"""The lab's cables and ports, with the kernel's own bridge as the switch: what goes in comes out, and nothing else."""

from __future__ import annotations

import time

import pytest

from tests.support import frames, gso, offload
from tests.support.lab import Lab, linux_bridge
from tests.support.netns import LabError
from tests.support.ports import PacketPort, VnetHdr, collect_until, exchange

pytestmark = pytest.mark.traffic


@pytest.fixture(scope="module")
def switch():
    """Four wires and a tap on one bridge, MTU 9000."""
    with Lab(mtu=9000) as lab:
        lab.wires(4)
        lab.taps(1)
        linux_bridge(lab.host, lab.ports, mtu=9000)
        yield lab


SHAPES = {
    "plain": frames.udp(1, 2),
    "vlan": frames.udp(1, 2, vlan=10, pcp=5),
    "qinq": frames.udp(1, 2, vlan=10, outer=200),
    "stacked 802.1q": frames.udp(1, 2, vlan=10, outer=200, outer_type=0x8100),
    "priority tag": frames.udp(1, 2, vlan=0, pcp=7),
    "ipv6 extension headers": frames.udp(
        1, 2, v6=True, ext=frames.ipv6_extensions("hopbyhop", "auth", "destopt")
    ),
    "sctp": frames.sctp(1, 2),
    "llc/snap": frames.llc_snap(1, 2),
    "arp": frames.arp(1, 2),
    "neighbour solicitation": frames.nd_solicit(1, 2),
    "jumbo": frames.udp(1, 2, bytes(8972)),
    "jumbo with a tag": frames.udp(1, 2, bytes(8972), vlan=10),
    "14 bytes": bytes(frames.eth(1, 2, ethertype=0x88B5)),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_frame_reaches_every_other_port_unchanged(switch, shape):
    sender, *others = switch.ports
    got = exchange(sender, [SHAPES[shape]], others)
    for port in others:
        frames.same_list(got[port], [SHAPES[shape]], where=f"{port}")
    sender.expect_nothing(0.0)


def test_a_tap_sends_and_a_wire_receives_the_same_bytes(switch):
    tap = switch.ports[-1]
    sent = [frames.random_frame(seed) for seed in range(40)]
    # To nobody in particular and from one address: the bridge shall flood them, and learn nothing that misleads
    # the other tests.
    head = bytes(frames.eth(tap.mac, frames.MAC_UNKNOWN))[:12]
    sent = [head + frame[12:] for frame in sent]
    got = exchange(tap, sent, switch.ports[:-1])
    for port, came in got.items():
        frames.same_list(came, sent, where=f"{port}")


def test_a_frame_cut_at_every_byte_is_sent_and_received(switch):
    sender, receiver = switch.ports[:2]
    cut = list(frames.truncations(frames.tcp(1, 99, b"x", vlan=10, eth_dst=frames.BROADCAST)))
    assert len(cut) == 14 + 4 + 20 + 20 + 1 - 14
    got = exchange(sender, cut, [receiver])[receiver]
    # The kernel takes no tag off, and drops the frame, where fewer than two bytes follow it (skb_vlan_untag).
    assert [bytes(frame) for frame in got] == [frame for frame in cut if len(frame) >= 20]


def test_a_tag_that_the_kernel_took_off_is_put_back(switch):
    sender, receiver = switch.ports[:2]
    receiver.flush()
    tagged = frames.udp(1, 99, vlan=10, outer=200, eth_dst=frames.BROADCAST)
    sender.send(tagged)
    (frame,) = receiver.expect(tagged)
    assert frame.tag_offloaded


def test_a_sentinel_ends_the_wait_without_waiting(switch):
    sender, *others = switch.ports
    for port in others:
        port.flush()
    frame, end = bytes(frames.udp(1, 99, eth_dst=frames.BROADCAST)), frames.sentinel()
    sender.send(frame)
    sender.send(end)
    assert collect_until(others, end) == {port: [frame] for port in others}
    with pytest.raises(AssertionError, match="sentinel did not come"):
        collect_until(others, end, within_s=0.01)


def test_many_exchanges_need_no_waiting_and_lose_nothing(switch):
    sender, *others = switch.ports
    frame = frames.udp(1, 99, eth_dst=frames.BROADCAST)
    started = time.monotonic()
    for number in range(500):
        sent = bytes(frame)[:-2] + number.to_bytes(2, "big")
        assert switch.exchange(sender, [sent], others) == {port: [sent] for port in others}
        assert switch.exchange(others[0], [], others) == {port: [] for port in others}
    assert time.monotonic() - started < 5


def test_expect_tells_what_is_wrong(switch):
    sender, receiver = switch.ports[:2]
    receiver.flush()
    good = frames.udp(1, 99, eth_dst=frames.BROADCAST)
    sender.send(good)
    with pytest.raises(AssertionError, match=r"UDP.*dport: 5001 instead of 5002"):
        receiver.expect(frames.udp(1, 99, eth_dst=frames.BROADCAST, dport=5002))
    sender.send(good)
    with pytest.raises(AssertionError, match="1 frames came, 0 wanted; too many"):
        receiver.expect_nothing(0.01)
    with pytest.raises(AssertionError, match="0 frames came, 1 wanted; missing"):
        receiver.expect(good, within_s=0.01)


def test_listening_too_late_is_an_error_and_not_silence(lab):
    (guest,) = lab.guests(1)
    with pytest.raises(LabError, match="listen"):
        guest.sniff()


def test_an_unaddressed_lab_is_silent(lab):
    ports = [*lab.wires(3), *lab.taps(2, vnet_hdr=True)]
    linux_bridge(lab.host, ports)
    for port in ports:
        port.expect_nothing(0.05)


def test_a_frame_larger_than_the_mtu_is_refused_by_name(switch):
    wire = switch.ports[0]
    with pytest.raises(OSError, match=r"wire1.*9015 bytes"):
        wire.send(bytes(frames.eth(1, 2, ethertype=0x88B5)) + bytes(9001))


@pytest.mark.parametrize("v6", [False, True], ids=["ipv4", "ipv6"])
def test_a_super_packet_passes_between_taps_whole_and_is_cut_for_a_tap_without_header(lab, v6):
    first, second = lab.taps(2, vnet_hdr=True)
    (plain,) = lab.taps(1)
    (wire,) = lab.wires(1, vnet_hdr=True)
    linux_bridge(lab.host, lab.ports)
    data, vnet = gso.tcp_super(1, 9, n_bytes=20_000, mss=1400, v6=v6, eth_dst=frames.BROADCAST)
    first.send(data, vnet=vnet)
    for port in (second, wire):
        (frame,) = port.expect(data)
        assert frame.vnet == vnet
        assert frame.csum_partial
    plain.expect(*gso.segments(data, vnet))
    assert len(gso.segments(data, vnet)) == 15


def test_a_veth_port_with_header_sends_super_packets_too(lab):
    (wire,) = lab.wires(1, vnet_hdr=True)
    (tap,) = lab.taps(1, vnet_hdr=True)
    linux_bridge(lab.host, lab.ports)
    data, vnet = gso.tcp_super(1, 9, vlan=10, eth_dst=frames.BROADCAST)
    wire.send(data, vnet=vnet)
    (frame,) = tap.expect(data)
    assert (frame.vnet.gso_type, frame.vnet.gso_size) == (VnetHdr.GSO_TCPV4, vnet.gso_size)


def test_an_unfinished_checksum_is_finished_for_a_tap_without_header(lab):
    (sender,) = lab.taps(1, vnet_hdr=True)
    (plain,) = lab.taps(1)
    linux_bridge(lab.host, lab.ports)
    whole = frames.udp(1, 9, b"x" * 99, eth_dst=frames.BROADCAST)
    data, vnet = gso.partial(whole)
    assert data != bytes(whole)
    sender.send(data, vnet=vnet)
    plain.expect(whole)


def test_a_multiqueue_tap_takes_frames_on_every_queue(lab):
    (tap,) = lab.taps(1, queues=4)
    (wire,) = lab.wires(1)
    linux_bridge(lab.host, lab.ports)
    sent = [frames.udp(1, 9, bytes([queue]), eth_dst=frames.BROADCAST) for queue in range(4)]
    for queue, frame in enumerate(sent):
        tap.send(frame, queue=queue)
    wire.expect(*sent)
    wire.send(sent[0])
    tap.expect(sent[0])


def test_a_closed_tap_is_gone(lab):
    (tap,) = lab.taps(1)
    assert lab.host.has(tap.ifname)
    tap.close()
    assert not lab.host.has(tap.ifname)


def test_offloads_are_switched_and_read(lab):
    (guest,) = lab.guests(1)
    assert offload.features(guest.ns, "eth0")["tx-tcp-segmentation"]
    guest.offload(tx=False, tso=False, gro=True)
    after = offload.features(guest.ns, "eth0")
    assert (after["tx-tcp-segmentation"], after["tx-checksum-ip-generic"], after["rx-gro"]) == (
        False,
        False,
        True,
    )
    with pytest.raises(LabError, match="no feature 'warp'"):
        guest.offload(warp=True)


def test_sixty_ports_are_there_in_a_moment(lab):
    wires = lab.wires(60)
    linux_bridge(lab.host, wires)
    frame = frames.udp(1, 2, eth_dst=frames.BROADCAST)
    wires[0].send(frame)
    for wire in wires[1:]:
        assert wire.sniff(1) == [bytes(frame)]
    assert len({wire.mac for wire in wires}) == 60
    assert all(isinstance(wire, PacketPort) and wire.lost() == 0 for wire in wires)
