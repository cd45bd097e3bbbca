"""pyoffload.kernel.map against the running kernel."""

from __future__ import annotations

import ctypes
import struct

import pytest

from pyoffload import maps
from pyoffload.errors import AlreadyExists, NotFound, NotPermitted, TableFull
from pyoffload.kernel.map import (
    EXIST,
    F_INNER_MAP,
    F_MMAPABLE,
    NOEXIST,
    Map,
    MapType,
    cpu_ids,
    possible_cpus,
)

pytestmark = pytest.mark.kernel


def u32s(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}I", *numbers)


def test_a_map_tells_what_the_kernel_knows_of_it():
    with Map.create(MapType.HASH, 4, 8, 100, name="a_name_that_is_too_long") as made:
        assert (made.type, made.key_size, made.value_size, made.max_entries) == (MapType.HASH, 4, 8, 100)
        assert made.name == "a_name_that_is_"


def test_single_entries_are_written_read_and_deleted():
    with Map.create(MapType.HASH, 4, 4, 10) as made:
        made.update(u32s(1), b"abcd")
        assert made.lookup(u32s(1)) == b"abcd"
        assert made.lookup(u32s(2)) is None
        assert made.delete(u32s(1)) is True
        assert made.delete(u32s(1)) is False
        assert made.lookup(u32s(1)) is None


def test_flags_of_update_decide_whether_the_entry_may_or_must_exist():
    with Map.create(MapType.HASH, 4, 4, 10) as made:
        with pytest.raises(NotFound):
            made.update(1, b"abcd", EXIST)
        made.update(1, b"abcd", NOEXIST)
        with pytest.raises(AlreadyExists):
            made.update(1, b"efgh", NOEXIST)
        made.update(1, b"efgh", EXIST)
        made.update(1, b"ijkl")
        assert made.lookup(1) == b"ijkl"


def test_a_full_map_says_so():
    with Map.create(MapType.HASH, 4, 4, 2) as made:
        made.update_batch(u32s(1, 2), b"aaaabbbb", 2)
        with pytest.raises(TableFull) as caught:
            made.update(3, b"cccc")
        assert caught.value.exit_code == 1
        with pytest.raises(TableFull):
            made.update_batch(u32s(4, 5), b"ddddeeee", 2)


def test_keys_and_values_of_a_wrong_size_never_reach_the_kernel():
    with Map.create(MapType.HASH, 8, 4, 2) as made:
        with pytest.raises(ValueError, match="key of 4 bytes, not 8"):
            made.lookup(b"1234")
        with pytest.raises(ValueError, match="value of 3 bytes, not 4"):
            made.update(bytes(8), b"123")
        with pytest.raises(ValueError, match="are not 2 entries"):
            made.update_batch(bytes(16), b"123", 2)


@pytest.mark.parametrize("count", [1, 7, 5000])
def test_batches_read_back_what_they_wrote(count):
    keys = u32s(*range(count))
    values = struct.pack(f"<{count}Q", *(number * 3 for number in range(count)))
    with Map.create(MapType.HASH, 4, 8, 8192) as made:
        made.update_batch(keys, values, count)
        got_keys, got_values = made.lookup_batch()
        got = dict(
            zip(struct.unpack(f"<{count}I", got_keys), struct.unpack(f"<{count}Q", got_values), strict=True)
        )
        assert got == {number: number * 3 for number in range(count)}
        assert made.delete_batch(keys, count) == count
        assert made.lookup_batch() == (b"", b"")


def test_deleting_a_batch_passes_over_keys_that_are_missing():
    with Map.create(MapType.HASH, 4, 4, 16) as made:
        made.update_batch(u32s(1, 3, 5), b"aaaabbbbcccc", 3)
        assert made.delete_batch(u32s(0, 1, 2, 3, 4, 5, 6), 7) == 3
        assert list(made.keys()) == []


def test_keys_walks_over_every_entry_once():
    with Map.create(MapType.HASH, 4, 4, 300) as made:
        made.update_batch(u32s(*range(200)), bytes(800), 200)
        assert sorted(int.from_bytes(key, "little") for key in list(made.keys())) == list(range(200))


