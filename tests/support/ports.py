"""Ends of a cable in the hands of a test: write a frame in, read out exactly what came.

`PacketPort` is an interface in a namespace, read by AF_PACKET; `TapPort` is a tap whose file descriptor the test
holds, as QEMU does. Both give frames as they are on the wire: a VLAN tag that the kernel moved out of the bytes is
put back. Neither sees its own transmissions.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import struct
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fcntl import ioctl
from typing import Any

from tests.support import frames
from tests.support.netns import LabError, Netns

ETH_P_ALL = 0x0003
SOL_PACKET = 263
PACKET_STATISTICS = 6
PACKET_AUXDATA = 8
PACKET_VNET_HDR = 15
PACKET_IGNORE_OUTGOING = 23
SO_RCVBUFFORCE = 33
TP_STATUS_CSUMNOTREADY = 0x08
TP_STATUS_VLAN_VALID = 0x10
TP_STATUS_VLAN_TPID_VALID = 0x40
AUXDATA = struct.Struct("IIIHHHH")  # struct tpacket_auxdata, linux/if_packet.h

TUNSETIFF = 0x400454CA
TUNSETOFFLOAD = 0x400454D0
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000
IFF_VNET_HDR = 0x4000
IFF_MULTI_QUEUE = 0x0100
# What a guest that negotiated all of virtio-net's receive offloads takes: CSUM, TSO4, TSO6, TSO_ECN, USO4, USO6.
GUEST_OFFLOADS = 0x01 | 0x02 | 0x04 | 0x08 | 0x20 | 0x40
GUEST_OFFLOADS_WITHOUT_USO = 0x0F

MAX_FRAME = 1 << 17
RECEIVE_BUFFER = 32 << 20


@dataclass(frozen=True, slots=True)
class VnetHdr:
    """struct virtio_net_hdr (linux/virtio_net.h), in the machine's byte order as taps have it."""

    flags: int = 0
    gso_type: int = 0
    hdr_len: int = 0
    gso_size: int = 0
    csum_start: int = 0
    csum_offset: int = 0

    NEEDS_CSUM = 1
    DATA_VALID = 2
    GSO_NONE = 0
    GSO_TCPV4 = 1
    GSO_UDP = 3
    GSO_TCPV6 = 4
    GSO_UDP_L4 = 5
    GSO_ECN = 0x80

    def pack(self) -> bytes:
        """The ten bytes in front of a frame."""
        return _VNET.pack(
            self.flags, self.gso_type, self.hdr_len, self.gso_size, self.csum_start, self.csum_offset
        )

    @classmethod
    def unpack(cls, data: bytes) -> VnetHdr:
        """From the first ten bytes of what a tap gave."""
        return cls(*_VNET.unpack_from(data))


_VNET = struct.Struct("=BBHHHH")


class Frame(bytes):
    """One frame as received, and what came beside the bytes.

    ``vnet``: its virtio header where the port has one. ``csum_partial``: the sender left the checksum to hardware,
    so the L4 checksum in the bytes is only the pseudo header's. ``tag_offloaded``: the outer tag was beside the bytes.
    """

    vnet: VnetHdr | None = None
    csum_partial: bool = False
    tag_offloaded: bool = False


class Port(ABC):
    """What `PacketPort` and `TapPort` have in common; ``ifname`` is the switch's end, in the host namespace."""

    def __init__(self, host: Netns, ifname: str, number: int) -> None:
        self.host = host
        self.ifname = ifname
        self.number = number
        self.mac = frames.mac(number)
        # Frames for which this is true are not shown; lab guests with addresses hide their kernels' own chatter.
        self.ignore: Callable[[Frame], bool] | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.ifname!r})"

    @abstractmethod
    def send(self, frame: Any, *, vnet: VnetHdr | None = None, queue: int = 0) -> None:
        """Put a frame (bytes or scapy packet) on the cable towards the switch."""

    @abstractmethod
    def listen(self) -> Port:
        """Begin to keep what comes from the switch; needed before the frames that shall be seen are sent."""

    @abstractmethod
    def _descriptors(self) -> Sequence[int]: ...

    @abstractmethod
    def _read(self, fd: int) -> Frame | None: ...

    def sniff(self, count: int | None = None, timeout_s: float | None = None) -> list[Frame]:
        """Frames that came. Returns as soon as there are ``count``, or when the time is over (it does not raise).

        Without ``count``: all that come until nothing has come for ``timeout_s`` (default 0.05 s; with ``count``
        the default is 2 s in all).
        """
        limit = timeout_s if timeout_s is not None else (2.0 if count is not None else 0.05)
        got: list[Frame] = []
        deadline = time.monotonic() + limit
        while count is None or len(got) < count:
            fresh = self.pending(None if count is None else count - len(got))
            got += fresh
            if fresh:
                if count is None:
                    deadline = time.monotonic() + limit
                continue
            left = deadline - time.monotonic()
            if left <= 0 or not self._wait(left):
                break
        return got

    def flush(self) -> int:
        """Forget what came so far; returns how many frames that were."""
        return len(self.pending())

    def expect(self, *wanted: Any, within_s: float = 2.0, quiet_s: float = 0.02) -> list[Frame]:
        """Assert that exactly these frames came, in this order, byte for byte, and no further one in ``quiet_s``."""
        got = self.sniff(len(wanted), within_s) if wanted else []
        got += self.sniff(None, quiet_s)
        frames.same_list(got, wanted, where=repr(self))
        return got

    def expect_nothing(self, for_s: float = 0.05) -> None:
        """Assert that no frame came so far nor within ``for_s`` seconds."""
        self.expect(quiet_s=for_s)

    def pending(self, most: int | None = None) -> list[Frame]:
        """What is there now (at most ``most`` frames), without waiting."""
        got: list[Frame] = []
        for fd in self._descriptors():
            while most is None or len(got) < most:
                frame = self._read(fd)
                if frame is None:
                    break
                if self.ignore is None or not self.ignore(frame):
                    got.append(frame)
        return got

    def _wait(self, seconds: float) -> bool:
        return readable(self._descriptors(), seconds)


