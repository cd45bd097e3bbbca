"""Network namespaces for tests: made, entered, quietened, and removed with everything that runs inside.

A namespace belongs to a *thread* in Linux. `Netns.entered` moves the calling thread in and back out, and whatever
is opened or started meanwhile (socket, /dev/net/tun, child process) stays inside for good. That costs two system
calls; ``ip netns exec`` costs a process, a mount namespace and a remount of /sys each time.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import os
import shutil
import signal
import socket
import string
import struct
import subprocess
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from fcntl import ioctl
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.eventually import eventually

NETNS_DIR = Path("/run/netns")
PREFIX = "pyo-"

CLONE_NEWNET = 0x40000000
SIOCGIFFLAGS = 0x8913
SIOCETHTOOL = 0x8946
ETHTOOL_GLINK = 0x0A
IFF_RUNNING = 0x40

# What a namespace would otherwise say unasked: duplicate address detection, router solicitations, link-local
# addresses with their multicast groups. MLD reports cannot be turned off, only sent at once instead of within a second.
QUIET_IPV6 = {
    "accept_dad": 0,
    "dad_transmits": 0,
    "router_solicitations": 0,
    "accept_ra": 0,
    "autoconf": 0,
    "addr_gen_mode": 1,
    "mldv2_unsolicited_report_interval": 1,
    "mldv1_unsolicited_report_interval": 1,
}

_libc = ctypes.CDLL(None, use_errno=True)
_serial = itertools.count()


class LabError(RuntimeError):
    """The lab could not be built or a tool in it failed: the test has not judged anything."""


def _base36(number: int, width: int) -> str:
    digits = string.digits + string.ascii_lowercase
    out = ""
    for _ in range(width):
        number, rest = divmod(number, 36)
        out = digits[rest] + out
    return out


def run_tag() -> str:
    """Four characters that tell this test process from every other one alive."""
    return _base36(os.getpid(), 4)


def our_prefix() -> str:
    """What the names of all namespaces of this test process begin with."""
    return PREFIX + run_tag()


def _new_name(role: str) -> str:
    # 4 + 4 + 3 + 1 + 3 = 15 characters: also a legal interface name, because pyoffload instances and
    # interfaces get named after namespaces.
    while True:
        name = f"{our_prefix()}{_base36(next(_serial), 3)}-{role[:3]}"
        if not (NETNS_DIR / name).exists():
            return name


def setns(fd: int) -> None:
    """Move the calling thread into the network namespace behind ``fd`` (Python 3.11 has no os.setns)."""
    if _libc.setns(fd, CLONE_NEWNET) != 0:
        errno = ctypes.get_errno()
        raise OSError(errno, f"setns: {os.strerror(errno)}")


def current_inode() -> int:
    """Inode number of the calling thread's network namespace."""
    return os.stat("/proc/thread-self/ns/net").st_ino


