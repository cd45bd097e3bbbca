"""Real traffic between namespaces: TCP with a content hash, UDP echo, ping, broadcast, multicast, iperf3.

Peers run as threads of the test on sockets made inside the namespaces; only what is measured (iperf3, request and
response) runs as processes of its own. Every function raises AssertionError when traffic is lost or changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import re
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

from tests.support import frames
from tests.support.eventually import eventually
from tests.support.netns import LabError, Netns, tool

BLOCK = 1 << 18
MAX_UDP = 65507  # 65535 less the IPv4 and UDP headers
UDP_SIZES = (0, 1, 18, 1472, 1473, 8972, 8973, 32000, MAX_UDP)


@dataclass(frozen=True, slots=True)
class TcpResult:
    """What a TCP transfer did: payload bytes, seconds from connect to the receiver's last byte, SHA-256."""

    n_bytes: int
    seconds: float
    sha256: str

    @property
    def gbit_s(self) -> float:
        """Payload rate in Gbit/s."""
        return self.n_bytes * 8 / self.seconds / 1e9


@dataclass(frozen=True, slots=True)
class PingResult:
    """What ping counted; ``rtt_ms`` of each answer in order."""

    sent: int
    received: int
    rtt_ms: tuple[float, ...]
    output: str

    @property
    def lost(self) -> int:
        """Requests without an answer."""
        return self.sent - self.received


# TCP -----------------------------------------------------------------------------------------------------------


def tcp_transfer(
    client: Netns,
    server: Netns,
    dst: str,
    *,
    megabytes: float = 16,
    dport: int = 0,
    seed: int = 1,
    timeout_s: float = 60.0,
) -> TcpResult:
    """Send pseudo-random bytes from ``client`` to ``dst`` (an address of ``server``), and compare the hashes.

    ``dport`` 0: any free port. Raises AssertionError on a time-out, a broken connection or different content.
    """
    n_bytes = int(megabytes * (1 << 20))
    started = time.monotonic()
    with tcp_listener(server, dst, dport, timeout_s) as listener:
        received = _Thread(lambda: _receive_all(listener, timeout_s))
        try:
            sent = _send_blocks(client, listener.getsockname(), n_bytes, seed, timeout_s)
        except OSError as err:
            raise AssertionError(f"TCP {client.name} to {dst}: {err}") from err
        count, digest = received.result(timeout_s, f"TCP {client.name} to {dst}")
    seconds = time.monotonic() - started
    if count != n_bytes:
        raise AssertionError(f"TCP {client.name} to {dst}: {count} of {n_bytes} bytes arrived")
    if digest != sent:
        raise AssertionError(f"TCP {client.name} to {dst}: the content changed on the way ({n_bytes} bytes)")
    return TcpResult(n_bytes, seconds, digest)


@contextlib.contextmanager
def tcp_listener(
    server: Netns, address: str, port: int = 0, timeout_s: float = 10.0
) -> Iterator[socket.socket]:
    """A listening socket inside; ``getsockname()`` tells the port."""
    sock = server.socket(_family(address), socket.SOCK_STREAM)
    with sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        sock.listen(64)
        sock.settimeout(timeout_s)
        yield sock


def tcp_connects(client: Netns, dst: str, dport: int, *, within_s: float = 1.0, sport: int = 0) -> bool:
    """Whether a connection to a listener is accepted in time; refused counts as no."""
    with client.socket(_family(dst), socket.SOCK_STREAM) as sock:
        if sport:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("", sport))
        sock.settimeout(within_s)
        try:
            sock.connect((dst, dport))
        except OSError:
            return False
        return True


