"""up, down, upgrade and sync: the datapath's way into the kernel and out of it again.

Each may be killed anywhere; what it left is completed or cleared by the next `up` or `down`, and by any other
changing command as far as it needs it.
"""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pyoffload import _abi as abi
from pyoffload.checkpoints import checkpoint
from pyoffload.errors import OffloadError, UsageError
from pyoffload.mapset import MapSet
from pyoffload.store import Store

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyoffload.instance import Instance
    from pyoffload.kernel.map import Map
    from pyoffload.reconcile import Outcome
    from pyoffload.survey import Host

MAX_CACHE_ENTRIES = 1 << 22  # 1 GiB
_CRC32C_POLYNOMIAL = 0x82F63B78  # reflected, RFC 9260 appendix A


@dataclass(frozen=True, slots=True)
class UpResult:
    """What `up` found and did; names of interfaces."""

    already_up: bool
    ports_attached: tuple[str, ...]
    ports_absent: tuple[str, ...]
    ports_failed: tuple[tuple[str, str], ...]  # (interface, why)
    compiled: bool
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {
            "ports_failed": [{"ifname": name, "why": why} for name, why in self.ports_failed]
        }


@dataclass(frozen=True, slots=True)
class UpgradeResult:
    programs: int
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def is_live(instance: Instance) -> bool:
    """Whether the datapath of this namespace is completely there. AbiMismatch if another version made it."""
    from pyoffload import loader, maps

    if not instance.is_up():
        return False
    instance.require_up()
    pinned = set(os.listdir(instance.maps_dir))
    return loader.is_loaded(instance) and all(
        spec.name in pinned for spec in maps.SPECS if spec.name not in maps.PER_LOAD
    )


# ---- up


def up(instance: Instance, *, cache: bool | None = None, cache_entries: int | None = None) -> UpResult:
    """Load what is not loaded, and make everything as configured: the repair command as well.

    ``cache``, ``cache_entries``: saved for this and every later `up`; None: as saved.
    """
    if cache_entries is not None and not (
        abi.CACHE_WAYS <= cache_entries <= MAX_CACHE_ENTRIES and cache_entries.bit_count() == 1
    ):
        raise UsageError(
            f"cache-entries: {cache_entries} is not possible",
            hint=f"a power of two from {abi.CACHE_WAYS} to {MAX_CACHE_ENTRIES}",
        )
    from pyoffload import links

    begin = time.monotonic()
    with instance.lock():
        instance.make_state_dir()
        with Store.open(instance) as store:
            live = is_live(instance)
            if live and cache_entries is not None:
                _check_cache_size(instance, cache_entries)
            _save_options(store, cache, cache_entries)
            if not live:
                bring_up(instance, store)
            maps = MapSet(instance, writable=True)
            try:
                _set_cache_flag(maps, store)
                repaired, _ = repair(instance, store, maps)
                outcome = _reconcile(instance, store, maps, "up", full=True)
                _renew_programs(instance)
                locals_ = {links.local_names(bridge.name)[1] for bridge in store.bridges()}
            finally:
                maps.close()
    return UpResult(
        already_up=live,
        ports_attached=tuple(name for name in [*repaired, *outcome.attached] if name not in locals_),
        ports_absent=tuple(outcome.absent),
        ports_failed=tuple(outcome.failed),
        compiled=not live,
        seconds=time.monotonic() - begin,
    )


def sync(instance: Instance) -> UpResult:
    """`up` for a datapath that is up; where it is down there is nothing to do."""
    if is_live(instance):
        return up(instance)
    return UpResult(
        already_up=False, ports_attached=(), ports_absent=(), ports_failed=(), compiled=False, seconds=0.0
    )