class Netns:
    """A named network namespace with lo up; a context manager that removes it with all that lives inside.

    ``role`` is at most three letters for people who read ``ip netns``. ``ipv6=False`` switches IPv6 off in it.
    """

    def __init__(self, role: str = "ns", *, ipv6: bool = True) -> None:
        self.name = _new_name(role)
        self.path = NETNS_DIR / self.name
        self._undo = contextlib.ExitStack()
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._closed = False
        _ip_command(["ip", "netns", "add", self.name])
        try:
            self.inode = self.path.stat().st_ino
            self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            self._undo.callback(os.close, self._fd)
            self._quieten(ipv6)
        except BaseException:
            self.close()
            raise

    def _quieten(self, ipv6: bool) -> None:
        with self.entered():
            for scope in ("all", "default"):
                for key, value in QUIET_IPV6.items():
                    _write_sysctl(f"net/ipv6/conf/{scope}/{key}", value)
                _write_sysctl(f"net/ipv6/conf/{scope}/disable_ipv6", 0 if ipv6 else 1)
            _set_up("lo")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Netns({self.name!r})"

    def close(self) -> None:
        """Undo what was deferred, kill what runs inside, remove the name. Safe to call twice."""
        close_all([self])

    def defer(self, undo: Callable[..., object], *args: object) -> None:
        """Call ``undo(*args)`` before the namespace goes; last deferred, first called."""
        self._undo.callback(undo, *args)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """The calling thread is inside during the ``with`` block; threads started meanwhile stay inside."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            setns(self._fd)
            try:
                yield
            finally:
                setns(home)
        finally:
            os.close(home)

    # Commands -------------------------------------------------------------------------------------------------

    def start(self, *argv: str | os.PathLike[str], **popen: Any) -> subprocess.Popen[Any]:
        """Start a command inside; it is killed with the namespace. ``popen`` goes to subprocess.Popen."""
        with self.entered():
            child: subprocess.Popen[Any] = subprocess.Popen([os.fspath(arg) for arg in argv], **popen)
        self._undo.callback(_end, child)
        return child

    def run(
        self,
        *argv: str | os.PathLike[str],
        check: bool = True,
        stdin: str | None = None,
        timeout_s: float = 60.0,
        env: dict[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside to its end, output as text. ``check``: LabError when it fails."""
        command = [os.fspath(arg) for arg in argv]
        with self.entered():
            done = subprocess.run(
                command, input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False, env=env
            )
        if check and done.returncode != 0:
            raise LabError(
                f"{self.name}: {' '.join(command)!r} exited {done.returncode}: {done.stderr.strip() or done.stdout.strip()}"
            )
        return done

    def ip(self, *lines: str) -> None:
        """Run ip(8) commands without the word ``ip``, all in one process; the first that fails ends it."""
        text = "\n".join(lines) + "\n"
        with self.entered():
            done = subprocess.run(
                ["ip", "-batch", "-"], input=text, capture_output=True, text=True, timeout=60, check=False
            )
        if done.returncode != 0:
            raise LabError(f"{self.name}: ip: {done.stderr.strip()}\n{text}")

    def ip_json(self, *args: str) -> Any:
        """What ``ip -d -j ARGS`` prints, parsed."""
        return json.loads(self.run("ip", "-d", "-j", *args).stdout or "[]")

    # Sockets, settings and interfaces ----------------------------------------------------------------------------

    def socket(
        self, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM, proto: int = 0
    ) -> socket.socket:
        """A socket that lives inside; closed with the namespace at the latest."""
        with self.entered():
            sock = socket.socket(family, kind, proto)
        self._sockets.add(sock)
        return sock

    def sysctl(self, key: str, value: int | str) -> None:
        """Write a setting below net, e.g. ``net/ipv4/ip_forward`` (slashes, as a name may contain dots)."""
        with self.entered():
            _write_sysctl(key, value)

    def has(self, ifname: str) -> bool:
        """Whether an interface of that name is inside."""
        with self.entered():
            return any(name == ifname for _, name in socket.if_nameindex())

    def ifindex(self, ifname: str) -> int:
        """The interface's index inside; LabError when there is none."""
        with self.entered():
            try:
                return socket.if_nametoindex(ifname)
            except OSError as err:
                raise LabError(f"{self.name}: no interface {ifname}") from err

    def wait_running(self, ifnames: Sequence[str], within_s: float = 5.0) -> None:
        """Wait until frames written to these interfaces really leave.

        Carrier comes by the kernel's linkwatch worker; until it ran, a device's queue is the one that drops all.
        """
        with self.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ctl:
            for ifname in ifnames:
                eventually(
                    lambda name=ifname: _is_running(ctl, name),  # type: ignore[misc]
                    within_s=within_s,
                    every_s=0.002,
                    why=f"{self.name}: {ifname} is running",
                )

    def processes(self) -> list[int]:
        """Process ids whose (main thread's) namespace is this one, the caller's own excepted."""
        return processes_inside([self])


