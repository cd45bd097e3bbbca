"""Per interface: the hook that a port would get and why, who holds its hooks, and what to beware of.

Asks rtnetlink, ethtool and bpf(2); attaches nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from pyoffload import hooks, links, netlink, peers
from pyoffload.errors import NotPermitted, OffloadError
from pyoffload.kernel.link import query
from pyoffload.kernel.prog import ATTACH_TYPE_TCX_EGRESS, ATTACH_TYPE_TCX_INGRESS

# The largest MTU whose frames fit into one page behind XDP's headroom, which is what programs without
# multi-buffer support take (4096 - 256 headroom - 320 skb_shared_info - 18 Ethernet with a tag).
MAX_LINEAR_MTU: Final = 3502


class Holder(NamedTuple):
    """A program that holds a hook of an interface; `ours` if this instance put it there."""

    hook: str
    prog_id: int | None
    name: str
    ours: bool

    def __str__(self) -> str:
        owner = "pyoffload" if self.ours else self.name or "unnamed"
        return f"{self.hook}: {owner}" + ("" if self.prog_id is None else f" (program {self.prog_id})")


class Interface(NamedTuple):
    """One interface. `hook`: what `port add` would use, None if it cannot be a port; `xdp`: what --hook xdp gives."""

    ifname: str
    ifindex: int
    kind: str
    driver: str
    mtu: int
    up: bool
    hook: str | None
    why: str
    xdp: str
    xdp_why: str
    holders: tuple[Holder, ...]
    warnings: tuple[str, ...]

    def holder_texts(self) -> list[str]:
        return [str(holder) for holder in self.holders]

    def as_dict(self) -> dict[str, Any]:
        return {
            **self._asdict(),
            "holders": [holder._asdict() for holder in self.holders],
            "warnings": list(self.warnings),
        }


def examine(
    chosen: Iterable[netlink.Link], present: Mapping[str, netlink.Link], tc_hook: str | None
) -> Iterator[Interface]:
    """Every fact about the `chosen` ones; `present` are all of the namespace by name."""
    features = netlink.xdp_features()
    by_index = {link.ifindex: link for link in present.values()}
    for link in chosen:
        holders = tuple(_holders(link))
        hook, why = choose_hook(link, by_index, holders, tc_hook)
        xdp, xdp_why = xdp_mode(link, None if features is None else features.get(link.ifindex, 0))
        yield Interface(
            ifname=link.ifname,
            ifindex=link.ifindex,
            kind=_kind(link),
            driver=netlink.driver(link.ifname),
            mtu=link.mtu,
            up=link.up,
            hook=hook,
            why=why,
            xdp=xdp,
            xdp_why=xdp_why,
            holders=holders,
            warnings=tuple(_warnings(link, by_index)),
        )


def _kind(link: netlink.Link) -> str:
    if link.tun is not None:
        return "tap" if link.tun.tap else "tun"
    return link.kind or ("physical" if link.ethernet else "other")


def choose_hook(
    link: netlink.Link, by_index: Mapping[int, netlink.Link], holders: Iterable[Holder], tc_hook: str | None
) -> tuple[str | None, str]:
    """The hook that `port add --hook auto` takes, and why; None when the interface cannot be a port."""
    if not link.ethernet:
        return None, "carries no Ethernet frames"
    if _is_local(link):
        return None, "is port `local` of a bridge"
    if link.kind in {"bridge", "bond", "team", "openvswitch"}:
        return None, f"is a {link.kind} itself; put its members on the bridge"
    mine = next((holder for holder in holders if holder.ours), None)
    if mine is not None:
        return mine.hook.removesuffix(" ingress"), "is a port already"
    if link.master:
        return None, f"belongs to {_name(link.master, by_index)}, which takes its frames"
    try:
        foreign = hooks.holder(link, hooks.TC)
    except NotPermitted:
        return tc_hook, "who holds it now cannot be asked without CAP_NET_ADMIN"
    if foreign is not None:
        return None, foreign
    if link.kind:
        return tc_hook or "tcx", "keeps the guest's super-packets and partial checksums whole"
    return tc_hook or "tcx", "runs once for the many packets that GRO has merged"


def xdp_mode(link: netlink.Link, features: int | None) -> tuple[str, str]:
    """What --hook xdp would give, and why: "xdp native", "xdp generic" (only when asked for) or "none"."""
    if not link.ethernet:
        return "none", "carries no Ethernet frames"
    if features is None:
        return (
            "xdp native",
            "the kernel does not tell what the driver can (Linux before 6.3); attaching shows it",
        )
    if not features & netlink.XDP_BASIC:
        return "xdp generic", "the driver has no XDP of its own"
    if link.mtu > MAX_LINEAR_MTU and not features & netlink.XDP_RX_SG:
        return "xdp generic", f"the driver takes no XDP program at MTU {link.mtu}"
    return "xdp native", "the driver runs XDP programs before the stack"


def _warnings(link: netlink.Link, by_index: Mapping[int, netlink.Link]) -> Iterator[str]:
    if _is_local(link):
        return
    if not link.up:
        yield "is down"
    if link.tun is not None and link.tun.vnet_hdr:
        yield "xdp: vnet_hdr is on, its guest leaves checksums partial; keep it on tc, or switch the guest's offloads off"
    if link.kind == "veth" and link.peer_netnsid is None and link.peer_ifindex:
        peer = _name(link.peer_ifindex, by_index)
        yield f"its peer {peer} is in this namespace: frames to it cannot be handed over, they are queued once more"
    if link.kind == "veth":
        yield from _guest_warnings(link)
    if netlink.features(link.ifname).lro:
        yield f"LRO is on, merged packets cannot be sent on; ethtool -K {link.ifname} lro off"
    if link.master and _read("/proc/sys/net/bridge/bridge-nf-call-iptables").strip() == "1":
        yield "bridge-nf-call-iptables is on: iptables filters its bridge's frames, but none that pass through us"


def _guest_warnings(link: netlink.Link) -> Iterator[str]:
    """What the other end of a veth leaves to its hardware, and what that costs a port on XDP."""
    guest = peers.offloads(link)
    if guest is None:
        return
    if guest.tx_csum:
        yield "xdp: its peer leaves checksums partial, such frames are decided at tc; in the guest: ethtool -K DEV tx off"
    if guest.tx_vlan:
        yield (
            "xdp: its peer may keep VLAN tags beside the frame, so xdp serves it as an access port only;"
            " in the guest: ethtool -K DEV txvlan off"
        )


def _is_local(link: netlink.Link) -> bool:
    """Either end of a bridge's port `local`."""
    return link.kind == "veth" and link.alias.startswith(links.PORT_ALIAS_PREFIX)


def _name(ifindex: int, by_index: Mapping[int, netlink.Link]) -> str:
    link = by_index.get(ifindex)
    return link.ifname if link is not None else f"interface {ifindex}"


def _holders(link: netlink.Link) -> Iterator[Holder]:
    """Every program on an XDP, tcx or clsact hook of the interface."""
    for mode, prog_id in link.xdp:
        yield _holder(f"xdp {mode}", prog_id)
    for attach_type, side in ((ATTACH_TYPE_TCX_INGRESS, "ingress"), (ATTACH_TYPE_TCX_EGRESS, "egress")):
        try:
            on_hook = query(link.ifindex, attach_type) or ()
        except OffloadError:
            on_hook = ()
        for item in on_hook:
            yield _holder(f"tcx {side}", item.prog_id)
    for found in netlink.clsact_filters(link.ifindex):
        name = found.name if found.kind == "bpf" else found.kind
        yield Holder(f"tc {found.direction}", found.prog_id, name, ours=hooks.is_our_filter(found))


def _holder(hook: str, prog_id: int) -> Holder:
    name = hooks.program_name(prog_id)
    return Holder(hook, prog_id, name, ours=hooks.is_our_program(name))


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read()
    except OSError:
        return ""
