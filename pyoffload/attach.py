"""Put the entry programs on interfaces' hooks, and take them off again; never in place of somebody else's program.

    links/tcx-<ifindex>             TCX link (Linux 6.6 and later)
    links/tc-<ifindex>              clsact filter; the pin is the program, a filter has nothing to pin
    links/tcq-<ifindex>             the same, and the clsact qdisc is ours as well: detach removes it
    links/xdp-<ifindex>             XDP link, native
    links/xdpgeneric-<ifindex>      XDP link, generic: only with PYOFFLOAD_XDP_GENERIC=1
    links/promisc-<ifindex>         directory: we made this NIC promiscuous

The pins are the record of what is attached: they vanish with a reboot, as the attachments do. Each function copes
with what a killed one left: a pin is made before what only it tells, and removed after.
PYOFFLOAD_TC=tcx|clsact says how TC programs are attached; without it, TCX where the kernel has it.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from pyoffload import links, netlink, rtnl
from pyoffload.checkpoints import checkpoint
from pyoffload.errors import HookBusy, HostError, NotFound, OffloadError
from pyoffload.hooks import (
    FILTER_HANDLE,
    FILTER_NAME,
    FILTER_PRIO,
    TC,
    XDP,
    forced_tc,
    holder,
    is_our_filter,
    supports_tcx,
)
from pyoffload.instance import Instance
from pyoffload.kernel.link import XDP_MODE_GENERIC, XDP_MODE_NATIVE, Link
from pyoffload.kernel.prog import ATTACH_TYPE_TCX_INGRESS, ATTACH_TYPE_XDP, Prog
from pyoffload.loader import TC_ENTRY, XDP_ENTRY, LoadedPrograms

PIN_MODE = 0o600

# What a pin's name begins with -> hook, and what users are told.
_HOOK = {"tcx": TC, "tc": TC, "tcq": TC, "xdp": XDP, "xdpgeneric": XDP}
_KIND = {"tcx": "tcx", "tc": "tc", "tcq": "tc", "xdp": "xdp native", "xdpgeneric": "xdp generic"}
_LINKS = frozenset({"tcx", "xdp", "xdpgeneric"})
_ENTRY = {TC: TC_ENTRY, XDP: XDP_ENTRY}


@dataclass(frozen=True, slots=True)
class _Pin:
    prefix: str  # key of _HOOK
    ifindex: int
    path: str


def attach(instance: Instance, ifindex: int, ifname: str, hook: str, programs: LoadedPrograms) -> str:
    """Attach the entry program of ``hook`` ("tc" or "xdp"); returns "tcx", "tc", "xdp native" or "xdp generic".

    Idempotent: what is attached already is brought up to ``programs``. Raises HookBusy naming who holds the hook or
    the interface, HostError when kernel or driver cannot, NotFound when the interface has gone.
    """
    os.makedirs(instance.links_dir, mode=0o750, exist_ok=True)
    link = _usable(ifindex, ifname)
    with programs.open(_ENTRY[hook]) as prog:
        mine = [pin for pin in _pins(instance) if pin.ifindex == ifindex and _HOOK[pin.prefix] == hook]
        prefix = (
            _attach_xdp(instance, link, prog, mine) if hook == XDP else _attach_tc(instance, link, prog, mine)
        )
    for pin in mine:  # another kind than now: PYOFFLOAD_TC has changed
        if pin.prefix != prefix and os.path.exists(pin.path):
            _detach(pin)
    _make_promiscuous(instance, link)
    return _KIND[prefix]


def detach(instance: Instance, ifindex: int, hook: str) -> bool:
    """Take the programs of ``hook`` off an interface; False if there were none."""
    mine = [pin for pin in _pins(instance) if pin.ifindex == ifindex]
    gone = [pin for pin in mine if _HOOK[pin.prefix] == hook]
    for pin in gone:
        _detach(pin)
    if len(gone) == len(mine):
        _end_promiscuous(instance, ifindex)
    return bool(gone)


def detach_all(instance: Instance) -> int:
    """Take everything of ours off this namespace's interfaces, as `down` does; returns how many hooks that were."""
    pins = list(_pins(instance))
    for pin in pins:
        _detach(pin)
        checkpoint("detach.one")
    for ifindex in _promiscuous(instance):
        _end_promiscuous(instance, ifindex)
    return len(pins)


def attached(instance: Instance) -> dict[tuple[int, str], str]:
    """(ifindex, hook) -> kind for everything of ours that is really attached."""
    found = {}
    for pin in _pins(instance):
        with contextlib.suppress(NotFound):  # removed while we look
            if _is_attached(pin):
                found[pin.ifindex, _HOOK[pin.prefix]] = _KIND[pin.prefix]
    return found


def attached_programs(instance: Instance) -> dict[tuple[int, str], int]:
    """(ifindex, hook) -> id of the program that is really attached: all the same after an upgrade."""
    found = {}
    for pin in _pins(instance):
        with contextlib.suppress(NotFound):
            prog_id = _attached_id(pin)
            if prog_id:
                found[pin.ifindex, _HOOK[pin.prefix]] = prog_id
    return found


