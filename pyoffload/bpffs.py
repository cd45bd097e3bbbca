"""The BPF filesystem that holds our pins: mounted by `up` at /run/pyoffload/bpf, seen from every mount namespace.

/sys/fs/bpf will not do: `ip netns exec` unmounts /sys, and with it the pins. A mount below /run survives that, but a
mount made inside `ip netns exec` (or `unshare -m`) would vanish with that command. So the mount is always made in the
mount namespace of process 1, and a process that does not see it there goes through /proc/1/root.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator

from pyoffload.errors import HostError, NotPermitted, OffloadError
from pyoffload.kernel.syscall import setns

RUN_DIR = "/run/pyoffload"
MOUNT_POINT = f"{RUN_DIR}/bpf"
BPF_FS_MAGIC = 0xCAFE4A11  # include/uapi/linux/magic.h
_KERNEL_FILES = frozenset({"maps.debug", "progs.debug"})  # in every BPF filesystem since Linux 5.10
_LOCK_NAME = "mount.lock"
CLONE_NEWNS = 0x00020000
MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8

_libc = ctypes.CDLL(None, use_errno=True)


def _is_bpffs(path: str) -> bool:
    # struct statfs begins with the type as a long on both architectures; os.statvfs leaves it out.
    buffer = ctypes.create_string_buffer(256)
    if _libc.statfs(os.fsencode(path), buffer) != 0:
        return False
    return ctypes.c_long.from_buffer(buffer).value & 0xFFFFFFFF == BPF_FS_MAGIC


def root() -> str | None:
    """Path of the mounted filesystem as this process sees it, or None while there is none."""
    own_device = _device(MOUNT_POINT)
    init_root = "/proc/1/root"
    if not os.access(init_root + "/", os.X_OK):
        if own_device is not None:
            return MOUNT_POINT
        init_root = f"/proc/{_init_peer()}/root"
    init_device = _device(init_root + MOUNT_POINT)
    if init_device is None:
        return None
    return MOUNT_POINT if own_device == init_device else init_root + MOUNT_POINT


def _device(path: str) -> int | None:
    try:
        return os.stat(path).st_dev if _is_bpffs(path) else None
    except OSError:
        return None


def _init_peer() -> str:
    """A process in the mount namespace of process 1 that we may look through: 1 itself, or an ancestor of ours.

    A process with fewer capabilities than process 1 may not look through that, root or not (ptrace_may_access).
    """
    pid = str(os.getpid())
    want = _root_mount("1")
    candidates = ["1"]
    while pid not in {"0", "1"}:
        candidates.append(pid)
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                pid = file.read().rpartition(")")[2].split()[1]
        except OSError:
            break
    for candidate in candidates:
        if os.access(f"/proc/{candidate}/root/", os.X_OK) and _root_mount(candidate) == want:
            return candidate
    return "1"


def _root_mount(pid: str) -> str | None:
    """Number of the mount at "/", which no two mount namespaces share (proc_pid_mountinfo(5))."""
    try:
        with open(f"/proc/{pid}/mountinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                fields = line.split(" ", 5)
                if fields[4] == "/":
                    return fields[0]
    except OSError:
        pass
    return None


@contextlib.contextmanager
def mounted() -> Iterator[str]:
    """Mount the filesystem if it is not, and keep `unmount_if_empty` of other commands away until the block ends."""
    make_run_dir()
    with _mount_lock():
        path = root()
        if path is None:
            _in_init_mount_namespace(_mount)
            path = root()
        if path is None:
            raise HostError(f"the BPF filesystem at {MOUNT_POINT} does not appear after mounting it")
        yield path


def unmount_if_empty() -> bool:
    """Take the mount and its directory away when the last instance has gone; returns whether it did."""
    if not os.path.isdir(RUN_DIR):
        return False
    with _mount_lock():
        path = root()
        if path is not None:
            if set(os.listdir(path)) - _KERNEL_FILES:
                return False
            try:
                _in_init_mount_namespace(_unmount)
            except OffloadError as err:
                if err.errno == errno.EBUSY:  # somebody's shell stands in it
                    return False
                raise
        with contextlib.suppress(OSError):
            os.rmdir(MOUNT_POINT)
    return True


def make_run_dir() -> None:
    """/run/pyoffload, which nobody but root may enter or change."""
    try:
        os.makedirs(RUN_DIR, mode=0o750, exist_ok=True)
        status = os.stat(RUN_DIR)
    except OSError as err:
        raise NotPermitted(
            f"cannot make {RUN_DIR}: {err.strerror}", hint="run it as root (sudo)", errno=err.errno or 0
        ) from err
    if status.st_uid != 0 or stat.S_IMODE(status.st_mode) & 0o022:
        raise NotPermitted(
            f"{RUN_DIR} can be changed by others than root",
            hint=f"chown root: {RUN_DIR}; chmod 0750 {RUN_DIR}",
        )


def remove_run_dir_if_empty() -> None:
    """Take /run/pyoffload away when no instance has anything in it."""
    lock = f"{RUN_DIR}/{_LOCK_NAME}"
    with contextlib.suppress(OSError):
        if os.listdir(RUN_DIR) != [_LOCK_NAME]:
            return
        with _mount_lock():
            if os.listdir(RUN_DIR) == [_LOCK_NAME]:
                os.unlink(lock)
                os.rmdir(RUN_DIR)


@contextlib.contextmanager
def _mount_lock() -> Iterator[None]:
    path = f"{RUN_DIR}/{_LOCK_NAME}"
    while True:
        make_run_dir()
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except FileNotFoundError:
            continue  # the directory went away in between
        except PermissionError as err:
            raise NotPermitted(
                f"cannot open {path}: not permitted", hint="run it as root (sudo)", errno=err.errno or 0
            ) from err
        fcntl.flock(fd, fcntl.LOCK_EX)  # held for milliseconds only
        if is_file_at(fd, path):
            break
        os.close(fd)
    try:
        yield
    finally:
        os.close(fd)


def is_file_at(fd: int, path: str) -> bool:
    """Whether ``path`` still names the open file: who held the lock before us may have removed it."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return False
    return os.path.samestat(status, os.fstat(fd))


