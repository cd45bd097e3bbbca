"""Builders, checksums and the comparison of frames."""

from __future__ import annotations

import pytest

from tests.support import frames, gso

BUILT = {
    "udp": frames.udp(),
    "udp6": frames.udp(v6=True),
    "tcp with options": frames.tcp(options=[("MSS", 1460), ("WScale", 7)]),
    "tcp6 in qinq": frames.tcp(v6=True, vlan=10, outer=20, payload=b"abc"),
    "sctp": frames.sctp(),
    "icmp": frames.icmp(),
    "icmp6": frames.icmp6(),
    "icmp error": frames.icmp_error(2, 1, frames.udp()),
    "icmp6 error": frames.icmp6_error(2, 1, frames.udp(v6=True)),
    "advertisement": frames.nd_advertise(),
    "arp": frames.arp(),
    "llc": frames.llc_snap(),
    "chain": frames.tcp(v6=True, ext=frames.ipv6_extensions("hopbyhop", "routing", "fragment", "destopt")),
}
# Byte 12 and 13 from the end of the Ethernet header on: far enough in to be covered by some checksum in all of them.
CHECKED = ("udp", "udp6", "tcp with options", "tcp6 in qinq", "sctp", "icmp", "icmp6")


@pytest.mark.parametrize("kind", BUILT)
def test_what_is_built_has_right_checksums(kind):
    frames.checksums_right(BUILT[kind])


@pytest.mark.parametrize("kind", CHECKED)
def test_a_wrong_byte_in_the_payload_is_found(kind):
    broken = bytearray(bytes(BUILT[kind]))
    broken[-1] ^= 1
    with pytest.raises(AssertionError, match=r"(chksum|cksum): "):
        frames.checksums_right(broken)


def test_a_udp_checksum_of_zero_over_ipv4_is_none():
    frame = frames.udp()
    frame["UDP"].chksum = 0
    frames.checksums_right(frame)


@pytest.mark.parametrize("v6", [False, True], ids=["ipv4", "ipv6"])
def test_fragments_are_whole_again_when_put_together(v6):
    packet = frames.udp(payload=bytes(range(256)) * 6, v6=v6, vlan=3)
    pieces = frames.fragments(packet, 512)
    assert len(pieces) == 4
    for piece in pieces:
        frames.checksums_right(piece)
    head = 18 + (48 if v6 else 20)
    assert b"".join(bytes(piece)[head:] for piece in pieces) == bytes(packet["UDP"])


@pytest.mark.parametrize("v6", [False, True], ids=["ipv4", "ipv6"])
def test_segments_of_a_super_packet_carry_its_payload(v6):
    data, vnet = gso.tcp_super(n_bytes=5000, mss=1200, v6=v6)
    cut = gso.segments(data, vnet)
    assert [len(frame) - vnet.hdr_len for frame in cut] == [1200, 1200, 1200, 1200, 200]
    assert b"".join(frame[vnet.hdr_len :] for frame in cut) == data[vnet.hdr_len :]
    for frame in cut:
        frames.checksums_right(frame)


def test_random_frames_repeat_and_are_well_formed():
    some = [frames.random_frame(seed, garbage=False) for seed in range(150)]
    assert some == [frames.random_frame(seed, garbage=False) for seed in range(150)]
    assert len(set(some)) > 140
    for frame in some:
        frames.checksums_right(frame)


def test_the_difference_names_the_field_and_shows_the_bytes():
    with pytest.raises(AssertionError) as err:
        frames.same(bytes(frames.udp(dport=53)), bytes(frames.udp(dport=54)))
    text = str(err.value)
    assert "UDP[2].dport: 53 instead of 54" in text
    assert "^^" in text


def test_frames_that_scapy_cannot_read_are_still_compared():
    with pytest.raises(AssertionError, match="got 3 bytes, wanted 4 bytes"):
        frames.same(b"abc", b"abcd")


def test_chatter_of_the_kernel_is_told_from_traffic():
    from scapy.layers.inet6 import ICMPv6MLReport2, ICMPv6ND_RS, IPv6, IPv6ExtHdrHopByHop, RouterAlert

    report = (
        IPv6(src="::", dst="ff02::16", hlim=1)
        / IPv6ExtHdrHopByHop(options=[RouterAlert()])
        / ICMPv6MLReport2()
    )
    for said in (
        frames.eth(1, "33:33:00:00:00:16") / report,
        frames.eth(1, "33:33:00:00:00:16", vlan=5) / report,
        frames.eth(1, "33:33:00:00:00:02") / IPv6(src="::", dst="ff02::2") / ICMPv6ND_RS(),
    ):
        assert frames.is_kernel_chatter(bytes(said))
    for packet in BUILT.values():
        assert not frames.is_kernel_chatter(bytes(packet))
