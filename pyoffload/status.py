"""The state of the datapath: what is attached where, how full the tables are, and what differs from the configuration."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pyoffload import __version__, _abi as abi
from pyoffload.mapset import MapSet
from pyoffload.store import Store
from pyoffload.units import NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyoffload.instance import Instance
    from pyoffload.survey import Host


@dataclass(frozen=True, slots=True)
class HookStatus:
    """A port's interface and what is on its hook: ``hook`` as in `port list`; ``owner`` "pyoffload", or who else."""

    ifname: str
    ifindex: int | None
    bridge: str
    hook: str
    owner: str | None


@dataclass(frozen=True, slots=True)
class TableStatus:
    name: str
    used: int
    capacity: int


@dataclass(frozen=True, slots=True)
class Status:
    """``since_s``: how long it has been up. ``drift``: one sentence per difference; empty: all is as configured."""

    instance: str
    up: bool
    version: str
    abi_version: int
    since_s: float | None
    cache: bool
    bridges: int
    ports: int
    hooks: tuple[HookStatus, ...]
    tables: tuple[TableStatus, ...]
    drift: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        shape = asdict(self)
        for name in ("hooks", "tables", "drift"):
            shape[name] = list(shape[name])
        return shape


def status(instance: Instance) -> Status:
    """Ask everything; changes nothing. AbiMismatch when another version of pyoffload is loaded."""
    store = Store.open_readonly(instance)
    up = instance.is_up()
    maps = MapSet(instance, writable=False)
    if up:
        instance.require_up()
    return Status(
        instance=instance.name,
        up=up,
        version=__version__,
        abi_version=abi.ABI_VERSION,
        since_s=_since_s(instance) if up else None,
        cache=_cache(maps, store, up=up),
        bridges=len(store.bridges()) if store else 0,
        ports=len(store.ports()) if store else 0,
        hooks=tuple(_hooks(instance, store, up=up)) if store else (),
        tables=tuple(_tables(maps, store)) if up else (),
        drift=_lasting_drift(instance, maps, store) if up else (),
    )


def _since_s(instance: Instance) -> float | None:
    noted = (instance.runtime() or {}).get("up_ns")
    if not isinstance(noted, int):
        return None
    return (time.clock_gettime_ns(time.CLOCK_BOOTTIME) - noted) / NS_PER_S


def _cache(maps: MapSet, store: Store | None, *, up: bool) -> bool:
    if up:
        from pyoffload.records import cache_enabled

        return cache_enabled(maps)
    return not (store and store.option("no_cache"))


def _hooks(instance: Instance, store: Store, *, up: bool) -> Iterator[HookStatus]:
    from pyoffload.attach import attached
    from pyoffload.hooks import holder
    from pyoffload.links import local_names
    from pyoffload.survey import Host

    host = Host.look()
    kinds = attached(instance) if up else {}
    wanted = [(local_names(bridge.name)[1], bridge.name, "tc") for bridge in store.bridges()]
    wanted += [(port.ifname, port.bridge, "xdp" if port.hook == "xdp" else "tc") for port in store.ports()]
    for ifname, bridge, hook in wanted:
        link = host.get(ifname)
        if link is None:
            yield HookStatus(ifname, None, bridge, "absent", None)
            continue
        kind = kinds.get((link.ifindex, hook)) or kinds.get((link.ifindex, "tc"))
        owner = "pyoffload" if kind else holder(link, hook)
        yield HookStatus(ifname, link.ifindex, bridge, kind or ("absent" if up else "down"), owner)


def _tables(maps: MapSet, store: Store | None) -> Iterator[TableStatus]:
    from pyoffload import fdbmap, flowstore
    from pyoffload.records import read_bridges, read_ports

    yield TableStatus("bridges", len(read_bridges(maps)), abi.MAX_BRIDGES)
    yield TableStatus("ports", len(read_ports(maps)), abi.MAX_PORTS)
    yield TableStatus("fdb", sum(1 for _ in fdbmap.read(maps)), abi.MAX_FDB)
    if store is not None:
        for name, (used, capacity) in flowstore.usage(store.conn).items():
            yield TableStatus(name, used, capacity)
    tags = maps.mmap("cache_tags").cast("Q")
    entries = maps["cache_tags"].max_entries
    yield TableStatus("flow cache", entries - tags[:entries].tolist().count(0), entries)


def _lasting_drift(instance: Instance, maps: MapSet, store: Store | None) -> tuple[str, ...]:
    """Differences that no command is just working on: a change on its way is no drift."""
    if not tuple(_drift(instance, maps, store)):
        return ()
    for _ in range(2):  # it may have finished, or begun, while we looked
        if instance.is_changing():
            return ()
        found = tuple(_drift(instance, maps, store))
        if not found:
            return ()
    return () if instance.is_changing() else found


def _drift(instance: Instance, maps: MapSet, store: Store | None) -> Iterator[str]:
    if store is None:
        return
    from pyoffload.change import Journal
    from pyoffload.records import cache_enabled
    from pyoffload.survey import Host, describe, survey

    host = Host.look()
    journal = Journal(maps)
    if not journal.staging == journal.applied == store.config_rev:
        yield "a change was interrupted: the next change, or pyoffload up, completes it"
    yield from describe(survey(store, maps, host, cache=cache_enabled(maps)))
    yield from _missing_hooks(instance, store, host)


def _missing_hooks(instance: Instance, store: Store, host: Host) -> Iterator[str]:
    from pyoffload.attach import attached
    from pyoffload.reconcile import wanted_hooks

    found = attached(instance)
    expected = set()
    for ifname, hooks in wanted_hooks(store).items():
        link = host.get(ifname)
        for hook in hooks if link else ():
            assert link is not None  # noqa: S101  (mypy does not see the condition above)
            expected.add((link.ifindex, hook))
            if (link.ifindex, hook) not in found:
                yield f"port {ifname}: no program on its {hook} hook"
    for ifindex, hook in set(found) - expected:
        yield f"interface {ifindex}: a program on its {hook} hook, though it is no port"
