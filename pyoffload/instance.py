"""Which host we are on: each network namespace has pins, configuration and a lock of its own.

The instance of process 1's namespace is `default`; one that /run/netns knows has that name; any other is
`ns-<inode>`. What lies where:

    /run/pyoffload/bpf/<instance>/{maps,progs,links}   pins (see bpffs.py)
    /run/pyoffload/<instance>/lock                     held by the command that changes something
    /run/pyoffload/<instance>/runtime.json             what belongs to the pins: the namespace's cookie, the ABI
    /var/lib/pyoffload/<instance>/                     the configuration, which survives a reboot
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any

from pyoffload import _abi as abi, bpffs
from pyoffload.errors import (
    AbiMismatch,
    DatapathDown,
    HostError,
    LockTimeout,
    NotFound,
    NotPermitted,
    OffloadError,
    UsageError,
)
from pyoffload.kernel.syscall import setns

DEFAULT = "default"
LOCK_TIMEOUT_S = 10.0
CLONE_NEWNET = 0x40000000
SO_NETNS_COOKIE = 71  # include/uapi/asm-generic/socket.h
_NETNS_DIRS = (
    "/run/netns",
    "/proc/1/root/run/netns",
)  # the second where a private mount namespace hides names


class Instance:
    """One network namespace as a host of its own. ``netns_cookie`` is never used again for another namespace."""

    __slots__ = ("_bpffs_root", "name", "netns_cookie")

    def __init__(self, name: str, netns_cookie: int) -> None:
        self.name = name
        self.netns_cookie = netns_cookie
        self._bpffs_root: str | None = None

    @classmethod
    def current(cls, netns: str | None = None) -> Instance:
        """The instance of this process's namespace; with ``netns``, this thread moves into that one first."""
        if netns is not None:
            enter_netns(netns)
        return cls(_netns_name(), _netns_cookie())

    def __repr__(self) -> str:
        return f"<Instance {self.name}>"

    # ---- places

    @property
    def run_dir(self) -> str:
        return f"{bpffs.RUN_DIR}/{self.name}"

    @property
    def state_dir(self) -> str:
        return f"{os.environ.get('PYOFFLOAD_STATE_DIR') or '/var/lib/pyoffload'}/{self.name}"

    @property
    def pin_dir(self) -> str:
        """Directory of the pins; it exists while the datapath is up."""
        if self._bpffs_root is None:
            self._bpffs_root = bpffs.root()
        # bpffs refuses '.' in names; '%' keeps the encoding free of collisions.
        encoded = self.name.replace("%", "%25").replace(".", "%2E")
        return f"{self._bpffs_root or bpffs.MOUNT_POINT}/{encoded}"

    @property
    def maps_dir(self) -> str:
        return f"{self.pin_dir}/maps"

    @property
    def progs_dir(self) -> str:
        return f"{self.pin_dir}/progs"

    @property
    def links_dir(self) -> str:
        return f"{self.pin_dir}/links"

    # ---- up or down

    def is_up(self) -> bool:
        """Whether maps of this very namespace are pinned. Pins left by a deleted one of the same name do not count."""
        return self._has_pins() and self._runtime_matches()

    def is_stale(self) -> bool:
        """Whether there are pins, but of another namespace that had this name before."""
        return self._has_pins() and not self._runtime_matches()

    def require_up(self) -> None:
        """Raise DatapathDown, or AbiMismatch when another version of pyoffload made the pins."""
        if not self.is_up():
            raise DatapathDown(
                f"the datapath of '{self.name}' is not up",
                hint="pyoffload up (or add a bridge, which does it)",
            )
        version = (self.runtime() or {}).get("abi_version")
        if version != abi.ABI_VERSION:
            raise AbiMismatch(
                f"the datapath of '{self.name}' was loaded by another version of pyoffload "
                f"(ABI {version}, this is {abi.ABI_VERSION})",
                hint="pyoffload down, then pyoffload up; the configuration is kept",
            )

    def _has_pins(self) -> bool:
        try:
            os.stat(self.maps_dir)
        except FileNotFoundError:
            return False
        except PermissionError as err:
            raise _not_permitted(f"cannot look into {bpffs.RUN_DIR}", err) from err
        return True

    def _runtime_matches(self) -> bool:
        return (self.runtime() or {}).get("netns_cookie") == self.netns_cookie

    def runtime(self) -> dict[str, Any] | None:
        """What `write_runtime` noted, or None."""
        import json

        try:
            with open(f"{self.run_dir}/runtime.json", encoding="utf-8") as file:
                noted = json.load(file)
        except (FileNotFoundError, ValueError):
            return None
        return noted if isinstance(noted, dict) else None

    def write_runtime(self, **facts: object) -> None:
        """Note what belongs to the pins; cookie and ABI version are added. Readers see the old note or the new one."""
        import json

        self.make_run_dir()
        noted = {"netns_cookie": self.netns_cookie, "abi_version": abi.ABI_VERSION, **facts}
        path = f"{self.run_dir}/runtime.json"
        with open(path + ".new", "w", encoding="utf-8") as file:
            json.dump(noted, file)
        os.rename(path + ".new", path)

    # ---- making and removing

    def make_run_dir(self) -> None:
        while True:
            bpffs.make_run_dir()
            try:
                os.makedirs(self.run_dir, mode=0o750, exist_ok=True)
            except FileNotFoundError:
                continue  # a `down` of another instance removed /run/pyoffload in between
            except PermissionError as err:
                raise _not_permitted(f"cannot make {self.run_dir}", err) from err
            return

    def make_state_dir(self) -> str:
        """The directory of the configuration, 0750."""
        try:
            os.makedirs(os.path.dirname(self.state_dir), mode=0o755, exist_ok=True)
            os.makedirs(self.state_dir, mode=0o750, exist_ok=True)
        except PermissionError as err:
            raise _not_permitted(f"cannot make {self.state_dir}", err) from err
        return self.state_dir

    def make_pin_dirs(self) -> None:
        """Mount the BPF filesystem where it is not, and make this instance's directory in it (idempotent)."""
        with bpffs.mounted() as root:
            self._bpffs_root = root
            os.makedirs(self.pin_dir, mode=0o750, exist_ok=True)

    def remove_pins(self) -> None:
        """Remove every pin, which also detaches pinned links; then the mount, if no other instance needs it."""
        remove_tree(self.pin_dir)
        for name in ("runtime.json", "runtime.json.new"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{self.run_dir}/{name}")
        bpffs.unmount_if_empty()
        self._bpffs_root = None

    # ---- one change at a time

    @contextlib.contextmanager
    def lock(self, timeout_s: float | None = None) -> Iterator[None]:
        """Hold the instance for a change. LockTimeout names the command that holds it (default 10 s, or
        PYOFFLOAD_LOCK_TIMEOUT seconds). The kernel lets go of it when the process dies.
        """
        fd = self._acquire(_lock_timeout_s() if timeout_s is None else timeout_s)
        try:
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()} {_command_line()}\n".encode(), 0)
            yield
        finally:
            os.ftruncate(fd, 0)
            self._tidy()
            os.close(fd)

    def is_changing(self) -> bool:
        """Whether a command holds the lock now. For questions: it does not touch the lock itself."""
        try:
            status = os.stat(f"{self.run_dir}/lock")
            with open("/proc/locks", encoding="ascii") as locks:
                held = locks.read()
        except OSError:
            return False
        file = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
        return any(
            line.split()[5:6] == [file] for line in held.splitlines() if "FLOCK" in line and "->" not in line
        )

    def _tidy(self) -> None:
        """While holding the lock: nothing is to be left of an instance that is down, not even the lock's file."""
        if os.path.exists(f"{self.run_dir}/runtime.json") or os.path.exists(self.pin_dir):
            return
        with contextlib.suppress(OSError):
            os.unlink(f"{self.run_dir}/lock")
            os.rmdir(self.run_dir)
        bpffs.remove_run_dir_if_empty()

    def _acquire(self, timeout_s: float) -> int:
        path = f"{self.run_dir}/lock"
        deadline = time.monotonic() + timeout_s
        while True:
            self.make_run_dir()
            try:
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
            except FileNotFoundError:
                continue  # a `down` removed the directory in between
            except PermissionError as err:
                raise _not_permitted(f"cannot lock '{self.name}'", err) from err
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(fd, 200, 0).decode("utf-8", "replace").strip()
                os.close(fd)
                if time.monotonic() >= deadline:
                    pid, _, command = holder.partition(" ")
                    by = f"process {pid} ({command})" if holder else "another process"
                    raise LockTimeout(
                        f"'{self.name}' is being changed by {by}; gave up after {timeout_s:g} s",
                        hint="wait for it to finish; PYOFFLOAD_LOCK_TIMEOUT sets how long to wait",
                    ) from None
                select.select((), (), (), 0.02)
            else:
                if bpffs.is_file_at(fd, path):
                    return fd
                os.close(fd)