class TcpStream:
    """A long-lived TCP connection that is kept busy: ``with TcpStream(a, b, dst) as s: …; s.exchange()``.

    Shows whether a session survives a change; `exchange` sends a block and waits for its echo.
    """

    def __init__(
        self, client: Netns, server: Netns, dst: str, *, dport: int = 0, timeout_s: float = 10.0
    ) -> None:
        self._timeout_s = timeout_s
        self._undo = contextlib.ExitStack()
        try:
            listener = self._undo.enter_context(tcp_listener(server, dst, dport, timeout_s))
            self.near = self._undo.enter_context(client.socket(_family(dst), socket.SOCK_STREAM))
            self.near.settimeout(timeout_s)
            self.near.connect(listener.getsockname())
            self.far = self._undo.enter_context(listener.accept()[0])
            self.far.settimeout(timeout_s)
        except BaseException:
            self._undo.close()
            raise
        self.exchanged = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._undo.close()

    def exchange(self, size: int = 1000, within_s: float | None = None) -> None:
        """Send ``size`` (at most 60,000) bytes there and back; AssertionError when that does not work in time."""
        data = random.Random(self.exchanged).randbytes(size)
        for sock in (self.near, self.far):
            sock.settimeout(within_s or self._timeout_s)
        try:
            for sender, receiver in ((self.near, self.far), (self.far, self.near)):
                sender.sendall(data)
                got = b""
                while len(got) < size:
                    piece = receiver.recv(size - len(got))
                    if not piece:
                        raise AssertionError("the connection was closed")
                    got += piece
                assert got == data, "the content changed on the way"
        except OSError as err:
            raise AssertionError(f"the connection is dead after {self.exchanged} exchanges: {err}") from err
        self.exchanged += 1


def _receive_all(listener: socket.socket, timeout_s: float) -> tuple[int, str]:
    digest, count = hashlib.sha256(), 0
    buffer = bytearray(BLOCK)
    view = memoryview(buffer)
    connection, _ = listener.accept()
    with connection:
        connection.settimeout(timeout_s)
        while size := connection.recv_into(buffer):
            digest.update(view[:size])
            count += size
    return count, digest.hexdigest()


def _send_blocks(client: Netns, target: Any, n_bytes: int, seed: int, timeout_s: float) -> str:
    digest = hashlib.sha256()
    block = bytearray(random.Random(seed).randbytes(BLOCK))
    with client.socket(_family(target[0]), socket.SOCK_STREAM) as sock:
        sock.settimeout(timeout_s)
        sock.connect(target)
        for number, start in enumerate(range(0, n_bytes, BLOCK)):
            # Numbered, so that blocks that change places change the hash.
            struct.pack_into("!Q", block, 0, number)
            piece = memoryview(block)[: min(BLOCK, n_bytes - start)]
            digest.update(piece)
            sock.sendall(piece)
        sock.shutdown(socket.SHUT_WR)
        # The peer closes when it has read all; leaving earlier could turn lost segments into a reset.
        sock.recv(1)
    return digest.hexdigest()


# UDP -----------------------------------------------------------------------------------------------------------


def udp_echo(
    client: Netns,
    server: Netns,
    dst: str,
    *,
    sizes: Sequence[int] = UDP_SIZES,
    dport: int = 0,
    timeout_s: float = 5.0,
) -> None:
    """Send one datagram of each size there and back, and compare the content."""
    family = _family(dst)
    with server.socket(family, socket.SOCK_DGRAM) as far, client.socket(family, socket.SOCK_DGRAM) as near:
        far.bind((dst, dport))
        for sock in (far, near):
            sock.settimeout(timeout_s)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        for size in sizes:
            data = random.Random(size).randbytes(size)
            way = f"UDP {size} bytes {client.name} to {dst}"
            try:
                near.sendto(data, far.getsockname())
                there, source = far.recvfrom(MAX_UDP + 100)
                far.sendto(there, source)
                back = near.recv(MAX_UDP + 100)
            except OSError as err:
                raise AssertionError(f"{way}: {err}") from err
            if there != data or back != data:
                raise AssertionError(f"{way}: the content changed on the way")