def close_all(namespaces: Sequence[Netns]) -> None:
    """Close several namespaces at the price of one: one look at /proc, one ip process.

    First what runs inside is killed, then the deferred is undone (last namespace of the list first), and only then
    the names go, as what is undone may need them. Every step is made whatever happened to the others; a failure is
    raised at the end.
    """
    alive = [ns for ns in namespaces if not ns._closed]
    if not alive:
        return
    with contextlib.ExitStack() as rest:
        for ns in alive:
            ns._closed = True
        rest.callback(_remove_names, alive)
        for ns in alive:
            rest.callback(ns._undo.close)
        rest.callback(_close_sockets, [sock for ns in alive for sock in ns._sockets])
        rest.callback(kill_inside, alive)


def _close_sockets(socks: Sequence[socket.socket]) -> None:
    # Closing a packet socket waits for a grace period of the kernel's RCU, some 15 ms. Side by side they share it.
    if socks:
        with ThreadPoolExecutor(min(len(socks), 32)) as pool:
            list(pool.map(lambda sock: sock.close(), socks))


def _remove_names(namespaces: Sequence[Netns]) -> None:
    names = [ns.name for ns in namespaces if ns.path.exists()]
    if names:
        _ip_command(["ip", "-batch", "-"], "".join(f"netns del {name}\n" for name in names))


def processes_inside(namespaces: Sequence[Netns]) -> list[int]:
    """Ids of all processes inside any of these namespaces, the caller's own excepted."""
    return processes_with(*(getattr(ns, "inode", 0) for ns in namespaces))


def processes_with(*inodes: int) -> list[int]:
    """The same for namespaces given by the inodes of their files."""
    found = []
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if os.stat(f"/proc/{entry.name}/ns/net").st_ino in inodes:
                found.append(int(entry.name))
    return found


def kill_inside(namespaces: Sequence[Netns]) -> None:
    """Kill, by id, every process that still runs inside: the namespace is ours, so all in it is."""
    _kill_with(*(getattr(ns, "inode", 0) for ns in namespaces))


def remove_forgotten(name: str) -> None:
    """Remove a namespace of ours that no `Netns` stands for any more, with what runs inside."""
    if not name.startswith(our_prefix()):
        raise LabError(f"{name} is not a namespace of this test process")
    _kill_with((NETNS_DIR / name).stat().st_ino)
    _ip_command(["ip", "netns", "del", name])


def _kill_with(*inodes: int) -> None:
    def none_left() -> bool:
        left = [pid for pid in processes_with(*inodes) if not _is_zombie(pid)]
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not left

    eventually(none_left, within_s=10, every_s=0.005, why="processes inside our namespaces end")


def tool(name: str, package: str) -> str:
    """Path of a program, or LabError that names the Debian package to install."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        raise LabError(f"{name} is missing: apt-get install {package}")
    return path


def _end(child: subprocess.Popen[Any]) -> None:
    if child.poll() is None:
        child.kill()
    child.wait(timeout=10)
    for pipe in (child.stdin, child.stdout, child.stderr):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def _is_zombie(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] in "ZX"


def _is_running(ctl: socket.socket, ifname: str) -> bool:
    name = ifname.encode()
    answer = ioctl(ctl, SIOCGIFFLAGS, struct.pack("16sh14x", name, 0))
    if not struct.unpack("16sh14x", answer)[1] & IFF_RUNNING:
        return False
    # linkwatch sets the state a moment before it replaces the queue, both under the rtnl lock: a request that
    # needs the lock as well comes back only after it.
    value = ctypes.create_string_buffer(struct.pack("II", ETHTOOL_GLINK, 0))
    ioctl(ctl, SIOCETHTOOL, struct.pack("16sP16x", name, ctypes.addressof(value)))
    return True


def _set_up(ifname: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ctl:
        ioctl(ctl, 0x8914, struct.pack("16sh14x", ifname.encode(), 0x1 | IFF_RUNNING))  # SIOCSIFFLAGS, IFF_UP


def _write_sysctl(key: str, value: int | str) -> None:
    path = Path("/proc/sys") / key
    # Older kernels lack some of the settings; one that is not there cannot make noise.
    if path.exists():
        path.write_text(f"{value}\n")


def _ip_command(argv: list[str], stdin: str | None = None) -> None:
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        raise LabError(f"{' '.join(argv)}: {done.stderr.strip()}")
