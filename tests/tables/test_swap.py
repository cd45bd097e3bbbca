"""No reader of the maps ever meets half of a change, wherever it stops, and nothing of it is left behind."""

import random

import pytest

from pyoffload.errors import TableFull
from tests.tables.rig import KilledError, disagreements, index_size, spec

pytestmark = pytest.mark.kernel

STEPS = ("linked", "staged", "committed", "published", "visible", "unlinked", "cleaned")
PREFIXES = (
    "",
    "ip,nw_src=10.0.0.0/8",
    "ip,nw_src=10.1.0.0/16",
    "ip,nw_src=10.1.1.1",
    "ip,nw_dst=10.2.0.0/16",
    "arp",
)
PORTS = ("", "in_port=1", "in_port=2")
MACS = ("", "dl_dst=00:00:00:00:00:01")
PROBES = [
    int.from_bytes(spec(text + ",actions=drop").key, "little")
    for text in (
        *(
            f"in_port={port},dl_dst=00:00:00:00:00:0{mac},ip,nw_src={src},nw_dst={dst}"
            for port in (1, 2, 3)
            for mac in (1, 2)
            for src in ("10.1.1.1", "10.1.2.2", "10.9.9.9", "11.0.0.1")
            for dst in ("10.2.3.4", "12.0.0.1")
        ),
        "in_port=1,arp",
        "in_port=3,dl_dst=00:00:00:00:00:01,arp",
    )
]


def random_flow(dice):
    words = [f"table={dice.randrange(2)},priority={dice.randrange(5)}"]
    words += [dice.choice(PORTS), dice.choice(MACS), dice.choice(PREFIXES)]
    if dice.random() < 0.3:
        words.append(f"hard_timeout={dice.randrange(1000, 2000)}")
    words.append(f"actions=output:{dice.randrange(1, 4)}" if dice.random() < 0.8 else "actions=drop")
    return ",".join(filter(None, words))


def random_change(rig, dice):
    """A verb, ready to be called."""
    flows = [random_flow(dice) for _ in range(dice.randrange(1, 12))]
    match = ",".join(filter(None, (dice.choice(PORTS), dice.choice(PREFIXES))))
    kind = dice.choice(("add", "add", "replace", "delete", "modify", "strict"))
    if kind == "add":
        return lambda: rig.add(*flows)
    if kind == "replace":
        return lambda: rig.replace(*flows)
    if kind == "delete":
        return lambda: rig.delete(match)
    if kind == "strict":
        head = flows[0].split(",actions")[0].split(",hard_timeout")[0]
        return lambda: rig.delete(head, strict=True)
    return lambda: rig.modify(f"{match},actions=output:3".lstrip(","))


def matches(rig):
    return len(rig.conn.execute("SELECT DISTINCT subtable, key FROM flows").fetchall())


@pytest.mark.parametrize("seed", range(6))
def test_every_step_of_every_change_shows_all_of_the_old_or_all_of_the_new_tables(rig, seed):
    dice = random.Random(seed)
    for _ in range(12):
        old = rig.model()
        seen = []

        def look(step, seen=seen, old=old):
            reader, new = rig.reader(), rig.model()  # the transaction's own view: the outcome
            shows_old = not disagreements(reader, old, PROBES)
            shows_new = not disagreements(reader, new, PROBES)
            assert shows_old or shows_new, step
            if not shows_new:
                assert step not in {"visible", "unlinked", "cleaned"}
            if not shows_old:
                assert step not in {"linked", "staged", "committed"}
            seen.append(step)

        rig.probe = look
        try:
            random_change(rig, dice)()
        except TableFull:
            continue
        finally:
            rig.probe = None
        assert seen in ([], list(STEPS))
        assert disagreements(rig.reader(), rig.model(), PROBES) == []
        assert index_size(rig.maps) == matches(rig)


@pytest.mark.parametrize("seed", range(3))
def test_a_packet_that_came_before_the_swap_sees_the_old_tables_until_it_has_gone(rig, seed):
    dice = random.Random(100 + seed)
    rig.replace(*(random_flow(dice) for _ in range(10)), "priority=0,actions=normal")
    for _ in range(10):
        old = rig.model()
        before = []

        def look(step, before=before, old=old):
            if step == "staged":
                before.append(rig.reader())
            elif step in {"committed", "published"}:
                assert disagreements(before[0], old, PROBES) == []

        rig.probe = look
        flows = [random_flow(dice) for _ in range(10)]
        rig.replace(*flows, "priority=0,actions=normal")
        rig.probe = None
        assert disagreements(rig.reader(), rig.model(), PROBES) == []


