import random

from pyoffload.slots import Places, gaps


def test_gaps_are_what_the_intervals_leave():
    assert gaps([], 10) == [(0, 10)]
    assert gaps([(3, 2), (0, 1)], 10) == [(1, 2), (5, 5)]
    assert gaps([(0, 10)], 10) == []
    assert gaps([(2, 3), (4, 3)], 8) == [(0, 2), (7, 1)]


def test_places_above_the_top_are_given_without_asking_what_is_in_use():
    places = Places(100, 40, lambda: 1 / 0)
    assert places.run(10) == 40
    assert list(places.singles(3)) == [50, 51, 52]


def test_freed_places_are_used_when_nothing_is_left_above():
    places = Places(20, 18, lambda: [(0, 4), (8, 10)])
    assert places.run(2) == 18
    assert places.run(4) == 4
    assert places.run(1) is None


def test_single_places_come_in_rising_order_and_never_twice():
    dice = random.Random(5)
    for _ in range(200):
        used = set(dice.sample(range(64), dice.randrange(64)))
        places = Places(64, max(used, default=-1) + 1, lambda used=used: [(slot, 1) for slot in used])
        given = []
        while True:
            count = dice.randrange(1, 6)
            got = places.singles(count)
            if got is None:
                assert len(used) + len(given) + count > 64
                break
            got = list(got)
            assert got == sorted(got)
            given += got
        assert len(set(given)) == len(given)
        assert not set(given) & used
