"""Every map of an instance, in one table: kind, key, value, size. Python makes, pins and checks them; C gets them by number.

A map's place in SPECS is its number in compiled programs (compiler.py, loader.py), so the order matters only within one
version. Comments at the structs in bpf/abi.h say what the maps mean.
"""

from __future__ import annotations

import os
from ctypes import sizeof
from dataclasses import dataclass, replace

from pyoffload import _abi as abi
from pyoffload.errors import AbiMismatch, DatapathDown, NotFound
from pyoffload.instance import Instance, remove_tree
from pyoffload.kernel.map import F_INNER_MAP, F_MMAPABLE, F_NO_PREALLOC, Map, MapType, cpu_ids

PIN_MODE = 0o640
JOURNAL_SIZE = 16  # u64 staging_rev, u64 applied_rev
DEVMAP_VALUE_SIZE = 8  # struct bpf_devmap_val: u32 ifindex, u32 program


@dataclass(frozen=True, slots=True)
class MapSpec:
    name: str
    type: MapType
    key_size: int
    value_size: int
    max_entries: int
    flags: int = 0
    cpu_part: int = (
        0  # elements for each CPU of a table of counters that is one plain array (Map.split_by_cpu)
    )


def _array(name: str, value_size: int, max_entries: int, *, shared: bool = False) -> MapSpec:
    return MapSpec(name, MapType.ARRAY, 4, value_size, max_entries, F_MMAPABLE if shared else 0)


def _percpu(name: str, value_size: int, max_entries: int) -> MapSpec:
    return MapSpec(name, MapType.PERCPU_ARRAY, 4, value_size, max_entries)


def _by_cpu(name: str, value_size: int, entries: int) -> MapSpec:
    return MapSpec(name, MapType.ARRAY, 4, value_size, cpu_ids() * entries, F_MMAPABLE, entries)


