"""Numbers, addresses and flags of the flow language: text to int and back, in ovs-ofctl's notation."""

from __future__ import annotations

import socket
from typing import Literal

from pyoffload.flow.syntax import BadWordError, fail, parse_uint

# How the values of a field are written: hex is 0x5 and a plain 0, hex4 0x0005, hex5 0x00005; port is a transport port,
# decimal, or hexadecimal with a mask; ofport an OpenFlow port by name or number. Strings and not an enum: members of
# enums are slow to reach, and these are reached for every word of every flow.
Kind = Literal[
    "decimal", "hex", "hex4", "hex5", "port", "mac", "ip4", "ip6", "tcp_flags", "fragment", "ofport"
]

TCP_FLAGS = ("fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr", "ns", "[200]", "[400]", "[800]")
_TCP_FLAG_BIT = {name: 1 << bit for bit, name in enumerate(TCP_FLAGS)}
TCP_FLAGS_ALL = 0xFFF

# text -> value and mask of struct flow_key's nw_frag (enum nw_frag)
FRAGMENTS = {"no": (0, 3), "yes": (1, 1), "first": (1, 3), "later": (3, 3), "not_later": (0, 2)}
_FRAGMENT_TEXT = {pair: text for text, pair in FRAGMENTS.items()}


def ones(bits: int) -> int:
    return (1 << bits) - 1


def parse_mac(text: str) -> int:
    """Six groups of one or two hexadecimal digits, as sscanf in ovs-ofctl has it."""
    if len(text) == 17 and text[2::3] == ":::::":
        try:
            raw = bytes.fromhex(text.replace(":", ""))
        except ValueError:
            fail(f"'{text}' is no Ethernet address", text)
        if len(raw) == 6:
            return int.from_bytes(raw, "big")
    groups = text.split(":")
    if len(groups) != 6:
        fail(f"'{text}' is no Ethernet address", text)
    value = 0
    for group in groups:
        if not 1 <= len(group) <= 2 or not group.isalnum():
            fail(f"'{text}' is no Ethernet address", text)
        try:
            value = value << 8 | int(group, 16)
        except ValueError:
            fail(f"'{text}' is no Ethernet address", text)
    return value


def parse_ip4(text: str) -> int:
    try:
        return int.from_bytes(socket.inet_pton(socket.AF_INET, text), "big")
    except (OSError, ValueError):
        fail(f"'{text}' is no IPv4 address", text)


def parse_ip6(text: str) -> int:
    try:
        return int.from_bytes(socket.inet_pton(socket.AF_INET6, text), "big")
    except (OSError, ValueError):
        fail(f"'{text}' is no IPv6 address", text)


def parse_value(kind: Kind, bits: int, text: str, what: str) -> int:
    """The value alone, of a kind whose text has one number or address in it."""
    if kind == "mac":
        return parse_mac(text)
    if kind == "ip4":
        return parse_ip4(text)
    if kind == "ip6":
        return parse_ip6(text)
    return parse_uint(text, ones(bits), what)


def parse_masked(kind: Kind, bits: int, text: str, what: str) -> tuple[int, int]:
    """``value`` or ``value/mask`` (addresses also ``value/prefix length``): value under mask, and mask."""
    if kind == "tcp_flags":
        return parse_tcp_flags(text)
    if kind == "fragment":
        pair = FRAGMENTS.get(text)
        if pair is None:
            fail(f"{what}: '{text}' is none of {', '.join(FRAGMENTS)}", text)
        return pair
    value_text, slash, mask_text = text.partition("/")
    value = parse_value(kind, bits, value_text, what)
    if not slash:
        return value, ones(bits)
    if kind in {"ip4", "ip6"} and mask_text.isdecimal() and mask_text.isascii():
        prefix = int(mask_text)
        if prefix > bits:
            fail(f"{what}: a prefix has at most {bits} bits, not {mask_text}", mask_text)
        mask = ones(prefix) << (bits - prefix)
    else:
        mask = parse_value(kind, bits, mask_text, f"{what}: mask")
    return value & mask, mask


def parse_tcp_flags(text: str) -> tuple[int, int]:
    """``+syn-ack`` (these set, those clear), ``syn|ack`` (exactly these), a number, or number/mask."""
    if text[:1] in {"+", "-"}:
        return _signed_flags(text)
    if text[:1].isdecimal():
        value_text, slash, mask_text = text.partition("/")
        value = parse_uint(value_text, TCP_FLAGS_ALL, "tcp_flags")
        mask = parse_uint(mask_text, TCP_FLAGS_ALL, "tcp_flags: mask") if slash else TCP_FLAGS_ALL
        return value & mask, mask
    value = 0
    for name in text.split("|"):
        value |= _tcp_flag(name)
    return value, TCP_FLAGS_ALL


def _signed_flags(text: str) -> tuple[int, int]:
    value = mask = 0
    sign, name = text[0], ""
    for char in text[1:] + "+":
        if char not in "+-":
            name += char
            continue
        bit = _tcp_flag(name)
        if mask & bit:
            fail(f"tcp_flags: '{name}' is there twice", name)
        mask |= bit
        if sign == "+":
            value |= bit
        sign, name = char, ""
    return value, mask


def _tcp_flag(name: str) -> int:
    bit = _TCP_FLAG_BIT.get(name)
    if bit is None:
        raise BadWordError(f"tcp_flags: '{name}' is none of {', '.join(TCP_FLAGS)}", name)
    return bit


def format_mac(value: int) -> str:
    return value.to_bytes(6, "big").hex(":")


def format_ip4(value: int) -> str:
    return socket.inet_ntop(socket.AF_INET, value.to_bytes(4, "big"))


def format_ip6(value: int) -> str:
    return socket.inet_ntop(socket.AF_INET6, value.to_bytes(16, "big"))


def format_hex(value: int) -> str:
    """C's "%#x": zero has no prefix."""
    return hex(value) if value else "0"


def format_value(kind: Kind, value: int) -> str:
    if kind == "mac":
        return format_mac(value)
    if kind == "ip4":
        return format_ip4(value)
    if kind == "ip6":
        return format_ip6(value)
    if kind == "hex":
        return format_hex(value)
    if kind == "hex4":
        return f"0x{value:04x}"
    if kind == "hex5":
        return f"0x{value:05x}"
    return str(value)


def format_masked(kind: Kind, bits: int, value: int, mask: int) -> str:
    """``value`` for a full mask, ``value/mask`` otherwise; a contiguous address mask as its prefix length."""
    if kind == "tcp_flags":
        return format_tcp_flags(value, mask)
    if kind == "fragment":
        return _FRAGMENT_TEXT.get((value, mask), f"{value:#x}/{mask:#x}")
    if mask == ones(bits):
        return format_value(kind, value)
    if kind in {"ip4", "ip6"}:
        prefix = mask.bit_count()
        if mask == ones(prefix) << (bits - prefix):
            return f"{format_value(kind, value)}/{prefix}"
    if kind == "port":
        return f"0x{value:x}/0x{mask:x}"
    return f"{format_value(kind, value)}/{format_value(kind, mask)}"


def format_tcp_flags(value: int, mask: int) -> str:
    if mask == TCP_FLAGS_ALL:
        return "|".join(name for name, bit in _TCP_FLAG_BIT.items() if value & bit) or "0"
    return "".join(("+" if value & bit else "-") + name for name, bit in _TCP_FLAG_BIT.items() if mask & bit)
