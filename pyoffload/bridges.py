"""The verbs of `pyoffload bridge`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from pyoffload import _abi as abi
from pyoffload.change import Change, change, require_bridge
from pyoffload.errors import AlreadyExists, TableFull
from pyoffload.mapset import MapSet
from pyoffload.model import DEFAULT_MAC_AGE_S, DEFAULT_MAC_LIMIT, BridgeConfig, check_bridge_options
from pyoffload.store import Store
from pyoffload.units import NS_PER_S, check_ifname

if TYPE_CHECKING:
    from pyoffload.instance import Instance


@dataclass(frozen=True, slots=True)
class LocalInfo:
    """The bridge's port to the host's own stack; ``ifname`` is the host's end, "" while it does not exist."""

    ifname: str
    ifindex: int
    attached: bool
    rx_packets: int  # from the host
    rx_bytes: int
    tx_packets: int  # to the host
    tx_bytes: int
    drops: dict[str, int]


@dataclass(frozen=True, slots=True)
class BridgeInfo:
    """One bridge. ``macs``: known addresses; ``counters``: as in struct bridge_counters; both empty while down."""

    name: str
    vni: int | None
    mac_age_s: float
    mac_limit: int
    flood: bool
    up: bool
    n_ports: int
    ports: tuple[str, ...]
    local: LocalInfo | None
    macs: int
    generation: int
    counters: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"ports": list(self.ports)}


def add(
    instance: Instance,
    name: str,
    *,
    vni: int | None = None,
    mac_age_s: float = DEFAULT_MAC_AGE_S,
    mac_limit: int = DEFAULT_MAC_LIMIT,
    flood: bool = True,
    exist_ok: bool = False,
) -> BridgeInfo:
    """Make a bridge, and bring the datapath up first where it is down.

    With ``exist_ok`` an existing bridge takes the options given. AlreadyExists: the bridge exists, or an interface of
    its name; TableFull: there are 256 bridges.
    """
    check_ifname(name, "bridge")
    check_bridge_options(vni, mac_age_s, mac_limit)
    with change(instance, "bridge add", bring_up=True) as step:
        existing = step.store.bridge(name)
        if existing is not None and not exist_ok:
            raise AlreadyExists(f"bridge '{name}' exists already", hint="--exist-ok takes it as it is")
        port = step.store.port(name)
        if port is not None:
            raise AlreadyExists(f"'{name}' is a port of bridge '{port.bridge}'", hint="pyoffload port list")
        slot = existing.slot if existing else _free_slot(step)
        wanted = BridgeConfig(name, slot, vni, round(mac_age_s * NS_PER_S), mac_limit, flood)
        step.changed = wanted != existing
        if step.changed:
            step.store.put_bridge(wanted)
            _stage(step)
    return show(instance, name)


def delete(instance: Instance, name: str, *, missing_ok: bool = False) -> bool:
    """Delete a bridge with its ports, static addresses and flows; False if there was none (``missing_ok``)."""
    check_ifname(name, "bridge")
    with change(instance, "bridge del") as step:
        bridge = step.store.bridge(name)
        if bridge is None and missing_ok:
            step.changed = False
            return False
        bridge = step.bridge(name)
        free_flows = _forget_flows(step, bridge.slot)
        step.store.delete_bridge(name)
        _stage(step)
        if step.live:
            step.on_applied(free_flows)
    return True


def change_bridge(instance: Instance, name: str, **options: Any) -> BridgeInfo:
    """Change options (vni, mac_age_s, mac_limit, flood) of an existing bridge; what is not given stays."""
    with change(instance, "bridge set") as step:
        bridge = step.bridge(name)
        age_s = options.pop("mac_age_s", None)
        if age_s is not None:
            options["mac_age_ns"] = round(age_s * NS_PER_S)
        wanted = replace(bridge, **options)
        check_bridge_options(wanted.vni, wanted.mac_age_ns / NS_PER_S, wanted.mac_limit)
        step.changed = wanted != bridge
        if step.changed:
            step.store.put_bridge(wanted)
            _stage(step)
    return show(instance, name)


def list_bridges(instance: Instance) -> list[BridgeInfo]:
    """All bridges, by name."""
    store = Store.open_readonly(instance)
    if store is None:
        return []
    reader = _Reader(instance, store)
    return [reader.info(bridge) for bridge in store.bridges()]


def show(instance: Instance, name: str) -> BridgeInfo:
    """One bridge; NotFound if there is none."""
    store = Store.open_readonly(instance)
    bridge = require_bridge(store, name)
    assert store is not None  # noqa: S101  (require_bridge found something in it)
    return _Reader(instance, store).info(bridge)


def _stage(step: Change) -> None:
    if step.live:
        from pyoffload.reconcile import stage

        stage(step)


def _free_slot(step: Change) -> int:
    used = {bridge.slot for bridge in step.store.bridges()}
    for slot in range(abi.MAX_BRIDGES):
        if slot not in used:
            return slot
    raise TableFull(
        f"there are {abi.MAX_BRIDGES} bridges already",
        hint="delete one that is not needed: pyoffload bridge list",
    )


def _forget_flows(step: Change, slot: int) -> Any:
    from pyoffload.flowtable import FlowTables

    return FlowTables(step.maps, step.conn).remove_bridge(slot)


class _Reader:
    """What several bridges' descriptions have in common is read once."""

    def __init__(self, instance: Instance, store: Store) -> None:
        from pyoffload.records import read_bridges, read_ports

        self._store = store
        self._up = instance.is_up()
        self._maps = MapSet(instance, writable=False)
        self._records = {record.slot: record for record in read_bridges(self._maps)} if self._up else {}
        self._locals = (
            {record.bridge: record for record in read_ports(self._maps) if record.ofport == abi.OFPORT_LOCAL}
            if self._up
            else {}
        )
        self._macs = self._count_macs({bridge.slot: bridge.mac_age_ns for bridge in store.bridges()})

    def info(self, bridge: BridgeConfig) -> BridgeInfo:
        from pyoffload.stats import read_bridge_counters

        ports = tuple(port.ifname for port in self._store.ports(bridge.name))
        record = self._records.get(bridge.slot)
        return BridgeInfo(
            name=bridge.name,
            vni=bridge.vni,
            mac_age_s=bridge.mac_age_ns / NS_PER_S,
            mac_limit=bridge.mac_limit,
            flood=bridge.flood,
            up=record is not None,
            n_ports=len(ports),
            ports=ports,
            local=self._local(bridge),
            macs=self._macs.get(bridge.slot, 0),
            generation=record.generation if record else 0,
            counters=read_bridge_counters(self._maps, bridge.slot) if record else {},
        )

    def _local(self, bridge: BridgeConfig) -> LocalInfo | None:
        from pyoffload.stats import read_counts

        record = self._locals.get(bridge.slot)
        if record is None:
            return None
        counts = read_counts(self._maps, record.slot)
        there = bool(record.ifindex)
        return LocalInfo(bridge.name if there else "", record.out_ifindex, there, *counts)

    def _count_macs(self, ages: dict[int, int]) -> dict[int, int]:
        from pyoffload import fdbmap

        counts: dict[int, int] = {}
        for entry in fdbmap.read(self._maps) if self._up else ():
            if entry.bridge in ages and fdbmap.is_alive(entry, ages[entry.bridge]):
                counts[entry.bridge] = counts.get(entry.bridge, 0) + 1
        return counts