SPECS: tuple[MapSpec, ...] = (
    _array("config", sizeof(abi.config), 1, shared=True),
    _array("journal", JOURNAL_SIZE, 1, shared=True),
    _array("ports", sizeof(abi.port), abi.MAX_PORTS, shared=True),
    _array("bridges", sizeof(abi.bridge), abi.MAX_BRIDGES, shared=True),
    _array("bridge_ports", sizeof(abi.bridge_ports), abi.MAX_BRIDGES, shared=True),
    _array("vlan_profiles", sizeof(abi.vlan_profile), abi.MAX_VLAN_PROFILES),
    _percpu("bridge_counters", sizeof(abi.bridge_counters), abi.MAX_BRIDGES),
    MapSpec("fdb", MapType.HASH, sizeof(abi.fdb_key), sizeof(abi.fdb_entry), abi.MAX_FDB),
    _array("fdb_epochs", 4, abi.MAX_FDB_EPOCHS),
    _array("fdb_ring", sizeof(abi.fdb_key), abi.MAX_FDB),
    _array("fdb_state", sizeof(abi.fdb_state), abi.MAX_BRIDGES, shared=True),
    MapSpec("classifiers", MapType.ARRAY_OF_MAPS, 4, 4, abi.MAX_BRIDGES),
    MapSpec("flow_index", MapType.HASH, sizeof(abi.flow_index_key), 4, abi.MAX_FLOWS, F_NO_PREALLOC),
    _array("flows", sizeof(abi.flow), abi.MAX_FLOWS, shared=True),
    _by_cpu("flow_stats", sizeof(abi.counter), abi.MAX_FLOWS),
    _array("actions", sizeof(abi.action), abi.MAX_ACTIONS, shared=True),
    _array("groups", sizeof(abi.group), abi.MAX_GROUPS, shared=True),
    _percpu("group_stats", sizeof(abi.counter), abi.MAX_GROUPS),
    _array("buckets", sizeof(abi.bucket), abi.MAX_BUCKETS, shared=True),
    _percpu("bucket_stats", sizeof(abi.counter), abi.MAX_BUCKETS),
    _array("meters", sizeof(abi.meter), abi.MAX_METERS, shared=True),
    _percpu("meter_stats", sizeof(abi.counter), abi.MAX_METERS),
    _array("flow_cache", sizeof(abi.cache_bucket), abi.DEFAULT_CACHE_ENTRIES // abi.CACHE_WAYS, shared=True),
    _array("cache_tags", 4, abi.DEFAULT_CACHE_ENTRIES, shared=True),
    _percpu("port_stats", sizeof(abi.port_stats), abi.MAX_PORTS),
    _by_cpu("port_drops", 8, abi.MAX_PORTS * abi.N_DROP_REASONS),
    _percpu("scratch", abi.SCRATCH_SIZE, 1),
    MapSpec("tail_programs", MapType.PROG_ARRAY, 4, 4, abi.tail_program.PROGRAMS),
    MapSpec("tx_ports", MapType.DEVMAP, 4, DEVMAP_VALUE_SIZE, abi.MAX_PORTS),
    _array("crc32c_shift", 4, 65536),
)

# What stands for a map in compiled programs: this + its place in SPECS. bcc leaves positive numbers alone.
PLACEHOLDER_BASE = 1000

# Made by the loader for each set of programs, so that an upgrade swaps nothing but the entry programs' links.
PER_LOAD = frozenset({"tail_programs"})

_BY_NAME = {spec.name: spec for spec in SPECS}


def spec_of(name: str) -> MapSpec:
    return _BY_NAME[name]


def sized(cache_entries: int = abi.DEFAULT_CACHE_ENTRIES) -> tuple[MapSpec, ...]:
    """SPECS with another size of the flow cache, a power of two that is at least CACHE_WAYS."""
    sizes = {"flow_cache": cache_entries // abi.CACHE_WAYS, "cache_tags": cache_entries}
    return tuple(
        replace(spec, max_entries=sizes[spec.name]) if spec.name in sizes else spec for spec in SPECS
    )


def create(spec: MapSpec) -> Map:
    """A new, unpinned map."""
    if spec.type is MapType.ARRAY_OF_MAPS:
        with create_classifier(1) as pattern:
            return Map.create(
                spec.type, spec.key_size, spec.value_size, spec.max_entries, name=spec.name, inner=pattern
            )
    made = Map.create(
        spec.type, spec.key_size, spec.value_size, spec.max_entries, flags=spec.flags, name=spec.name
    )
    return made.split_by_cpu(spec.cpu_part)


def create_classifier(n_subtables: int) -> Map:
    """An inner map of `classifiers`: an array of struct subtable, of any size (put it there with update_fd)."""
    return Map.create(
        MapType.ARRAY, 4, sizeof(abi.subtable), n_subtables, flags=F_INNER_MAP, name="classifier"
    )


def create_in_memory(cache_entries: int = abi.DEFAULT_CACHE_ENTRIES) -> dict[str, Map]:
    """All maps, not pinned: they live as long as the objects."""
    return {spec.name: create(spec) for spec in sized(cache_entries)}


def create_all(instance: Instance, *, cache_entries: int = abi.DEFAULT_CACHE_ENTRIES) -> dict[str, Map]:
    """Make and pin all maps but those of PER_LOAD. There are all of them afterwards, or none.

    Idempotent: maps that are pinned already are opened and checked (their cache keeps its size).
    """
    if os.path.isdir(instance.maps_dir):
        return open_all(instance, writable=True)
    instance.make_pin_dirs()
    staging = f"{instance.pin_dir}/maps_new"
    remove_tree(staging)
    os.makedirs(staging, mode=0o750)
    made = {}
    for spec in sized(cache_entries):
        if spec.name in PER_LOAD:
            continue
        made[spec.name] = bpf_map = create(spec)
        bpf_map.pin(f"{staging}/{spec.name}")
        os.chmod(f"{staging}/{spec.name}", PIN_MODE)
    os.rename(staging, instance.maps_dir)
    return made


def open_map(instance: Instance, name: str, *, writable: bool = False) -> Map:
    """Open a pin and check that it is what this version means by it. DatapathDown if there is none."""
    spec = _BY_NAME[name]
    path = f"{instance.maps_dir}/{name}"
    try:
        # The kernel gives shared memory, even to read, only to who has the map open for writing.
        bpf_map = Map.open(path, read_only=not writable and not spec.flags & F_MMAPABLE)
    except NotFound:
        raise DatapathDown(
            f"the datapath of '{instance.name}' is not up",
            hint="pyoffload up (or add a bridge, which does it)",
        ) from None
    check(bpf_map, spec)
    return bpf_map.split_by_cpu(spec.cpu_part)


def open_all(instance: Instance, *, writable: bool = False) -> dict[str, Map]:
    return {s.name: open_map(instance, s.name, writable=writable) for s in SPECS if s.name not in PER_LOAD}


def check(bpf_map: Map, spec: MapSpec) -> None:
    """The kernel opens any pin under any description; a wrong one would be read as garbage."""
    size_is_chosen = spec.name in {"flow_cache", "cache_tags"}
    # The kernel itself adds BPF_F_RDONLY_PROG to a devmap's flags.
    flags = spec.flags if spec.type is MapType.DEVMAP else bpf_map.flags
    got = (bpf_map.type, bpf_map.key_size, bpf_map.value_size, flags)
    want = (spec.type, spec.key_size, spec.value_size, spec.flags)
    if got != want or (bpf_map.max_entries != spec.max_entries and not size_is_chosen):
        raise AbiMismatch(
            f"pinned map '{spec.name}' is not what this version of pyoffload expects",
            hint="pyoffload down, then pyoffload up; the configuration is kept",
        )
