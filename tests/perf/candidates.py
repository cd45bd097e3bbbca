"""What is measured: each candidate makes the host of a topology forward from guest A to guest B in its own way."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass

from tests.perf.topology import Topology
from tests.support.cli import Cli

BIG_CACHE = 4 << 20  # flow-cache entries for a million flows
BRIDGE = "br0"
N_ACL_FLOWS = 100


@dataclass(frozen=True, slots=True)
class Candidate:
    """``hook``: where the receiver counts: "tc" (a guest with a stack), "xdp", or "tap"."""

    name: str
    hook: str
    prepare: Callable[[Topology], None]
    flat: bool = False

    def build(self) -> Topology:
        topology = Topology(self.hook, flat=self.flat)
        try:
            self.prepare(topology)
        except BaseException:
            with contextlib.suppress(Exception):
                topology.close()
            raise
        return topology


# ---- peers


def drop_first(t: Topology) -> None:
    """What the generator itself costs: its frames go no further than the first hop."""
    t.tools.attach(t.host, "ha", "receive_xdp")


def linux_bridge(t: Topology) -> None:
    t.host.ip(
        "link add lbr0 type bridge mcast_snooping 0 forward_delay 0",
        "link set ha master lbr0",
        "link set hb master lbr0",
        "link set lbr0 up",
    )
    for family in ("ip", "ip6", "arp"):
        t.host.sysctl(f"net/bridge/bridge-nf-call-{family}tables", 0)


def bare(program: str) -> Callable[[Topology], None]:
    def prepare(t: Topology) -> None:
        if program == "redirect_map":
            t.tools.set_target(t.host, "hb")
        t.tools.attach(t.host, "ha", program, t.host.ifindex("hb"))

    return prepare


# ---- pyoffload


def acl_flows() -> list[str]:
    """Flows that make a decision depend on the whole 5-tuple, none of which matches the generator's frames."""
    return [
        f"priority=100,udp,nw_src=192.0.2.{n},nw_dst=198.51.100.{n},tp_src={1000 + n},tp_dst={2000 + n},actions=drop"
        for n in range(1, N_ACL_FLOWS + 1)
    ] + ["priority=1,actions=normal"]


def mask_flows(n_masks: int) -> list[str]:
    """One flow for each of ``n_masks`` distinct masks: the last one looked at switches the packet, the others miss it."""
    flows = []
    for n in range(n_masks - 1):
        source, ports = divmod(n, 8)
        address = f"192.0.2.0/{24 + source}"
        port = f"0x{0xFF00 & (0xFF00 << ports) & 0xFF00 or 0x8000:x}/0x{0xFFFF << ports & 0xFFFF:x}"
        flows.append(f"priority={200 + n},udp,nw_src={address},tp_dst={port},actions=drop")
    return [*flows, "priority=1,actions=normal"]


def pyoffload(
    *, hook: str = "tc", flows: list[str] | None = None, cache: bool = True, cache_entries: int = 0
) -> Callable[[Topology], None]:
    def prepare(t: Topology) -> None:
        cli = Cli(t.host)
        options = [] if cache else ["--no-cache"]
        if cache_entries:
            options += ["--cache-entries", str(cache_entries)]
        cli.ok("up", *options)
        cli.ok("bridge", "add", BRIDGE)
        for ifname in ("ha", "hb"):
            cli.ok("port", "add", BRIDGE, ifname, "--hook", hook)
        if flows:
            with tempfile.NamedTemporaryFile("w", prefix="pyo-", suffix=".flows", encoding="ascii") as file:
                file.write("\n".join(flows) + "\n")
                file.flush()
                cli.ok("flow", "add", BRIDGE, "--file", file.name)

    return prepare


BRIDGE_TC = Candidate("Linux bridge", "tc", linux_bridge)
BRIDGE_XDP = Candidate("Linux bridge, XDP receiver", "xdp", linux_bridge)
FLOOR = Candidate("generator into XDP_DROP at the first hop", "xdp", drop_first)
BRIDGE_TAP = Candidate("Linux bridge, tap", "tap", linux_bridge)
BARE_TAP = Candidate("bare TC redirect, tap", "tap", bare("redirect"))
BARE_REDIRECT = Candidate("bare TC redirect", "tc", bare("redirect"))
BARE_PEER = Candidate("bare TC redirect_peer", "tc", bare("redirect_peer"))
BARE_XDP = Candidate("bare XDP redirect_map", "xdp", bare("redirect_map"))
VETH = Candidate("pyoffload veth port", "tc", pyoffload())
VETH_ACL = Candidate("pyoffload veth port, 5-tuple flows", "tc", pyoffload(flows=acl_flows()))
TAP = Candidate("pyoffload tap-like port (redirect)", "tc", pyoffload(), flat=True)
TAP_ACL = Candidate(
    "pyoffload tap-like port (redirect), 5-tuple flows", "tc", pyoffload(flows=acl_flows()), flat=True
)
REAL_TAP = Candidate("pyoffload tap port", "tap", pyoffload())
REAL_TAP_ACL = Candidate("pyoffload tap port, 5-tuple flows", "tap", pyoffload(flows=acl_flows()))
XDP = Candidate("pyoffload XDP port", "xdp", pyoffload(hook="xdp"))
XDP_ACL = Candidate("pyoffload XDP port, 5-tuple flows", "xdp", pyoffload(hook="xdp", flows=acl_flows()))
SLOW = {
    n: Candidate(
        f"pyoffload veth port, no cache, {n} masks", "tc", pyoffload(flows=mask_flows(n), cache=False)
    )
    for n in (1, 10, 64)
}
VETH_BIG = Candidate("pyoffload veth port, large cache", "tc", pyoffload(cache_entries=BIG_CACHE))
VETH_ACL_BIG = Candidate(
    "pyoffload veth port, 5-tuple flows, large cache",
    "tc",
    pyoffload(flows=acl_flows(), cache_entries=BIG_CACHE),
)
XDP_ACL_BIG = Candidate(
    "pyoffload XDP port, 5-tuple flows, large cache",
    "xdp",
    pyoffload(hook="xdp", flows=acl_flows(), cache_entries=BIG_CACHE),
)
