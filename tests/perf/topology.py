"""One topology of a measurement: guest A sends, the host in the middle forwards, guest B counts and drops.

    namespace A        host namespace         namespace B
    ┌──────────┐      ┌──────────────┐       ┌────────────────────────────┐
    │ a0 ──────┼──────┼─ ha      hb ─┼───────┼─ b0   receive_tc            │
    │ generate │      │  under test  │       │       or receive_xdp        │
    └──────────┘      └──────────────┘       └────────────────────────────┘

GRO on ha and hb makes them NAPI devices, so that the generator's XDP frames are taken. Everything up to the receiver
happens in the sender's softirq: the loop is closed, and time per frame is generator + path + receiver.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from tests.perf.programs import MAC_A, MAC_B, Tools
from tests.support import offload
from tests.support.eventually import eventually
from tests.support.netns import Netns, close_all

SENDER_CPU = 0
BATCH = 64
FAR_INDEX = 1000  # see tests/support/lab.py: both ends of a veth must not have the same index
TEACHING = 0x88B5  # IEEE 802 local experimental EtherType 1
N_TAUGHT = 3


@dataclass(frozen=True, slots=True)
class Sample:
    ns: int  # per frame
    sent: int
    lost: int


@contextlib.contextmanager
def on_cpu(cpu: int) -> Iterator[None]:
    """The calling thread, and what it starts, runs there only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Topology:
    """``receiver`` is "tc" or "xdp". ``flat``: guest B's end stays in the host namespace, so that nothing can be delivered
    by redirect_peer, as to a tap."""

    def __init__(self, receiver: str, *, flat: bool = False) -> None:
        self.host = Netns("hst", ipv6=False)
        self.a = Netns("gsa", ipv6=False)
        self.b = self.host if flat else Netns("gsb", ipv6=False)
        self.tools = Tools()
        self._namespaces = list({id(ns): ns for ns in (self.a, self.b, self.host)}.values())
        self._warm = 0
        for ns, far, near, mac, index in (
            (self.a, "a0", "ha", MAC_A, FAR_INDEX),
            (self.b, "b0", "hb", MAC_B, FAR_INDEX + 1),
        ):
            where = "" if ns is self.host else f" netns {self.host.name}"
            ns.ip(
                f"link add {far} index {index} address {mac.hex(':')} type veth peer name {near}{where}",
                f"link set {far} up",
            )
            # A virtual machine or an XDP guest computes its own checksums; the generator's frames carry none.
            offload.set_features(ns, far, tx=False)
        self.host.ip("link set ha up", "link set hb up")
        for near in ("ha", "hb"):  # an interface that is down would not become a NAPI device
            offload.set_features(self.host, near, gro=True)
        self.host.wait_running(["ha", "hb"])
        self.tools.attach(self.b, "b0", f"receive_{receiver}")

    def teach(self) -> None:
        """Let both guests say something, so that a learning switch knows where they are."""
        for ns, dev, src, dst in ((self.b, "b0", MAC_B, MAC_A), (self.a, "a0", MAC_A, MAC_B)):
            with ns.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
                sock.bind((dev, TEACHING))
                for _ in range(N_TAUGHT):
                    sock.send(dst + src + TEACHING.to_bytes(2, "big") + bytes(46))

    def warm_up(self, n_flows: int) -> None:
        """Let every flow be seen, until a flow cache can hold it."""
        self.teach()
        self._send(1000, 1)
        self.tools.choose(n_flows, sequential=True)
        self._send(max(2 * n_flows, 1000), n_flows, sequential=True)

    def measure(self, frames: int, n_flows: int) -> Sample:
        before = self.tools.received()
        ns = self._send(frames, n_flows)
        # Whatever a softirq daemon took over is still under way.
        with contextlib.suppress(AssertionError):
            eventually(lambda: self.tools.received() - before >= frames, within_s=0.2, every_s=0.01)
        return Sample(ns, frames, frames - (self.tools.received() - before))

    def _send(self, frames: int, n_flows: int, *, sequential: bool = False) -> int:
        self.tools.choose(n_flows, sequential=sequential)
        with on_cpu(SENDER_CPU), self.a.entered():
            return self.tools.generate(FAR_INDEX, frames, BATCH)

    def close(self) -> None:
        self.tools.close()
        close_all(self._namespaces)