def _mount() -> int:
    os.makedirs(MOUNT_POINT, mode=0o750, exist_ok=True)
    flags = MS_NOSUID | MS_NODEV | MS_NOEXEC
    if _libc.mount(b"bpf", MOUNT_POINT.encode(), b"bpf", flags, b"mode=0750") != 0:
        return ctypes.get_errno()
    return 0


def _unmount() -> int:
    return ctypes.get_errno() if _libc.umount2(MOUNT_POINT.encode(), 0) != 0 else 0


def _in_init_mount_namespace(action: Callable[[], int]) -> None:
    """Run ``action``, which returns an errno, in process 1's mount namespace.

    A child does it: a process with threads may not change its mount namespace, and cannot come back with certainty.
    """
    peer = _init_peer()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        number = errno.EIO
        try:
            fd = os.open(f"/proc/{peer}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
            if os.fstat(fd).st_ino != os.stat("/proc/self/ns/mnt").st_ino:
                setns(fd, CLONE_NEWNS)
            number = action()
        except OffloadError as err:
            number = err.errno
        except OSError as err:
            number = err.errno or errno.EIO
        finally:
            os.write(writing, bytes([number]))
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as answers:
        answer = answers.read()
    os.waitpid(child, 0)
    number = answer[0] if answer else errno.EIO
    what = f"mounting the BPF filesystem at {MOUNT_POINT}"
    match number:
        case 0:
            return
        case errno.EPERM | errno.EACCES:
            raise NotPermitted(
                f"{what}: not permitted",
                hint="it needs CAP_SYS_ADMIN: run it as root (sudo)",
                errno=number,
            )
        case errno.ENODEV:
            raise HostError(
                f"{what}: this kernel has no BPF filesystem",
                hint="needs CONFIG_BPF_SYSCALL=y",
                errno=number,
            )
    raise OffloadError(f"{what}: {os.strerror(number)}", errno=number)