def udp_one_way(
    client: Netns,
    receivers: Sequence[Netns],
    dst: str,
    *,
    dport: int = 0,
    data: bytes = b"hello",
    within_s: float = 2.0,
) -> None:
    """Send one datagram to a broadcast or multicast (or single) address and assert that all receivers get it once.

    Receivers and sender join the group on eth0.
    """
    family = _family(dst)
    with contextlib.ExitStack() as undo:
        socks = []
        port = dport
        for ns in receivers:
            sock = undo.enter_context(ns.socket(family, socket.SOCK_DGRAM))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("", port))
            port = sock.getsockname()[1]
            _join(sock, ns, dst)
            sock.setblocking(False)
            socks.append(sock)
        out = undo.enter_context(client.socket(family, socket.SOCK_DGRAM))
        out.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        index = client.ifindex("eth0")
        if family == socket.AF_INET6:
            out.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
            out.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
            out.sendto(data, (dst, port, 0, index if dst.lower().startswith("ff") else 0))
        else:
            out.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, struct.pack("=4s4si", b"", b"", index))
            out.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
            out.sendto(data, (dst, port))
        for ns, sock in zip(receivers, socks, strict=True):
            got = _datagrams(sock, within_s)
            assert got == [data], f"UDP {client.name} to {dst}: {ns.name} got {got!r} instead of one {data!r}"


def broadcast(client: Netns, receivers: Sequence[Netns]) -> None:
    """255.255.255.255 by eth0 reaches every receiver exactly once."""
    # Without a default route the limited broadcast address needs one of its own.
    client.run("ip", "route", "replace", "255.255.255.255/32", "dev", "eth0")
    udp_one_way(client, receivers, "255.255.255.255")


def multicast(client: Netns, receivers: Sequence[Netns], *, v6: bool = False) -> None:
    """A group's datagram reaches every receiver that joined it exactly once."""
    udp_one_way(client, receivers, frames.MULTICAST_IP6 if v6 else frames.MULTICAST_IP4)


def _join(sock: socket.socket, ns: Netns, group: str) -> None:
    index = ns.ifindex("eth0")
    if ":" in group and group.lower().startswith("ff"):
        membership = socket.inet_pton(socket.AF_INET6, group) + struct.pack("=I", index)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, membership)
    elif ":" not in group and 224 <= int(group.partition(".")[0]) < 240:
        membership = struct.pack("=4s4si", socket.inet_aton(group), b"", index)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)


def _datagrams(sock: socket.socket, first_within_s: float, quiet_s: float = 0.02) -> list[bytes]:
    got: list[bytes] = []
    while select.select([sock], [], [], quiet_s if got else first_within_s)[0]:
        got.append(sock.recv(MAX_UDP + 100))
    return got


# Tools ---------------------------------------------------------------------------------------------------------


def ping(
    ns: Netns,
    dst: str,
    *,
    count: int = 3,
    size: int = 56,
    interval_s: float = 0.005,
    wait_s: float = 1.0,
    fragment: bool = True,
    ifname: str | None = None,
) -> PingResult:
    """iputils' ping: ``size`` bytes of payload, ``wait_s`` for the last answer, ``fragment=False`` sets DF."""
    argv = [tool("ping", "iputils-ping"), "-n", "-c", str(count), "-i", str(interval_s), "-W", str(wait_s)]
    argv += ["-s", str(size), "-M", "want" if fragment else "do"]
    if ifname:
        argv += ["-I", ifname]
    done = ns.run(*argv, dst, check=False)
    totals = re.search(r"(\d+) packets transmitted, (\d+) received", done.stdout)
    if totals is None:
        raise LabError(f"{ns.name}: ping {dst}: {done.stderr.strip() or done.stdout.strip()}")
    rtts = tuple(float(ms) for ms in re.findall(r"time=([\d.]+) ms", done.stdout))
    return PingResult(int(totals[1]), int(totals[2]), rtts, done.stdout)


def pings(ns: Netns, dst: str, **how: Any) -> PingResult:
    """`ping` that must not lose a packet."""
    result = ping(ns, dst, **how)
    assert result.lost == 0, f"{ns.name}: ping {dst}: {result.lost} of {result.sent} lost\n{result.output}"
    return result


def no_ping(ns: Netns, dst: str, *, count: int = 2, wait_s: float = 0.2, **how: Any) -> PingResult:
    """`ping` that must lose every packet."""
    result = ping(ns, dst, count=count, wait_s=wait_s, **how)
    assert result.received == 0, f"{ns.name}: ping {dst}: {result.received} of {result.sent} answered"
    return result


