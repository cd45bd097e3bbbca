"""Load the compiled programs into the kernel and pin them: one directory per set, swapped whole by an upgrade.

    progs/<generation>/<program>        entry and tail-called programs
    progs/<generation>/tail_programs    this set's own array of tail-called programs

A set is pinned under progs/new and renamed when it is complete, so the highest generation is always whole. The array
must stay pinned: the kernel empties a program array when the last descriptor and pin of it are gone.
"""

from __future__ import annotations

import contextlib
import os
import struct
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from pyoffload import _abi as abi, maps
from pyoffload.checkpoints import checkpoint
from pyoffload.errors import AbiMismatch, CompileError, DatapathDown, VerifierError
from pyoffload.instance import Instance, remove_tree
from pyoffload.kernel.map import Map
from pyoffload.kernel.prog import (
    ATTACH_TYPE_XDP,
    F_XDP_HAS_FRAGS,
    PROG_TYPE_SCHED_CLS,
    PROG_TYPE_XDP,
    Prog,
)

if TYPE_CHECKING:  # importing it takes 10 ms, which the reading verbs that ask loader.py for names have not
    from pyoffload.compiler import Source

NAME_PREFIX = "pyo_"
NAME_LENGTH = 15  # BPF_OBJ_NAME_LEN without the zero
PIN_MODE = 0o600  # a readable program pin can be run by anybody (PROG_TEST_RUN)
LD_IMM64 = 0x18
PSEUDO_MAP_FD = 1


@dataclass(frozen=True, slots=True)
class ObjectSpec:
    """A source bpf/<source>.c; ``entry`` is the program that is attached, the others are tail-called."""

    source: str
    entry: str
    prog_type: int
    attach_type: int  # expected_attach_type; 0 so that one TC program serves both TCX and clsact
    flags: int


OBJECTS: tuple[ObjectSpec, ...] = (
    ObjectSpec("datapath_tc", "tc_ingress", PROG_TYPE_SCHED_CLS, 0, 0),
    ObjectSpec("datapath_xdp", "xdp_ingress", PROG_TYPE_XDP, ATTACH_TYPE_XDP, F_XDP_HAS_FRAGS),
)
TC_ENTRY = OBJECTS[0].entry
XDP_ENTRY = OBJECTS[1].entry


@dataclass(frozen=True, slots=True)
class LoadedPrograms:
    """A pinned set of programs."""

    generation: int
    directory: str

    def open(self, program: str) -> Prog:
        """A program by its name in C, such as "tc_ingress"."""
        return Prog.open(f"{self.directory}/{program}")

    def names(self) -> list[str]:
        return sorted(set(os.listdir(self.directory)) - {"tail_programs"})


def load(instance: Instance, defines: Mapping[str, str | int] | None = None) -> LoadedPrograms:
    """Compile, verify and pin a new set beside the one that runs; attach.swap puts it in force.

    The maps must be there (maps.create_all). Raises CompileError, VerifierError, HostError, NotPermitted; nothing
    has changed then.
    """
    from pyoffload import compiler

    sources = datapath_sources(defines)
    compiled = compiler.compile_all(sources)
    checkpoint("load.compiled")
    opened = maps.open_all(instance, writable=True)
    with contextlib.ExitStack() as stack:
        tails = stack.enter_context(maps.create(maps.spec_of("tail_programs")))
        fds = {**{name: bpf_map.fd for name, bpf_map in opened.items()}, "tail_programs": tails.fd}
        programs: dict[str, Prog] = {}
        for spec, result in zip(OBJECTS, compiled, strict=True):
            for name, insns in result.programs.items():
                prog = load_program(spec, name, with_fds(insns, fds))
                programs[name] = stack.enter_context(prog)
        fill_tails(tails, programs)
        return _pin(instance, programs, tails)


def datapath_sources(defines: Mapping[str, str | int] | None = None) -> list[Source]:
    """The sources of OBJECTS as they are compiled for the running kernel."""
    from pyoffload import btf, compiler

    flags = {**btf.kernel_defines(compiler.cache_dir()), **_quirks(os.uname().release), **(defines or {})}
    return [compiler.source(spec.source, flags) for spec in OBJECTS]


def _quirks(release: str) -> dict[str, int]:
    """Defines for what no probe can tell: bpf_redirect_peer scrubs the packet, its type included, since 6.16."""
    major, _, rest = release.partition(".")
    minor = rest.partition(".")[0]
    if major.isdecimal() and minor.isdecimal() and (int(major), int(minor)) >= (6, 16):
        return {}
    return {"PEER_KEEPS_TYPE": 1}


def _pin(instance: Instance, programs: Mapping[str, Prog], tails: Map) -> LoadedPrograms:
    staging = f"{instance.progs_dir}/new"
    remove_tree(staging)
    os.makedirs(staging, mode=0o750)
    tails.pin(f"{staging}/tail_programs")
    for name, prog in programs.items():
        prog.pin(f"{staging}/{name}")
        os.chmod(f"{staging}/{name}", PIN_MODE)
    checkpoint("load.pinned")
    generation = max(_generations(instance), default=0) + 1
    directory = f"{instance.progs_dir}/{generation}"
    os.rename(staging, directory)
    checkpoint("load.renamed")
    return LoadedPrograms(generation, directory)