def bring_up(instance: Instance, store: Store) -> None:
    """Maps and programs, for a caller that holds the lock; `repair` puts the configuration into them."""
    from pyoffload import loader, maps

    if instance.is_stale() or (instance.is_up() and not _maps_complete(instance)):
        instance.remove_pins()  # of a namespace that is gone, or of a `down` that was killed
    entries = int(store.option("cache_entries") or abi.DEFAULT_CACHE_ENTRIES)
    instance.write_runtime(up_ns=time.clock_gettime_ns(time.CLOCK_BOOTTIME))
    checkpoint("up.noted")
    try:
        opened = maps.create_all(instance, cache_entries=entries)
        checkpoint("up.maps")
        _fill(opened, store, entries)
        checkpoint("up.filled")
        if not loader.is_loaded(instance):
            loader.load(instance)
        checkpoint("up.loaded")
    except BaseException:
        if not loader.is_loaded(instance):
            instance.remove_pins()
        raise


def _maps_complete(instance: Instance) -> bool:
    from pyoffload import maps

    pinned = set(os.listdir(instance.maps_dir))
    return all(spec.name in pinned for spec in maps.SPECS if spec.name not in maps.PER_LOAD)


def _fill(opened: Mapping[str, Map], store: Store, cache_entries: int) -> None:
    """The maps that say something before any bridge exists."""
    import secrets
    import struct

    if int.from_bytes((opened["config"].lookup(0) or b"")[:4], "little"):
        return  # filled by an `up` that was killed afterwards
    keys = struct.pack("<65536I", *range(65536))
    opened["crc32c_shift"].update_batch(keys, struct.pack("<65536I", *crc32c_shifts()), 65536)
    config = abi.config()
    config.abi_version = abi.ABI_VERSION
    config.flags = 0 if store.option("no_cache") else abi.config_flag.CACHE
    config.cache_mask = cache_entries - 1
    for word in range(abi.CACHE_KEY_WORDS):
        config.hash_seed[word] = secrets.randbits(64) | 1
    opened["config"].update(0, bytes(config))


def crc32c_shifts(count: int = 65536) -> list[int]:
    """x^(8n) modulo the CRC32C polynomial for n = 0, 1, …, bits reflected: what n bytes after a change do to a CRC."""
    step = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (_CRC32C_POLYNOMIAL if value & 1 else 0)
        step.append(value)
    shifts = [0x80000000]
    while len(shifts) < count:
        last = shifts[-1]
        shifts.append(last >> 8 ^ step[last & 0xFF])
    return shifts


def _save_options(store: Store, cache: bool | None, cache_entries: int | None) -> None:
    if cache is None and cache_entries is None:
        return
    with store.transaction():
        if cache is not None:
            store.set_option("no_cache", None if cache else "1")
        if cache_entries is not None:
            store.set_option("cache_entries", str(cache_entries))


def _check_cache_size(instance: Instance, cache_entries: int) -> None:
    from pyoffload import maps

    with maps.open_map(instance, "cache_tags") as tags:
        if tags.max_entries != cache_entries:
            raise OffloadError(
                f"the flow cache of '{instance.name}' has {tags.max_entries} entries and cannot change while it is up",
                hint="pyoffload down, then pyoffload up --cache-entries again",
            )


def _set_cache_flag(maps: MapSet, store: Store) -> None:
    import ctypes

    flags = ctypes.c_uint32.from_buffer(maps.mmap("config"), 4)
    flags.value = 0 if store.option("no_cache") else abi.config_flag.CACHE


# ---- repair


def repair(instance: Instance, store: Store, maps: MapSet) -> tuple[list[str], Host | None]:
    """Finish or take back what a killed command left, and follow interfaces that came or went.

    Cheap when there is nothing to do. The caller holds the lock; no transaction is open. Returns the interfaces that
    were attached, and all that there are if nothing had to be done to them.
    """
    from pyoffload.change import Journal
    from pyoffload.records import cache_enabled, read_bridges
    from pyoffload.survey import Host, survey

    journal = Journal(maps)
    rev = store.config_rev
    if journal.staging == journal.applied == rev:
        host = Host.look()
        if survey(store, maps, host, cache=cache_enabled(maps)).in_order:
            return [], host
        return _reconcile(instance, store, maps, "sync", full=False).attached, None
    journal.staging = journal.applied + 1  # stays unequal until all is done
    running = {record.slot for record in read_bridges(maps)}
    outcome = _reconcile(instance, store, maps, "repair", full=True)
    _restore_flows(store, maps, running)
    checkpoint("repair.flows")
    journal.applied = rev
    journal.staging = rev
    checkpoint("repair.done")
    return outcome.attached, None


