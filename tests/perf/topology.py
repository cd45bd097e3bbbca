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
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fcntl import ioctl

from tests.perf.programs import MAC_A, MAC_B, Tools
from tests.support import offload
from tests.support.eventually import eventually
from tests.support.netns import Netns, close_all
from tests.support.ports import open_tap

SENDER_CPU = 0
BATCH = 64
FAR_INDEX = 1000  # see tests/support/lab.py: both ends of a veth must not have the same index
TEACHING = 0x88B5  # IEEE 802 local experimental EtherType 1
N_TAUGHT = 3
TUNSETFILTEREBPF = 0x800454E1
VNET_HDR_LEN = 10


@dataclass(frozen=True, slots=True)
class Sample:
    ns: int  # per frame
    sent: int
    lost: int


def teaching(src: bytes, dst: bytes) -> bytes:
    """A frame that says nothing but where ``src`` is."""
    return dst + src + TEACHING.to_bytes(2, "big") + bytes(46)


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
    """``receiver`` is "tc" (a guest with a stack), "xdp", or "tap": then hb is a tap and there is no b0. ``flat``: guest B's
    end stays in the host namespace, so that a switch cannot deliver by redirect_peer."""

    def __init__(self, receiver: str, *, flat: bool = False) -> None:
        self.host = Netns("hst", ipv6=False)
        self.a = Netns("gsa", ipv6=False)
        self.b = self.host if flat else Netns("gsb", ipv6=False)
        self.tools = Tools()
        self._namespaces = list({id(ns): ns for ns in (self.a, self.b, self.host)}.values())
        self._tap: int | None = None
        try:
            self._build(receiver)
        except BaseException:
            self.close()
            raise

    def _build(self, receiver: str) -> None:
        self._cable(self.a, "a0", "ha", MAC_A, FAR_INDEX)
        if receiver == "tap":
            self._make_tap()
            return
        self._cable(self.b, "b0", "hb", MAC_B, FAR_INDEX + 1)
        self.tools.attach(self.b, "b0", f"receive_{receiver}")
        if receiver == "xdp":
            # redirect_peer delivers behind the XDP hook; what a switch sends that way has arrived as well.
            self.tools.attach(self.b, "b0", "receive_tc")

    def _cable(self, ns: Netns, far: str, near: str, mac: bytes, index: int) -> None:
        where = "" if ns is self.host else f" netns {self.host.name}"
        ns.ip(
            f"link add {far} index {index} address {mac.hex(':')} type veth peer name {near}{where}",
            f"link set {far} up",
        )
        # A virtual machine or an XDP guest computes its own checksums; the generator's frames carry none.
        offload.set_features(ns, far, tx=False, txvlan=False)
        self.host.ip(f"link set {near} up")
        self.host.wait_running([near])
        offload.set_features(
            self.host, near, gro=True
        )  # while it is down that would not make it a NAPI device

    def _make_tap(self) -> None:
        (self._tap,) = open_tap(self.host, "hb", vnet_hdr=True)
        with self.tools.load("receive_tap") as prog:
            ioctl(self._tap, TUNSETFILTEREBPF, struct.pack("i", prog.fd))
        self.host.ip("link set hb up")
        self.host.wait_running(["hb"])

    def teach(self) -> None:
        """Let both guests say something, so that a learning switch knows where they are."""
        if self._tap is not None:
            for _ in range(N_TAUGHT):
                os.write(self._tap, bytes(VNET_HDR_LEN) + teaching(MAC_B, MAC_A))
        else:
            self._say(self.b, "b0", teaching(MAC_B, MAC_A))
        self._say(self.a, "a0", teaching(MAC_A, MAC_B))

    @staticmethod
    def _say(ns: Netns, dev: str, frame: bytes) -> None:
        with ns.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
            sock.bind((dev, TEACHING))
            for _ in range(N_TAUGHT):
                sock.send(frame)

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
        if self._tap is not None:
            os.close(self._tap)
            self._tap = None
        self.tools.close()
        close_all(self._namespaces)
