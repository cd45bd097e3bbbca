"""Frames: every MAC, address and port of the lab named once, builders on scapy, and comparison that can be read.

Scapy's layers are imported one by one inside the functions that use them: scapy.all reads the machine's routes and
costs a second. Every builder gives both addresses on each layer, as scapy would otherwise ask the real network.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scapy.packet import Packet

BROADCAST = "ff:ff:ff:ff:ff:ff"
MULTICAST_IP4 = "239.1.2.3"
MULTICAST_MAC4 = "01:00:5e:01:02:03"
MULTICAST_IP6 = "ff15::1:2:3"
MULTICAST_MAC6 = "33:33:00:01:02:03"
MAC_UNKNOWN = "02:00:00:ff:ff:fe"  # nobody in the lab has it
SPORT = 40000
DPORT = 5001
ETHERTYPE_VLAN = 0x8100
ETHERTYPE_QINQ = 0x88A8
ETHERTYPE_EXPERIMENTAL = 0x88B5  # IEEE 802 local experimental: sentinels
JUMBO_MTU = 9000
EXTENSION_NUMBERS = {"hopbyhop": 0, "routing": 43, "fragment": 44, "auth": 51, "destopt": 60}


def mac(number: int) -> str:
    """MAC address of guest ``number`` (1 … 65535)."""
    return f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}"


def host_mac(number: int) -> str:
    """MAC address of the switch's end of the cable to guest ``number``; no packet should ever carry it."""
    return f"06:00:00:00:{number >> 8:02x}:{number & 255:02x}"


def ip4(number: int, vlan: int = 0) -> str:
    """IPv4 address of guest ``number`` (1 … 254) in 10.0.0.0/24, or in the /24 of a VLAN."""
    if not 1 <= number <= 254:
        raise ValueError(f"guest {number} has no IPv4 address: 10.0.0.0/24 ends at 254")
    return f"10.{16 + (vlan >> 8)}.{vlan & 255}.{number}" if vlan else f"10.0.0.{number}"


def ip6(number: int, vlan: int = 0) -> str:
    """IPv6 address of guest ``number`` in fd00::/64, or in fd00:VLAN::/64 (VLAN in hexadecimal)."""
    return f"fd00:{vlan:x}::{number:x}" if vlan else f"fd00::{number:x}"


# Builders ------------------------------------------------------------------------------------------------------


def eth(
    src: int | str = 1,
    dst: int | str = 2,
    *,
    vlan: int | None = None,
    pcp: int = 0,
    outer: int | None = None,
    outer_type: int = ETHERTYPE_QINQ,
    ethertype: int | None = None,
) -> Packet:
    """Ethernet header, between guests by number or by MAC; ``vlan`` adds an 802.1Q tag, ``outer`` a service tag."""
    from scapy.layers.l2 import Dot1Q, Ether

    tags = [tag for tag in (outer, vlan) if tag is not None]
    packet = Ether(src=_mac(src), dst=_mac(dst))
    if tags:
        packet.type = outer_type if outer is not None else ETHERTYPE_VLAN
    elif ethertype is not None:
        packet.type = ethertype
    for position, tag in enumerate(tags):
        header = Dot1Q(vlan=tag, prio=pcp)
        if position < len(tags) - 1:
            header.type = ETHERTYPE_VLAN
        elif ethertype is not None:
            header.type = ethertype
        packet /= header
    return packet


def net(src: int | str = 1, dst: int | str = 2, *, v6: bool = False, **fields: Any) -> Packet:
    """IPv4 or IPv6 header between guests by number or address; ``fields`` are scapy's."""
    from scapy.layers.inet import IP
    from scapy.layers.inet6 import IPv6

    if v6:
        return IPv6(src=_ip6(src), dst=_ip6(dst), **fields)
    return IP(src=_ip4(src), dst=_ip4(dst), **fields)


def udp(
    src: int = 1,
    dst: int = 2,
    payload: bytes = b"payload",
    *,
    sport: int = SPORT,
    dport: int = DPORT,
    **how: Any,
) -> Packet:
    """UDP datagram; ``how``: v6, vlan, pcp, outer, ip (dict of header fields), ext (list of IPv6 headers)."""
    from scapy.layers.inet import UDP

    return _headers(src, dst, how) / UDP(sport=sport, dport=dport) / payload


def tcp(
    src: int = 1,
    dst: int = 2,
    payload: bytes = b"",
    *,
    sport: int = SPORT,
    dport: int = DPORT,
    flags: str = "S",
    options: Sequence[tuple[str, Any]] = (),
    **how: Any,
) -> Packet:
    """TCP segment; ``how`` as for `udp`."""
    from scapy.layers.inet import TCP

    segment = TCP(sport=sport, dport=dport, flags=flags, seq=1000, ack=0, window=8192, options=list(options))
    packet = _headers(src, dst, how) / segment
    return packet / payload if payload else packet


