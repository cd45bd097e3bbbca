"""What is on an interface's hooks, ours or not; the question before anything is attached, and what `doctor` shows."""

from __future__ import annotations

import os

from pyoffload import netlink
from pyoffload.errors import OffloadError, UsageError
from pyoffload.kernel.link import query
from pyoffload.kernel.prog import ATTACH_TYPE_TCX_INGRESS, Prog
from pyoffload.loader import NAME_PREFIX

TC = "tc"
XDP = "xdp"

FILTER_NAME = "pyoffload"
FILTER_PRIO = 1
FILTER_HANDLE = 1


def holder(link: netlink.Link, hook: str) -> str | None:
    """Who else has the hook or the whole interface, in words, or None. Programs named pyo_... are ours."""
    if link.master:
        master = netlink.get_link(link.master)
        what = master.kind or "device" if master else "device"
        return f"interface is a port of {what} '{master.ifname if master else link.master}'"
    if hook == XDP:
        for _, prog_id in link.xdp:
            name = program_name(prog_id)
            if not is_our_program(name):
                return f"xdp program '{name}' (id {prog_id}) holds the hook"
        return None
    for entry in query(link.ifindex, ATTACH_TYPE_TCX_INGRESS) or ():
        name = program_name(entry.prog_id)
        if not is_our_program(name):
            return f"tcx program '{name}' (id {entry.prog_id}) holds the hook"
    for found in netlink.clsact_filters(link.ifindex):
        if found.direction == "ingress" and not is_our_filter(found):
            name = found.name or found.kind
            return f"clsact filter '{name}' (prio {found.prio}, handle {found.handle:#x}) holds the hook"
    return None


def program_name(prog_id: int) -> str:
    try:
        with Prog.by_id(prog_id) as prog:
            return prog.info().name or "?"
    except OffloadError:
        return "?"


def is_our_program(name: str) -> bool:
    return name.startswith(NAME_PREFIX)


def supports_tcx() -> bool:
    """Whether this kernel has TCX (6.6)."""
    return query(1, ATTACH_TYPE_TCX_INGRESS) is not None  # 1 is lo in every namespace


def forced_tc() -> str | None:
    """What PYOFFLOAD_TC wants: "tcx", "tc" (clsact), or None when it is up to the kernel."""
    text = os.environ.get("PYOFFLOAD_TC")
    if not text:
        return None
    if text not in {"tcx", "clsact"}:
        raise UsageError(f"PYOFFLOAD_TC is '{text}'", hint="tcx or clsact")
    return "tcx" if text == "tcx" else "tc"


def is_our_filter(found: netlink.Filter) -> bool:
    """Whether a clsact filter is the one that attach.py puts there."""
    return (
        found.name == FILTER_NAME
        and found.prio == FILTER_PRIO
        and found.handle == FILTER_HANDLE
        and found.prog_id is not None
        and is_our_program(program_name(found.prog_id))
    )