def iperf3(
    client: Netns, server: Netns, dst: str, *, seconds: int = 1, port: int = 5201, options: Sequence[str] = ()
) -> dict[str, Any]:
    """iperf3's JSON report of one run of whole seconds; ``options`` go to the client, e.g. ``("-u", "-b", "100M")``.

    With ``-n BYTES`` among them the run ends after so many bytes instead.
    """
    program = tool("iperf3", "iperf3")
    daemon = server.start(
        program,
        "-s",
        "-1",
        "-p",
        str(port),
        "--forceflush",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        eventually(lambda: _listens(server, port), every_s=0.005, why=f"iperf3 listens in {server.name}")
        length = [] if "-n" in options else ["-t", str(seconds)]
        argv = [program, "-c", dst, "-p", str(port), "-J", *length, *options]
        done = client.run(*argv, check=False, timeout_s=seconds + 30)
    finally:
        daemon.kill()
        daemon.wait()
    if not done.stdout.startswith("{"):
        raise LabError(f"iperf3: {done.stderr.strip() or done.stdout.strip()}")
    report: dict[str, Any] = json.loads(done.stdout)
    if done.returncode != 0 or "error" in report:
        raise AssertionError(f"iperf3 {client.name} to {dst}: {report.get('error', done.stderr.strip())}")
    return report


def tcp_rr(client: Netns, server: Netns, dst: str, *, seconds: float = 0.5, size: int = 1) -> float:
    """TCP request/response transactions a second, one at a time, both peers processes of their own."""
    with tcp_listener(server, dst) as listener, client.socket(_family(dst), socket.SOCK_STREAM) as near:
        near.settimeout(10)
        near.connect(listener.getsockname())
        far, _ = listener.accept()
        with far:
            fds = (near.fileno(), far.fileno())
            for fd in fds:
                os.set_blocking(fd, True)
            argv = [sys.executable, "-I", "-S", "-c"]
            echo = server.start(*argv, _RR_SERVER, str(fds[1]), str(size), pass_fds=[fds[1]])
            far.close()
            done = client.start(
                *argv,
                _RR_CLIENT,
                str(fds[0]),
                str(size),
                str(seconds),
                pass_fds=[fds[0]],
                stdout=subprocess.PIPE,
            )
            out, _ = done.communicate(timeout=seconds + 10)
            near.shutdown(socket.SHUT_RDWR)
            echo.wait(timeout=10)
    assert done.returncode == 0, f"TCP request/response {client.name} to {dst} broke off"
    return float(out)


_RR_SERVER = """
import socket, sys
sock = socket.socket(fileno=int(sys.argv[1])); size = int(sys.argv[2])
sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
while data := sock.recv(size, socket.MSG_WAITALL):
    sock.sendall(data)
"""
_RR_CLIENT = """
import socket, sys, time
sock = socket.socket(fileno=int(sys.argv[1])); size = int(sys.argv[2]); data = bytes(size)
sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
begin = now = time.monotonic(); end = begin + float(sys.argv[3]); count = 0
while now < end:
    for _ in range(16):
        sock.sendall(data)
        if len(sock.recv(size, socket.MSG_WAITALL)) != size: sys.exit(1)
        count += 1
    now = time.monotonic()
print(count / (now - begin))
"""


def _listens(ns: Netns, port: int) -> bool:
    # The namespace's own table, by the link of this thread: /proc/net is that of the main thread.
    with ns.entered():
        wanted = f":{port:04X}"
        for table in ("tcp", "tcp6"):
            with open(f"/proc/thread-self/net/{table}", encoding="ascii") as lines:
                for line in lines:
                    words = line.split()
                    if words[1].endswith(wanted) and words[3] == "0A":
                        return True
    return False


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


class _Thread:
    """A call in a thread whose result or exception comes back."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call
        self._value: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._value = self._call()
        except BaseException as err:
            self._error = err

    def result(self, within_s: float, what: str) -> Any:
        self._thread.join(within_s)
        if self._thread.is_alive():
            raise AssertionError(f"{what}: not finished within {within_s:g} s")
        match self._error:
            case None:
                return self._value
            case OSError() as err:
                raise AssertionError(f"{what}: {err}") from err
            case err:
                raise err
