"""Carry frames between two taps: ``pump.py FD…``, the first half of the descriptors one tap, the rest the other.

Runs as a process of its own with nothing imported but the standard library. It is the lab's virtual machine monitor:
each queue of one tap is tied to the same queue of the other, and a virtio header, where the taps have one, goes along.
"""

import os
import select
import sys

MAX_FRAME = 1 << 17
BURST = 64


def main() -> None:
    descriptors = [int(arg) for arg in sys.argv[1:]]
    half = len(descriptors) // 2
    other = dict(zip(descriptors, descriptors[half:] + descriptors[:half], strict=True))
    poll = select.epoll()
    for fd in descriptors:
        poll.register(fd, select.EPOLLIN)
    while True:
        for fd, events in poll.poll():
            if not events & select.EPOLLIN:
                return  # a tap is gone, and the virtual machine with it
            carry(fd, other[fd])


def carry(source: int, target: int) -> None:
    """At most a burst, so that one direction does not starve the other."""
    for _ in range(BURST):
        try:
            frame = os.read(source, MAX_FRAME)
        except BlockingIOError:
            return
        try:
            os.write(target, frame)
        except OSError:
            continue  # the interface is down or refuses the frame: lost, as on any NIC


if __name__ == "__main__":
    main()
