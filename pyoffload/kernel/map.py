"""BPF maps: create, open, single and bulk access, memory mapping.

Keys and values are bytes as they lie in the map; `pyoffload._abi` has the structs. An ``int`` key is the index of an
array. Bulk calls move millions of entries a second, single ones a few hundred thousand.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import struct
from enum import IntEnum

from pyoffload.errors import KernelError, TableFull
from pyoffload.kernel import syscall
from pyoffload.kernel.descriptor import Descriptor
from pyoffload.kernel.syscall import address, bpf, error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Self

# The same numbers as enum bpf_map_type.


class MapType(IntEnum):
    HASH = 1
    ARRAY = 2
    PROG_ARRAY = 3
    PERCPU_HASH = 5
    PERCPU_ARRAY = 6
    LRU_HASH = 9
    LRU_PERCPU_HASH = 10
    LPM_TRIE = 11
    ARRAY_OF_MAPS = 12
    HASH_OF_MAPS = 13
    DEVMAP = 14
    DEVMAP_HASH = 25
    RINGBUF = 27


PERCPU_TYPES = frozenset({MapType.PERCPU_HASH, MapType.PERCPU_ARRAY, MapType.LRU_PERCPU_HASH})
FD_VALUE_TYPES = frozenset({MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS, MapType.PROG_ARRAY})

# Flags of MAP_CREATE.
F_NO_PREALLOC = 1 << 0
F_MMAPABLE = 1 << 10
F_INNER_MAP = 1 << 12

# Flags of update.
ANY = 0
NOEXIST = 1
EXIST = 2

_INFO = struct.Struct("<6I16s")
_BATCH = struct.Struct("<QQQQIIQQ")
_COUNT_AT = 32
_cpus: tuple[int, int] | None = None


def possible_cpus() -> int:
    """Number of values that a per-CPU map has under one key."""
    return _count_cpus()[0]


def cpu_ids() -> int:
    """Highest processor id + 1: bpf_get_smp_processor_id() is below it."""
    return _count_cpus()[1]


def _count_cpus() -> tuple[int, int]:
    global _cpus  # noqa: PLW0603  (cannot change while the machine runs)
    if _cpus is None:
        count = last_id = 0
        with open("/sys/devices/system/cpu/possible", encoding="ascii") as file:
            for part in file.read().strip().split(","):
                first, _, last = part.partition("-")
                last_id = int(last or first)
                count += last_id - int(first) + 1
        _cpus = count, last_id + 1
    return _cpus


class Map(Descriptor):
    """An open map. ``id``, ``type`` … are the kernel's own words; `stride` is the distance of values in bulk and mmap."""

    __slots__ = (
        "_access",
        "_cpu_part",
        "_delete",
        "_key",
        "_value",
        "_words",
        "fd",
        "flags",
        "id",
        "key_size",
        "max_entries",
        "name",
        "stride",
        "type",
        "value_size",
    )

    def __init__(self, fd: int) -> None:
        """Take over ``fd``."""
        self.fd = fd
        self._cpu_part = 0
        self._words: dict[bool, memoryview] = {}
        kind, self.id, self.key_size, self.value_size, self.max_entries, self.flags, name = _INFO.unpack(
            syscall.obj_info(fd, _INFO.size)
        )
        self.type: int = kind
        self.name = syscall.c_name(name)
        self.stride = (
            (self.value_size + 7) // 8 * 8
            if kind in PERCPU_TYPES or self.flags & F_MMAPABLE
            else self.value_size
        )
        n_bytes = self.stride * possible_cpus() if kind in PERCPU_TYPES else self.value_size
        # One key, one value and one attribute block for all single accesses: nothing is allocated per call.
        self._key = ctypes.create_string_buffer(self.key_size or 1)
        self._value = ctypes.create_string_buffer(n_bytes or 1)
        at = ctypes.addressof(self._key), ctypes.addressof(self._value)
        self._access = struct.pack("<I4xQQQ", fd, *at, 0)
        self._delete = struct.pack("<I4xQQQ", fd, at[0], 0, 0)

    @classmethod
    def create(
        cls,
        kind: MapType,
        key_size: int,
        value_size: int,
        max_entries: int,
        *,
        flags: int = 0,
        name: str = "",
        inner: Map | None = None,
    ) -> Self:
        """A new map; ``inner`` is the pattern for a map of maps. ``name`` is cut to the kernel's 15 characters."""
        attr = struct.pack(
            "<7I16s28x",
            kind,
            key_size,
            value_size,
            max_entries,
            flags,
            inner.fd if inner else 0,
            0,
            name.encode("ascii")[:15],
        )
        fd = bpf(syscall.MAP_CREATE, attr)
        if fd < 0:
            if fd == -errno.E2BIG:
                raise KernelError(
                    f"creating map '{name}': too big for this kernel",
                    hint=f"{max_entries} entries of {value_size} bytes",
                    errno=-fd,
                )
            raise error(-fd, f"creating map '{name}'")
        return cls(fd)

    @classmethod
    def open(cls, path: str, *, read_only: bool = False) -> Self:
        return cls(syscall.obj_get(path, read_only=read_only))

    def pin(self, path: str) -> None:
        syscall.obj_pin(self.fd, path)

    def close(self) -> None:
        self._words.clear()
        super().close()

    def __repr__(self) -> str:
        return f"<Map {self.name or '?'} id {self.id}>"

    # ---- one entry

    def _set_key(self, key: bytes | int) -> None:
        raw = key.to_bytes(4, "little") if isinstance(key, int) else key
        if len(raw) != self.key_size:
            raise ValueError(f"map {self.name}: key of {len(raw)} bytes, not {self.key_size}")
        ctypes.memmove(self._key, raw, len(raw))

    def lookup(self, key: bytes | int) -> bytes | None:
        """The value (per-CPU maps: `stride` bytes for each possible CPU; maps of maps: the inner map's id), or None."""
        self._set_key(key)
        result = bpf(syscall.MAP_LOOKUP_ELEM, self._access)
        if result == 0:
            return self._value.raw
        if result == -errno.ENOENT:
            return None
        raise error(-result, f"reading map {self.name}")

    def update(self, key: bytes | int, value: bytes, flags: int = ANY) -> None:
        """Write one entry. Value of a map of maps or programs: the descriptor as u32 (`update_fd`).

        Raises TableFull, AlreadyExists (NOEXIST), NotFound (EXIST).
        """
        self._set_key(key)
        if len(value) != len(self._value):
            raise ValueError(f"map {self.name}: value of {len(value)} bytes, not {len(self._value)}")
        ctypes.memmove(self._value, value, len(value))
        attr = self._access[:24] + flags.to_bytes(8, "little") if flags else self._access
        result = bpf(syscall.MAP_UPDATE_ELEM, attr)
        if result < 0:
            raise error(-result, f"writing map {self.name}")

    def update_fd(self, key: bytes | int, fd: int) -> None:
        """Put an inner map or a tail-called program into its slot; a map of maps waits for readers of the old one."""
        self.update(key, struct.pack("<i", fd))

    def delete(self, key: bytes | int) -> bool:
        """Whether there was such an entry."""
        self._set_key(key)
        result = bpf(syscall.MAP_DELETE_ELEM, self._delete)
        if result < 0 and result != -errno.ENOENT:
            raise error(-result, f"deleting from map {self.name}")
        return result == 0

    def keys(self) -> Iterator[bytes]:
        """Walk over the keys, slowly; only for maps without bulk calls. Entries may be deleted meanwhile."""
        following = ctypes.create_string_buffer(self.key_size)
        current = ctypes.create_string_buffer(self.key_size)
        first = True
        while True:
            attr = struct.pack(
                "<I4xQQQ", self.fd, 0 if first else ctypes.addressof(current), ctypes.addressof(following), 0
            )
            result = bpf(syscall.MAP_GET_NEXT_KEY, attr)
            if result == -errno.ENOENT:
                return
            if result < 0:
                raise error(-result, f"walking map {self.name}")
            first = False
            current.raw = following.raw
            yield current.raw

    # ---- many entries

    @property
    def _value_bytes(self) -> int:
        return len(self._value)

    def lookup_batch(self, max_entries: int | None = None) -> tuple[bytes, bytes]:
        """All entries (arrays: the first ``max_entries``): keys and values, each concatenated in the same order.

        Per-CPU values are `stride` * possible_cpus() bytes each. Other writers may be at work: an entry is old or new.
        """
        want = min(max_entries or self.max_entries, self.max_entries)
        # All at once: a hash can then not answer that a bucket does not fit. Untouched memory costs nothing.
        keys = bytearray(want * self.key_size)
        values = bytearray(want * self._value_bytes)
        attr, got = self._batch(syscall.MAP_LOOKUP_BATCH, keys, values, want)
        del attr
        return bytes(memoryview(keys)[: got * self.key_size]), bytes(
            memoryview(values)[: got * self._value_bytes]
        )

    def update_batch(self, keys: bytes, values: bytes, count: int, flags: int = ANY) -> None:
        """Write ``count`` entries. A failure leaves the first ones written."""
        if not count:
            return
        self._check_batch(keys, values, count)
        _, done = self._batch(syscall.MAP_UPDATE_BATCH, keys, values, count, flags)
        if done != count:
            raise TableFull(f"map {self.name}: only {done} of {count} entries fit", errno=errno.E2BIG)

    def delete_batch(self, keys: bytes, count: int) -> int:
        """Delete hash entries; returns how many existed."""
        deleted = at = 0
        while at < count:
            rest = keys[at * self.key_size : count * self.key_size]
            _, done = self._batch(syscall.MAP_DELETE_BATCH, rest, b"", count - at)
            deleted += done
            at += done + 1  # the kernel stops at a key that is missing
        return deleted

    def _check_batch(self, keys: bytes, values: bytes, count: int) -> None:
        if len(keys) != count * self.key_size or len(values) != count * self._value_bytes:
            raise ValueError(f"map {self.name}: {len(keys)} and {len(values)} bytes are not {count} entries")

    def _batch(
        self, command: int, keys: bytes | bytearray, values: bytes | bytearray, count: int, flags: int = 0
    ) -> tuple[bytearray, int]:
        position = bytearray(max(self.key_size, 4))
        attr = bytearray(
            _BATCH.pack(0, address(position), address(keys), address(values), count, self.fd, flags, 0)
        )
        result = bpf(command, attr)
        (done,) = struct.unpack_from("<I", attr, _COUNT_AT)
        # ENOENT: end of the map, or (delete) a missing key. Everything before it is done.
        if result < 0 and result != -errno.ENOENT:
            raise error(-result, f"map {self.name}, {count} entries at once")
        return attr, done

    # ---- per-CPU counters

    def split_by_cpu(self, entries: int) -> Self:
        """Treat this array as one part of ``entries`` elements for each CPU: element cpu * entries + key.

        The kernel takes half a second to make a large per-CPU map, and a millisecond for such an array.
        """
        self._cpu_part = entries
        return self

    def lookup_percpu_sum(self, key: bytes | int, fmt: str) -> tuple[int, ...]:
        """Sum over the CPUs of a value whose fields are ``fmt`` (as of struct, e.g. "2Q"); zeros if there is none."""
        layout = struct.Struct("<" + fmt)
        raw: bytes | memoryview
        if self._cpu_part and isinstance(key, int):
            if not 0 <= key < self._cpu_part:
                raise ValueError(f"map {self.name}: there is no element {key}")
            raw, step = self._shared(writable=False).cast("B"), self._cpu_part * self.stride
            offsets = range(key * self.stride, cpu_ids() * step, step)
        else:
            raw = self.lookup(key) or b""
            offsets = range(0, len(raw), self.stride)
        rows = [layout.unpack_from(raw, offset) for offset in offsets]
        if not rows:
            return layout.unpack(bytes(layout.size))
        return tuple(sum(column) for column in zip(*rows, strict=True))

    def lookup_percpu_sums(
        self, n_words: int, count: int | None = None, first: int = 0
    ) -> list[tuple[int, ...]]:
        """Sums over the CPUs for ``count`` neighbouring elements whose values are ``n_words`` u64: one tuple each."""
        per_value = self.stride // 8
        if self._cpu_part:
            count = min(self._cpu_part - first, self._cpu_part if count is None else count)
            words, cpus, step = self._shared(writable=False), cpu_ids(), per_value
            starts = [(cpu * self._cpu_part + first) * per_value for cpu in range(cpus)]
        else:
            count = min(self.max_entries - first, self.max_entries if count is None else count)
            words = memoryview(self.lookup_batch(first + count)[1]).cast("Q")
            cpus = possible_cpus()
            step = per_value * cpus
            starts = [first * step + cpu * per_value for cpu in range(cpus)]
        columns = []
        for word in range(n_words):
            parts = [words[start + word : start + step * count : step].tolist() for start in starts]
            columns.append(parts[0] if cpus == 1 else [sum(row) for row in zip(*parts, strict=True)])
        return list(zip(*columns, strict=True))

    def zero_percpu(self, keys: Sequence[int]) -> None:
        """Set the counters of these elements to zero on every CPU."""
        if not self._cpu_part:
            self.update_batch(
                struct.pack(f"<{len(keys)}I", *keys), bytes(len(keys) * self._value_bytes), len(keys)
            )
            return
        raw = self._shared(writable=True).cast("B")
        zeros = bytes(self.stride)
        for cpu in range(cpu_ids()):
            for key in keys:
                at = (cpu * self._cpu_part + key) * self.stride
                raw[at : at + self.stride] = zeros

    def _shared(self, *, writable: bool) -> memoryview:
        """The memory as 64-bit words; mapped once."""
        if writable not in self._words:
            self._words[writable] = self.mmap(writable=writable).cast("Q")
        return self._words[writable]

    # ---- shared memory

    def mmap(self, *, writable: bool = False) -> memoryview:
        """The array's values in shared memory, element i at i * `stride` (arrays made with F_MMAPABLE).

        An aligned 8-byte store through ctypes or a cast view is one store for the programs as well. The kernel maps
        only what was opened for writing, even if it is mapped for reading.
        """
        length = -(-self.stride * self.max_entries // mmap.PAGESIZE) * mmap.PAGESIZE
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        try:
            return memoryview(mmap.mmap(self.fd, length, mmap.MAP_SHARED, protection))
        except OSError as err:
            raise error(err.errno or errno.EINVAL, f"mapping {self.name} into memory") from err