def _reconcile(instance: Instance, store: Store, maps: MapSet, verb: str, *, full: bool) -> Outcome:
    """Make the maps say what the store says."""
    from pyoffload.change import Change
    from pyoffload.reconcile import stage

    change = Change(instance, store, maps, verb, live=True)
    try:
        outcome = stage(change, full=full)
    except BaseException:
        change.roll_back()
        raise
    change.checkpoint("staged")
    change.run(marks=True)
    return outcome


def _restore_flows(store: Store, maps: MapSet, running: set[int]) -> None:
    """Of the bridges that were there before the repair; the others got theirs before they began to forward."""
    from pyoffload.flowtable import FlowTables

    tables = FlowTables(maps, store.conn)
    slots = {bridge.slot for bridge in store.bridges()}
    for slot in slots & running:
        tables.restore(slot)
    for slot in set(range(abi.MAX_BRIDGES)) - slots:
        if maps["classifiers"].lookup(slot) is not None:  # of a bridge whose deletion was cut short
            with store.transaction():
                clear = tables.remove_bridge(slot)
            clear()


# ---- down


def down(instance: Instance, *, purge: bool = False) -> bool:
    """Take the datapath out of the kernel; with ``purge`` forget the configuration too. False: nothing was there.

    Afterwards the host is as it was before `up`: no programs, qdiscs, interfaces, pins or mounts of ours.
    """
    with instance.lock():
        there = instance.is_up() or instance.is_stale()
        if there:
            _take_down(instance)
        purged = purge and _purge(instance)
    return there or purged


def _take_down(instance: Instance) -> None:
    from pyoffload import attach, links

    if instance.is_up() and _maps_complete(instance):
        _mark_dirty(instance)  # whoever comes after a killed `down` looks at everything
    checkpoint("down.marked")
    if instance.is_up():
        attach.detach_all(instance)
        checkpoint("down.detached")
        for bridge in links.list_local_pairs():
            links.delete_local_pair(bridge)
            checkpoint("down.local")
    instance.remove_pins()
    checkpoint("down.unpinned")


def _mark_dirty(instance: Instance) -> None:
    from pyoffload.change import Journal

    maps = MapSet(instance, writable=True)
    try:
        journal = Journal(maps)
        journal.staging = journal.applied + 1
    finally:
        maps.close()


def _purge(instance: Instance) -> bool:
    from pyoffload.store import FILE_NAME

    path = os.path.join(instance.state_dir, FILE_NAME)
    if not os.path.exists(path):
        return False
    # The WAL goes first: without its database it would be read into a new one of the same name.
    for suffix in ("-wal", "-shm", ""):
        if os.path.exists(path + suffix):
            os.unlink(path + suffix)
    if not os.listdir(instance.state_dir):
        os.rmdir(instance.state_dir)
    return True


# ---- upgrade


def upgrade(instance: Instance) -> UpgradeResult:
    """Compile and load the programs anew and swap every hook to them; no packet is lost, no state either."""
    from pyoffload import attach, loader

    begin = time.monotonic()
    with instance.lock():
        instance.require_up()
        if not is_live(instance):
            raise OffloadError(f"the datapath of '{instance.name}' is incomplete", hint="pyoffload up")
        programs = loader.load(instance)
        checkpoint("upgrade.loaded")
        attach.swap(instance, programs)
        checkpoint("upgrade.swapped")
        loader.remove_old(instance)
        checkpoint("upgrade.cleaned")
    return UpgradeResult(len(programs.names()), time.monotonic() - begin)


def _renew_programs(instance: Instance) -> None:
    """Complete an upgrade that was killed."""
    from pyoffload import attach, loader

    attach.swap(instance, loader.open_current(instance))
    loader.remove_old(instance)
