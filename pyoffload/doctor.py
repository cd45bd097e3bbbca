"""What this host can do: kernel, tools, permissions, and per interface the hook that it would get, and why.

Reads /proc, rtnetlink and bpf(2) only: no compiler, no lock, nothing is tried out by doing it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pyoffload import hooks, interfaces as faces, netlink
from pyoffload.errors import NotFound, NotPermitted, OffloadError

if TYPE_CHECKING:
    from pyoffload.instance import Instance

OK: Final = "ok"
WARNING: Final = "warning"
MISSING: Final = "missing"
UNKNOWN: Final = "unknown"

OLDEST_KERNEL: Final = (5, 14)  # SO_NETNS_COOKIE
OLDEST_TESTED: Final = (6, 1)

# include/uapi/linux/capability.h
CAPABILITIES: Final = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21, "CAP_PERFMON": 38, "CAP_BPF": 39}


class Check(NamedTuple):
    """One finding about the host; `hint` says what to do when the state is not "ok"."""

    name: str
    state: str
    finding: str
    hint: str = ""


class Report(NamedTuple):
    instance: str
    checks: tuple[Check, ...]
    interfaces: tuple[faces.Interface, ...]

    def as_dict(self) -> dict[str, Any]:
        return {
            "instance": self.instance,
            "able": all(check.state != MISSING for check in self.checks),
            "checks": [check._asdict() for check in self.checks],
            "interfaces": [face.as_dict() for face in self.interfaces],
        }


def examine(instance: Instance, ifnames: Iterable[str] = (), *, jit: str | None = None) -> Report:
    """Look at the host and at these interfaces; at all but loopback when none is named. NotFound for an unknown one.

    ``jit`` is what `jit_setting` said before the process moved into the instance's namespace.
    """
    links = {link.ifname: link for link in netlink.dump_links()}
    wanted = tuple(dict.fromkeys(ifnames))
    for ifname in wanted:
        if ifname not in links:
            raise NotFound(
                f"there is no interface '{ifname}' in '{instance.name}'", hint="ip link shows them"
            )
    chosen = [links[name] for name in wanted] or [link for link in links.values() if link.ifname != "lo"]
    tc_hook = _tc_hook()
    return Report(
        instance=instance.name,
        checks=tuple(_checks(tc_hook, jit_setting() if jit is None else jit)),
        interfaces=tuple(faces.examine(chosen, links, tc_hook)),
    )


# ---- the host


def _checks(tc_hook: str | None, jit: str) -> Iterable[Check]:
    yield _kernel()
    yield _bpf_filesystem()
    yield _btf()
    yield _jit(jit)
    yield _tc(tc_hook)
    yield _compiler()
    yield _headers()
    yield _capabilities()


def _kernel() -> Check:
    release = os.uname().release
    version = _version(release)
    if version < OLDEST_KERNEL:
        return Check("kernel", MISSING, release, "Linux 5.14 or newer is needed; Debian 12 has 6.1")
    if version < OLDEST_TESTED:
        return Check("kernel", WARNING, release, "older than 6.1, the oldest kernel this is tested on")
    return Check("kernel", OK, release)


def _version(release: str) -> tuple[int, int]:
    major, _, rest = release.partition(".")
    digits = "".join(c if c.isdigit() else " " for c in rest).split()
    return (int(major) if major.isdigit() else 0, int(digits[0]) if digits else 0)


def _bpf_filesystem() -> Check:
    from pyoffload import bpffs

    if "\tbpf\n" not in _read("/proc/filesystems"):
        return Check("bpf filesystem", MISSING, "not in this kernel", "CONFIG_BPF_SYSCALL=y")
    root = bpffs.root()
    return Check(
        "bpf filesystem", OK, f"mounted at {root}" if root else f"`up` mounts it at {bpffs.MOUNT_POINT}"
    )


def _btf() -> Check:
    path = "/sys/kernel/btf/vmlinux"
    if os.path.exists(path):
        return Check("kernel types", OK, path)
    return Check(
        "kernel types",
        WARNING,
        f"{path} is missing: fast_failover groups cannot see a port's carrier",
        "CONFIG_DEBUG_INFO_BTF=y",
    )


def jit_setting() -> str:
    """net.core.bpf_jit_enable, "" where it does not exist: only the first network namespace has it."""
    return _read("/proc/sys/net/core/bpf_jit_enable").strip()


def _jit(setting: str) -> Check:
    if setting in {"1", "2"}:
        return Check("bpf jit", OK, "on")
    if setting == "0":
        return Check("bpf jit", WARNING, "off: programs are interpreted", "sysctl net.core.bpf_jit_enable=1")
    if _config("CONFIG_BPF_JIT_ALWAYS_ON") == "y":
        return Check("bpf jit", OK, "always on")
    if _config("CONFIG_BPF_JIT") == "n":
        return Check("bpf jit", WARNING, "not in this kernel: programs are interpreted", "CONFIG_BPF_JIT=y")
    return Check("bpf jit", UNKNOWN, "net.core.bpf_jit_enable cannot be seen from this namespace")


def _tc_hook() -> str | None:
    """Either "tcx", or "tc" (clsact) where the kernel has no tcx or PYOFFLOAD_TC says so; None if we may not ask."""
    try:
        return hooks.forced_tc() or ("tcx" if hooks.supports_tcx() else "tc")
    except NotPermitted:
        return None


def _tc(tc_hook: str | None) -> Check:
    if tc_hook == "tcx":
        return Check("tc hook", OK, "tcx")
    if tc_hook is None:
        return Check("tc hook", UNKNOWN, "not permitted to ask", "run it as root, or with CAP_NET_ADMIN")
    missing = [
        option for option in ("CONFIG_NET_SCH_INGRESS", "CONFIG_NET_CLS_BPF") if _config(option) == "n"
    ]
    if missing:
        return Check(
            "tc hook", MISSING, "neither tcx nor clsact", f"Linux 6.6 or newer, or {', '.join(missing)}"
        )
    return Check("tc hook", OK, "clsact")


def _config(option: str) -> str | None:
    """'y', 'm' or 'n' as the kernel was configured; None where its configuration is not to be found."""
    text = _read(f"/boot/config-{os.uname().release}")
    if not text:
        import gzip

        try:
            with gzip.open("/proc/config.gz", "rt", encoding="ascii", errors="replace") as file:
                text = file.read()
        except OSError:
            return None
    for value in ("y", "m"):
        if f"\n{option}={value}\n" in text:
            return value
    return "n"


def _compiler() -> Check:
    from pyoffload import compiler

    try:
        directory = compiler.find_bcc()
    except OffloadError:
        return Check("compiler", MISSING, "bcc for Python is not installed", "apt install python3-bpfcc")
    return Check("compiler", OK, f"bcc {compiler.bcc_version(directory)} ({directory})")


def _headers() -> Check:
    path = "/usr/include/linux/bpf.h"
    if os.path.exists(path):
        return Check("kernel headers", OK, "/usr/include/linux")
    return Check("kernel headers", MISSING, f"{path} is missing", "apt install linux-libc-dev")


def _capabilities() -> Check:
    held = 0
    for line in _read("/proc/self/status").splitlines():
        if line.startswith("CapEff:"):
            held = int(line.split()[1], 16)
    lacking = [name for name, bit in CAPABILITIES.items() if not held >> bit & 1]
    if not lacking:
        return Check("capabilities", OK, ", ".join(CAPABILITIES))
    return Check("capabilities", MISSING, f"lacks {', '.join(lacking)}", "run it as root (sudo)")


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
