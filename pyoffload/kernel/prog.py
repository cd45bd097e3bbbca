"""BPF programs: load with the verifier's words on failure, inspect, run on a test packet."""

from __future__ import annotations

import errno
import mmap
import os
import struct
from dataclasses import dataclass

from pyoffload.errors import HostError, VerifierError
from pyoffload.kernel import syscall
from pyoffload.kernel.descriptor import Descriptor
from pyoffload.kernel.syscall import address, bpf, error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

PROG_TYPE_SCHED_CLS = 3
PROG_TYPE_XDP = 6

ATTACH_TYPE_XDP = 37
ATTACH_TYPE_TCX_INGRESS = 46
ATTACH_TYPE_TCX_EGRESS = 47

F_XDP_HAS_FRAGS = 1 << 5
TEST_RUN_XDP_LIVE_FRAMES = 1 << 1

LOG_LEVEL_STATS = 4
LOG_SIZE = 1 << 28  # reserved, touched only as far as the verifier writes
LOG_FIRST_LINES = 40
LOG_LAST_LINES = 60
INSN_SIZE = 8

_INFO_SIZE = 224
_TEST_RUN = struct.Struct("<IIIIQQIIIIQQIII4x")


@dataclass(frozen=True, slots=True)
class ProgInfo:
    id: int
    type: int
    name: str
    tag: str
    jited_size: int  # bytes of machine code
    xlated_size: int  # bytes of BPF after the verifier's rewriting
    verified_insns: int  # instructions the verifier walked; 0 before Linux 5.16


@dataclass(frozen=True, slots=True)
class TestRun:
    retval: int
    data: bytes  # the packet afterwards
    ctx: bytes
    duration_ns: int  # mean of one run


class Prog(Descriptor):
    """A loaded program; owns its descriptor."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def load(
        cls,
        kind: int,
        insns: bytes,
        *,
        name: str,
        flags: int = 0,
        expected_attach_type: int = 0,
        with_log: bool = True,
    ) -> Self:
        """Verify and load. VerifierError carries the shortened log (for which the kernel verifies once more, and
        longer), unless ``with_log`` is false; NotPermitted without the capabilities.
        """
        fd, _ = _load(kind, insns, name, flags, expected_attach_type, None)
        if fd < 0:
            number = -fd
            if number == errno.EPERM:
                raise error(number, f"loading program '{name}'")
            if not with_log:
                raise _refused(name, number, "")
            with mmap.mmap(-1, LOG_SIZE) as buffer:
                again, log = _load(kind, insns, name, flags, expected_attach_type, buffer)
            if again >= 0:  # it was short of memory for a moment
                return cls(again)
            raise _refused(name, number, log)
        return cls(fd)

    @classmethod
    def open(cls, path: str) -> Self:
        return cls(syscall.obj_get(path))

    @classmethod
    def by_id(cls, prog_id: int) -> Self:
        fd = bpf(syscall.PROG_GET_FD_BY_ID, struct.pack("<III", prog_id, 0, 0))
        if fd < 0:
            raise error(-fd, f"opening program {prog_id}")
        return cls(fd)

    def pin(self, path: str) -> None:
        syscall.obj_pin(self.fd, path)

    def info(self) -> ProgInfo:
        raw = syscall.obj_info(self.fd, _INFO_SIZE)
        kind, prog_id, tag, jited, xlated = struct.unpack_from("<II8sII", raw)
        (verified,) = struct.unpack_from("<I", raw, 216)
        name = syscall.c_name(raw[64:80])
        return ProgInfo(prog_id, kind, name, tag.hex(), jited, xlated, verified)

    def test_run(
        self,
        data: bytes,
        *,
        repeat: int = 1,
        ctx: bytes = b"",
        ctx_out_size: int = 0,
        data_out_size: int | None = None,
        flags: int = 0,
        batch_size: int = 0,
    ) -> TestRun:
        """Run the program on ``data`` (BPF_PROG_TEST_RUN). Redirects are not carried out; tags that
        bpf_skb_vlan_push adds are not in the result. ``repeat`` > 1 sees its own changes of the packet.
        """
        live = bool(flags & TEST_RUN_XDP_LIVE_FRAMES)
        size = 0 if live else (len(data) + 512 if data_out_size is None else data_out_size)
        out = bytearray(size)
        ctx_out = bytearray(ctx_out_size)
        attr = bytearray(
            _TEST_RUN.pack(
                self.fd,
                0,
                len(data),
                size,
                address(data),
                address(out),
                repeat,
                0,
                len(ctx),
                ctx_out_size,
                address(ctx) if ctx else 0,
                address(ctx_out),
                flags,
                0,
                batch_size,
            )
        )
        result = bpf(syscall.PROG_TEST_RUN, attr)
        if result < 0:
            raise error(-result, "running the program on a test packet")
        answer = _TEST_RUN.unpack(attr)
        return TestRun(answer[1], bytes(out[: answer[3]]), bytes(ctx_out[: answer[9]]), answer[7])


def _load(
    kind: int, insns: bytes, name: str, flags: int, attach_type: int, buffer: mmap.mmap | None
) -> tuple[int, str]:
    import ctypes

    licence = b"GPL\0"
    log_address = ctypes.addressof(ctypes.c_char.from_buffer(buffer)) if buffer is not None else 0
    attr = struct.pack(
        "<IIQQIIQII16sII56x",
        kind,
        len(insns) // INSN_SIZE,
        address(insns),
        address(licence),
        1 | LOG_LEVEL_STATS if buffer is not None else 0,
        LOG_SIZE if buffer is not None else 0,
        log_address,
        0,
        flags,
        name.encode("ascii")[:15],
        0,
        attach_type,
    )
    fd = bpf(syscall.PROG_LOAD, attr)
    if buffer is None:
        return fd, ""
    end = buffer.find(b"\0")
    return fd, buffer[:end].decode("utf-8", "replace")


def _refused(name: str, number: int, log: str) -> Exception:
    lines = log.splitlines()
    if len(lines) > LOG_FIRST_LINES + LOG_LAST_LINES:
        dropped = len(lines) - LOG_FIRST_LINES - LOG_LAST_LINES
        lines = [*lines[:LOG_FIRST_LINES], f"… {dropped} lines …", *lines[-LOG_LAST_LINES:]]
    shown = "\n".join(lines)
    # The reason stands before the statistics, which end the log.
    reason = next(
        (
            line
            for line in reversed(lines)
            if line and not line.startswith(("processed ", "verification time", "stack depth"))
        ),
        os.strerror(number),
    )
    if "unknown func" in reason or "invalid func" in reason:
        return HostError(
            f"program '{name}': this kernel lacks a helper it needs: {reason}",
            hint="Linux 6.1 or newer",
            errno=number,
        )
    return VerifierError(
        f"program '{name}': the kernel's verifier refused it: {reason}", errno=number, log=shown
    )
