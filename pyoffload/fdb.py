"""The verbs of `pyoffload fdb`: which MAC address is behind which port."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pyoffload import _abi as abi, fdbmap, policy
from pyoffload.change import Change, change, require_bridge
from pyoffload.errors import AlreadyExists, NotFound, UsageError
from pyoffload.mapset import MapSet
from pyoffload.model import BridgeConfig, StaticMac, check_vlan, unicast_mac
from pyoffload.records import read_ports
from pyoffload.store import Store
from pyoffload.units import NS_PER_S, parse_mac

if TYPE_CHECKING:
    from pyoffload.instance import Instance


@dataclass(frozen=True, slots=True)
class MacInfo:
    """``port``: the interface's name, the bridge's own for `local`. ``age_s``: since its last frame; static: 0.

    ``remote``: the tunnel endpoint behind which it is; None without tunnels.
    """

    mac: str
    vlan: int
    port: str
    remote: str | None
    static: bool
    age_s: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def list_macs(instance: Instance, bridge: str) -> list[MacInfo]:
    """Static addresses and learned ones that are not aged out, by VLAN and address.

    While the datapath is down: the static ones.
    """
    store = Store.open_readonly(instance)
    config = require_bridge(store, bridge)
    assert store is not None  # noqa: S101  (require_bridge found something in it)
    found = [MacInfo(s.mac, s.vlan, s.ifname, None, static=True, age_s=0) for s in store.static_fdb(bridge)]
    if instance.is_up():
        found += _learned(instance, store, config)
    return sorted(found, key=lambda entry: (entry.vlan, entry.mac))


def _learned(instance: Instance, store: Store, bridge: BridgeConfig) -> list[MacInfo]:
    maps = MapSet(instance, writable=False)
    names = {port.ofport: port.ifname for port in store.ports(bridge.name)} | {abi.OFPORT_LOCAL: bridge.name}
    ports = {
        record.slot: names[record.ofport]
        for record in read_ports(maps)
        if record.bridge == bridge.slot and record.ofport in names
    }
    return [
        MacInfo(
            entry.mac.hex(":"),
            entry.vlan,
            ports[entry.port],
            None,
            static=False,
            age_s=fdbmap.age_ns(entry) // NS_PER_S,
        )
        for entry in fdbmap.read(maps)
        if entry.bridge == bridge.slot
        and not entry.static
        and entry.port in ports
        and fdbmap.is_alive(entry, bridge.mac_age_ns)
    ]


def add(
    instance: Instance, bridge: str, mac: str, port: str, *, vlan: int = 0, exist_ok: bool = False
) -> MacInfo:
    """Put an address on a port for good: it is neither learned elsewhere nor aged.

    AlreadyExists if it is static already (``exist_ok``: it moves to this port).
    """
    mac = unicast_mac(mac, "mac")
    if vlan:
        check_vlan(vlan, "vlan")
    with change(instance, "fdb add") as step:
        config = step.bridge(bridge)
        target = step.port(port)
        if target.bridge != bridge:
            raise UsageError(
                f"port '{port}' belongs to bridge '{target.bridge}', not to '{bridge}'",
                hint="pyoffload port list",
            )
        entry = StaticMac(bridge, mac, vlan, port)
        existing = _static(step, bridge, mac, vlan)
        if existing is not None and not exist_ok:
            raise AlreadyExists(
                f"{mac} is on port '{existing.ifname}' of '{bridge}' already", hint="--exist-ok moves it"
            )
        step.changed = existing != entry
        step.store.put_static(entry)
        if step.live and step.changed:
            step.on_visible(lambda: _place(step, config, entry, target.ofport))
    return MacInfo(mac, vlan, port, None, static=True, age_s=0)


def delete(
    instance: Instance, bridge: str, mac: str, *, vlan: int | None = None, missing_ok: bool = False
) -> int:
    """Forget an address, static or learned, in one VLAN or in all; returns how many entries went."""
    mac = parse_mac(mac, "mac")
    with change(instance, "fdb del") as step:
        config = step.bridge(bridge)
        statics = [
            entry
            for entry in step.store.static_fdb(bridge)
            if entry.mac == mac and vlan in {None, entry.vlan}
        ]
        step.store.delete_static(bridge, mac, vlan)
        raw = bytes.fromhex(mac.replace(":", ""))

        def chosen(entry: fdbmap.FdbRecord) -> bool:
            return entry.bridge == config.slot and entry.mac == raw and vlan in {None, entry.vlan}

        learned = _count(step, config, chosen)
        if not statics and not learned:
            if not missing_ok:
                where = f" in VLAN {vlan}" if vlan else ""
                raise NotFound(
                    f"{mac} is not known on bridge '{bridge}'{where}", hint=f"pyoffload fdb list {bridge}"
                )
            step.changed = False
            return 0
        if step.live:
            step.on_visible(lambda: _remove(step, config, statics, chosen))
    return len(statics) + learned


def flush(instance: Instance, bridge: str) -> int:
    """Forget all learned addresses of a bridge; returns how many."""
    with change(instance, "fdb flush") as step:
        config = step.bridge(bridge)

        def chosen(entry: fdbmap.FdbRecord) -> bool:
            return entry.bridge == config.slot

        count = _count(step, config, chosen)
        step.changed = bool(count)
        if step.live and count:
            step.on_visible(lambda: _remove(step, config, [], chosen))
    return count


def _static(step: Change, bridge: str, mac: str, vlan: int) -> StaticMac | None:
    return next(
        (e for e in step.store.static_fdb(bridge) if (e.mac, e.vlan) == (mac, vlan)),
        None,
    )


def _count(step: Change, bridge: BridgeConfig, chosen: Any) -> int:
    """Learned entries that are alive."""
    if not step.live:
        return 0
    return sum(
        chosen(entry) and not entry.static and fdbmap.is_alive(entry, bridge.mac_age_ns)
        for entry in fdbmap.read(step.maps)
    )


def _place(step: Change, bridge: BridgeConfig, entry: StaticMac, ofport: int) -> None:
    slots = {record.key: record.slot for record in read_ports(step.maps)}
    fdbmap.put_static(step.maps, bridge.slot, entry.mac, entry.vlan, slots[bridge.slot, ofport])
    policy.publish(step.maps, bridge.slot)


def _remove(step: Change, bridge: BridgeConfig, statics: list[StaticMac], chosen: Any) -> None:
    for entry in statics:
        fdbmap.delete_static(step.maps, bridge.slot, entry.mac, entry.vlan)
    fdbmap.expire(step.maps, chosen)
    policy.publish(step.maps, bridge.slot)