@pytest.mark.parametrize("step", STEPS)
def test_a_command_killed_at_any_step_is_made_good_by_a_restore(rig, step):
    dice = random.Random(step)
    rig.replace(*(random_flow(dice) for _ in range(10)))
    for _ in range(8):
        old, counted = rig.model(), credit(rig, dice)

        def die(at):
            if at == step:
                raise KilledError

        rig.probe = die
        try:
            random_change(rig, dice)()
        except (KilledError, TableFull):
            pass
        finally:
            rig.probe = None
        new = rig.model()
        wrong = disagreements(rig.reader(), old, PROBES)
        assert not wrong or not disagreements(rig.reader(), new, PROBES), wrong[:3]
        rig.restore()
        assert disagreements(rig.reader(), new, PROBES) == []
        assert index_size(rig.maps) == matches(rig)
        assert rig.conn.execute("SELECT count(*) FROM flow_carries").fetchone() == (0,)
        for flow, packets in rig.totals().items():
            assert packets in {counted.get(flow, (0, 0)), (0, 0)}
        rig.add(random_flow(dice))
        assert disagreements(rig.reader(), rig.model(), PROBES) == []


def credit(rig, dice):
    """Give every flow something to remember; what dump says afterwards."""
    for slot, priority in rig.conn.execute("SELECT slot, priority FROM flows").fetchall():
        if priority >= 0:
            before = rig.counted(slot)
            rig.count(slot, before[0] + dice.randrange(1, 100), before[1] + 60)
    return rig.totals()


def test_counters_of_flows_that_stay_survive_a_crash(rig):
    rig.add("priority=1,ip,actions=drop", "priority=2,arp,actions=output:1")
    rig.count(rig.flow(1).slot, 10, 1000)
    rig.probe = lambda step: killed() if step == "committed" else None
    with pytest.raises(KilledError):
        rig.add("priority=3,udp,actions=drop")
    rig.probe = None
    rig.count(rig.flow(1).slot, 11, 1100)
    rig.restore()
    assert rig.totals() == {(0, 1, "ip"): (11, 1100), (0, 2, "arp"): (0, 0), (0, 3, "udp"): (0, 0)}
    rig.count(rig.flow(1).slot, 2, 0)
    assert rig.totals()[0, 1, "ip"] == (13, 1100)


def killed():
    raise KilledError


def test_a_restore_that_is_killed_is_begun_again(rig):
    rig.add("priority=1,ip,actions=drop", "priority=2,arp,actions=output:1")
    rig.count(rig.flow(1).slot, 10, 1000)
    model = rig.model()
    rig.restore()
    # As if killed after the commit and before anything else: what the first one staged is what the store says.
    rig.restore()
    assert disagreements(rig.reader(), model, PROBES) == []
    assert rig.totals()[0, 1, "ip"] == (10, 1000)
    assert index_size(rig.maps) == matches(rig)


def test_after_up_everything_is_there_again_and_counters_begin_at_zero(rig):
    dice = random.Random(9)
    rig.replace(*(random_flow(dice) for _ in range(20)))
    credit(rig, dice)
    ids = {row[0] for row in rig.conn.execute("SELECT slot FROM flows")}
    model = rig.model()
    rig.maps.wipe()
    rig.restore()
    assert disagreements(rig.reader(), model, PROBES) == []
    assert set(rig.totals().values()) == {(0, 0)}
    assert {row[0] for row in rig.conn.execute("SELECT slot FROM flows")} == ids


def test_after_a_reboot_timeouts_go_on_by_the_time_of_day(rig):
    rig.add("priority=1,ip,hard_timeout=100,actions=drop", "priority=2,arp,hard_timeout=100,actions=drop")
    rig.conn.execute("UPDATE flows SET added_ns = added_ns - 200000000000 WHERE priority = 2")
    # The other boot's clock was 1000 s ahead of this one's.
    shift = 1000 * 10**9
    rig.conn.execute("UPDATE flows SET added_ns = added_ns + ?", (shift,))
    rig.conn.execute(
        "UPDATE flow_clocks SET boot_id = 'another', wall_offset_ns = wall_offset_ns - ?", (shift,)
    )
    rig.maps.wipe()
    rig.restore()
    (flow,) = [row for row in rig.rows() if row[1] > 0]
    assert flow[1] == 1
    age_s = rig.store.rows("SELECT added_ns FROM flows WHERE priority = 1")[0][0]
    assert age_s >= 0
    assert rig.totals() == {(0, 1, "ip"): (0, 0)}


def test_a_removed_bridge_leaves_nothing_in_the_maps(rig):
    from pyoffload.flowtable import FlowTables

    rig.add("priority=1,ip,actions=drop", bridge="br0")
    rig.add("priority=1,ip,actions=drop", bridge="br3")
    with rig.store.transaction():
        clear = FlowTables(rig.maps, rig.conn).remove_bridge(0)
    clear()
    assert index_size(rig.maps) == 2  # the other bridge's and its built-in one
    assert rig.maps["classifiers"].lookup(0) is None
    assert {slot for (slot,) in rig.conn.execute("SELECT bridge_slot FROM flows")} == {3}


def test_a_bridge_whose_deletion_was_cut_short_is_cleared_from_what_the_maps_know(rig):
    from pyoffload.flowtable import FlowTables

    rig.add("priority=1,ip,actions=drop", bridge="br0")
    with rig.store.transaction():
        FlowTables(rig.maps, rig.conn).remove_bridge(0)  # killed before it called what it got
    with rig.store.transaction():
        clear = FlowTables(rig.maps, rig.conn).remove_bridge(0)
    clear()
    assert index_size(rig.maps) == 0
