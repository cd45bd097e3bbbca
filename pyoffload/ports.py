"""The verbs of `pyoffload port`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pyoffload import _abi as abi
from pyoffload.change import Change, change, require_bridge, require_port
from pyoffload.errors import AlreadyExists, HostError, NotFound, TableFull, UsageError
from pyoffload.mapset import MapSet
from pyoffload.model import HOOKS, PortConfig, as_trunk, check_vlan_options
from pyoffload.store import Store
from pyoffload.units import check_ifname

if TYPE_CHECKING:
    from pyoffload.instance import Instance
    from pyoffload.records import PortRecord


class Unset(Enum):
    """For options of `change_port` that are not given."""

    UNSET = 0


UNSET: Final = Unset.UNSET
T = TypeVar("T")
Trunk = str | Iterable[int] | None

_DELIVER = {
    abi.port_deliver.ABSENT: "absent",
    abi.port_deliver.REDIRECT: "redirect",
    abi.port_deliver.PEER: "peer",
    abi.port_deliver.INGRESS: "ingress",
}


@dataclass(frozen=True, slots=True)
class PortInfo:
    """One port. ``hook``: "tcx", "tc", "xdp native", "xdp generic"; "absent" without interface; "down" without datapath.

    ``absent``: configured, but its interface is not there or could not be attached; ``ifindex`` is None then.
    """

    bridge: str
    ifname: str
    ifindex: int | None
    ofport: int
    hook: str
    vlan: int | None
    trunk: tuple[int, ...] | None
    native: int | None
    isolated: bool
    mac: tuple[str, ...]
    ip: tuple[str, ...]
    sg: tuple[str, ...]
    deliver: str
    absent: bool
    rx_packets: int
    rx_bytes: int
    tx_packets: int
    tx_bytes: int
    drops: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """The JSON of `port list`."""
        shape: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        for name in ("trunk", "mac", "ip", "sg"):
            shape[name] = None if shape[name] is None else list(shape[name])
        return shape


# ---- changes


def add(
    instance: Instance,
    bridge: str,
    ifname: str,
    *,
    vlan: int | None = None,
    trunk: Trunk = None,
    native: int | None = None,
    mac: Sequence[str] = (),
    ip: Sequence[str] = (),
    sg: Sequence[str] = (),
    hook: str = "auto",
    isolated: bool = False,
    exist_ok: bool = False,
) -> PortInfo:
    """Make an interface a port of a bridge.

    A port whose interface was gone and is back is attached again, with the options given now. AlreadyExists otherwise
    if it is a port (``exist_ok``: it takes the options given); NotFound without such bridge or interface; HookBusy when
    somebody else holds it; TableFull at 256 ports.
    """
    check_ifname(ifname, "port")
    vlans = as_trunk(trunk)
    _check_options(vlan, vlans, native, hook, mac, ip, sg)
    require_bridge(Store.open_readonly(instance), bridge)
    with change(instance, "port add", bring_up=True) as step:
        step.bridge(bridge)
        existing = step.store.port(ifname)
        _check_existing(step, existing, bridge, ifname, exist_ok=exist_ok)
        _check_interface(step, ifname)
        ofport = existing.ofport if existing else _free_ofport(step, bridge)
        wanted = PortConfig(ifname, bridge, ofport, vlan, vlans, native, hook, isolated)
        step.store.put_port(wanted)
        _stage(step, must_attach=(ifname,))
    return show(instance, ifname)


def change_port(
    instance: Instance,
    ifname: str,
    *,
    vlan: int | Unset | None = UNSET,
    trunk: Trunk | Unset = UNSET,
    native: int | Unset | None = UNSET,
    hook: str | Unset = UNSET,
    isolated: bool | Unset = UNSET,
    mac: Sequence[str] | Unset = UNSET,
    ip: Sequence[str] | Unset = UNSET,
    sg: Sequence[str] | Unset = UNSET,
) -> PortInfo:
    """`port set`: change what is given, keep the rest.

    A new ``vlan`` ends a trunk and a new ``trunk`` ends access; both None: every VLAN passes as it is.
    """
    vlans = UNSET if isinstance(trunk, Unset) else as_trunk(trunk)
    with change(instance, "port set") as step:
        port = step.port(ifname)
        wanted = replace(
            port,
            hook=_given(hook, port.hook),
            isolated=_given(isolated, port.isolated),
            **_vlan_options(port, vlan, vlans, native),
        )
        given = [() if isinstance(option, Unset) else option for option in (mac, ip, sg)]
        _check_options(wanted.vlan, wanted.trunk, wanted.native, wanted.hook, *given)
        step.changed = wanted != port
        if step.changed:
            step.store.put_port(wanted)
            _stage(step, must_attach=() if _record(step, port) is None else (ifname,))
    return show(instance, ifname)


def delete(instance: Instance, ifname: str, *, missing_ok: bool = False) -> bool:
    """Take the interface off its bridge and forget its options; False if it was no port (``missing_ok``)."""
    check_ifname(ifname, "port")
    with change(instance, "port del") as step:
        if missing_ok and step.store.port(ifname) is None:
            step.changed = False
            return False
        step.port(ifname)
        step.store.delete_port(ifname)
        _stage(step)
    return True


def _check_options(
    vlan: int | None,
    trunk: tuple[int, ...] | None,
    native: int | None,
    hook: str,
    mac: Sequence[str],
    ip: Sequence[str],
    sg: Sequence[str],
) -> None:
    check_vlan_options(vlan, trunk, native)
    if hook not in HOOKS:
        raise UsageError(f"hook: '{hook}' is none of {', '.join(HOOKS)}")
    # Kept without being enforced, they would promise a protection that is not there.
    for option, values in (("mac", mac), ("ip", ip)):
        if values:
            raise UsageError(f"{option}: anti-spoofing is not there yet", hint="it comes with the firewall")
    if sg:
        raise UsageError("sg: security groups are not there yet", hint="they come with the firewall")


def _check_existing(
    step: Change, existing: PortConfig | None, bridge: str, ifname: str, *, exist_ok: bool
) -> None:
    if existing is None:
        return
    if existing.bridge != bridge:
        raise AlreadyExists(
            f"'{ifname}' is a port of bridge '{existing.bridge}'", hint=f"pyoffload port del {ifname}"
        )
    back_again = ifname in step.attached_again or _record(step, existing) is None
    if not exist_ok and not back_again:
        raise AlreadyExists(
            f"'{ifname}' is a port of '{bridge}' already",
            hint="port set changes it; --exist-ok takes it as it is",
        )


def _check_interface(step: Change, ifname: str) -> None:
    from pyoffload import links, netlink

    link = netlink.get_link(ifname)
    if link is None:
        raise NotFound(f"there is no interface '{ifname}'", hint="ip link")
    if not link.ethernet:
        raise HostError(f"'{ifname}' carries no Ethernet frames", hint="ports are taps, veths, vifs and NICs")
    own = {name for bridge in step.store.bridges() for name in links.local_names(bridge.name)}
    if ifname in own:
        raise UsageError(f"'{ifname}' is a bridge's own interface, its port `local`")


def _free_ofport(step: Change, bridge: str) -> int:
    used = {port.ofport for port in step.store.ports(bridge)}
    if len(used) >= abi.MAX_BRIDGE_PORTS:
        raise TableFull(
            f"bridge '{bridge}' has {abi.MAX_BRIDGE_PORTS} ports already", hint="a bridge holds no more"
        )
    return next(number for number in range(1, abi.MAX_OFPORT + 1) if number not in used)


def _vlan_options(
    port: PortConfig,
    vlan: int | Unset | None,
    trunk: tuple[int, ...] | Unset | None,
    native: int | Unset | None,
) -> dict[str, Any]:
    new_vlan, new_trunk, new_native = (
        _given(vlan, port.vlan),
        _given(trunk, port.trunk),
        _given(native, port.native),
    )
    if isinstance(trunk, Unset) and not isinstance(vlan, Unset) and vlan is not None:
        new_trunk = None
    if isinstance(vlan, Unset) and not isinstance(trunk, Unset) and trunk is not None:
        new_vlan = None
    if isinstance(native, Unset) and new_trunk is None:
        new_native = None
    return {"vlan": new_vlan, "trunk": new_trunk, "native": new_native}


def _given(option: T | Unset, present: T) -> T:
    return present if isinstance(option, Unset) else option


def _record(step: Change, port: PortConfig) -> PortRecord | None:
    """The port's record if it is attached."""
    if not step.live:
        return None
    from pyoffload.records import read_ports

    key = (step.bridge(port.bridge).slot, port.ofport)
    return next((r for r in read_ports(step.maps) if r.key == key and r.ifindex), None)