def _not_permitted(what: str, err: OSError) -> NotPermitted:
    return NotPermitted(f"{what}: not permitted", hint="run it as root (sudo)", errno=err.errno or 0)


def enter_netns(name: str) -> None:
    """Move this thread into a named network namespace, and into nothing else of it."""
    if not name or "/" in name or name in {".", ".."}:
        raise UsageError(f"'{name}' cannot be the name of a network namespace", hint="ip netns list")
    for directory in _NETNS_DIRS:
        try:
            fd = os.open(f"{directory}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        except PermissionError:
            continue  # process 1 is not ours to look through
        try:
            setns(fd, CLONE_NEWNET)
        except NotPermitted as err:
            raise NotPermitted(
                f"cannot enter network namespace '{name}': not permitted",
                hint="it needs CAP_SYS_ADMIN: run it as root (sudo)",
                errno=err.errno,
            ) from err
        except OffloadError:
            continue  # the file is not a mount here: look through process 1's eyes
        finally:
            os.close(fd)
        return
    raise NotFound(f"there is no network namespace '{name}'", hint="ip netns list")


def _netns_name() -> str:
    own = _identity("/proc/thread-self/ns/net")
    # The proc entries of a namespace have inodes of their own. Unlike /proc/1/ns/net everybody may look at these.
    here = _identity("/proc/thread-self/net/dev")
    if own is None or here is None:
        raise HostError("/proc is not mounted", hint="mount -t proc proc /proc")
    if here == _identity("/proc/1/net/dev"):
        return DEFAULT
    for directory in _NETNS_DIRS:
        try:
            names = sorted(os.listdir(directory))
        except OSError:
            continue
        for name in names:
            if _identity(f"{directory}/{name}") == own:
                if name == DEFAULT:
                    raise UsageError(
                        f"a network namespace named '{DEFAULT}' cannot be used: "
                        "this is what the host's own is called",
                        hint="give it another name: ip netns attach NAME PID",
                    )
                return name
    return f"ns-{own[1]}"


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _netns_cookie() -> int:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        try:
            return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8), "little")
        except OSError as err:
            raise HostError(
                "this kernel does not tell network namespaces apart (SO_NETNS_COOKIE)",
                hint="needs Linux 5.14 or newer",
                errno=err.errno or 0,
            ) from err


def _lock_timeout_s() -> float:
    text = os.environ.get("PYOFFLOAD_LOCK_TIMEOUT")
    if not text:
        return LOCK_TIMEOUT_S
    try:
        return max(0.0, float(text))
    except ValueError:
        raise UsageError(
            f"PYOFFLOAD_LOCK_TIMEOUT is '{text}'", hint="a number of seconds, such as 10 or 0.5"
        ) from None


def _command_line() -> str:
    return " ".join([os.path.basename(sys.argv[0]), *sys.argv[1:]])[:160]


def remove_tree(path: str) -> None:
    """Remove a directory on bpffs with all below it; what is not there is no error."""
    try:
        entries = list(os.scandir(path))
    except FileNotFoundError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            remove_tree(entry.path)
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(entry.path)
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(path)