def sctp(
    src: int = 1,
    dst: int = 2,
    payload: bytes = b"data",
    *,
    sport: int = SPORT,
    dport: int = DPORT,
    **how: Any,
) -> Packet:
    """SCTP with one DATA chunk; ``how`` as for `udp`."""
    from scapy.layers.sctp import SCTP, SCTPChunkData

    return _headers(src, dst, how) / SCTP(sport=sport, dport=dport, tag=1) / SCTPChunkData(data=payload)


def icmp(
    src: int = 1, dst: int = 2, payload: bytes = b"echo", *, type: int = 8, code: int = 0, **how: Any
) -> Packet:
    """ICMP, an echo request unless ``type`` says otherwise; ``how`` as for `udp`."""
    from scapy.layers.inet import ICMP

    return _headers(src, dst, how) / ICMP(type=type, code=code, id=1, seq=1) / payload


def icmp6(src: int = 1, dst: int = 2, payload: bytes = b"echo", **how: Any) -> Packet:
    """ICMPv6 echo request; ``how`` as for `udp`."""
    from scapy.layers.inet6 import ICMPv6EchoRequest

    how["v6"] = True
    return _headers(src, dst, how) / ICMPv6EchoRequest(id=1, seq=1, data=payload)


def icmp_error(src: int, dst: int, about: Packet, *, type: int = 3, code: int = 4, mtu: int = 1400) -> Packet:
    """ICMP error from guest ``src`` about a packet (Ethernet on top) that ``dst`` sent; 28 bytes are quoted."""
    from scapy.layers.inet import ICMP, IP

    quoted = bytes(about[IP])[:28]
    return eth(src, dst) / net(src, dst) / ICMP(type=type, code=code, nexthopmtu=mtu) / quoted


def icmp6_error(src: int, dst: int, about: Packet, *, mtu: int = 1280) -> Packet:
    """ICMPv6 packet-too-big from guest ``src`` about a packet that ``dst`` sent, quoted whole."""
    from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6

    return eth(src, dst) / net(src, dst, v6=True) / ICMPv6PacketTooBig(mtu=mtu) / bytes(about[IPv6])


def arp(src: int = 1, dst: int = 2, *, op: int = 1, **how: Any) -> Packet:
    """ARP: op 1 asks by broadcast who has ``dst``, op 2 tells ``dst`` where ``src`` is."""
    from scapy.layers.l2 import ARP

    asks = op == 1
    return eth(src, BROADCAST if asks else dst, **how) / ARP(
        op=op,
        hwsrc=_mac(src),
        psrc=_ip4(src),
        hwdst="00:00:00:00:00:00" if asks else _mac(dst),
        pdst=_ip4(dst),
    )


def nd_solicit(src: int = 1, dst: int = 2, **how: Any) -> Packet:
    """Neighbour solicitation (RFC 4861): ``src`` asks the solicited-node group for ``dst``."""
    import socket

    from scapy.layers.inet6 import ICMPv6ND_NS, ICMPv6NDOptSrcLLAddr

    target = _ip6(dst)
    tail = socket.inet_pton(socket.AF_INET6, target)[-3:]
    group_mac = "33:33:ff:" + tail.hex(":")
    group = f"ff02::1:ff{tail[0]:02x}:{tail[1]:02x}{tail[2]:02x}"
    head = eth(src, group_mac, **how) / net(src, group, v6=True, hlim=255)
    return head / ICMPv6ND_NS(tgt=target) / ICMPv6NDOptSrcLLAddr(lladdr=_mac(src))


def nd_advertise(src: int = 1, dst: int = 2, **how: Any) -> Packet:
    """Neighbour advertisement: ``src`` tells ``dst`` where it is."""
    from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6NDOptDstLLAddr

    head = eth(src, dst, **how) / net(src, dst, v6=True, hlim=255)
    return head / ICMPv6ND_NA(tgt=_ip6(src), R=0, S=1, O=1) / ICMPv6NDOptDstLLAddr(lladdr=_mac(src))


def llc_snap(src: int | str = 1, dst: int | str = 2, payload: bytes = b"\xaa" * 46, **how: Any) -> Packet:
    """IEEE 802.3 frame: a length where Ethernet II has a type, then LLC and SNAP."""
    from scapy.layers.l2 import LLC, SNAP

    body = LLC(dsap=0xAA, ssap=0xAA, ctrl=3) / SNAP(OUI=0x00000C, code=0x2000) / payload
    return eth(src, dst, ethertype=len(body), **how) / body


