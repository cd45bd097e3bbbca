"""Named places at which tests kill a command, to see that the next one copes with what is left behind.

PYOFFLOAD_KILL_AT=NAME     the process kills itself (SIGKILL: nothing is cleaned up) when it comes to NAME
PYOFFLOAD_KILL_AT=NAME#2   when it comes there the second time
PYOFFLOAD_KILL_AT=?        every name that is passed is appended to the file PYOFFLOAD_CHECKPOINT_LOG
"""

from __future__ import annotations

import os
import signal

_passed: dict[str, int] = {}


def checkpoint(name: str) -> None:
    """Mark a place between two steps of a change; costs one dictionary lookup in normal operation."""
    wanted = os.environ.get("PYOFFLOAD_KILL_AT")
    if wanted is None:
        return
    if wanted.partition("#")[0] == name:
        _passed[name] = _passed.get(name, 0) + 1
        if _passed[name] == int(wanted.partition("#")[2] or 1):
            os.kill(os.getpid(), signal.SIGKILL)
    elif wanted == "?":
        path = os.environ.get("PYOFFLOAD_CHECKPOINT_LOG")
        if path:
            with open(path, "a", encoding="ascii") as log:
                log.write(name + "\n")
