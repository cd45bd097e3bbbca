"""Counters of ports and bridges, summed over the CPUs. Reads only."""

from __future__ import annotations

import time
from ctypes import sizeof
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from pyoffload import _abi as abi
from pyoffload.change import require_bridge, require_port
from pyoffload.mapset import MapSet
from pyoffload.records import read_ports
from pyoffload.store import Store

if TYPE_CHECKING:
    from pyoffload.instance import Instance

# enum drop_reason -> the word that every output uses
DROP_NAMES: dict[int, str] = {int(reason): reason.name.lower() for reason in abi.drop_reason if reason}
BRIDGE_COUNTERS: tuple[str, ...] = tuple(name for name, _ in abi.bridge_counters._fields_)
_N_BRIDGE_COUNTERS = sizeof(abi.bridge_counters) // 8


class Counts(NamedTuple):
    """One port's counters since its interface was attached; rx is what came from the guest."""

    rx_packets: int = 0
    rx_bytes: int = 0
    tx_packets: int = 0
    tx_bytes: int = 0
    drops: dict[str, int] = {}  # noqa: RUF012  (never changed)


@dataclass(frozen=True, slots=True)
class PortStats:
    """``drops``: packets that came from this port and were not delivered, by reason, zeros left out.

    ``clock_ns``: CLOCK_MONOTONIC at the time of reading, for rates.
    """

    ifname: str
    bridge: str
    ofport: int
    rx_packets: int
    rx_bytes: int
    tx_packets: int
    tx_bytes: int
    drops: dict[str, int]
    clock_ns: int

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


def port_stats(instance: Instance, ifname: str | None = None) -> list[PortStats]:
    """Counters of all ports, or of one; zeros while the datapath is down. NotFound for an unknown port."""
    store = Store.open_readonly(instance)
    ports = [] if ifname is None else [require_port(store, ifname)]
    if store is None:
        return []
    slots = {bridge.name: bridge.slot for bridge in store.bridges()}
    maps = MapSet(instance, writable=False)
    places = {record.key: record.slot for record in read_ports(maps)} if instance.is_up() else {}
    found = []
    for port in ports or store.ports():
        slot = places.get((slots[port.bridge], port.ofport))
        counts = read_counts(maps, slot) if slot is not None else Counts()
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        found.append(PortStats(port.ifname, port.bridge, port.ofport, *counts, now))
    return found


def read_counts(maps: MapSet, slot: int) -> Counts:
    """Counters of one port slot."""
    rx_packets, rx_bytes, tx_packets, tx_bytes = maps["port_stats"].lookup_percpu_sum(slot, "4Q")
    return Counts(rx_packets, rx_bytes, tx_packets, tx_bytes, _drops(maps, slot))


def _drops(maps: MapSet, slot: int) -> dict[str, int]:
    # All reasons of a port stand side by side, once for each CPU; most are zero.
    words = maps.mmap("port_drops").cast("Q")
    per_cpu = abi.MAX_PORTS * abi.N_DROP_REASONS
    starts = range(slot * abi.N_DROP_REASONS, maps["port_drops"].max_entries, per_cpu)
    parts = [words[at : at + abi.N_DROP_REASONS].tolist() for at in starts]
    if not any(map(any, parts)):
        return {}
    sums = [sum(counts) for counts in zip(*parts, strict=True)]
    return {name: sums[reason] for reason, name in DROP_NAMES.items() if sums[reason]}


def bridge_counters(instance: Instance, name: str) -> dict[str, int]:
    """Counters of one bridge by the names of struct bridge_counters; zeros while the datapath is down."""
    bridge = require_bridge(Store.open_readonly(instance), name)
    if not instance.is_up():
        return dict.fromkeys(BRIDGE_COUNTERS, 0)
    return read_bridge_counters(MapSet(instance, writable=False), bridge.slot)


def read_bridge_counters(maps: MapSet, slot: int) -> dict[str, int]:
    """Counters of one bridge slot."""
    counts = maps["bridge_counters"].lookup_percpu_sum(slot, f"{_N_BRIDGE_COUNTERS}Q")
    by_name = dict(zip((name for name, _ in abi.bridge_counters._fields_), counts, strict=True))
    return {name: by_name[name] for name in BRIDGE_COUNTERS}