def _stage(step: Change, *, must_attach: tuple[str, ...] = ()) -> None:
    if step.live:
        from pyoffload.reconcile import stage

        stage(step, must_attach=must_attach)


# ---- questions


def list_ports(instance: Instance, bridge: str | None = None) -> list[PortInfo]:
    """All ports, or those of one bridge, by bridge and OpenFlow number."""
    store = Store.open_readonly(instance)
    if bridge is not None:
        require_bridge(store, bridge)
    return _describe(instance, store, store.ports(bridge)) if store else []


def show(instance: Instance, ifname: str) -> PortInfo:
    """One port; NotFound if it is none."""
    store = Store.open_readonly(instance)
    port = require_port(store, ifname)
    assert store is not None  # noqa: S101  (require_port found something in it)
    return _describe(instance, store, [port])[0]


def _describe(instance: Instance, store: Store, ports: list[PortConfig]) -> list[PortInfo]:
    from pyoffload.attach import attached
    from pyoffload.records import read_ports
    from pyoffload.stats import Counts, read_counts

    slots = {bridge.name: bridge.slot for bridge in store.bridges()}
    up = instance.is_up()
    maps = MapSet(instance, writable=False)
    records = {record.key: record for record in read_ports(maps)} if up else {}
    kinds = attached(instance) if up else {}
    described = []
    for port in ports:
        record = records.get((slots[port.bridge], port.ofport))
        counts = read_counts(maps, record.slot) if record else Counts()
        ifindex = _present(record, port.ifname)
        hook = _hook_word(kinds, port, ifindex) if up else "down"
        described.append(
            PortInfo(
                bridge=port.bridge,
                ifname=port.ifname,
                ifindex=ifindex,
                ofport=port.ofport,
                hook=hook,
                vlan=port.vlan,
                trunk=port.trunk,
                native=port.native,
                isolated=port.isolated,
                mac=port.mac,
                ip=port.ip,
                sg=port.sg,
                deliver=_DELIVER[abi.port_deliver(record.deliver if record else 0)],
                absent=up and ifindex is None,
                **counts._asdict(),
            )
        )
    return described