def swap(instance: Instance, programs: LoadedPrograms) -> int:
    """Replace the program on every hook of ours; no packet misses it. Returns how many were replaced."""
    done = 0
    for pin in list(_pins(instance)):
        with programs.open(_ENTRY[_HOOK[pin.prefix]]) as prog:
            if pin.prefix in _LINKS:
                with Link.open(pin.path) as link:
                    info = link.info()
                    if info.ifindex == 0 or info.prog_id == prog.info().id:
                        continue
                    link.update(prog.fd)
            else:
                if _attached_id(pin) in {0, prog.info().id}:
                    continue
                _put_filter(pin.path, pin.ifindex, prog)
        done += 1
        checkpoint("swap.one")
    return done


def collect_garbage(
    instance: Instance,
    present: Collection[int] | None = None,
    known: Collection[tuple[int, str]] | None = None,
) -> list[tuple[int, str]]:
    """Forget attachments whose interface was deleted, or moved to another namespace; returns (ifindex, hook).

    What the caller knows need not be asked again: ``present``, the interfaces, and ``known``, what is `attached`.
    """
    pins = list(_pins(instance))
    if present is None:
        present = {link.ifindex for link in netlink.dump_links()} if pins else set()
    gone = []
    for pin in pins:
        if pin.ifindex in present and (
            pin.prefix not in _LINKS
            or (known is not None and (pin.ifindex, _HOOK[pin.prefix]) in known)
            or _attached_id(pin)
        ):
            continue
        _detach(pin)
        gone.append((pin.ifindex, _HOOK[pin.prefix]))
    for ifindex in _promiscuous(instance):
        if ifindex not in present:
            os.rmdir(f"{instance.links_dir}/promisc-{ifindex}")
    return gone


def _usable(ifindex: int, ifname: str) -> netlink.Link:
    link = netlink.get_link(ifindex)
    if link is None:
        raise NotFound(f"there is no interface '{ifname}' (any more)", hint="ip link")
    return link


def _refuse_foreign(link: netlink.Link, hook: str) -> None:
    who = holder(link, hook)
    if who:
        raise HookBusy(
            f"'{link.ifname}' cannot be attached: {who}",
            hint="pyoffload never takes a hook from its owner: let go of it there first",
        )


# ---- TC


def _attach_tc(instance: Instance, link: netlink.Link, prog: Prog, mine: list[_Pin]) -> str:
    _refuse_foreign(link, TC)
    forced = forced_tc()
    current = next((pin for pin in mine if _is_attached(pin)), None)
    if current is not None and forced in {None, _KIND[current.prefix]}:
        want = _KIND[current.prefix]
    else:
        want = forced or ("tcx" if supports_tcx() else "tc")
    if want == "tcx":
        try:
            _attach_link(instance, link, prog, "tcx", ATTACH_TYPE_TCX_INGRESS, 0)
        except OffloadError as err:
            if err.errno != errno.EINVAL:
                raise
            raise HostError(
                f"'{link.ifname}': this kernel has no TCX", hint="needs Linux 6.6; unset PYOFFLOAD_TC"
            ) from err
        return "tcx"
    return _attach_clsact(instance, link, prog)


def _attach_clsact(instance: Instance, link: netlink.Link, prog: Prog) -> str:
    own_qdisc = f"{instance.links_dir}/tcq-{link.ifindex}"
    others_qdisc = f"{instance.links_dir}/tc-{link.ifindex}"
    if not os.path.exists(own_qdisc) and not netlink.has_clsact(link.ifindex):
        # The note first: a qdisc without it would stay for ever, a note without a qdisc does no harm.
        prog.pin(own_qdisc)
        os.chmod(own_qdisc, PIN_MODE)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(others_qdisc)
        checkpoint("attach.clsact_noted")
    if os.path.exists(own_qdisc):
        _add_clsact(link)
        checkpoint("attach.clsact_added")
        _put_filter(own_qdisc, link.ifindex, prog)
        return "tcq"
    _put_filter(others_qdisc, link.ifindex, prog)
    return "tc"


def _add_clsact(link: netlink.Link) -> None:
    try:
        if rtnl.add_clsact(link.ifindex) or netlink.has_clsact(link.ifindex):
            return
    except OffloadError as err:
        if err.errno == errno.ENOENT:
            raise HostError(
                f"'{link.ifname}': this kernel has no clsact qdisc", hint="needs CONFIG_NET_SCH_INGRESS"
            ) from err
        raise
    raise HookBusy(
        f"'{link.ifname}' cannot be attached: another ingress qdisc holds the hook",
        hint=f"tc qdisc show dev {link.ifname}",
    )


def _put_filter(path: str, ifindex: int, prog: Prog) -> None:
    """Filter and pin get the program; the pin first, so that there is always one that tells of the filter."""
    staging = path + "-new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(staging)
    prog.pin(staging)
    os.chmod(staging, PIN_MODE)
    os.rename(staging, path)
    checkpoint("attach.filter_noted")
    rtnl.replace_ingress_filter(ifindex, FILTER_PRIO, FILTER_HANDLE, FILTER_NAME, prog.fd)


