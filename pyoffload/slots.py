"""Free places in the fixed-size arrays of the datapath: flow slots, action ranges, groups, buckets, meters.

A place is handed out above the highest one in use for as long as there is room, and only then from the gaps: what was
just freed is used again as late as possible, and a small change needs to know the highest place only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

Interval = tuple[int, int]  # first place, number of places


def gaps(used: Iterable[Interval], capacity: int) -> list[Interval]:
    """What is free between and behind the intervals in use, in rising order. Intervals may come in any order."""
    free: list[Interval] = []
    at = 0
    for first, count in sorted(used):
        if first > at:
            free.append((at, first - at))
        at = max(at, first + count)
    if at < capacity:
        free.append((at, capacity - at))
    return free


class Places:
    """Hands out places of an array of ``capacity`` elements, of which ``top`` and above are free.

    ``used`` is asked for all intervals in use, at most once, when the room above ``top`` does not suffice.
    """

    def __init__(self, capacity: int, top: int, used: Callable[[], Iterable[Interval]]) -> None:
        self._capacity = capacity
        self._top = top
        self._used = used
        self._given: list[Interval] = []
        self._gaps: list[Interval] | None = None

    def run(self, count: int) -> int | None:
        """First of ``count`` places in a row; None when there is no such row."""
        if self._gaps is None and self._top + count <= self._capacity:
            first = self._top
            self._top += count
            self._given.append((first, count))
            return first
        free = self._all_gaps()
        for index, (first, room) in enumerate(free):
            if room >= count:
                if room == count:
                    del free[index]
                else:
                    free[index] = (first + count, room - count)
                return first
        return None

    def singles(self, count: int) -> Iterator[int] | None:
        """``count`` places, in a row where possible, in rising order; None when there are not so many."""
        if self._gaps is None and self._top + count <= self._capacity:
            first = self.run(count)
            assert first is not None  # noqa: S101  there was room
            return iter(range(first, first + count))
        free = self._all_gaps()
        if sum(room for _, room in free) < count:
            return None
        runs: list[range] = []
        while count:
            first, room = free[-1]
            take = min(room, count)
            runs.append(range(first, first + take))
            if take == room:
                free.pop()
            else:
                free[-1] = (first + take, room - take)
            count -= take
        runs.sort(key=lambda places: places.start)
        return (place for places in runs for place in places)

    def _all_gaps(self) -> list[Interval]:
        if self._gaps is None:
            self._gaps = gaps([*self._used(), *self._given], self._capacity)
        return self._gaps
