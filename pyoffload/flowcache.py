"""The flows that the datapath has offloaded to its exact-match cache, read while it works."""

from __future__ import annotations

import struct
import time
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any

from pyoffload import _abi as abi, policy
from pyoffload.records import read_bridges, read_ports

if TYPE_CHECKING:
    from pyoffload.instance import Instance
    from pyoffload.mapset import MapSet
    from pyoffload.store import Store

ENTRY_SIZE = 256
_KEY_SHORT = 8 * abi.CACHE_KEY_WORDS_SHORT
_TICK_S = (1 << abi.TICK_SHIFT) / 1e9
_BYTES = (1 << 40) - 1  # of `hits`
_TRIES = 16
_TCI0_AT, _TCI1_AT, _FRAG_AT = (
    getattr(abi.flow_key, name).offset for name in ("vlan_tci0", "vlan_tci1", "nw_frag")
)


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """One offloaded flow. ``match`` covers the header bits that its decision depends on; ``flows`` are the ids of the
    flow-table entries it counts for; ``packets`` and ``bytes`` are its hits.
    """

    bridge: str
    in_port: str
    match: str
    actions: str
    packets: int
    bytes: int
    idle_s: float
    flows: tuple[int, ...]

    def as_dict(self) -> dict[str, Any]:
        return {
            "bridge": self.bridge,
            "in_port": self.in_port,
            "match": self.match,
            "actions": self.actions,
            "packets": self.packets,
            "bytes": self.bytes,
            "idle_s": round(self.idle_s, 1),
            "flows": list(self.flows),
        }


def list_entries(
    instance: Instance, bridge: str | None = None, port: str | None = None, top: int | None = None
) -> list[CacheEntry]:
    """Entries that the next packet of their flow will use, the busiest first; of one bridge, of one port."""
    from pyoffload.change import require_bridge, require_port
    from pyoffload.mapset import MapSet
    from pyoffload.store import Store

    instance.require_up()
    store = Store.open_readonly(instance)
    if bridge is not None:
        require_bridge(store, bridge)
    if port is not None:
        require_port(store, port)
    if store is None:
        return []
    maps = MapSet(instance, writable=False)
    try:
        with store:
            return CacheReader(maps, store).entries(bridge, port, top)
    finally:
        maps.close()


def usage(instance: Instance) -> tuple[int, int]:
    """(entries of the current generations, entries there are)."""
    from pyoffload.mapset import MapSet

    instance.require_up()
    maps = MapSet(instance, writable=False)
    try:
        generations = _generations(maps)
        used = len(_live_entries(maps, generations))
        return used, maps["cache_tags"].max_entries
    finally:
        maps.close()


def _generations(maps: MapSet) -> dict[int, int]:
    return {record.slot: record.generation for record in read_bridges(maps)}


def _live_entries(maps: MapSet, generations: dict[int, int]) -> list[abi.cache_entry]:
    """Whole entries whose decision is still in force."""
    view = maps.mmap("flow_cache")
    found = []
    # the kernel rounds elements of an array up to 8 bytes
    for index, tag in enumerate(maps.mmap("cache_tags").cast("B").cast("Q")):
        if not tag:
            continue
        entry = _stable(view, index * ENTRY_SIZE)
        if entry is not None and generations.get(entry.bridge) == entry.generation:
            found.append(entry)
    return found


def _stable(view: memoryview, at: int) -> abi.cache_entry | None:
    """A copy taken while nobody wrote, or None for an entry not in use."""
    for _ in range(_TRIES):
        copy = bytes(view[at : at + ENTRY_SIZE])
        (seq,) = struct.unpack_from("<Q", copy)
        if not seq:
            return None
        if not seq & 1 and struct.unpack_from("<Q", view, at)[0] == seq:
            return abi.cache_entry.from_buffer_copy(copy)
    return None


