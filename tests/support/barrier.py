"""Know that the kernel is done with the frames just sent, without waiting.

A frame written to a veth or a tap is worked off in the softirq of the CPU it was written on, normally before the
system call returns, at the latest by that CPU's ksoftirqd; and each CPU does so in order of arrival. So a frame that
is sent *after* them, on the same CPU, through a veth pair that the switch knows nothing of, comes out after them. A
frame under test goes through a few such queues one after the other (into the switch, out of it), hence several laps.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from tests.support import frames
from tests.support.netns import LabError, Netns
from tests.support.ports import packet_socket, readable

LAPS = 4


class Barrier:
    """A veth pair in a namespace of its own, made once per lab."""

    def __init__(self, ns: Netns) -> None:
        ns.ip(
            "link add name lap0 index 11 type veth peer name lap1",
            "link set lap0 up",
            "link set lap1 up",
        )
        ns.wait_running(["lap0", "lap1"])
        self._out = packet_socket(ns, "lap0", listening=False, vnet_hdr=False)
        self._in = packet_socket(ns, "lap1", listening=True, vnet_hdr=False)
        self._frame = frames.sentinel()

    def wait(self, within_s: float = 2.0) -> None:
        """Return when what this thread sent inside `one_cpu` has been dealt with."""
        for _ in range(LAPS):
            self._out.send(self._frame)
            while True:
                with contextlib.suppress(BlockingIOError):
                    self._in.recv(len(self._frame))
                    break
                if not readable([self._in.fileno()], within_s):
                    raise LabError("the kernel did not get to our frames in time")


@contextlib.contextmanager
def one_cpu() -> Iterator[None]:
    """The calling thread stays on the CPU it is on during the ``with`` block."""
    allowed = os.sched_getaffinity(0)
    try:
        here = _current_cpu()
        os.sched_setaffinity(0, {here if here in allowed else min(allowed)})
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def _current_cpu() -> int:
    with open("/proc/thread-self/stat", "rb") as stat:
        return int(stat.read().rpartition(b")")[2].split()[36])  # field 39 of proc(5): processor
