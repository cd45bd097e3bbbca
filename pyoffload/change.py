"""One way to change anything: lock, repair what a killed command left, stage, commit, make visible, free.

The configuration is in the store, what runs is in the maps, and a command may be killed between any two steps. So
every change is numbered. The map `journal` holds the number of the change that was begun (staging_rev) and of the one
that is in force (applied_rev); the store holds the number that was committed (config_rev), in the commit itself. When
the three differ, the next command first makes the maps say what the store says, and traffic goes on meanwhile.

    begin       staging_rev = n + 1
    <verb>.staged       everything is prepared and invisible; undone if anything fails up to here
    <verb>.committed    config_rev = n + 1 is on disk: from here on the change will happen
    <verb>.visible      the datapath works by it
    <verb>.cleaned      what it replaced has been detached and freed
    <verb>.applied      applied_rev = n + 1
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from ctypes import c_uint64
from typing import TYPE_CHECKING

from pyoffload.checkpoints import checkpoint
from pyoffload.errors import NotFound, OffloadError
from pyoffload.mapset import MapSet
from pyoffload.store import FILE_NAME, Store

if TYPE_CHECKING:
    import sqlite3

    from pyoffload.instance import Instance
    from pyoffload.model import BridgeConfig, PortConfig
    from pyoffload.survey import Host

Step = Callable[[], object]


class Change:
    """A change in progress. Callbacks run in the order given; undo callbacks in reverse, only if it fails."""

    def __init__(self, instance: Instance, store: Store, maps: MapSet, verb: str, *, live: bool) -> None:
        self.instance = instance
        self.store = store
        self.maps = maps
        self.verb = verb
        self.live = live  # the datapath is up: maps are to be changed as well
        # Ports whose interface came back: attached just now, before the change proper.
        self.attached_again: frozenset[str] = frozenset()
        self.host: Host | None = None  # the interfaces, if they have been looked at just now
        self.changed = True  # False: nothing is committed and the callbacks do not run
        self._undo: list[Step] = []
        self._visible: list[Step] = []
        self._applied: list[Step] = []

    @property
    def conn(self) -> sqlite3.Connection:
        """The store's connection, inside the transaction of this change."""
        return self.store.conn

    def undo(self, step: Step) -> None:
        """Take back a staged step if the change fails before it is committed."""
        self._undo.append(step)

    def on_visible(self, step: Step) -> None:
        """After the commit: let the datapath work by the change."""
        self._visible.append(step)

    def on_applied(self, step: Step) -> None:
        """When the datapath works by it: free what nobody uses any more."""
        self._applied.append(step)

    def checkpoint(self, step: str) -> None:
        """A further place at which tests kill the command: ``<verb>.<step>``."""
        checkpoint(f"{self.verb.replace(' ', '-')}.{step}")

    def bridge(self, name: str) -> BridgeConfig:
        """The bridge of that name, or NotFound."""
        return require_bridge(self.store, name)

    def port(self, ifname: str) -> PortConfig:
        """The port of that name, or NotFound."""
        return require_port(self.store, ifname)

    def roll_back(self) -> None:
        """Undo the staged steps, last one first; one that fails does not stop the others."""
        while self._undo:
            with contextlib.suppress(OffloadError, OSError):
                self._undo.pop()()

    def run(self, *, marks: bool) -> None:
        """Make visible, then clean up."""
        for step in self._visible:
            step()
        if marks:
            self.checkpoint("visible")
        for step in self._applied:
            step()
        if marks:
            self.checkpoint("cleaned")
        self._undo.clear()
        self._visible.clear()
        self._applied.clear()


@contextlib.contextmanager
def change(
    instance: Instance, verb: str, *, bring_up: bool = False, lock_timeout_s: float | None = None
) -> Iterator[Change]:
    """The context manager that every changing verb goes through; ``verb`` as typed, e.g. ``"port add"``.

    ``bring_up``: load the datapath first where it is down; otherwise only the saved configuration is changed then.
    Raises what the body raises, with nothing changed; LockTimeout when another command is at work.
    """
    from pyoffload import lifecycle

    with instance.lock(lock_timeout_s), _open_store(instance, create=bring_up) as store:
        live = lifecycle.is_live(instance)
        if bring_up and not live:
            lifecycle.bring_up(instance, store)
            live = True
        maps = MapSet(instance, writable=True)
        try:
            begun = Change(instance, store, maps, verb, live=live)
            if live:
                attached, begun.host = lifecycle.repair(instance, store, maps)
                begun.attached_again = frozenset(attached)
            yield from _transact(begun)
        finally:
            maps.close()


def _transact(change: Change) -> Iterator[Change]:
    store = change.store
    store.begin()
    committed = False
    journal = Journal(change.maps) if change.live else None
    rev = store.config_rev
    try:
        if journal:
            journal.staging = rev + 1
        yield change
        if not change.changed:
            change.roll_back()
            store.rollback()
            if journal:
                journal.staging = rev
            return
        store.set_option("config_rev", str(rev + 1))
        change.checkpoint("staged")
        store.commit()
        committed = True
        change.checkpoint("committed")
        if not journal:
            return
        change.run(marks=True)
        journal.applied = rev + 1
        change.checkpoint("applied")
    except BaseException as err:
        if committed:
            if isinstance(err, OffloadError):
                err.hint = (
                    f"it is saved; pyoffload up puts it in force ({err.hint or 'then see pyoffload status'})"
                )
            raise
        change.roll_back()
        store.rollback()
        if journal:
            journal.staging = rev
        raise


class Journal:
    """The numbers of the change begun and of the change in force, kept in a pinned map."""

    def __init__(self, maps: MapSet) -> None:
        self._view = maps.mmap("journal")

    @property
    def staging(self) -> int:
        return int.from_bytes(self._view[0:8], "little")

    @staging.setter
    def staging(self, rev: int) -> None:
        c_uint64.from_buffer(self._view, 0).value = rev

    @property
    def applied(self) -> int:
        return int.from_bytes(self._view[8:16], "little")

    @applied.setter
    def applied(self, rev: int) -> None:
        c_uint64.from_buffer(self._view, 8).value = rev


def require_bridge(store: Store | None, name: str) -> BridgeConfig:
    """The bridge, or NotFound with what there is instead."""
    bridge = store.bridge(name) if store else None
    if bridge is None:
        raise NotFound(f"there is no bridge '{name}'", hint="pyoffload bridge list")
    return bridge


def require_port(store: Store | None, ifname: str) -> PortConfig:
    """The port, or NotFound."""
    port = store.port(ifname) if store else None
    if port is None:
        raise NotFound(f"'{ifname}' is not a port of any bridge", hint="pyoffload port list")
    return port


def _open_store(instance: Instance, *, create: bool) -> Store:
    """The store; where there is none and none is to be made, an empty one in memory that the verb can look into."""
    if create or os.path.exists(os.path.join(instance.state_dir, FILE_NAME)):
        instance.make_state_dir()
        return Store.open(instance)
    return Store.in_memory()