class CacheReader:
    """Entries with the names that people know."""

    def __init__(self, maps: MapSet, store: Store) -> None:
        self._maps = maps
        self._bridges = {bridge.slot: bridge.name for bridge in store.bridges()}
        names = {(port.bridge, port.ofport): port.ifname for port in store.ports()}
        self._ports: dict[int, str] = {}
        for record in read_ports(maps):
            name = names.get((self._bridges.get(record.bridge, ""), record.ofport))
            self._ports[record.slot] = (
                "LOCAL" if record.ofport == abi.OFPORT_LOCAL else name or str(record.ofport)
            )
        self._hidden = {slot for (slot,) in store.rows("SELECT slot FROM flows WHERE priority < 0")}
        self._masks = {slot: policy.current_mask(maps, slot) for slot in self._bridges}
        self._l3 = {record.slot for record in read_bridges(maps) if record.flags & abi.bridge_flag.NEEDS_L3}
        self._now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) >> abi.TICK_SHIFT

    def entries(self, bridge: str | None, port: str | None, top: int | None) -> list[CacheEntry]:
        """The wanted ones, those with most packets first."""
        wanted = []
        for entry in _live_entries(self._maps, _generations(self._maps)):
            if bridge is not None and self._bridges.get(entry.bridge) != bridge:
                continue
            if port is not None and self._in_port(entry) != port:
                continue
            wanted.append(entry)
        wanted.sort(key=lambda entry: -(entry.packets + (entry.hits >> 40)))
        return [self._describe(entry) for entry in wanted[:top]]

    def _in_port(self, entry: abi.cache_entry) -> str:
        slot = entry.key[2] & 0xFFFF  # the datapath puts the slot where flow_key has the OpenFlow number
        return self._ports.get(slot, f"slot {slot}")

    def _describe(self, entry: abi.cache_entry) -> CacheEntry:
        slots = [entry.flow0, *entry.flow][: entry.n_flows]
        return CacheEntry(
            self._bridges.get(entry.bridge, ""),
            self._in_port(entry),
            self._match(entry),
            self._actions(entry),
            entry.packets + (entry.hits >> 40),
            entry.bytes + (entry.hits & _BYTES),
            max(self._now - entry.seen, 0) * _TICK_S,
            tuple(slot for slot in slots if slot not in self._hidden),
        )

    def _match(self, entry: abi.cache_entry) -> str:
        from pyoffload.classifier import KEY_SIZE
        from pyoffload.flow.format import format_match

        key = bytearray(bytes(entry.key) + bytes(entry.key_long))
        mask = bytearray(self._masks[entry.bridge])
        if entry.bridge not in self._l3:
            mask[_KEY_SHORT - 8 :] = bytes(len(mask) - _KEY_SHORT + 8)
        mask[16:18] = bytes(2)  # in_port is told beside it
        for at in (_TCI0_AT, _TCI1_AT):
            if not any(key[at : at + 2]):
                mask[at : at + 2] = bytes(2)  # no tag needs no words
        if not key[_FRAG_AT]:  # nor does a whole packet
            mask[_FRAG_AT] = 0
        masked = bytes(a & b for a, b in zip(key, mask, strict=True))
        return format_match(masked.ljust(KEY_SIZE, b"\0"), bytes(mask).ljust(KEY_SIZE, b"\0"))

    def _actions(self, entry: abi.cache_entry) -> str:
        if entry.flags & abi.cache_flag.DROP:
            return f"drop ({_reason(entry.reason)})"
        words = _edit_words(entry) if entry.flags & abi.cache_flag.EDIT else []
        if entry.flags & abi.cache_flag.METER:
            words.insert(0, f"meter slot {entry.meter}")
        slots = [*list(entry.outs)[: entry.n_out - 1], entry.out] if entry.n_out > 1 else [entry.out]
        return ",".join([*words, *(f"output:{self._ports.get(slot, f'slot {slot}')}" for slot in slots)])


def _reason(number: int) -> str:
    try:
        return abi.drop_reason(number).name.lower()
    except ValueError:
        return f"reason {number}"


def _mac(raw: Any) -> str:
    return ":".join(f"{byte:02x}" for byte in raw)


def _edit_words(entry: abi.cache_entry) -> list[str]:
    """What the entry does to a packet, in the words of ovs-ofctl's actions."""
    edit, field = entry.edit, abi.edit_field
    long = bool(entry.flags & abi.cache_flag.LONG)

    def address(raw: Any) -> str:
        # as in the packet: be32 words
        octets = b"".join(int(word).to_bytes(4, "big") for word in raw)
        return str(IPv6Address(octets)) if long else str(IPv4Address(octets[:4]))

    words = []
    if edit.fields & field.ETH:
        words += [f"mod_dl_src:{_mac(edit.dl_src)}", f"mod_dl_dst:{_mac(edit.dl_dst)}"]
    if edit.fields & field.VLAN:
        words += ["pop_vlan"] * edit.n_pop
        for tpid, tci in list(zip(edit.push_tpid, edit.push_tci, strict=True))[: edit.n_push]:
            words += [f"push_vlan:{tpid:#06x}", f"mod_vlan_vid:{tci & 0xFFF}"]
            if tci >> 13:
                words.append(f"mod_vlan_pcp:{tci >> 13}")
    values = (
        (field.NW_SRC, "mod_nw_src", address(edit.nw_src)),
        (field.NW_DST, "mod_nw_dst", address(edit.nw_dst)),
        (field.TOS, "mod_nw_tos", edit.tos),
        (field.TTL, "mod_nw_ttl", edit.ttl),
        (field.DEC_TTL, "dec_ttl", edit.ttl),
        (field.TP_SRC, "mod_tp_src", edit.tp_src),
        (field.TP_DST, "mod_tp_dst", edit.tp_dst),
        (field.LABEL, "mod_ipv6_label", edit.label),
    )
    return words + [f"{word}:{value}" for bit, word, value in values if edit.fields & bit]