def sentinel(src: int | str = MAC_UNKNOWN, cookie: bytes = b"sentinel") -> bytes:
    """A broadcast frame that no protocol uses: what was sent before it has been dealt with when it comes."""
    return bytes(eth(src, BROADCAST, ethertype=ETHERTYPE_EXPERIMENTAL) / (cookie + bytes(46 - len(cookie))))


def ipv6_extensions(*kinds: str) -> list[Packet]:
    """Extension headers by name: hopbyhop, routing, destopt, auth, fragment (an atomic one).

    auth cannot be the last: scapy computes no UDP or TCP checksum right behind it.
    """
    if kinds and kinds[-1] == "auth":
        raise ValueError("another header must follow auth")
    from scapy.layers.inet6 import (
        IPv6ExtHdrDestOpt,
        IPv6ExtHdrFragment,
        IPv6ExtHdrHopByHop,
        IPv6ExtHdrRouting,
        PadN,
    )
    from scapy.layers.ipsec import AH

    made = {
        "hopbyhop": lambda: IPv6ExtHdrHopByHop(options=[PadN(optdata=b"\0" * 4)]),
        "routing": lambda: IPv6ExtHdrRouting(type=0, segleft=0, addresses=["fd00::99"]),
        "destopt": lambda: IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * 12)]),
        "auth": lambda: AH(spi=1, seq=1, icv=b"\0" * 12, payloadlen=4),
        "fragment": lambda: IPv6ExtHdrFragment(id=7, m=0, offset=0),
    }
    chain = [made[kind]() for kind in kinds]
    # Said here because scapy does not know every pair of them.
    for header, following in pairwise(kinds):
        chain[kinds.index(header)].nh = EXTENSION_NUMBERS[following]
    return chain


