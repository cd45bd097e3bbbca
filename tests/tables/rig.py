"""Real kernel maps and a store of their own, and a reading of them as the datapath does it."""

from __future__ import annotations

import contextlib
import struct
from array import array
from dataclasses import dataclass

from pyoffload import _abi as abi, classifier, flowstore, policy
from pyoffload.actionpool import ActionPool
from pyoffload.classifier import SUBTABLE
from pyoffload.flow.files import parse_flows
from pyoffload.flow.parse import parse_flow, parse_match
from pyoffload.flowdump import Dump
from pyoffload.flowselect import Selector
from pyoffload.flowstore import FLOW_COLUMNS
from pyoffload.flowswap import FLOW
from pyoffload.flowtable import BridgeTables, FlowTables
from pyoffload.store import Store

PORTS = {"p1": 1, "p2": 2, "p3": 3}


class Names:
    def number(self, name):
        return PORTS.get(name)

    def name(self, ofport):
        return {number: name for name, number in PORTS.items()}.get(ofport)


class Maps:
    """Like mapset.MapSet, of maps that are pinned nowhere."""

    def __init__(self, maps):
        self._maps = maps
        self._views = {}

    def __getitem__(self, name):
        return self._maps[name]

    def mmap(self, name):
        if name not in self._views:
            self._views[name] = self._maps[name].mmap(writable=True)
        return self._views[name]

    def wipe(self):
        """As after `up`: nothing is in them."""
        keys, _ = self["flow_index"].lookup_batch()
        self["flow_index"].delete_batch(keys, len(keys) // self["flow_index"].key_size)
        for slot in range(abi.MAX_BRIDGES):
            if self["classifiers"].lookup(slot) is not None:
                self["classifiers"].delete(slot)
        bridges = self.mmap("bridges")
        bridges[:] = bytes(len(bridges))
        flows = self.mmap("flows")
        flows[: 64 * 4096] = bytes(64 * 4096)


class KilledError(Exception):
    """Instead of SIGKILL: nothing after it runs, nothing is undone."""


@dataclass
class Bridge:
    name: str
    slot: int


class Change:
    """Like change.Change, without lock and journal; `probe` is called at every checkpoint."""

    def __init__(self, rig, probe):
        self.maps, self.conn, self.live, self.changed = rig.maps, rig.conn, True, True
        self.store = rig.store
        self._probe = probe
        self._undo, self._visible, self._applied = [], [], []

    def bridge(self, name):
        return Bridge(name, int(name.removeprefix("br")))

    def undo(self, step):
        self._undo.append(step)

    def on_visible(self, step):
        self._visible.append(step)

    def on_applied(self, step):
        self._applied.append(step)

    def checkpoint(self, step):
        if self._probe is not None:
            self._probe(step)

    def finish(self):
        if not self.changed:
            self.conn.execute("ROLLBACK")
            return
        self.checkpoint("staged")
        self.conn.execute("COMMIT")
        self.checkpoint("committed")
        for step in self._visible:
            step()
        self.checkpoint("visible")
        for step in self._applied:
            step()
        self.checkpoint("cleaned")

    def roll_back(self):
        while self._undo:
            self._undo.pop()()
        self.conn.execute("ROLLBACK")


class Rig:
    """Maps, a store and the verbs of flowtable.py on them."""

    def __init__(self, maps, path):
        self.maps = maps
        self.path = str(path)
        self.store = Store.open_path(self.path)
        self.probe = None

    @property
    def conn(self):
        return self.store.conn

    @contextlib.contextmanager
    def change(self):
        change = Change(self, self.probe)
        self.conn.execute("BEGIN IMMEDIATE")
        try:
            yield change
            change.finish()
        except KilledError:
            self.store.close()  # as the kernel does it for a dead process: the open transaction is lost
            self.store = Store.open_path(self.path)
            raise
        except BaseException:
            change.roll_back()
            raise

    def tables(self, change, bridge="br0"):
        return BridgeTables(change, bridge)

    def add(self, *texts, bridge="br0", progress=None):
        with self.change() as change:
            tables = self.tables(change, bridge)
            tables.edit.add(parse_flows(list(texts), Names()), progress=progress)
            return tables.apply()

    def replace(self, *texts, bridge="br0"):
        with self.change() as change:
            tables = self.tables(change, bridge)
            tables.edit.clear()
            kept = tables.edit.add(parse_flows(list(texts), Names()), keep_equal=True)
            return tables.apply(exactly=True, unchanged=kept)

    def delete(self, text="", *, strict=False, bridge="br0"):
        with self.change() as change:
            tables = self.tables(change, bridge)
            chosen = Selector.of_filter(parse_match(text, Names(), "del", strict=strict), strict=strict)
            if chosen.takes_all:
                tables.edit.clear()
            else:
                tables.edit.remove(chosen.select(tables.edit))
                if chosen.takes_table(0):
                    tables.edit.open()
            return tables.apply()

    def modify(self, text, *, strict=False, bridge="br0"):
        from pyoffload.flowtable import _as_new

        with self.change() as change:
            tables = self.tables(change, bridge)
            wanted = parse_match(text, Names(), "mod", strict=strict)
            flows = Selector.of_filter(wanted, strict=strict).select(tables.edit)
            if flows:
                tables.edit.modify(flows, wanted)
            elif not wanted.cookie_mask:
                tables.edit.add([_as_new(wanted)])
            return tables.apply(wanted.warnings)

    def restore(self, bridge_slot=0):
        FlowTables(self.maps, self.conn).restore(bridge_slot)

    # What is there ----------------------------------------------------------------------------------------------

    def rows(self, bridge_slot=0):
        """(table, priority, match, actions) of every flow in the store, sorted."""
        return sorted(
            (table, priority, key.ljust(144, b"\0"), mask.ljust(144, b"\0"), text)
            for table, priority, key, mask, text in self.conn.execute(
                "SELECT tbl, priority, key, mask, text FROM flows f JOIN flow_subtables s ON s.id = subtable"
                " JOIN action_lists ON first = actions WHERE f.bridge_slot = ? AND priority >= 0",
                (bridge_slot,),
            )
        )

    def flow(self, priority, bridge_slot=0):
        row = self.conn.execute(
            f"SELECT {FLOW_COLUMNS} FROM flows WHERE bridge_slot = ? AND priority = ?",
            (bridge_slot, priority),
        ).fetchone()
        return flowstore.Flow(*row)

    def count(self, slot, packets, n_bytes):
        """Credit a flow slot on the first CPU."""
        # The first part of the array is the first CPU's.
        self.maps["flow_stats"].update(slot, struct.pack("<QQ", packets, n_bytes))

    def counted(self, slot):
        return tuple(self.maps["flow_stats"].lookup_percpu_sum(slot, "2Q"))

    def reader(self, bridge_slot=0):
        return Reader(self.maps, bridge_slot)

    def model(self, bridge_slot=0):
        """What the store says, by the specification."""
        lists = dict(self.conn.execute("SELECT text, ops FROM action_lists").fetchall())
        builtin = self.conn.execute(
            "SELECT 1 FROM flows WHERE bridge_slot = ? AND priority < 0", (bridge_slot,)
        )
        return Model(self.rows(bridge_slot), lists, builtin=builtin.fetchone() is not None)

    def totals(self, bridge_slot=0):
        """(table, priority, key) -> packets counted, as dump shows them."""
        flows = Dump(self.store, self.maps, bridge_slot).flows(Selector(0, 0))
        return {(flow.table, flow.priority, flow.match): (flow.packets, flow.bytes) for flow in flows}


class Reader:
    """Looks packets up as the C does: policy once, classifier, index, chain."""

    def __init__(self, maps, bridge_slot):
        self.maps = maps
        self.generation, self.version = policy.current(maps, bridge_slot)
        bridges = maps.mmap("bridges")
        self.nonzero = bridges[bridge_slot * 176 + 14]
        self.elements = classifier.read(maps, bridge_slot)
        self.steps = 0

    def lookup(self, table, key, now_ns=0):
        """The winning flow's (priority, actions as bytes), "normal" for an empty table 0, None for a miss."""
        if table == 0 and not self.nonzero:
            return "normal"
        if self.elements is None:
            return None
        _, _, _, first, count, _ = SUBTABLE.unpack_from(self.elements, table * SUBTABLE.size)
        assert count <= 2 * abi.MAX_SUBTABLES
        best = None
        before = 1 << 32
        for at in range(first, first + count):
            mask, number, priority, _, _, _ = SUBTABLE.unpack_from(self.elements, at * SUBTABLE.size)
            assert priority <= before
            before = priority
            if best is not None and best[0] >= priority:
                break
            found = self.chain(number, key & int.from_bytes(mask, "little"), now_ns)
            if found is not None and (best is None or found[0] > best[0]):
                best = found
        return best

    def chain(self, subtable, masked, now_ns):
        raw = self.maps["flow_index"].lookup(struct.pack("<II", subtable, 0) + masked.to_bytes(144, "little"))
        if raw is None:
            return None
        slot = int.from_bytes(raw, "little")
        flows = self.maps.mmap("flows")
        actions = self.maps.mmap("actions")
        before = 1 << 32
        for _ in range(abi.MAX_FLOW_CHAIN):
            if slot == abi.FLOW_SLOT_NONE:
                return None
            priority, add, remove, following, first, n_actions, _, idle, deadline, used = FLOW.unpack_from(
                flows, slot * FLOW.size
            )
            assert priority <= before
            before = priority
            over = (deadline and now_ns >= deadline) or (idle and now_ns >= used + idle)
            if add <= self.version < remove and not over:
                return priority - 1, bytes(actions[first * 24 : (first + n_actions) * 24])
            slot = following
        assert slot == abi.FLOW_SLOT_NONE, "the chain is longer than the datapath looks"
        return None


class Model:
    """What the flows say, by the specification: highest priority of all that match."""

    def __init__(self, rows, lists, *, builtin):
        self.flows = [
            (table, priority, int.from_bytes(key, "little"), int.from_bytes(mask, "little"), lists[text])
            for table, priority, key, mask, text in rows
        ]
        self.builtin = builtin

    def lookup(self, table, key):
        here = [flow for flow in self.flows if flow[0] == table]
        if table == 0 and not here:
            return "normal"
        matching = [flow for flow in here if key & flow[3] == flow[2]]
        if not matching:
            return "builtin" if table == 0 and self.builtin else None
        top = max(flow[1] for flow in matching)
        return top, {flow[4] for flow in matching if flow[1] == top}


NORMAL = struct.pack("<BBHIQQ", abi.action_op.NORMAL, 0, 0, 0, 0, 0)


def disagreements(reader, model, probes, tables=(0, 1)):
    """Probes of which the maps and the specification think differently."""
    wrong = []
    if not reader.nonzero:
        tables = (0,)  # no packet leaves an empty table 0 for another one
    for table in tables:
        for key in probes:
            got, want = reader.lookup(table, key), model.lookup(table, key)
            if want == "builtin":
                want = (-1, {NORMAL})
            same = (
                got == want
                if want is None or want == "normal"
                else got is not None and got[0] == want[0] and got[1] in want[1]
            )
            if not same:
                wrong.append((table, hex(key), got, want))
    return wrong


def spec(text):
    return parse_flow(text, Names())


def pool_of(conn):
    return ActionPool(conn, "br0", {})


def index_size(maps):
    keys, _ = maps["flow_index"].lookup_batch()
    return len(keys) // maps["flow_index"].key_size


def index_ids(maps):
    keys, _ = maps["flow_index"].lookup_batch()
    return set(array("I", keys)[:: maps["flow_index"].key_size // 4])
