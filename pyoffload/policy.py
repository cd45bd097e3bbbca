"""The generation of a bridge: which of the decisions that the datapath has cached are still valid.

Every cached decision carries the generation it was made under; a change of configuration gives the bridge the
next one, by one 8-byte store, so that the very next packet is decided anew. Which header bits a decision may depend
on (cache_mask) is kept twice, by the generation's lowest bit: the mask is written before the generation that uses it.

A generation number is used once in an instance, by one bridge: a port slot or bridge slot that is used again never
meets a decision that another bridge cached under the same number. (After 2^32 changes numbers do come again.)
"""

from __future__ import annotations

import struct
from ctypes import c_uint64
from typing import TYPE_CHECKING

from pyoffload import _abi as abi

if TYPE_CHECKING:
    from pyoffload.mapset import MapSet

_SIZE = 32 + 16 * abi.CACHE_KEY_WORDS
_POLICY = struct.Struct("<II")
_MASK_AT = 32
MASK_SIZE = 8 * abi.CACHE_KEY_WORDS
_WRAP = 1 << 32


def base_cache_mask() -> bytes:
    """What every decision depends on: Ethernet addresses and type, the tags, and the port it came from."""
    mask = bytearray(MASK_SIZE)
    mask[0:16] = b"\xff" * 16  # words 0 and 1: addresses, vlan_tci0, dl_type
    mask[16:20] = b"\xff" * 4  # in_port, vlan_tci1
    mask[31] = 0xFF  # tpids
    return bytes(mask)


def current(maps: MapSet, bridge_slot: int) -> tuple[int, int]:
    """(generation, version of the flow tables) in force."""
    generation, version = _POLICY.unpack_from(maps.mmap("bridges"), bridge_slot * _SIZE)
    return generation, version


def current_mask(maps: MapSet, bridge_slot: int) -> bytes:
    """The cache mask in force."""
    at = _mask_at(bridge_slot, current(maps, bridge_slot)[0])
    return bytes(maps.mmap("bridges")[at : at + MASK_SIZE])


def next_generation(own: int, used: list[int]) -> int:
    """The smallest number above all used ones whose lowest bit differs from the bridge's own."""
    number = max(used, default=0) + 1
    if not (number ^ own) & 1:
        number += 1
    # Past the end it begins again at 2 or 3: zero is what an unused cache entry holds.
    return number if number < _WRAP else 2 + ((own & 1) ^ 1)


def publish(
    maps: MapSet, bridge_slot: int, *, version: int | None = None, cache_mask: bytes | None = None
) -> int:
    """Give the bridge a new generation, and the flow tables' version and the cache mask that belong to it.

    What is not given stays. The store of the 8 bytes of `struct policy` is what makes a change effective.
    Returns the new generation.
    """
    view = maps.mmap("bridges")
    own, old_version = current(maps, bridge_slot)
    used = [_POLICY.unpack_from(view, slot * _SIZE)[0] for slot in range(abi.MAX_BRIDGES)]
    generation = next_generation(own, used)
    mask = current_mask(maps, bridge_slot) if cache_mask is None else cache_mask
    at = _mask_at(bridge_slot, generation)
    view[at : at + MASK_SIZE] = mask
    both = generation | (old_version if version is None else version) << 32
    c_uint64.from_buffer(view, bridge_slot * _SIZE).value = both
    return generation


def grace() -> None:
    """Wait until no packet is being processed by what was in force before the call (an RCU grace period)."""
    import ctypes
    import platform

    # membarrier(MEMBARRIER_CMD_GLOBAL) is synchronize_rcu(); kernel/sched/membarrier.c. Programs run inside
    # rcu_read_lock. With one CPU a command cannot run while a program does, and the call returns at once.
    number = {"x86_64": 324}.get(platform.machine(), 283)
    if ctypes.CDLL(None).syscall(number, 1, 0, 0) != 0:
        _grace_by_map()


def _grace_by_map() -> None:
    """The same where membarrier is refused (nohz_full, seccomp): a map of maps waits for readers on every update."""
    from pyoffload.kernel.map import Map, MapType

    with (
        Map.create(MapType.ARRAY, 4, 8, 1) as inner,
        Map.create(MapType.ARRAY_OF_MAPS, 4, 4, 1, inner=inner) as outer,
    ):
        outer.update_fd(0, inner.fd)
        outer.update_fd(0, inner.fd)


def _mask_at(bridge_slot: int, generation: int) -> int:
    return bridge_slot * _SIZE + _MASK_AT + (generation & 1) * MASK_SIZE
