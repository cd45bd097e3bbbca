"""What the admin configures in the switch, as values: bridges, ports, static MAC addresses, and their limits.

Nothing here knows the kernel or the store. A value out of its range is a UsageError that names it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pyoffload import _abi as abi
from pyoffload.errors import UsageError
from pyoffload.units import MAX_VLAN, NS_PER_S, parse_mac, parse_vlan_list

VNI_MAX = (1 << 24) - 1  # RFC 7348 section 5
HOOKS = ("auto", "tc", "xdp")

DEFAULT_MAC_AGE_S = 300.0
DEFAULT_MAC_LIMIT = 8192
MAC_AGE_MAX_S = 1_000_000.0  # as IEEE 802.1Q table 8-6 has it


@dataclass(frozen=True, slots=True)
class BridgeConfig:
    """One bridge as configured. ``slot`` is its index in the maps, kept as long as it exists."""

    name: str
    slot: int
    vni: int | None = None
    mac_age_ns: int = int(DEFAULT_MAC_AGE_S) * NS_PER_S
    mac_limit: int = DEFAULT_MAC_LIMIT
    flood: bool = True


@dataclass(frozen=True, slots=True)
class PortConfig:
    """One port as configured; ``ofport`` is its OpenFlow number in the bridge.

    ``vlan``: access port of that VLAN. ``trunk``: these VLANs, sorted, and ``native`` one more, untagged on the wire.
    Neither: every VLAN passes as it is.
    """

    ifname: str
    bridge: str
    ofport: int
    vlan: int | None = None
    trunk: tuple[int, ...] | None = None
    native: int | None = None
    hook: str = "auto"
    isolated: bool = False
    mac: tuple[str, ...] = ()
    ip: tuple[str, ...] = ()
    sg: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StaticMac:
    """A MAC address that the admin put on a port for good; ``vlan`` 0 is a bridge without VLANs."""

    bridge: str
    mac: str
    vlan: int
    ifname: str


def as_trunk(vlans: str | Iterable[int] | None) -> tuple[int, ...] | None:
    """``"10,20-29"`` or VLAN ids as sorted ids, each once; None stays None."""
    if vlans is None:
        return None
    if isinstance(vlans, str):
        return parse_vlan_list(vlans, "trunk")
    ids = tuple(sorted(set(vlans)))
    if not ids:
        raise UsageError("trunk: no VLAN is given", hint="such as 10,20-29")
    for vlan in ids:
        check_vlan(vlan, "trunk")
    return ids


def check_vlan(vlan: int, what: str) -> int:
    """The VLAN id, if a frame may carry it (IEEE 802.1Q table 9-2)."""
    if not 1 <= vlan <= MAX_VLAN:
        raise UsageError(f"{what}: {vlan} is not a VLAN", hint=f"a number from 1 to {MAX_VLAN}")
    return vlan


def check_vlan_options(vlan: int | None, trunk: tuple[int, ...] | None, native: int | None) -> None:
    """A port is an access port, a trunk (with or without a native VLAN), or takes every VLAN."""
    if vlan is not None and trunk is not None:
        raise UsageError(
            "a port is an access port (vlan) or a trunk, not both", hint="give --vlan or --trunk"
        )
    if vlan is not None:
        check_vlan(vlan, "vlan")
    if native is not None:
        check_vlan(native, "native")
        if trunk is None:
            raise UsageError(
                f"native: VLAN {native} has no trunk beside it",
                hint="give --trunk as well, or --vlan instead",
            )


def unicast_mac(text: str, what: str) -> str:
    """The address of one station in its usual form; group addresses and zero belong to no port."""
    mac = parse_mac(text, what)
    if int(mac[:2], 16) & 1 or mac == "00:00:00:00:00:00":
        raise UsageError(
            f"{what}: {mac} is no station's address", hint="group addresses and zero have no port"
        )
    return mac


def check_bridge_options(vni: int | None, mac_age_s: float, mac_limit: int) -> None:
    """Ranges of what `bridge add` takes."""
    if vni is not None and not 0 <= vni <= VNI_MAX:
        raise UsageError(f"vni: {vni} is not in 0..{VNI_MAX}")
    if not 1 <= mac_age_s <= MAC_AGE_MAX_S:
        raise UsageError(f"mac-age: {mac_age_s:g} s is not in 1 s..{MAC_AGE_MAX_S:.0f} s")
    if not 1 <= mac_limit <= abi.MAX_FDB:
        raise UsageError(
            f"mac-limit: {mac_limit} is not in 1..{abi.MAX_FDB}", hint="an instance holds that many"
        )
