"""The pinned maps of an instance, opened when they are first asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyoffload.errors import NotPermitted

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
        self._read_only: set[str] = set()

    def __getitem__(self, name: str) -> Map:
        opened = self._maps.get(name)
        if opened is None:
            opened = self._maps[name] = self._open(name)
        return opened

    def _open(self, name: str) -> Map:
        from pyoffload.maps import open_map

        try:
            # For reading as well: the kernel maps memory of a read-only descriptor as private, which BPF refuses.
            return open_map(self._instance, name, writable=True)
        except NotPermitted:
            if self._writable:
                raise
        self._read_only.add(name)
        return open_map(self._instance, name, writable=False)

    def mmap(self, name: str) -> memoryview:
        """The array's memory, element i at i * stride; one mapping per set, kept as long as the set.

        For a reader who may not write (a monitoring user): a copy of it, taken at the first call.
        """
        view = self._views.get(name)
        if view is None:
            opened = self[name]
            if name in self._read_only:
                view = memoryview(_copy(opened))
            else:
                view = opened.mmap(writable=self._writable)
            self._views[name] = view
        return view

    def close(self) -> None:
        """Close what was opened; memory that is still referred to stays mapped until it is not."""
        self._views.clear()
        for opened in self._maps.values():
            opened.close()
        self._maps.clear()


def _copy(array: Map) -> bytes:
    _, values = array.lookup_batch()
    size, stride = array.value_size, array.stride
    if size == stride:
        return values
    padding = bytes(stride - size)
    return b"".join(values[at : at + size] + padding for at in range(0, len(values), size))