class PacketPort(Port):
    """A port whose far end is interface ``dev`` in namespace ``ns``, read and written by AF_PACKET.

    ``vnet_hdr``: frames may be larger than the MTU (GSO) or without checksum, told by a `VnetHdr`, both ways.
    Linux refuses frames below 14 bytes (EINVAL) and above the MTU + 14 + 4 for one VLAN tag (EMSGSIZE).
    """

    def __init__(
        self, host: Netns, ifname: str, number: int, ns: Netns, dev: str, *, vnet_hdr: bool = False
    ) -> None:
        super().__init__(host, ifname, number)
        self.ns = ns
        self.dev = dev
        self.vnet_hdr = vnet_hdr
        self._out: socket.socket | None = None
        self._in: socket.socket | None = None

    def send(self, frame: Any, *, vnet: VnetHdr | None = None, queue: int = 0) -> None:
        if vnet is not None and not self.vnet_hdr:
            raise LabError(f"{self!r}: made without vnet_hdr")
        if self._out is None:
            self._out = packet_socket(self.ns, self.dev, listening=False, vnet_hdr=self.vnet_hdr)
        data = bytes(frame)
        if self.vnet_hdr:
            data = (vnet or VnetHdr()).pack() + data
        try:
            self._out.send(data)
        except OSError as err:
            raise OSError(err.errno, f"{self!r}: frame of {len(bytes(frame))} bytes: {err.strerror}") from err

    def listen(self) -> PacketPort:
        if self._in is None:
            self._in = packet_socket(self.ns, self.dev, listening=True, vnet_hdr=self.vnet_hdr)
        return self

    def deaf(self) -> None:
        """Stop listening: a listener on a port with bulk traffic costs time and memory."""
        if self._in is not None:
            self._in.close()
            self._in = None

    def lost(self) -> int:
        """Frames that came but found the listener's buffer full, since last asked."""
        assert self._in is not None
        return int(struct.unpack("II", self._in.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))[1])

    def _descriptors(self) -> Sequence[int]:
        if self._in is None:
            raise LabError(f"{self!r}: call listen() before the frames are sent")
        return (self._in.fileno(),)

    def _read(self, fd: int) -> Frame | None:
        assert self._in is not None
        try:
            data, extra, _, _ = self._in.recvmsg(MAX_FRAME, socket.CMSG_SPACE(AUXDATA.size))
        except OSError as err:
            if err.errno in (errno.EAGAIN, errno.ENETDOWN):  # ENETDOWN once, when the interface went down
                return None
            raise
        vnet = None
        if self.vnet_hdr:
            vnet, data = VnetHdr.unpack(data), data[_VNET.size :]
        status = tci = 0
        tpid = 0x8100
        for level, kind, value in extra:
            if (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
                status, _, _, _, _, tci, told = AUXDATA.unpack(value)
                tpid = told if status & TP_STATUS_VLAN_TPID_VALID else 0x8100
        tagged = bool(status & TP_STATUS_VLAN_VALID)
        if tagged:
            data = data[:12] + struct.pack("!HH", tpid, tci) + data[12:]
        frame = Frame(data)
        frame.vnet = vnet
        frame.csum_partial = bool(status & TP_STATUS_CSUMNOTREADY)
        frame.tag_offloaded = tagged
        return frame


class TapPort(Port):
    """A tap interface in the host namespace; the test is the virtual machine on it.

    ``vnet_hdr``: with virtio headers, and every receive offload accepted (the switch may hand over super-packets).
    ``queues`` > 1: a multiqueue tap with that many descriptors. The tap disappears with the last descriptor.
    """

    def __init__(
        self, host: Netns, ifname: str, number: int, *, vnet_hdr: bool = False, queues: int = 1
    ) -> None:
        super().__init__(host, ifname, number)
        self.vnet_hdr = vnet_hdr
        self.fds = open_tap(host, ifname, vnet_hdr=vnet_hdr, queues=queues)
        host.defer(self.close)

    def close(self) -> None:
        """Let go of the tap, which deletes the interface: the virtual machine is gone."""
        for fd in self.fds:
            os.close(fd)
        self.fds = []

    def send(self, frame: Any, *, vnet: VnetHdr | None = None, queue: int = 0) -> None:
        if vnet is not None and not self.vnet_hdr:
            raise LabError(f"{self!r}: made without vnet_hdr")
        head = (vnet or VnetHdr()).pack() if self.vnet_hdr else b""
        os.write(self.fds[queue], head + bytes(frame))

    def listen(self) -> TapPort:
        return self  # a tap keeps frames from the start

    def _descriptors(self) -> Sequence[int]:
        return self.fds

    def _read(self, fd: int) -> Frame | None:
        try:
            data = os.read(fd, MAX_FRAME)
        except BlockingIOError:
            return None
        vnet = None
        if self.vnet_hdr:
            vnet, data = VnetHdr.unpack(data), data[_VNET.size :]
        frame = Frame(data)
        frame.vnet = vnet
        frame.csum_partial = vnet is not None and bool(vnet.flags & VnetHdr.NEEDS_CSUM)
        return frame


def packet_socket(ns: Netns, dev: str, *, listening: bool, vnet_hdr: bool) -> socket.socket:
    """A non-blocking AF_PACKET socket on an interface: one that only sends, or one that hears all but itself."""
    sock = ns.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.setblocking(False)
    if vnet_hdr:
        sock.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    if listening:
        sock.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        sock.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
    # Made with protocol 0, so that nothing of any other interface slips in before the bind.
    with ns.entered():
        sock.bind((dev, ETH_P_ALL if listening else 0))
    return sock


def open_tap(ns: Netns, ifname: str, *, vnet_hdr: bool, queues: int = 1) -> list[int]:
    """Make a tap in ``ns``; returns one non-blocking descriptor per queue."""
    flags = IFF_TAP | IFF_NO_PI | (IFF_VNET_HDR if vnet_hdr else 0) | (IFF_MULTI_QUEUE if queues > 1 else 0)
    with contextlib.ExitStack() as undo:
        fds = []
        with ns.entered():
            for _ in range(queues):
                fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
                undo.callback(os.close, fd)
                ioctl(fd, TUNSETIFF, struct.pack("16sH22x", ifname.encode(), flags))
                if vnet_hdr:
                    try:
                        ioctl(fd, TUNSETOFFLOAD, GUEST_OFFLOADS)
                    except OSError:  # kernels before 6.2 have no USO
                        ioctl(fd, TUNSETOFFLOAD, GUEST_OFFLOADS_WITHOUT_USO)
                fds.append(fd)
        undo.pop_all()
    return fds


def exchange(
    sender: Port, sent: Iterable[Any], receivers: Sequence[Port], *, settle_s: float = 0.03
) -> dict[Port, list[Frame]]:
    """Send frames into one port and collect what comes out of others until all are silent for ``settle_s``.

    Delivery inside one kernel is over before ``send`` returns, save for what ksoftirqd takes over; so the frames are
    normally there at the first look and ``settle_s`` only has to catch stragglers.
    """
    for port in receivers:
        port.flush()
    for frame in sent:
        sender.send(frame)
    return collect(receivers, settle_s=settle_s)


def collect(receivers: Sequence[Port], *, settle_s: float = 0.03) -> dict[Port, list[Frame]]:
    """What is at these ports and what comes until all are silent for ``settle_s``."""
    got: dict[Port, list[Frame]] = {port: [] for port in receivers}
    descriptors = [fd for port in receivers for fd in port._descriptors()]
    while True:
        for port in receivers:
            got[port] += port.pending()
        if not readable(descriptors, settle_s):
            return got


def collect_until(
    receivers: Sequence[Port], sentinel: bytes, *, within_s: float = 1.0
) -> dict[Port, list[Frame]]:
    """What comes to each port before ``sentinel`` comes to it; needs no waiting time where the switch floods it.

    A port that the sentinel does not reach in time is an AssertionError.
    """
    got: dict[Port, list[Frame]] = {}
    deadline = time.monotonic() + within_s
    for port in receivers:
        got[port] = []
        while True:
            fresh = port.sniff(1, max(0.0, deadline - time.monotonic()))
            if not fresh:
                raise AssertionError(
                    f"{port!r}: the sentinel did not come; {len(got[port])} other frames did"
                )
            if fresh[0] == sentinel:
                break
            got[port] += fresh
    return got


def readable(descriptors: Sequence[int], seconds: float) -> bool:
    """Wait until one of them can be read; False when the time is over."""
    poll = select.poll()
    for fd in descriptors:
        poll.register(fd, select.POLLIN)
    # An error alone (interface down or gone) is nothing to read, and would be reported for ever.
    return any(events & select.POLLIN for _, events in poll.poll(seconds * 1000))
