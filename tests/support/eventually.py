"""Wait for something to become true, with a deadline and a reason. Tests never sleep."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(
    probe: Callable[[], T], *, within_s: float = 5.0, every_s: float = 0.02, why: str = "it becomes true"
) -> T:
    """Call ``probe`` until it returns something true, and return that.

    A probe that raises AssertionError counts as "not yet"; any other exception is the caller's bug and passes
    through. After ``within_s`` seconds: AssertionError that tells ``why`` and what was seen last. The probe is
    always called once more after the deadline has passed, so that a slow machine is not called a failure.
    """
    deadline = time.monotonic() + within_s
    pause = threading.Event()
    while True:
        last_chance = time.monotonic() >= deadline
        refusal: AssertionError | None = None
        try:
            value = probe()
        except AssertionError as err:
            seen, refusal = str(err), err
        else:
            if value:
                return value
            seen = repr(value)
        if last_chance:
            raise AssertionError(f"not within {within_s:g} s: {why}; last seen: {seen}") from refusal
        pause.wait(every_s)
