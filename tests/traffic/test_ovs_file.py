"""The files of an Open vSwitch installation, through the command: loaded unchanged, dumped in the same words."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.ovs.recorded import RECORDINGS
from tests.support.cli import Cli
from tests.support.lab import Lab
from tests.support.traffic import no_ping, pings, tcp_transfer

pytestmark = pytest.mark.traffic

OVS = Path(__file__).resolve().parents[1] / "ovs"
PORTS = ("p1", "p2", "p3", "p4")
recordings = pytest.mark.parametrize("recording", RECORDINGS, ids=lambda recording: recording.name)


@pytest.fixture(scope="module")
def cli(lab: Lab) -> Cli:
    """A bridge with the ports, meters and groups that the recorded files speak of."""
    made = Cli(lab.host)
    made.ok("bridge", "add", "br0")
    for port in PORTS:
        lab.host.ip(f"link add {port} type veth peer name {port}-far", f"link set {port} up")
        made.ok("port", "add", "br0", port)
    numbers = {port["ifname"]: port["ofport"] for port in made.json("port", "list")}
    assert numbers == {port: number for number, port in enumerate(PORTS, 1)}
    for recording in RECORDINGS:
        for meter in recording.meters:
            made.ok("meter", "add", "br0", f"meter={meter},kbps,band=type=drop,rate=1000")
        for group in recording.groups:
            made.ok("group", "add", "br0", f"group_id={group},type=all,bucket=output:1")
    return made


@pytest.fixture(autouse=True)
def no_flows(cli: Cli):
    yield
    cli.ok("flow", "del", "br0", "")


def lasting(dump: list[str]) -> list[str]:
    """Without the flows that time out within the test."""
    return [line for line in dump if "_timeout=1," not in line]


def lines(cli: Cli, *words: object) -> list[str]:
    return lasting(cli.ok("flow", "dump", "br0", "--no-stats", *words).stdout.splitlines())


def flows(cli: Cli) -> list[list[object]]:
    identity = ("table", "priority", "cookie", "match", "actions", "hard_timeout")
    return [
        [f[name] for name in identity]
        for f in cli.json("flow", "dump", "br0")
        if not 0 < f["hard_timeout"] < 9
    ]


# Plain ovs-ofctl speaks OpenFlow 1.0; what the other file says has no words there.
PLAIN = RECORDINGS[0]


@pytest.mark.parametrize("verb", [("add", "--file"), ("replace",)], ids=["add", "replace"])
def test_a_file_loads_unchanged_and_dumps_in_the_words_of_ovs_ofctl(cli, verb):
    cli.ok("flow", verb[0], "br0", *verb[1:], OVS / f"{PLAIN.name}.txt")
    assert sorted(lines(cli)) == sorted(lasting(PLAIN.dump))
    assert len(PLAIN.dump) >= 200


@recordings
def test_a_dump_can_be_loaded_again_and_nothing_changes(cli, recording, tmp_path):
    cli.ok("flow", "add", "br0", "--file", OVS / f"{recording.name}.txt")
    first = lines(cli)
    assert len(first) == len(lasting(recording.dump))
    before = flows(cli)
    for words in (("--no-stats",), ()):
        dump = tmp_path / "dump.txt"
        dump.write_text(cli.ok("flow", "dump", "br0", *words).stdout)
        cli.ok("flow", "replace", "br0", dump)
        assert lines(cli) == first
    assert flows(cli) == before


@recordings
def test_a_dump_of_open_vswitch_can_be_loaded(cli, recording):
    cli.ok("flow", "replace", "br0", OVS / f"{recording.name}.txt")
    first = lines(cli)
    cli.ok("flow", "replace", "br0", OVS / f"{recording.name}.dump")
    again = lines(cli)
    if recording is PLAIN:
        assert sorted(again) == sorted(first)
    else:  # OpenFlow 1.3 has other words for some actions
        matches = [sorted(line.partition(" actions=")[0] for line in dump) for dump in (first, again)]
        assert matches[0] == matches[1]


def test_a_dump_through_a_pipe(cli):
    """`flow dump br0 | flow replace br0 -`, as one types it."""
    cli.ok("flow", "add", "br0", "--file", OVS / "flows.txt")
    first = lines(cli)
    dumping = cli.start("flow", "dump", "br0", "--no-stats")
    loading = cli.start("flow", "replace", "br0", "-", stdin=dumping.stdout)
    assert dumping.stdout is not None
    dumping.stdout.close()
    assert (loading.wait(60), dumping.wait(60)) == (0, 0)
    for child in (loading, dumping):
        for pipe in (child.stdout, child.stderr):
            if pipe is not None:
                pipe.close()
    assert lines(cli) == first


def test_a_filter_chooses_and_json_says_the_same(cli):
    cli.ok("flow", "add", "br0", "--file", OVS / "flows.txt")
    everything = lines(cli)
    assert lines(cli, "--table", "13") == [line for line in everything if " table=13," in line]
    only_tcp = lines(cli, "tcp")
    assert only_tcp
    assert all("tcp" in line for line in only_tcp)
    flows = cli.json("flow", "dump", "br0", "tcp")
    assert len(flows) == len(only_tcp)
    contract = {
        "table",
        "priority",
        "cookie",
        "match",
        "actions",
        "packets",
        "bytes",
        "age_s",
        "idle_s",
        "id",
    }
    assert all(contract <= set(flow) for flow in flows)
    json.dumps(flows)


def test_an_administrators_policy_does_to_traffic_what_it_says(own_lab, tmp_path):
    """A file as one finds it: classification, a firewall, learning at the end; and its change on the fly."""
    cli = Cli(own_lab.host)
    one, two, three = own_lab.guests(3)
    cli.ok("bridge", "add", "br-int")
    for guest in (one, two, three):
        cli.ok("port", "add", "br-int", guest.ifname)
    policy = f"""
# admission
table=0, priority=100, dl_src=01:00:00:00:00:00/01:00:00:00:00:00 actions=drop
table=0, priority=50, in_port={three.ifname}, actions=load:0x3->NXM_NX_REG0[], resubmit(,10)
table=0, priority=10, actions=load:0x1->NXM_NX_REG0[],goto_table:10
# firewall: the third guest may only ping
table=10, priority=200, arp actions=resubmit(,20)
table=10, priority=200, icmp6 actions=resubmit(,20)
table=10, priority=150, reg0=0x3, icmp actions=resubmit(,20)
table=10, priority=100, reg0=0x1, ip actions=resubmit(,20)
table=10, priority=0 actions=drop
table=20, actions=NORMAL
"""
    file = tmp_path / "policy.txt"
    file.write_text(policy)
    cli.ok("flow", "replace", "br-int", file)
    pings(one.ns, two.ip)
    pings(three.ns, one.ip)
    tcp_transfer(one.ns, two.ns, two.ip, megabytes=2)
    with pytest.raises(AssertionError, match="TCP"):
        tcp_transfer(three.ns, one.ns, one.ip, megabytes=1, timeout_s=0.5)
    dropped = next(f for f in cli.json("flow", "dump", "br-int") if (f["table"], f["priority"]) == (10, 0))
    assert dropped["packets"] > 0
    file.write_text(policy.replace("reg0=0x3, icmp", "reg0=0x3, tcp"))
    cli.ok("flow", "replace", "br-int", file)
    no_ping(three.ns, one.ip)
    assert os.path.exists(file)