def open_current(instance: Instance) -> LoadedPrograms:
    """The newest complete set. DatapathDown if there is none."""
    generation = max(_generations(instance), default=0)
    if not generation:
        raise DatapathDown(
            f"the datapath of '{instance.name}' is not up",
            hint="pyoffload up (or add a bridge, which does it)",
        )
    return LoadedPrograms(generation, f"{instance.progs_dir}/{generation}")


def is_loaded(instance: Instance) -> bool:
    return bool(_generations(instance))


def remove_old(instance: Instance) -> int:
    """Unpin all sets but the newest, once nothing is attached to them; returns how many went."""
    generations = sorted(_generations(instance))
    for generation in generations[:-1]:
        remove_tree(f"{instance.progs_dir}/{generation}")
    remove_tree(f"{instance.progs_dir}/new")
    return max(0, len(generations) - 1)


def _generations(instance: Instance) -> list[int]:
    try:
        return [int(name) for name in os.listdir(instance.progs_dir) if name.isdecimal()]
    except FileNotFoundError:
        return []


def load_program(spec: ObjectSpec, name: str, insns: bytes, *, with_log: bool = True) -> Prog:
    return Prog.load(
        spec.prog_type,
        insns,
        name=(NAME_PREFIX + name)[:NAME_LENGTH],
        flags=spec.flags,
        expected_attach_type=spec.attach_type,
        with_log=with_log,
    )


def with_fds(insns: bytes, fds: Mapping[str, int]) -> bytes:
    """Put map descriptors in place of the compiler's placeholders (ld_imm64 with src_reg BPF_PSEUDO_MAP_FD)."""
    patched = bytearray(insns)
    for at in range(0, len(insns), 8):
        if insns[at] != LD_IMM64 or insns[at + 1] >> 4 != PSEUDO_MAP_FD:
            continue
        (placeholder,) = struct.unpack_from("<i", insns, at + 4)
        index = placeholder - maps.PLACEHOLDER_BASE
        if not 0 <= index < len(maps.SPECS):
            raise CompileError(f"instruction {at // 8} names map {placeholder}, which is none of ours")
        struct.pack_into("<i", patched, at + 4, fds[maps.SPECS[index].name])
    return bytes(patched)


def fill_tails(tails: Map, programs: Mapping[str, Prog]) -> None:
    """Program tc_<name> goes where enum tail_program says."""
    for member in abi.tail_program:
        if member.name == "PROGRAMS":
            continue
        name = f"tc_{member.name.lower()}"
        if name not in programs:
            raise AbiMismatch(f"bpf/abi.h lists the tail program {name}, datapath_tc.c does not have it")
        tails.update_fd(int(member), programs[name].fd)


# ---- for those who work on the C: python -m pyoffload.loader


def check(out: TextIO, only: Sequence[str] = (), defines: Mapping[str, str | int] | None = None) -> bool:
    """Compile and load everything, attach nothing; print what each program costs, or why the kernel refuses it."""
    from pyoffload import compiler

    made = maps.create_in_memory(1 << 12)
    numbers = {name: bpf_map.fd for name, bpf_map in made.items()}
    good = True
    print(f"{'program':16} {'insns':>7} {'walked':>8} {'jited bytes':>11}", file=out)
    for spec, text in zip(OBJECTS, datapath_sources(defines), strict=True):
        try:
            (result,) = compiler.compile_all([text])
        except CompileError as err:
            print(f"{spec.source}: {err}", file=out)
            good = False
            continue
        for name, insns in result.programs.items():
            if only and name not in only:
                continue
            patched = with_fds(insns, numbers)
            try:
                with load_program(spec, name, patched, with_log=False) as prog:
                    info = prog.info()
            except VerifierError as err:
                good = False
                print(err, file=out)
                log = compiler.explain(
                    text, name, spec.prog_type, spec.attach_type, patched, sorted(numbers.values())
                )
                print(shorten(log) or err.log, file=out)
            else:
                cost = f"{len(insns) // 8:7} {info.verified_insns:8} {info.jited_size:11}"
                print(f"{name:16} {cost}", file=out)
    return good


def shorten(log: str, first: int = 40, last: int = 60) -> str:
    lines = log.splitlines()
    if len(lines) <= first + last:
        return log
    return "\n".join([*lines[:first], f"... {len(lines) - first - last} lines ...", *lines[-last:]])


def _main(arguments: Sequence[str]) -> int:
    """``python -m pyoffload.loader [--check] [-DNAME=VALUE]... [PROGRAM]...``"""
    defines = dict(word[2:].partition("=")[::2] for word in arguments if word.startswith("-D"))
    only = [word for word in arguments if not word.startswith("-")]
    try:
        return 0 if check(sys.stdout, only, defines) else 1
    except Exception as err:
        print(f"{type(err).__name__}: {err}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
