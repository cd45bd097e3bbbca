"""An Open vSwitch of one's own: a database and a switch of dummy ports, without a kernel module, an interface or root's
directories. What it prints is what pyoffload is compared with."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.eventually import eventually

SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")
PROGRAMS = ("ovsdb-tool", "ovsdb-server", "ovs-vswitchd", "ovs-vsctl", "ovs-ofctl")


def is_installed() -> bool:
    return SCHEMA.exists() and all(shutil.which(program) for program in PROGRAMS)


class OpenVSwitch:
    """Bridge br0 with ports p1…p4, numbered 1…4. Use as a context manager; ``directory`` must be empty."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._socket = f"unix:{directory / 'db.sock'}"
        self._environment = os.environ | {
            f"OVS_{kind}DIR": str(directory) for kind in ("RUN", "LOG", "DB", "SYSCONF", "PKGDATA")
        }
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        database = self._directory / "conf.db"
        self._run("ovsdb-tool", "create", str(database), str(SCHEMA))
        try:
            self._start("ovsdb-server", str(database), f"--remote=p{self._socket}")
            eventually((self._directory / "db.sock").exists, why="ovsdb-server listens")
            self._configure("init")
            self._start("ovs-vswitchd", self._socket, "--disable-system", "--enable-dummy")
            ports = [word for n in range(1, 5) for word in self._port(n)]
            self._configure("add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=dummy", *ports)
            eventually(self._has_ports, within_s=20, why="the bridge has its ports")
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def ofctl(self, *arguments: str, text: str | None = None) -> str:
        """ovs-ofctl's output; CalledProcessError if it fails. ``text`` is its standard input."""
        return self._run("ovs-ofctl", *arguments, text=text)

    def add_flows(self, lines: Iterable[str], *options: str) -> None:
        self.ofctl(*options, "del-flows", "br0")
        self.ofctl(*options, "add-flows", "br0", "-", text="\n".join(lines) + "\n")

    def dump_flows(self, *options: str) -> list[str]:
        return self.ofctl(*options, "--no-stats", "--no-names", "--sort", "dump-flows", "br0").splitlines()

    @staticmethod
    def _port(number: int) -> tuple[str, ...]:
        name = f"p{number}"
        request = f"ofport_request={number}"
        return "--", "add-port", "br0", name, "--", "set", "interface", name, "type=dummy", request

    def _has_ports(self) -> bool:
        try:
            return " 4(p4):" in self.ofctl("show", "br0")
        except subprocess.CalledProcessError:
            return False

    def _configure(self, *words: str) -> None:
        self._run("ovs-vsctl", f"--db={self._socket}", "--no-wait", *words)

    def _start(self, program: str, *arguments: str) -> None:
        control = f"--unixctl={self._directory / program}.ctl"
        command = [program, *arguments, control, "--no-chdir", "-vconsole:off", "-vsyslog:off"]
        self._processes.append(subprocess.Popen(command, env=self._environment, stdin=subprocess.DEVNULL))

    def _run(self, *command: str, text: str | None = None) -> str:
        done = subprocess.run(
            command, env=self._environment, input=text, capture_output=True, text=True, check=True, timeout=30
        )
        return done.stdout

    def _stop(self) -> None:
        for process in reversed(self._processes):
            process.terminate()
            process.wait(timeout=20)
