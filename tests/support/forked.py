"""The command in a forked process instead of a started one: the same words, exit code and outputs, 0.1 s faster.

For tests that run hundreds of commands. How the command starts is not tested by it: see `cli.Cli`.
"""

from __future__ import annotations

import gc
import importlib
import os
import pickle
import selectors
import signal
import time
import traceback
from collections.abc import Callable
from typing import NoReturn, TypeVar

from tests.support.cli import TIMEOUT_S, Cli, Result
from tests.support.netns import Netns

T = TypeVar("T")

# What changing verbs import, so that it is there when they are forked.
MODULES = (
    "cli.bridge",
    "cli.fdb",
    "cli.flow",
    "cli.group",
    "cli.lifecycle",
    "cli.main",
    "cli.meter",
    "cli.port",
    "cli.stats",
    "json",
    "pyoffload.bridges",
    "pyoffload.datapath",
    "pyoffload.fdb",
    "pyoffload.flow.parse",
    "pyoffload.flowrestore",
    "pyoffload.flowtable",
    "pyoffload.groups",
    "pyoffload.loader",
    "pyoffload.meters",
    "pyoffload.ports",
    "pyoffload.reconcile",
)


class ForkedCli(Cli):
    """Like Cli in everything; the interpreter and the modules are there already."""

    def __init__(self, netns: Netns, *, env: dict[str, str] | None = None) -> None:
        super().__init__(netns, env=env)
        collecting = gc.isenabled()
        for name in MODULES:
            importlib.import_module(name)
        if collecting:
            gc.enable()  # the command switches it off for itself

    def run(
        self,
        *words: object,
        json: bool = False,
        stdin: str | None = None,
        env: dict[str, str] | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> Result:
        assert stdin is None, "a forked command reads no standard input"
        argv = self._argv(words, json)
        started = time.monotonic()
        outputs = [os.pipe(), os.pipe()]
        child = os.fork()
        if child == 0:
            _become([write for _, write in outputs], list(argv[1:]), {**self.env, **(env or {})})
        for _, write in outputs:
            os.close(write)
        texts, ended = _read([read for read, _ in outputs], started + timeout_s)
        if not ended:
            os.kill(child, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if not ended:
            raise AssertionError(f"{' '.join(argv)}: not finished after {timeout_s:g} s")
        return Result(argv, code, *texts, time.monotonic() - started)


def in_fork(call: Callable[[], T]) -> T:
    """What a function returns in a forked process (None of its state is left here: SQLite must not live across fork)."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with os.fdopen(write, "wb") as out:
                pickle.dump(call(), out)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    os.close(write)
    with os.fdopen(read, "rb") as source:
        answer = source.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code == 0, "the forked call failed: see standard error"
    found: T = pickle.loads(answer)  # noqa: S301  (our own child wrote it)
    return found


def _become(outputs: list[int], words: list[str], env: dict[str, str]) -> NoReturn:
    """The child: be the command, and never return into the test."""
    code = 70
    try:
        for target, fd in enumerate(outputs, 1):
            os.dup2(fd, target)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        # What the test process holds open must not live on in a child that is killed or compiles.
        os.closerange(3, 4096)
        os.environ.update(env)
        code = _command(words)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _command(words: list[str]) -> int:
    import sys

    sys.stdin = open(0, closefd=False)  # noqa: SIM115  (pytest has put others in their places)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.argv = ["pyoffload", *words]
    from cli import output
    from cli.main import run

    code = run(words)
    output.flush()
    return code


def _read(pipes: list[int], deadline: float) -> tuple[list[str], bool]:
    """All that comes until both ends are closed; whether that was before the deadline."""
    chunks: dict[int, list[bytes]] = {fd: [] for fd in pipes}
    with selectors.DefaultSelector() as selector:
        for fd in pipes:
            selector.register(fd, selectors.EVENT_READ)
        while selector.get_map() and (left := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                data = os.read(key.fd, 1 << 16)
                if data:
                    chunks[key.fd].append(data)
                else:
                    selector.unregister(key.fd)
        ended = not selector.get_map()
    for fd in pipes:
        os.close(fd)
    return [b"".join(parts).decode(errors="replace") for parts in chunks.values()], ended
