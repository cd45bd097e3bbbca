"""Where the running kernel keeps a few members of its structs, from its own type information (BTF).

Fast-failover groups ask whether an interface is up and has carrier. No BPF helper tells, so the datapath reads struct
net_device; the offsets differ between kernels and are compiled in. Format: Documentation/bpf/btf.rst.
"""

from __future__ import annotations

import hashlib
import os
import struct

VMLINUX = "/sys/kernel/btf/vmlinux"
NOTES = "/sys/kernel/notes"  # holds the kernel's build id

# Struct, member: what bpf/lib/liveness.h wants as OFFSET_<struct>_<member>.
WANTED = (
    ("net_device", "state"),
    ("net_device", "flags"),
    ("net_device", "ifindex"),
    ("net_device", "index_hlist"),
    ("net_device", "nd_net"),  # its only member is the pointer
    ("net", "dev_index_head"),
    ("sk_buff", "dev"),
)

_MAGIC = 0xEB9F
_HEADER = struct.Struct("=HBBIIIII")
_TYPE = struct.Struct("=III")
_MEMBER = struct.Struct("=III")
_STRUCT, _UNION = 4, 5
# Bytes that follow the 12 of a type: fixed, and for each of its vlen elements.
_FIXED = {1: 4, 3: 12, 14: 4, 17: 4}
_PER_ELEMENT = {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}
_LAST_KIND = 19


class Btf:
    """The types of one BTF blob. Raises ValueError for one that is not understood."""

    def __init__(self, blob: bytes) -> None:
        magic, _, _, header_size, type_off, type_len, str_off, str_len = _HEADER.unpack_from(blob)
        if magic != _MAGIC:
            raise ValueError("not BTF")
        self._types = blob[header_size + type_off : header_size + type_off + type_len]
        self._strings = blob[header_size + str_off : header_size + str_off + str_len]
        self._offsets = self._scan()

    def _scan(self) -> list[int]:
        """Offset of each type by its id; 0 is void."""
        offsets = [0]
        at, end = 0, len(self._types)
        unpack = struct.Struct("=4xI").unpack_from
        while at < end:
            (info,) = unpack(self._types, at)
            kind = info >> 24 & 0x1F
            if not 0 < kind <= _LAST_KIND:
                raise ValueError(f"type of unknown kind {kind}")
            offsets.append(at)
            at += 12 + _FIXED.get(kind, 0) + _PER_ELEMENT.get(kind, 0) * (info & 0xFFFF)
        return offsets

    def _name(self, offset: int) -> str:
        return self._strings[offset : self._strings.index(b"\0", offset)].decode("ascii", "replace")

    def find_structs(self, names: set[str]) -> dict[str, int]:
        """Name -> type id of the structs so named that have members."""
        wanted = {}
        for name in names:
            at = self._strings.find(b"\0" + name.encode() + b"\0")
            if at >= 0:
                wanted[at + 1] = name
        found: dict[str, int] = {}
        unpack = struct.Struct("=II").unpack_from
        for number in range(1, len(self._offsets)):
            name_offset, info = unpack(self._types, self._offsets[number])
            if name_offset in wanted and info >> 24 & 0x1F == _STRUCT and info & 0xFFFF:
                found.setdefault(wanted[name_offset], number)
        return found

    def member_offset(self, number: int, member: str) -> int | None:
        """Byte offset of a member, also of one inside unnamed structs and unions; None if there is none."""
        at = self._offsets[number]
        _, info, _ = _TYPE.unpack_from(self._types, at)
        kind = info >> 24 & 0x1F
        if kind not in {_STRUCT, _UNION}:
            return None
        for i in range(info & 0xFFFF):
            name_offset, member_type, position = _MEMBER.unpack_from(self._types, at + 12 + 12 * i)
            bits: int = position & 0xFFFFFF if info >> 31 else position
            if name_offset == 0:
                inner = self.member_offset(member_type, member)
                if inner is not None:
                    return bits // 8 + inner
            elif self._name(name_offset) == member:
                return bits // 8
        return None


def kernel_defines(cache_dir: str | None) -> dict[str, int]:
    """OFFSET_<struct>_<member> for all of WANTED, or {} when the kernel does not tell every one of them.

    Reading takes a third of a second, so the answer is kept in ``cache_dir`` for this very kernel.
    """
    import json

    path = f"{cache_dir}/btf-{_kernel_id()}.json" if cache_dir else None
    if path:
        try:
            with open(path, encoding="ascii") as file:
                kept = json.load(file)
            if isinstance(kept, dict):
                return {str(name): int(offset) for name, offset in kept.items()}
        except (OSError, ValueError):
            pass
    defines = _read_defines()
    if path:
        try:
            with open(f"{path}.{os.getpid()}", "w", encoding="ascii") as file:
                json.dump(defines, file)
            os.rename(f"{path}.{os.getpid()}", path)
        except OSError:
            pass  # next time it is read again, that is all
    return defines


def _read_defines() -> dict[str, int]:
    try:
        with open(VMLINUX, "rb") as file:
            btf = Btf(file.read())
        structs = btf.find_structs({name for name, _ in WANTED})
        defines = {}
        for name, member in WANTED:
            offset = btf.member_offset(structs[name], member)
            if offset is None:
                return {}
            defines[f"OFFSET_{name}_{member}"] = offset
    except (OSError, ValueError, KeyError, struct.error):
        return {}
    return defines


def _kernel_id() -> str:
    kernel = os.uname()
    digest = hashlib.sha256(f"{kernel.release} {kernel.version} {kernel.machine}".encode())
    try:
        with open(NOTES, "rb") as file:
            digest.update(file.read())
    except OSError:
        pass
    return digest.hexdigest()[:32]