def fragments(packet: Packet, size: int = 512) -> list[Packet]:
    """An IPv4 or IPv6 packet cut by hand into fragments with at most ``size`` bytes of payload (a multiple of 8)."""
    from scapy.layers.inet import IP
    from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment

    assert size % 8 == 0
    head = packet.copy()
    layer = head[IP] if IP in head else head[IPv6]
    # The bytes of the whole packet carry the checksum over all of it, and the right next-header number.
    whole = type(layer)(bytes(layer))
    body = bytes(whole.payload)
    layer.remove_payload()
    out = []
    for start in range(0, len(body), size):
        piece, more = body[start : start + size], start + size < len(body)
        one = head.copy()
        if IP in one:
            one[IP].proto, one[IP].id = whole.proto, 7
            one[IP].frag, one[IP].flags = start // 8, "MF" if more else 0
        else:
            one[IPv6].nh = 44
            one /= IPv6ExtHdrFragment(nh=whole.nh, offset=start // 8, m=int(more), id=7)
        out.append(one / piece)
    return out


def truncations(frame: Any, shortest: int = 14) -> Iterator[bytes]:
    """The frame cut after every byte, from ``shortest`` (Linux takes no frame below 14) to one less than whole."""
    data = bytes(frame)
    for length in range(shortest, len(data)):
        yield data[:length]


def random_frame(seed: int | random.Random, *, guests: int = 4, garbage: bool = True) -> bytes:
    """A frame of a random kind with random fields among ``guests``; the same seed gives the same frame.

    ``garbage``: some are an ethertype (IP ones too) with random bytes behind it. All others are well-formed.
    """
    rng = seed if isinstance(seed, random.Random) else random.Random(seed)
    src = rng.randint(1, guests)
    dst = rng.choice([number for number in range(1, guests + 1) if number != src] or [src])
    how: dict[str, Any] = {}
    if rng.random() < 0.3:
        how.update(vlan=rng.choice([1, 10, 20, 4094]), pcp=rng.randrange(8))
        if rng.random() < 0.3:
            how.update(outer=rng.choice([100, 200]))
    kind = rng.choice(("udp", "udp", "tcp", "tcp", "icmp", "icmp6", "sctp", "arp", "nd", "raw", "llc"))
    payload = rng.randbytes(rng.choice((0, 1, 18, 64, 200)))
    if kind in ("udp", "tcp", "sctp"):
        how.update(sport=rng.choice([53, 1024, 40000]), dport=rng.choice([22, 53, 80, 443]))
    if kind in ("udp", "tcp", "sctp", "icmp"):
        if kind != "icmp" and rng.random() < 0.4:
            how.update(
                v6=True,
                ip={"tc": rng.randrange(256), "hlim": rng.randint(1, 255), "fl": rng.randrange(1 << 20)},
            )
            if rng.random() < 0.3:
                chain = rng.sample(["hopbyhop", "routing", "destopt", "fragment"], rng.randint(1, 2))
                how.update(
                    ext=ipv6_extensions(
                        *sorted(chain, key=["hopbyhop", "routing", "destopt", "fragment"].index)
                    )
                )
        else:
            how.update(
                ip={"tos": rng.randrange(256), "ttl": rng.randint(1, 255), "id": rng.randrange(1 << 16)}
            )
    if kind == "tcp":
        how.update(flags=rng.choice(["S", "SA", "A", "PA", "FA", "R", "FPU"]))
    if kind == "icmp":
        how.update(type=rng.choice([0, 3, 8, 11]), code=rng.randrange(3))
    if kind == "arp":
        return bytes(arp(src, dst, op=rng.choice([1, 2]), **how))
    if kind == "nd":
        return bytes(rng.choice([nd_solicit, nd_advertise])(src, dst, **how))
    if kind == "raw":
        kinds = [0x88B5, 0x8847, 0x9000, *([0x0800, 0x86DD] if garbage else [])]
        return bytes(eth(src, dst, ethertype=rng.choice(kinds), **how)) + payload
    if kind == "llc":
        return bytes(llc_snap(src, dst, payload, **how))
    build = {"udp": udp, "tcp": tcp, "sctp": sctp, "icmp": icmp, "icmp6": icmp6}[kind]
    return bytes(build(src, dst, payload, **how))


def _headers(src: int, dst: int, how: dict[str, Any]) -> Packet:
    how = dict(how)
    v6, fields, ext = how.pop("v6", False), how.pop("ip", {}), how.pop("ext", [])
    packet = eth(how.pop("eth_src", src), how.pop("eth_dst", dst), **how) / net(src, dst, v6=v6, **fields)
    for header in ext:
        packet /= header
    if ext:
        packet["IPv6"].nh = EXTENSION_NUMBERS[_extension_kind(ext[0])]
    return packet


def _extension_kind(header: Packet) -> str:
    name = type(header).__name__
    known = {
        "HopByHop": "hopbyhop",
        "Routing": "routing",
        "Fragment": "fragment",
        "DestOpt": "destopt",
        "AH": "auth",
    }
    return known[name.removeprefix("IPv6ExtHdr")]


def _mac(who: int | str) -> str:
    return mac(who) if isinstance(who, int) else who


def _ip4(who: int | str) -> str:
    return ip4(who) if isinstance(who, int) else who


def _ip6(who: int | str) -> str:
    return ip6(who) if isinstance(who, int) else who


# Judging -------------------------------------------------------------------------------------------------------


def parse(frame: Any) -> Packet:
    """The frame dissected by scapy, Ethernet on top; an 802.3 length too."""
    from scapy.layers import inet, inet6, sctp  # noqa: F401  (each binds its layers to the ones below)
    from scapy.layers.l2 import Dot3, Ether

    data = bytes(frame)
    return Dot3(data) if int.from_bytes(data[12:14], "big") <= 1500 else Ether(data)


def rebuilt(frame: Any) -> bytes:
    """The frame with every length and checksum computed anew by scapy from the fields around it.

    Left as they are: the transport checksum of a fragment (it covers the whole datagram), packets quoted in ICMP
    errors, a UDP checksum of zero over IPv4 (there is none), trailing padding.
    """
    from scapy.layers.inet import ICMP, IP, TCP, UDP
    from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, _ICMPv6
    from scapy.layers.sctp import SCTP

    packet = parse(frame)
    in_fragment = over_ipv4 = False
    layer = packet
    while layer:
        if isinstance(layer, IP):
            over_ipv4, in_fragment = True, bool(layer.frag or layer.flags.MF)
            _forget(layer, "ihl", "len", "chksum")
        elif isinstance(layer, IPv6):
            over_ipv4 = False
            _forget(layer, "plen")
        elif isinstance(layer, IPv6ExtHdrFragment):
            in_fragment = bool(layer.offset or layer.m)
        elif not in_fragment:
            if isinstance(layer, TCP):
                _forget(layer, "dataofs", "chksum")
            elif isinstance(layer, UDP):
                _forget(layer, "len", *(() if over_ipv4 and layer.chksum == 0 else ("chksum",)))
            elif isinstance(layer, ICMP | SCTP):
                _forget(layer, "chksum")
            elif isinstance(layer, _ICMPv6):
                _forget(layer, "cksum")
        if isinstance(layer, ICMP) and layer.type in (3, 4, 5, 11, 12):
            break
        if isinstance(layer, _ICMPv6) and layer.type < 128:
            break
        layer = layer.payload
    return bytes(packet)


def _forget(layer: Packet, *names: str) -> None:
    for name in names:
        layer.delfieldval(name)


def checksums_right(frame: Any) -> None:
    """Assert that lengths and checksums in the frame are what scapy computes."""
    same(frame, rebuilt(frame), "as received", "with right checksums")


def same(got: Any, wanted: Any, got_name: str = "got", wanted_name: str = "wanted") -> None:
    """Assert that two frames are equal byte for byte; the message shows the differing fields and bytes."""
    left, right = bytes(got), bytes(wanted)
    if left != right:
        raise AssertionError(difference(left, right, got_name, wanted_name))


def same_list(got: Sequence[Any], wanted: Sequence[Any], where: str = "") -> None:
    """Assert that two lists of frames are equal, naming the first that is not."""
    for index, (left, right) in enumerate(zip(got, wanted, strict=False)):
        if bytes(left) != bytes(right):
            raise AssertionError(f"{where}: frame {index}: {difference(bytes(left), bytes(right))}")
    if len(got) != len(wanted):
        rest = got[len(wanted) :] or wanted[len(got) :]
        word = "too many" if len(got) > len(wanted) else "missing"
        shown = "\n".join(f"  {summary(frame)}" for frame in rest[:10])
        raise AssertionError(f"{where}: {len(got)} frames came, {len(wanted)} wanted; {word}:\n{shown}")


def difference(left: bytes, right: bytes, left_name: str = "got", right_name: str = "wanted") -> str:
    """What tells two frames apart: scapy's summaries, fields, and the bytes in rows of 16."""
    lines = [f"{left_name} {len(left)} bytes, {right_name} {len(right)} bytes"]
    lines += [f"  {left_name}: {summary(left)}", f"  {right_name}: {summary(right)}"]
    fields_left, fields_right = _fields(left), _fields(right)
    for key in dict.fromkeys((*fields_left, *fields_right)):
        a, b = fields_left.get(key, "—"), fields_right.get(key, "—")
        if a != b:
            lines.append(f"  {key}: {a} instead of {b}")
    width = max(len(left_name), len(right_name))
    rows = 0
    for start in range(0, max(len(left), len(right)), 16):
        ours, theirs = left[start : start + 16], right[start : start + 16]
        if ours == theirs:
            continue
        if rows == 8:
            lines.append("  …")
            break
        rows += 1
        longer = range(max(len(ours), len(theirs)))
        marks = " ".join("  " if ours[i : i + 1] == theirs[i : i + 1] else "^^" for i in longer)
        lines.append(f"  {start:04x} {left_name:>{width}}: {ours.hex(' ')}")
        lines.append(f"  {start:04x} {right_name:>{width}}: {theirs.hex(' ')}")
        lines.append(f"       {'':>{width}}  {marks.rstrip()}")
    return "\n".join(lines)


def summary(frame: Any) -> str:
    """One line about a frame; never fails, whatever the bytes are."""
    data = bytes(frame)
    try:
        return f"{parse(data).summary()} ({len(data)} bytes)"
    except Exception as err:
        return f"{data[:32].hex()}… ({len(data)} bytes, {type(err).__name__})"


def _fields(data: bytes) -> dict[str, str]:
    found: dict[str, str] = {}
    try:
        layer = parse(data)
        depth = 0
        while layer:
            for desc in layer.fields_desc:
                value = repr(layer.getfieldval(desc.name))
                found[f"{layer.name}[{depth}].{desc.name}"] = value if len(value) <= 80 else value[:77] + "…"
            layer = layer.payload
            depth += 1
    except Exception:
        return found
    return found


def is_kernel_chatter(frame: bytes) -> bool:
    """Whether a frame is what Linux sends unasked: MLD reports and queries, router solicitations, IGMP."""
    offset = 12
    while frame[offset : offset + 2] in (b"\x81\x00", b"\x88\xa8"):
        offset += 4
    kind, body = frame[offset : offset + 2], frame[offset + 2 :]
    if kind == b"\x08\x00":
        return body[9:10] == b"\x02"
    if kind != b"\x86\xdd":
        return False
    # MLD comes behind a hop-by-hop header with the router alert option (RFC 3810, section 5), always 8 bytes.
    start = 48 if body[6:7] == b"\x00" and body[40:41] == b"\x3a" else 40
    is_icmp6 = body[6:7] == b"\x3a" or start == 48
    return is_icmp6 and body[start : start + 1] in (b"\x82", b"\x83", b"\x84", b"\x85", b"\x8f")