def _present(record: PortRecord | None, ifname: str) -> int | None:
    """Index of the interface that the port is attached to, if that one is still there: the record may be older."""
    import socket

    if record is None or not record.ifindex:
        return None
    try:
        return record.ifindex if socket.if_nametoindex(ifname) == record.ifindex else None
    except OSError:
        return None


def _hook_word(kinds: dict[tuple[int, str], str], port: PortConfig, ifindex: int | None) -> str:
    if ifindex is None:
        return "absent"
    first = "xdp" if port.hook == "xdp" else "tc"
    return kinds.get((ifindex, first)) or kinds.get((ifindex, "tc")) or "absent"


class BridgePortNames:
    """Names and OpenFlow numbers of a bridge's ports, as the flow language wants them; `local` has the bridge's name."""

    def __init__(self, store: Store, bridge: str) -> None:
        self._numbers = {port.ifname: port.ofport for port in store.ports(bridge)}
        self._names = {number: name for name, number in self._numbers.items()}
        self._numbers[bridge] = abi.OFPORT_LOCAL
        self._names[abi.OFPORT_LOCAL] = bridge

    def number(self, name: str) -> int | None:
        """OpenFlow number of a port of this bridge."""
        return self._numbers.get(name)

    def name(self, ofport: int) -> str | None:
        """Name of the port with this number."""
        return self._names.get(ofport)
