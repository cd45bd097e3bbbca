"""Topologies in network namespaces: a host where the switch under test runs, guests, raw ports, an underlay.

    host namespace (Lab.host)                      guests, each a namespace of its own
    ┌───────────────────────────┐
    │ veth1 ────────────────────┼──── eth0  Guest 1   kernel stack, 10.0.0.1, fd00::1
    │ tap2  ═══ fd ═══ pump ════┼════ eth0  Guest 2   the same behind a tap: what a virtual machine is
    │ wire3 ────────────────────┼──── w3    wire      no stack, no addresses: the test writes and reads frames
    │ tap4  ═══ fd ═══ test     │           tap       the test is the virtual machine
    │ ul0 ──────────────────────┼──── ul0   a second host
    └───────────────────────────┘
Ports are numbered through the whole lab, so that MAC and IP addresses are never twice there.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support import frames, offload
from tests.support.barrier import Barrier, one_cpu
from tests.support.netns import Netns, close_all
from tests.support.ports import Frame, PacketPort, Port, TapPort, open_tap, packet_socket

PUMP = Path(__file__).with_name("pump.py")
VLAN_PUMP = Path(__file__).with_name("vlan_pump.py")

# Far ends of cables are numbered from here. If both ends of a veth happen to have the same index, each in its
# namespace, the kernel does not see that they are a pair and delays the carrier by up to a second (link_watch.c).
FAR_INDEX = 1000


class Guest(PacketPort):
    """A namespace with a kernel stack and one interface, eth0, whose other end is ``ifname`` in the host.

    As a port it can also send and (after `listen`) sniff raw frames at eth0; the kernel's own chatter is hidden.
    """

    def __init__(self, host: Netns, ifname: str, number: int, ns: Netns, kind: str) -> None:
        super().__init__(host, ifname, number, ns, "eth0")
        self.kind = kind
        self.mtu = 1500
        self.ip = frames.ip4(number)
        self.ip6 = frames.ip6(number)
        self.ignore = frames.is_kernel_chatter

    def add_vlan(self, vlan: int) -> tuple[str, str]:
        """Make eth0.VLAN with addresses of its own; returns them (IPv4, IPv6).

        Where the kernel has no VLAN devices (CONFIG_VLAN_8021Q) a process stands in for one.
        """
        dev, v4, v6 = f"eth0.{vlan}", frames.ip4(self.number, vlan), frames.ip6(self.number, vlan)
        made = self.ns.run(
            "ip", "link", "add", "link", "eth0", "name", dev, "type", "vlan", "id", str(vlan), check=False
        )
        if made.returncode != 0:
            self._pump_vlan(dev, vlan)
        self.ns.ip(
            f"addr add {v4}/24 brd + dev {dev}",
            f"addr add {v6}/64 dev {dev} nodad",
            f"link set {dev} up",
        )
        self.ns.wait_running([dev])
        return v4, v6

    def _pump_vlan(self, dev: str, vlan: int) -> None:
        trunk = packet_socket(self.ns, "eth0", listening=True, vnet_hdr=True)
        (tap,) = open_tap(self.ns, dev, vnet_hdr=True)
        try:
            fds = [trunk.fileno(), tap]
            command = [sys.executable, "-I", "-S", str(VLAN_PUMP), *map(str, fds), str(vlan)]
            self.ns.start(*command, pass_fds=fds, stdin=subprocess.DEVNULL)
        finally:
            os.close(tap)
            trunk.close()
        mtu = self.ns.ip_json("link", "show", "eth0")[0]["mtu"]
        self.ns.ip(f"link set {dev} mtu {mtu} address {self.mac}")

    def replug(self) -> None:
        """A new cable in place of one that was deleted, with the same name, addresses and settings."""
        self.ns.ip(Lab._cable("eth0", self, self.mtu))
        self.host.sysctl(f"net/ipv6/conf/{self.ifname}/disable_ipv6", 1)
        self.host.ip(f"link set {self.ifname} up")
        self.ns.ip(
            f"addr add {self.ip}/24 brd + dev eth0",
            f"addr add {self.ip6}/64 dev eth0 nodad",
            "link set eth0 up",
        )
        self.host.wait_running([self.ifname])
        self.ns.wait_running(["eth0"])

    def offload(self, **features: bool) -> None:
        """Switch offloads of eth0, e.g. ``offload(tx=False, tso=False)`` as `offload.set_features` has them."""
        offload.set_features(self.ns, "eth0", **features)


@dataclass(frozen=True, slots=True)
class Underlay:
    """The cable between two hosts: interface name and addresses, first host first."""

    dev: str
    ip: tuple[str, str]
    ip6: tuple[str, str]


class Lab:
    """A context manager that builds on demand and removes everything, in reverse, at its end."""

    def __init__(self, *, mtu: int = 1500) -> None:
        self.mtu = mtu
        self._all: list[Netns] = []
        self._next = 1
        self._wire_ns: Netns | None = None
        self._barrier: Barrier | None = None
        self.host = self.add_host("hst")
        self.ports: list[Port] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove all namespaces of the lab. What was deferred on the first host is undone first."""
        namespaces, self._all = self._all, []
        close_all(namespaces)

    def add_host(self, role: str = "hs2") -> Netns:
        """A further host namespace, for tests with two switches."""
        return self._namespace(role)

    def exchange(
        self, sender: Port, sent: Iterable[Any], receivers: Sequence[Port]
    ) -> dict[Port, list[Frame]]:
        """Send frames into one port and return what came out of others, once the kernel is done with them.

        It takes no waiting time, also where nothing comes out (see barrier.py), so it is the way to make many
        comparisons. What came to the receivers before is forgotten.
        """
        if self._barrier is None:
            self._barrier = Barrier(self._namespace("bar", ipv6=False))
        for port in receivers:
            port.flush()
        with one_cpu():
            for frame in sent:
                sender.send(frame)
            self._barrier.wait()
        return {port: port.pending() for port in receivers}

    # Ports --------------------------------------------------------------------------------------------------------

    def guests(self, count: int, *, host: Netns | None = None, mtu: int | None = None) -> list[Guest]:
        """Guests on veth: ``vethN`` in the host, ``eth0`` with IPv4 and IPv6 in a namespace of each."""
        host, mtu = host or self.host, mtu or self.mtu
        made = [
            Guest(host, f"veth{number}", number, self._namespace(f"g{number}"), "veth")
            for number in self._numbers(count)
        ]
        for guest in made:
            guest.mtu = mtu
            guest.ns.ip(self._cable("eth0", guest, mtu))
        self._bring_up(host, made)
        return made

    def tap_guests(
        self,
        count: int,
        *,
        host: Netns | None = None,
        mtu: int | None = None,
        vnet_hdr: bool = True,
        queues: int = 1,
    ) -> list[Guest]:
        """Guests behind taps ``tapN``, as virtual machines are: a process carries frames between the tap's
        descriptors and those of the guest's eth0, virtio headers and so super-packets and missing checksums included.
        """
        host, mtu = host or self.host, mtu or self.mtu
        made = []
        for number in self._numbers(count):
            guest = Guest(host, f"tap{number}", number, self._namespace(f"t{number}"), "tap")
            fds = open_tap(host, guest.ifname, vnet_hdr=vnet_hdr, queues=queues)
            try:
                fds += open_tap(guest.ns, "eth0", vnet_hdr=vnet_hdr, queues=queues)
                command = [sys.executable, "-I", "-S", str(PUMP), *map(str, fds)]
                # Started inside the guest, so that it goes when the guest goes, as QEMU would.
                guest.ns.start(*command, pass_fds=fds, stdin=subprocess.DEVNULL)
            finally:
                for fd in fds:
                    os.close(fd)
            made.append(guest)
        self._address_taps(host, made, mtu)
        for guest in made:
            guest.ns.ip(f"link set eth0 mtu {mtu} address {guest.mac}")
        self._bring_up(host, made)
        return made

    def wires(
        self, count: int, *, host: Netns | None = None, mtu: int | None = None, vnet_hdr: bool = False
    ) -> list[PacketPort]:
        """Veth ports ``wireN`` with nobody at the far end but the test; already listening, and silent otherwise."""
        host, mtu = host or self.host, mtu or self.mtu
        if self._wire_ns is None:
            self._wire_ns = self._namespace("wir", ipv6=False)
        made = [
            PacketPort(host, f"wire{number}", number, self._wire_ns, f"w{number}", vnet_hdr=vnet_hdr)
            for number in self._numbers(count)
        ]
        self._wire_ns.ip(*(self._cable(port.dev, port, mtu) for port in made))
        self._silence(host, made)
        self._wire_ns.ip(*(f"link set {port.dev} up" for port in made))
        host.ip(*(f"link set {port.ifname} up" for port in made))
        host.wait_running([port.ifname for port in made])
        self._wire_ns.wait_running([port.dev for port in made])
        self.ports += [port.listen() for port in made]
        return made

    def taps(
        self,
        count: int,
        *,
        host: Netns | None = None,
        mtu: int | None = None,
        vnet_hdr: bool = False,
        queues: int = 1,
    ) -> list[TapPort]:
        """Taps ``tapN`` in the host whose descriptors the test holds."""
        host, mtu = host or self.host, mtu or self.mtu
        made = [
            TapPort(host, f"tap{number}", number, vnet_hdr=vnet_hdr, queues=queues)
            for number in self._numbers(count)
        ]
        self._address_taps(host, made, mtu)
        host.ip(*(f"link set {port.ifname} up" for port in made))
        host.wait_running([port.ifname for port in made])
        self.ports += made
        return made

    def underlay(self, first: Netns, second: Netns, *, mtu: int = 1600, dev: str = "ul0") -> Underlay:
        """A cable between two hosts: ``ul0`` on both, 192.168.77.1 and .2, fd77::1 and ::2."""
        cable = Underlay(dev, ("192.168.77.1", "192.168.77.2"), ("fd77::1", "fd77::2"))
        second.ip(
            f"link add name {dev} index {FAR_INDEX} mtu {mtu} address 0a:00:00:00:00:02 type veth"
            f" peer name {dev} mtu {mtu} address 0a:00:00:00:00:01 netns {first.name}"
        )
        for host, v4, v6 in zip((first, second), cable.ip, cable.ip6, strict=True):
            host.ip(
                f"addr add {v4}/24 brd + dev {dev}",
                f"addr add {v6}/64 dev {dev} nodad",
                f"link set {dev} up",
            )
        for host in (first, second):
            host.wait_running([dev])
        return cable

    # Inside ---------------------------------------------------------------------------------------------------------

    def _namespace(self, role: str, *, ipv6: bool = True) -> Netns:
        made = Netns(role, ipv6=ipv6)
        self._all.insert(0, made)
        return made

    def _numbers(self, count: int) -> range:
        numbers = range(self._next, self._next + count)
        self._next += count
        return numbers

    @staticmethod
    def _cable(dev: str, port: Port, mtu: int) -> str:
        """The ip(8) command, for the far namespace, that makes a veth pair with ``dev`` there."""
        return (
            f"link add name {dev} index {FAR_INDEX + port.number} mtu {mtu} address {port.mac} type veth"
            f" peer name {port.ifname} mtu {mtu} address {frames.host_mac(port.number)} netns {port.host.name}"
        )

    @staticmethod
    def _silence(host: Netns, ports: list[Guest] | list[TapPort] | list[PacketPort]) -> None:
        # A switch port has no address; without this the host's own IPv6 would speak out of it.
        for port in ports:
            host.sysctl(f"net/ipv6/conf/{port.ifname}/disable_ipv6", 1)

    def _address_taps(self, host: Netns, ports: list[Guest] | list[TapPort], mtu: int) -> None:
        host.ip(
            *(f"link set {port.ifname} mtu {mtu} address {frames.host_mac(port.number)}" for port in ports)
        )
        self._silence(host, list(ports))  # type: ignore[arg-type]

    def _bring_up(self, host: Netns, guests: list[Guest]) -> None:
        self._silence(host, guests)
        host.ip(*(f"link set {guest.ifname} up" for guest in guests))
        for guest in guests:
            guest.ns.ip(
                f"addr add {guest.ip}/24 brd + dev eth0",
                f"addr add {guest.ip6}/64 dev eth0 nodad",
                "link set eth0 up",
            )
        host.wait_running([guest.ifname for guest in guests])
        for guest in guests:
            guest.ns.wait_running(["eth0"])
        self.ports += guests


def linux_bridge(host: Netns, ports: list[Port], name: str = "lbr0", *, mtu: int | None = None) -> str:
    """Join ports by the kernel's own bridge: the yardstick, and the switch in the lab's own tests.

    Multicast snooping and its querier are off, so that the bridge floods multicast and says nothing itself, and so is
    netfilter on bridges, which drops what is no good IP.
    """
    lines = [f"link add {name} type bridge mcast_snooping 0 forward_delay 0"]
    if mtu:
        lines.append(f"link set {name} mtu {mtu}")
    host.ip(*lines)
    host.sysctl(f"net/ipv6/conf/{name}/disable_ipv6", 1)
    for family in ("ip", "ip6", "arp"):
        host.sysctl(f"net/bridge/bridge-nf-call-{family}tables", 0)
    host.ip(*(f"link set {port.ifname} master {name}" for port in ports), f"link set {name} up")
    return name
