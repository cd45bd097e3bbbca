"""Super-packets and unfinished checksums: what a guest with virtio offloads hands over, and what must become of it."""

from __future__ import annotations

from typing import Any

from tests.support import frames
from tests.support.ports import VnetHdr


def partial(packet: Any, *, gso_size: int = 0) -> tuple[bytes, VnetHdr]:
    """A TCP or UDP packet (scapy, Ethernet on top) as a guest gives it that leaves the checksum to its NIC.

    The bytes carry the pseudo header's sum where the checksum goes; the header tells where that is. With
    ``gso_size`` it is moreover a super-packet to be cut into segments of that many bytes.
    """
    data = bytes(packet)
    parsed = frames.parse(data)
    name = "TCP" if "TCP" in parsed else "UDP"
    layer = parsed[name]
    start = len(data) - len(bytes(layer))
    offset = 16 if name == "TCP" else 6
    finished = bytearray(data)
    finished[start + offset : start + offset + 2] = _pseudo_sum(parsed, name, len(data) - start).to_bytes(
        2, "big"
    )
    header = start + (layer.dataofs * 4 if name == "TCP" else 8)
    kind = VnetHdr.GSO_NONE
    if gso_size:
        over6 = "IPv6" in parsed
        kind = VnetHdr.GSO_UDP_L4 if name == "UDP" else VnetHdr.GSO_TCPV6 if over6 else VnetHdr.GSO_TCPV4
    return bytes(finished), VnetHdr(
        flags=VnetHdr.NEEDS_CSUM,
        gso_type=kind,
        hdr_len=header if gso_size else 0,
        gso_size=gso_size,
        csum_start=start,
        csum_offset=offset,
    )


def tcp_super(
    src: int = 1, dst: int = 2, *, n_bytes: int = 20_000, mss: int = 1400, **how: Any
) -> tuple[bytes, VnetHdr]:
    """A TCP super-packet of ``n_bytes`` of payload; ``how`` as for `frames.tcp` (v6, vlan, ports)."""
    payload = bytes(i * 7 & 255 for i in range(n_bytes))
    return partial(frames.tcp(src, dst, payload, flags="PA", **how), gso_size=mss)


def segments(frame: bytes, vnet: VnetHdr) -> list[bytes]:
    """The frames that a NIC must send for a super-packet, or the one for an unfinished checksum.

    TCP (RFC 9293, and what Linux' tcp_gso_segment does): sequence numbers and IPv4 ids count up, PSH and FIN only
    on the last, checksums whole.
    """
    if not vnet.gso_size:
        return [frames.rebuilt(frame)]
    out = []
    payload = frame[vnet.hdr_len :]
    for number, start in enumerate(range(0, len(payload), vnet.gso_size)):
        piece = payload[start : start + vnet.gso_size]
        packet = frames.parse(frame[: vnet.hdr_len] + piece)
        if "TCP" in packet:
            packet["TCP"].seq += start
            if start + len(piece) < len(payload):
                packet["TCP"].flags = int(packet["TCP"].flags) & ~0x09
        if "IP" in packet:
            packet["IP"].id = packet["IP"].id + number & 0xFFFF
        out.append(frames.rebuilt(bytes(packet)))
    return out


def _pseudo_sum(parsed: Any, name: str, length: int) -> int:
    from scapy.utils import checksum

    number = {"TCP": 6, "UDP": 17}[name]
    head = parsed["IPv6"] if "IPv6" in parsed else parsed["IP"]
    addresses = bytes(head)[8:40] if "IPv6" in parsed else bytes(head)[12:20]
    # Not complemented: hardware adds the rest and complements the whole.
    return ~int(checksum(addresses + length.to_bytes(4, "big") + number.to_bytes(4, "big"))) & 0xFFFF