# ---- XDP


def _attach_xdp(instance: Instance, link: netlink.Link, prog: Prog, mine: list[_Pin]) -> str:
    _refuse_foreign(link, XDP)
    current = next((pin.prefix for pin in mine if _is_attached(pin)), None)
    try:
        if current != "xdpgeneric":
            _attach_link(instance, link, prog, "xdp", ATTACH_TYPE_XDP, XDP_MODE_NATIVE)
            return "xdp"
    except OffloadError as err:
        if err.errno not in {errno.EOPNOTSUPP, errno.EINVAL, errno.ERANGE}:
            raise
        if os.environ.get("PYOFFLOAD_XDP_GENERIC") != "1":
            raise HostError(
                f"'{link.ifname}': the driver does not take an XDP program ({os.strerror(err.errno)})",
                hint="use --hook tc",
                errno=err.errno,
            ) from err
    _attach_link(instance, link, prog, "xdpgeneric", ATTACH_TYPE_XDP, XDP_MODE_GENERIC)
    return "xdpgeneric"


# ---- links, of TCX and XDP


def _attach_link(
    instance: Instance, link: netlink.Link, prog: Prog, prefix: str, attach_type: int, flags: int
) -> None:
    path = f"{instance.links_dir}/{prefix}-{link.ifindex}"
    with contextlib.suppress(NotFound), Link.open(path) as there:
        info = there.info()
        if info.ifindex == link.ifindex:
            if info.prog_id != prog.info().id:
                there.update(prog.fd)
            return
        os.unlink(path)  # it was on an interface that has gone
    try:
        made = Link.create(prog.fd, link.ifindex, attach_type, flags)
    except OffloadError as err:
        if err.errno == errno.ENODEV:
            raise NotFound(f"there is no interface '{link.ifname}' (any more)", hint="ip link") from err
        if err.errno in {errno.EBUSY, errno.EEXIST}:  # it came between our question and now
            raise HookBusy(
                f"'{link.ifname}' cannot be attached: {holder(link, _HOOK[prefix]) or 'another program came first'}"
            ) from err
        raise
    with made:
        made.pin(path)
        os.chmod(path, PIN_MODE)
    checkpoint("attach.pinned")


# ---- pins


def _pins(instance: Instance) -> Iterator[_Pin]:
    try:
        names = sorted(os.listdir(instance.links_dir))
    except FileNotFoundError:
        return
    for name in names:
        prefix, _, number = name.partition("-")
        if prefix in _HOOK and number.isdecimal():
            yield _Pin(prefix, int(number), f"{instance.links_dir}/{name}")


def _attached_id(pin: _Pin) -> int:
    """Id of the program on the hook that a pin stands for, 0 if there is none."""
    if pin.prefix in _LINKS:
        with Link.open(pin.path) as link:
            info = link.info()
            return info.prog_id if info.ifindex == pin.ifindex else 0
    for found in netlink.clsact_filters(pin.ifindex):
        if found.direction == "ingress" and is_our_filter(found):
            return found.prog_id or 0
    return 0


def _is_attached(pin: _Pin) -> bool:
    return _attached_id(pin) != 0


def _detach(pin: _Pin) -> None:
    if pin.prefix in _LINKS:
        with contextlib.suppress(NotFound), Link.open(pin.path) as link:
            # Not left to the unlinking: the kernel would let go of it some time later.
            link.detach()
            checkpoint("detach.link")
    else:
        found = [f for f in netlink.clsact_filters(pin.ifindex) if f.direction == "ingress"]
        if any(is_our_filter(f) for f in found):
            rtnl.delete_ingress_filter(pin.ifindex, FILTER_PRIO, FILTER_HANDLE)
        checkpoint("detach.filter")
        # Somebody may use our qdisc meanwhile; then it stays.
        if pin.prefix == "tcq" and not netlink.clsact_filters(pin.ifindex):
            rtnl.delete_clsact(pin.ifindex)
        checkpoint("detach.qdisc")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(pin.path)


# ---- promiscuous mode


def _make_promiscuous(instance: Instance, link: netlink.Link) -> None:
    """A NIC drops frames for the guests' addresses unless told otherwise; virtual interfaces do not."""
    if link.promiscuous or not links.is_physical(link):
        return
    with contextlib.suppress(FileExistsError):
        os.mkdir(f"{instance.links_dir}/promisc-{link.ifindex}")
    checkpoint("attach.promisc_noted")
    rtnl.set_promiscuous(link.ifindex, on=True)


def _end_promiscuous(instance: Instance, ifindex: int) -> None:
    note = f"{instance.links_dir}/promisc-{ifindex}"
    if not os.path.isdir(note):
        return
    with contextlib.suppress(OffloadError):  # the interface may be gone
        rtnl.set_promiscuous(ifindex, on=False)
    os.rmdir(note)


def _promiscuous(instance: Instance) -> list[int]:
    try:
        names = os.listdir(instance.links_dir)
    except FileNotFoundError:
        return []
    return [int(name.removeprefix("promisc-")) for name in names if name.startswith("promisc-")]
