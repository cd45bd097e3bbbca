"""The programs of bpf/bench.c: compiled once, loaded for each topology with its own maps."""

from __future__ import annotations

import functools
import os
import struct

from pyoffload import compiler
from pyoffload.kernel.link import XDP_MODE_NATIVE, Link
from pyoffload.kernel.map import Map, MapType
from pyoffload.kernel.prog import (
    ATTACH_TYPE_TCX_INGRESS,
    ATTACH_TYPE_XDP,
    PROG_TYPE_SCHED_CLS,
    PROG_TYPE_XDP,
    TEST_RUN_XDP_LIVE_FRAMES,
    Prog,
)
from tests.support.netns import Netns

FRAME_LEN = 60
MAC_A = bytes.fromhex("0a0000000001")
MAC_B = bytes.fromhex("0a0000000002")
ADDRESS_B = bytes((10, 200, 0, 2))
PORT_B = 9
SETTINGS = struct.Struct("<40sIIII")

# Values that stand in the compiled instructions for what is known when they are loaded.
FD_PLACEHOLDERS = {"settings": 2001, "received": 2002, "devmap": 2003}
TARGET = 0x7EAD0001

PROG_TYPE_SOCKET_FILTER = 1
XDP_PROGRAMS = frozenset({"generate", "receive_xdp", "redirect_map", "empty_xdp"})


def template() -> bytes:
    """First 40 octets of the generator's frame: source address, source port and IP checksum are left zero."""
    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, FRAME_LEN - 14, 0, 0, 64, 17, 0, bytes(4), ADDRESS_B)
    udp = struct.pack(">HHH", 0, PORT_B, FRAME_LEN - 34)
    return MAC_B + MAC_A + b"\x08\x00" + ip + udp


def frame(flow: int = 0) -> bytes:
    """The whole frame of a flow, as the generator writes it."""
    number = (flow + 1) * 0x9E3779B1 & 0xFFFFFFFF
    head = bytearray(template() + bytes(FRAME_LEN - 40))
    struct.pack_into("<I", head, 26, (0x0A | number << 8) & 0xFFFFFFFF)
    struct.pack_into("<H", head, 34, number >> 16)
    total = sum(struct.unpack_from("<10H", head, 14))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    struct.pack_into("<H", head, 24, ~total & 0xFFFF)
    return bytes(head)


@functools.cache
def compiled() -> dict[str, bytes]:
    root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "bpf")
    defines = {f"FD_{name}": number for name, number in FD_PLACEHOLDERS.items()}
    return compiler.compile_all([compiler.source("bench", {**defines, "TARGET": TARGET}, root)])[0].programs


class Tools:
    """The maps of one topology and its programs, attached to interfaces; all of it lives as long as the object."""

    def __init__(self) -> None:
        self.maps = {
            "settings": Map.create(MapType.ARRAY, 4, SETTINGS.size, 1, name="settings"),
            "received": Map.create(MapType.PERCPU_ARRAY, 4, 8, 1, name="received"),
            "devmap": Map.create(MapType.DEVMAP, 4, 8, 1, name="devmap"),
        }
        self._kept: list[Link] = []
        self.generator = self.load("generate")

    def load(self, name: str, target: int = 0) -> Prog:
        kind = PROG_TYPE_XDP if name in XDP_PROGRAMS else PROG_TYPE_SCHED_CLS
        if name == "receive_tap":
            kind = PROG_TYPE_SOCKET_FILTER
        insns = bytearray(compiled()[name])
        fds = {number: self.maps[word].fd for word, number in FD_PLACEHOLDERS.items()}
        for at in range(4, len(insns), 8):
            (number,) = struct.unpack_from("<I", insns, at)
            if insns[at - 4] == 0x18 and insns[at - 3] >> 4 == 1:  # ld_imm64 of a map
                struct.pack_into("<I", insns, at, fds[number])
            elif number == TARGET:
                struct.pack_into("<I", insns, at, target)
        attach_type = ATTACH_TYPE_XDP if kind == PROG_TYPE_XDP else 0
        return Prog.load(kind, bytes(insns), name=f"bench_{name}"[:15], expected_attach_type=attach_type)

    def attach(self, ns: Netns, ifname: str, name: str, target: int = 0) -> None:
        """Load a program and put it on an interface: XDP ones natively, the others at TC ingress."""
        with self.load(name, target) as prog, ns.entered():
            if name in XDP_PROGRAMS:
                link = Link.create(prog.fd, ns.ifindex(ifname), ATTACH_TYPE_XDP, XDP_MODE_NATIVE)
            else:
                link = Link.create(prog.fd, ns.ifindex(ifname), ATTACH_TYPE_TCX_INGRESS)
        self._kept.append(link)

    def set_target(self, ns: Netns, ifname: str) -> None:
        """Where redirect_map goes."""
        with ns.entered():
            self.maps["devmap"].update(0, struct.pack("<II", ns.ifindex(ifname), 0))

    def choose(self, n_flows: int, *, sequential: bool = False) -> None:
        """Which flows the generator makes; ``n_flows`` is a power of two."""
        head = template()
        total = sum(struct.unpack_from("<10H", head, 14))
        self.maps["settings"].update(0, SETTINGS.pack(head, total, n_flows - 1, sequential, 0))

    def received(self) -> int:
        return self.maps["received"].lookup_percpu_sum(0, "Q")[0]

    def generate(self, ifindex: int, count: int, batch: int) -> int:
        """Transmit frames on the interface, in the caller's namespace and on its CPU; ns per frame by the kernel's clock."""
        ctx = struct.pack("<6I", 0, FRAME_LEN, 0, ifindex, 0, 0)
        run = self.generator.test_run(
            bytes(FRAME_LEN), repeat=count, ctx=ctx, flags=TEST_RUN_XDP_LIVE_FRAMES, batch_size=batch
        )
        return run.duration_ns

    def close(self) -> None:
        for link in self._kept:
            link.close()
        self._kept.clear()
        self.generator.close()
        for each in self.maps.values():
            each.close()
