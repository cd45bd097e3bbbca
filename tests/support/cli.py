"""Run the command as a user does, and judge what it says."""

from __future__ import annotations

import json as jsonlib
import os
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tests.support import leftovers
from tests.support.netns import Netns

COMMAND = Path(__file__).resolve().parents[2] / "scripts" / "pyoffload"
TIMEOUT_S = 120.0  # a compiling command on a busy machine


@dataclass(frozen=True, slots=True)
class Result:
    """One run of the command: its words, exit code (negative: signal), both outputs, wall-clock seconds."""

    argv: tuple[str, ...]
    code: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def json(self) -> Any:
        """Standard output as the one JSON document it must be."""
        try:
            return jsonlib.loads(self.stdout)
        except ValueError as err:
            raise AssertionError(f"{self}: standard output is not one JSON document: {err}") from err

    @property
    def message(self) -> str:
        """First line of standard error."""
        return self.stderr.partition("\n")[0]

    @property
    def hint(self) -> str:
        """What the ``hint:`` line says; empty when there is none."""
        return next((line[5:].strip() for line in self.stderr.splitlines() if line.startswith("hint:")), "")

    def __str__(self) -> str:
        out = [f"{' '.join(self.argv)} exited {self.code} after {self.seconds:.2f} s"]
        out += [f"  out| {line}" for line in self.stdout.splitlines()[:20]]
        out += [f"  err| {line}" for line in self.stderr.splitlines()[:60]]
        return "\n".join(out)


class Cli:
    """The command, told to work in one namespace; with ``netns=None`` where the test itself runs.

    ``enter`` is how it gets there: by its own ``-n``, under ``ip netns exec`` or under ``nsenter``.
    ``env`` is added to the environment of every run. What the command has set up in the namespace is taken away
    (``down --purge``) before the namespace goes.
    """

    def __init__(
        self,
        netns: Netns | None,
        *,
        enter: Literal["flag", "ip", "nsenter"] = "flag",
        env: dict[str, str] | None = None,
        command: tuple[str, ...] = (str(COMMAND),),
    ) -> None:
        self.netns = netns
        self.env = env or {}
        if netns is None:
            self._prefix = command
        else:
            self._prefix = {
                "flag": (*command, "-n", netns.name),
                "ip": ("ip", "netns", "exec", netns.name, *command),
                "nsenter": ("nsenter", f"--net={netns.path}", *command),
            }[enter]
            netns.defer(self._purge)

    def run(
        self,
        *words: object,
        json: bool = False,
        stdin: str | None = None,
        env: dict[str, str] | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> Result:
        """Run to the end and judge nothing. A run longer than ``timeout_s`` is killed: AssertionError."""
        argv = self._argv(words, json)
        started = time.monotonic()
        try:
            done = subprocess.run(
                argv,
                input=stdin if stdin is not None else "",
                capture_output=True,
                text=True,
                env=self._environment(env),
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as err:
            raise AssertionError(f"{' '.join(argv)}: not finished after {timeout_s:g} s") from err
        return Result(argv, done.returncode, done.stdout, done.stderr, time.monotonic() - started)

    def ok(self, *words: object, **how: Any) -> Result:
        """Run and assert exit code 0."""
        result = self.run(*words, **how)
        assert result.code == 0, f"{result}"
        assert "Traceback" not in result.stderr, f"{result}"
        return result

    def json(self, *words: object, **how: Any) -> Any:
        """Run with ``-j``, assert exit code 0, and return the parsed document."""
        return self.ok(*words, json=True, **how).json

    def fails(self, code: int, *words: object, says: str = "", **how: Any) -> Result:
        """Run and assert this exit code, and that it says why as it should.

        That is: one line on standard error, perhaps a second one that begins with ``hint:``, no traceback; ``says``
        is a part of the two.
        """
        result = self.run(*words, **how)
        assert result.code == code, f"exit code {code} wanted: {result}"
        lines = result.stderr.splitlines()
        assert "Traceback" not in result.stderr, f"a traceback: {result}"
        # The command's words for an exception that nobody foresaw: a defect, whatever the exit code.
        assert "internal error" not in result.stderr, f"an internal error: {result}"
        assert result.message.strip(), f"it does not say why: {result}"
        assert len(lines) <= 2, f"more than a line and a hint: {result}"
        assert len(lines) == 1 or lines[1].startswith("hint: "), f"the second line is no hint: {result}"
        assert says in result.stderr, f"{says!r} is not said: {result}"
        return result

    def fastest(self, *words: object, runs: int = 5, **how: Any) -> float:
        """Seconds of the fastest of several good runs: what the command takes when nobody is in its way."""
        return min(self.ok(*words, **how).seconds for _ in range(runs))

    def start(self, *words: object, env: dict[str, str] | None = None, **popen: Any) -> subprocess.Popen[str]:
        """Start without waiting, outputs as pipes; for commands beside each other or to be killed."""
        popen = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **popen}
        child: subprocess.Popen[str] = subprocess.Popen(
            self._argv(words, False), text=True, env=self._environment(env), **popen
        )
        return child

    def checkpoints(self, *words: object, **how: Any) -> list[str]:
        """Run, assert exit code 0, and return the names of the places where it can be killed, as passed."""
        with tempfile.NamedTemporaryFile("r", prefix="pyo-", encoding="ascii") as log:
            self.ok(*words, env={"PYOFFLOAD_KILL_AT": "?", "PYOFFLOAD_CHECKPOINT_LOG": log.name}, **how)
            return log.read().split()

    def killed(self, at: str, *words: object, **how: Any) -> Result:
        """Run so that the command kills itself (SIGKILL) at that place, and assert that it did."""
        result = self.run(*words, env={"PYOFFLOAD_KILL_AT": at}, **how)
        assert result.code == -signal.SIGKILL, f"not killed at {at}: {result}"
        return result

    def _argv(self, words: tuple[object, ...], json: bool) -> tuple[str, ...]:
        return (*self._prefix, *(("-j",) if json else ()), *(str(word) for word in words))

    def _environment(self, extra: dict[str, str] | None) -> dict[str, str]:
        return {**os.environ, **self.env, **(extra or {})}

    def _purge(self) -> None:
        assert self.netns is not None
        if not leftovers.instance_exists(self.netns.name):
            return
        try:
            self.ok("down", "--purge")
        finally:
            leftovers.remove_instance(self.netns.name)
