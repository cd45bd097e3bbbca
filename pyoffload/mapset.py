"""The pinned maps of an instance, opened when they are first asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyoffload.instance import Instance
    from pyoffload.kernel.map import Map


class MapSet:
    """``maps["fdb"]`` is the open map; ``maps.mmap("ports")`` its memory (read-only unless the set is writable)."""

    def __init__(self, instance: Instance, *, writable: bool) -> None:
        self._instance = instance
        self._writable = writable
        self._maps: dict[str, Map] = {}
        self._views: dict[str, memoryview] = {}

    def __getitem__(self, name: str) -> Map:
        opened = self._maps.get(name)
        if opened is None:
            from pyoffload.maps import open_map

            opened = self._maps[name] = open_map(self._instance, name, writable=self._writable)
        return opened

    def mmap(self, name: str) -> memoryview:
        """The array's memory; one mapping per set, kept as long as the set."""
        view = self._views.get(name)
        if view is None:
            view = self._views[name] = self[name].mmap(writable=self._writable)
        return view

    def close(self) -> None:
        """Close what was opened; memory that is still referred to stays mapped until it is not."""
        self._views.clear()
        for opened in self._maps.values():
            opened.close()
        self._maps.clear()