def test_an_arrays_batch_can_be_limited_to_its_first_elements():
    with Map.create(MapType.ARRAY, 4, 4, 1000) as made:
        made.update_batch(u32s(0, 1, 2), u32s(10, 11, 12), 3)
        keys, values = made.lookup_batch(2)
        assert (keys, values) == (u32s(0, 1), u32s(10, 11))


def test_per_cpu_values_are_summed():
    cpus = possible_cpus()
    with Map.create(MapType.PERCPU_ARRAY, 4, 16, 4) as made:
        made.update(2, struct.pack("<QQ", 5, 700) * cpus)
        made.update_batch(u32s(3), struct.pack("<QQ", 1, 2) * cpus, 1)
        assert made.lookup_percpu_sum(2, "2Q") == (5 * cpus, 700 * cpus)
        assert made.lookup_percpu_sums(2) == [(0, 0), (0, 0), (5 * cpus, 700 * cpus), (cpus, 2 * cpus)]


def test_counters_in_one_array_with_a_part_for_each_cpu_are_summed_and_zeroed():
    cpus = cpu_ids()
    with Map.create(MapType.ARRAY, 4, 16, 8 * cpus, flags=F_MMAPABLE).split_by_cpu(8) as made:
        for cpu in range(cpus):
            made.update(cpu * 8 + 5, struct.pack("<QQ", cpu + 1, 10))
        expected = (cpus * (cpus + 1) // 2, 10 * cpus)
        assert made.lookup_percpu_sum(5, "2Q") == expected
        assert made.lookup_percpu_sums(2, 2, 4) == [(0, 0), expected]
        made.zero_percpu([4, 5])
        assert made.lookup_percpu_sums(2) == [(0, 0)] * 8
        with pytest.raises(ValueError, match="no element 8"):
            made.lookup_percpu_sum(8, "2Q")


def test_counters_of_a_per_cpu_map_are_zeroed():
    with Map.create(MapType.PERCPU_ARRAY, 4, 8, 4) as made:
        made.update(1, struct.pack("<Q", 9) * possible_cpus())
        made.zero_percpu([0, 1])
        assert made.lookup_percpu_sums(1) == [(0,)] * 4


def test_shared_memory_and_system_calls_see_the_same_elements():
    with Map.create(MapType.ARRAY, 4, 12, 600, flags=F_MMAPABLE) as made:
        assert made.stride == 16
        view = made.mmap(writable=True)
        ctypes.c_uint64.from_buffer(view, 500 * made.stride).value = 0x1122334455667788
        assert made.lookup(500) == struct.pack("<QI", 0x1122334455667788, 0)
        made.update(7, b"0123456789ab")
        assert bytes(made.mmap()[7 * 16 : 7 * 16 + 12]) == b"0123456789ab"


def test_an_inner_map_of_any_size_goes_into_a_map_of_maps():
    pattern = Map.create(MapType.ARRAY, 4, 8, 1, flags=F_INNER_MAP)
    with Map.create(MapType.ARRAY_OF_MAPS, 4, 4, 4, inner=pattern) as outer:
        with Map.create(MapType.ARRAY, 4, 8, 50, flags=F_INNER_MAP) as inner:
            outer.update_fd(1, inner.fd)
            expected = struct.pack("<I", inner.id)
        assert outer.lookup(1) == expected
        assert outer.lookup(0) is None


def test_a_map_that_is_not_there_is_not_found():
    with pytest.raises(NotFound):
        Map.open("/sys/fs/bpf/there_is_no_such_pin")


def test_a_read_only_descriptor_refuses_to_write(up):
    with maps.open_map(up, "fdb_epochs") as made:
        assert made.lookup(0) == bytes(4)
        with pytest.raises(NotPermitted):
            made.update(0, bytes(4))


def test_maps_with_shared_memory_can_be_mapped_by_who_only_reads(up):
    with maps.open_map(up, "ports") as made:
        assert bytes(made.mmap()[:32]) == bytes(32)
