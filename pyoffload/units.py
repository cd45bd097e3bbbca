"""Words of the command line that carry a unit or a form of their own: times, sizes, rates, VLANs, addresses, names.

Every function takes the word as it was typed and `what`, the option or argument it belongs to, and raises
UsageError, which names both. Suffixes are those of tc(8) ("PARAMETERS").
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from pyoffload.errors import UsageError

NS_PER_S: Final = 1_000_000_000
MAX_VLAN: Final = 4094
IFNAMSIZ: Final = 16  # with the closing NUL (include/uapi/linux/if.h)

_DURATIONS: Final = {
    "ns": 1,
    "us": 1_000,
    "ms": 1_000_000,
    "s": NS_PER_S,
    "m": 60 * NS_PER_S,
    "min": 60 * NS_PER_S,
    "h": 3600 * NS_PER_S,
    "d": 86_400 * NS_PER_S,
}
# tc(8): sizes count in 1024, "kbit" as a size is 1024 bits.
_SIZES: Final = {
    "": 8,
    "b": 8,
    "k": 8 << 10,
    "kb": 8 << 10,
    "m": 8 << 20,
    "mb": 8 << 20,
    "g": 8 << 30,
    "gb": 8 << 30,
    "kbit": 1 << 10,
    "mbit": 1 << 20,
    "gbit": 1 << 30,
}
# tc(8): rates count in 1000 unless they say "i"; "bps" is bytes per second; a bare number is bits per second.
_RATES: Final = {
    "": 1,
    "bit": 1,
    "kbit": 10**3,
    "mbit": 10**6,
    "gbit": 10**9,
    "tbit": 10**12,
    "kibit": 1 << 10,
    "mibit": 1 << 20,
    "gibit": 1 << 30,
    "bps": 8,
    "kbps": 8 * 10**3,
    "mbps": 8 * 10**6,
    "gbps": 8 * 10**9,
}
_NUMBER: Final = re.compile(r"(\d{1,18}(?:\.\d{1,9})?)([a-z]*)", re.ASCII)
_MAC: Final = re.compile(r"[0-9a-f]{2}(?:([:-])[0-9a-f]{2})(?:\1[0-9a-f]{2}){4}", re.ASCII)


def _scaled(text: str, what: str, kind: str, units: dict[str, int], example: str) -> int:
    """`text` times its unit, rounded to the nearest whole."""
    match = _NUMBER.fullmatch(text.lower())
    if match is None:
        raise UsageError(f"{what}: '{text}' is not a {kind}", hint=f"a number and a unit, such as {example}")
    number, unit = match.groups()
    if unit not in units:
        known = ", ".join(name for name in units if name)
        raise UsageError(
            f"{what}: '{text}' has the unknown unit '{unit}'", hint=f"units of a {kind}: {known}"
        )
    return round(float(number) * units[unit]) if "." in number else int(number) * units[unit]


def parse_duration(text: str, what: str) -> int:
    """Nanoseconds; a bare number is in seconds."""
    return _scaled(text, what, "time", {"": NS_PER_S, **_DURATIONS}, "500ms, 30s, 5m or 1h")


def parse_size(text: str, what: str) -> int:
    """Bytes; a bare number is in bytes."""
    return _scaled(text, what, "size", _SIZES, "1500, 64kb or 2mb") // 8


def parse_rate(text: str, what: str) -> int:
    """Bits per second; a bare number is in bits per second."""
    return _scaled(text, what, "rate", _RATES, "500kbit, 100mbit or 1gbit")


def parse_count(text: str, what: str) -> int:
    """A number of things; k and m count in 1024, as table sizes do."""
    return _scaled(text, what, "number", {"": 1, "k": 1 << 10, "m": 1 << 20}, "65536, 256k or 1m")


def parse_vlan(text: str, what: str) -> int:
    """A VLAN id that a frame may carry: 1 to 4094 (IEEE 802.1Q table 9-2)."""
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= MAX_VLAN):
        raise UsageError(f"{what}: '{text}' is not a VLAN", hint=f"a number from 1 to {MAX_VLAN}")
    return int(text)


def parse_vlan_list(text: str, what: str) -> tuple[int, ...]:
    """'10,20-29' as sorted VLAN ids, each once."""
    vlans: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        low = parse_vlan(first, what)
        high = parse_vlan(last, what) if dash else low
        if high < low:
            raise UsageError(f"{what}: the range '{part}' runs backwards", hint=f"write it as {high}-{low}")
        vlans.update(range(low, high + 1))
    return tuple(sorted(vlans))


def parse_mac(text: str, what: str) -> str:
    """A MAC address in lower case with colons; dashes are taken as well."""
    word = text.lower()
    if not _MAC.fullmatch(word):
        raise UsageError(f"{what}: '{text}' is not a MAC address", hint="six bytes such as 52:54:00:12:34:56")
    return word.replace("-", ":")


def parse_address(text: str, what: str) -> str:
    """An IPv4 or IPv6 address in its shortest form (RFC 5952)."""
    import socket

    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            return socket.inet_ntop(family, socket.inet_pton(family, text))
        except (OSError, ValueError):
            continue  # ValueError: a NUL or a character that is not ASCII
    raise UsageError(f"{what}: '{text}' is not an IP address", hint="such as 192.0.2.1 or 2001:db8::1")


def check_ifname(text: str, what: str) -> str:
    """`text` if the kernel takes it as an interface's name (net/core/dev.c, dev_valid_name)."""
    size = len(text.encode(errors="surrogateescape"))
    if not text:
        raise UsageError(f"{what}: the name is empty", hint=f"1 to {IFNAMSIZ - 1} characters")
    if size >= IFNAMSIZ:
        raise UsageError(f"{what}: '{text}' has {size} characters", hint=f"1 to {IFNAMSIZ - 1} characters")
    bad = next((c for c in text if c in "/:," or c.isspace() or not c.isprintable()), None)
    if bad is not None or text in {".", ".."} or text.startswith("-"):
        why = f"'{text}' contains {bad!r}" if bad is not None else f"'{text}' is not a name"
        raise UsageError(f"{what}: {why}", hint="letters, digits and any of . _ - + @, not starting with -")
    return text


def format_duration(ns: int) -> str:
    """The shortest exact form in one unit: 300s -> '5m', 90s -> '90s'."""
    if ns == 0:
        return "0s"
    for unit in ("d", "h", "m", "s", "ms", "us"):
        if ns % _DURATIONS[unit] == 0:
            return f"{ns // _DURATIONS[unit]}{unit}"
    return f"{ns}ns"


def format_vlans(vlans: Iterable[int]) -> str:
    """[10, 20, 21, 22] -> '10,20-22'."""
    runs: list[list[int]] = []
    for vlan in sorted(set(vlans)):
        if runs and runs[-1][-1] == vlan - 1:
            runs[-1][1:] = [vlan]
        else:
            runs.append([vlan])
    return ",".join("-".join(map(str, run)) for run in runs)


def format_rate(bits_per_s: float) -> str:
    """'12.3 Mbit/s': three digits that matter."""
    return _three_digits(bits_per_s, "bit/s")


def format_count_rate(per_s: float) -> str:
    """'1.23 Mpps'."""
    return _three_digits(per_s, "pps")


def _three_digits(value: float, unit: str) -> str:
    for prefix in ("", "k", "M", "G"):
        if value < 999.5 or prefix == "G":
            break
        value /= 1000
    digits = f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.{1 if value >= 10 else 2}f}"
    return f"{digits} {prefix}{unit}"
