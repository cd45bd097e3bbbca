"""The JSON and the tables that scripts read, in the shapes of the contract."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from typing import Any

import pytest

from tests.support.cli import COMMAND, Cli

PORT_KEYS = {
    "bridge": str, "ifname": str, "ifindex": int, "ofport": int, "hook": str, "vlan": (int, type(None)),
    "trunk": (list, type(None)), "mac": list, "ip": list, "sg": list, "rx_packets": int, "rx_bytes": int,
    "tx_packets": int, "tx_bytes": int, "drops": dict,
}  # fmt: skip
MAC_KEYS = {
    "mac": str, "vlan": int, "port": str, "remote": (str, type(None)), "static": bool, "age_s": (int, float),
}  # fmt: skip
FLOW_KEYS = {
    "table": int, "priority": int, "cookie": str, "match": str, "actions": str, "packets": int, "bytes": int,
    "age_s": float, "idle_s": float, "id": int,
}  # fmt: skip


def assert_shape(row: dict[str, Any], shape: dict[str, Any]) -> None:
    assert shape.keys() <= row.keys()
    for key, kind in shape.items():
        assert isinstance(row[key], kind), f"{key}: {row[key]!r}"


def test_port_list_has_the_contracts_keys(switch: Cli):
    first, second = switch.json("port", "list")
    for row in (first, second):
        assert_shape(row, PORT_KEYS)
    assert (first["bridge"], first["ifname"], first["ofport"], first["vlan"]) == ("br0", "p1", 1, None)
    assert (second["ifname"], second["vlan"], second["hook"]) == ("p2", 10, "tcx")
    assert switch.netns is not None
    assert first["ifindex"] == switch.netns.ifindex("p1")
    assert switch.json("port", "list", "br0") == [first, second]
    assert switch.json("port", "show", "p2") == second


def test_a_trunk_is_a_list_of_vlans(switch: Cli):
    switch.ok("port", "add", "br0", "spare", "--trunk", "20-22,10", "--native", "20")
    try:
        row = switch.json("port", "show", "spare")
        assert (row["vlan"], row["trunk"], row["native"]) == (None, [10, 20, 21, 22], 20)
        assert "trunk 10,20-22 native 20" in switch.ok("port", "list").stdout
        switch.ok("port", "set", "spare", "--vlan", "7", "--isolated")
        row = switch.json("port", "show", "spare")
        assert (row["vlan"], row["trunk"], row["native"], row["isolated"]) == (7, None, None, True)
        switch.ok("port", "set", "spare", "--no-vlan", "--no-isolated")
        row = switch.json("port", "show", "spare")
        assert (row["vlan"], row["trunk"], row["isolated"]) == (None, None, False)
    finally:
        switch.ok("port", "del", "spare")


def test_fdb_list_has_the_contracts_keys(switch: Cli):
    switch.ok("fdb", "add", "br0", "02-00-00-00-00-AA", "p2", "--vlan", "10")
    try:
        (row,) = [row for row in switch.json("fdb", "list", "br0") if row["static"]]
        assert_shape(row, MAC_KEYS)
        assert (row["mac"], row["vlan"], row["port"], row["remote"]) == ("02:00:00:00:00:aa", 10, "p2", None)
        assert "02:00:00:00:00:aa" in switch.ok("fdb", "list", "br0").stdout
    finally:
        assert switch.json("fdb", "del", "br0", "02:00:00:00:00:aa") == {"changed": True, "deleted": 1}


def test_flow_dump_has_the_contracts_keys_and_prints_as_ovs_ofctl(switch: Cli):
    (row,) = switch.json("flow", "dump", "br0")
    assert_shape(row, FLOW_KEYS)
    assert (row["table"], row["priority"], row["cookie"]) == (0, 7, "0x0")
    assert (row["match"], row["actions"]) == ("icmp", "drop")
    assert switch.ok("flow", "dump", "br0", "--no-stats").stdout == " priority=7,icmp actions=drop\n"
    assert "n_packets=0" in switch.ok("flow", "dump", "br0").stdout
    assert switch.json("flow", "dump", "br0", "tcp") == []
    assert switch.json("flow", "dump", "br0", "--table", "1") == []


def test_flow_verbs_tell_what_they_changed(switch: Cli):
    added = switch.json("flow", "add", "br0", "priority=9,tcp,actions=normal")
    assert (added["added"], added["removed"]) == (1, 0)
    assert switch.json("flow", "mod", "br0", "tcp,actions=drop")["changed"] == 1
    assert switch.json("flow", "del", "br0", "tcp")["removed"] == 1


def test_importance_is_taken_with_a_warning_on_standard_error(switch: Cli):
    result = switch.ok("flow", "add", "br0", "importance=5,priority=9,udp,actions=drop", json=True)
    assert result.json["added"] == 1
    assert "importance" in result.message
    assert result.message.startswith("pyoffload: warning: ")
    switch.ok("flow", "del", "br0", "udp")


def test_json_may_also_be_asked_for_after_the_verb(switch: Cli):
    assert switch.ok("port", "list", "-j").json == switch.json("port", "list")
    assert switch.netns is not None
    late = Cli(None).ok("port", "list", "-j", "-n", switch.netns.name)
    assert late.json == switch.json("port", "list")


def test_bridge_list_and_show(switch: Cli):
    (row,) = switch.json("bridge", "list")
    assert (row["name"], row["ports"], row["flood"], row["mac_age_s"]) == ("br0", ["p1", "p2"], True, 300)
    shown = switch.json("bridge", "show", "br0")
    assert shown["local"]["ifname"] == "br0"
    assert switch.ok("bridge", "list").stdout.splitlines()[0].split()[0] == "BRIDGE"


def test_bridge_options_are_kept(switch: Cli):
    options = ("--vni", "77", "--mac-age", "5m", "--mac-limit", "10", "--flood", "off")
    row = switch.json("bridge", "add", "br1", *options)
    assert (row["vni"], row["mac_age_s"], row["mac_limit"], row["flood"]) == (77, 300, 10, False)
    switch.ok("bridge", "del", "br1")
    assert [bridge["name"] for bridge in switch.json("bridge", "list")] == ["br0"]


def test_status_tells_tables_hooks_and_drift(switch: Cli):
    status = switch.json("status")
    assert status["up"] is True
    assert status["drift"] == []
    hooks = {hook["ifname"]: (hook["hook"], hook["owner"]) for hook in status["hooks"]}
    assert hooks["p1"] == ("tcx", "pyoffload")
    tables = {table["name"]: table for table in status["tables"]}
    assert tables["flows"]["capacity"] >= 65536
    assert tables["ports"]["used"] >= 2


def test_stats_of_all_ports_and_of_one(switch: Cli):
    rows = switch.json("stats")
    assert [row["ifname"] for row in rows] == ["p1", "p2"]
    assert rows[0]["drops"] == {}
    assert [row["ifname"] for row in switch.json("stats", "p2")] == ["p2"]


def test_stats_watch_gives_rates_once_per_interval(switch: Cli):
    result = switch.ok("-j", "stats", "p1", "--watch", "--interval", "50ms", "--count", "2")
    samples = [json.loads(line) for line in result.stdout.splitlines()]
    assert [[row["ifname"] for row in sample] for sample in samples] == [["p1"], ["p1"]]
    assert samples[0][0]["rx_packets_per_s"] >= 0


def test_groups_and_meters_in_ovs_ofctls_words(switch: Cli):
    switch.ok("group", "add", "br0", "group_id=1,type=select,bucket=output:p1,bucket=output:p2")
    switch.ok("group", "mod", "br0", "group_id=1,type=all,bucket=output:p1")
    switch.ok("meter", "add", "br0", "meter=3,kbps,band=type=drop,rate=1000")
    try:
        assert [group["group_id"] for group in switch.json("group", "list", "br0")] == [1]
        assert switch.json("group", "show", "br0", "group_id=1")["type"] == "all"
        assert "group_id=1,type=all" in switch.ok("group", "list", "br0").stdout
        assert [meter["meter_id"] for meter in switch.json("meter", "list", "br0")] == [3]
        assert "meter=3" in switch.ok("meter", "show", "br0", "3").stdout
    finally:
        switch.ok("group", "del", "br0", "all")
        switch.ok("meter", "del", "br0", "meter=3")
    assert switch.json("group", "list", "br0") == []
    assert switch.json("meter", "list", "br0") == []


def test_flow_cache_list_of_an_idle_switch_is_a_list(switch: Cli):
    assert isinstance(switch.json("flow", "cache", "list"), list)
    assert switch.json("flow", "cache", "list", "br0", "--port", "p1", "--top", "5") == []


READING = [
    ["bridge", "list"], ["bridge", "show", "br0"], ["port", "list"], ["port", "show", "p1"], ["fdb", "list", "br0"],
    ["flow", "dump", "br0"], ["flow", "cache", "list"], ["group", "list", "br0"], ["meter", "list", "br0"],
    ["status"], ["doctor"], ["stats"],
]  # fmt: skip


@pytest.mark.parametrize("words", READING, ids=" ".join)
def test_reading_verbs_print_one_document_and_nothing_else(switch: Cli, words):
    result = switch.ok(*words, json=True)
    assert isinstance(result.json, (list, dict))
    assert result.stderr == ""


@pytest.mark.parametrize("words", READING, ids=" ".join)
def test_reading_verbs_need_neither_lock_nor_compiler(switch: Cli, words):
    loaded = "sys.modules.keys() & {'bcc', 'pyroute2', 'scapy', 'asyncio', 'numpy', 'rich'}"
    assert switch.netns is not None
    program = (
        f"import sys; from cli.main import run; code = run(sys.argv[1:]); print({loaded}, file=sys.stderr)"
    )
    root = COMMAND.parents[1]
    argv = [str(root / ".venv/bin/python"), "-c", program, "-n", switch.netns.name, *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=root)
    assert done.stderr == "set()\n"


@pytest.mark.parametrize("words", READING, ids=" ".join)
def test_reading_verbs_answer_at_once(switch: Cli, words):
    # A guard against compilers and libraries on the way, not a measurement: this machine has other work too.
    assert switch.fastest(*words, runs=3) < 1.0


@pytest.mark.parametrize("enter", ["ip", "nsenter"])
def test_it_works_under_ip_netns_exec_and_nsenter(switch: Cli, enter):
    assert switch.netns is not None
    inside = Cli(None, command={
        "ip": ("ip", "netns", "exec", switch.netns.name, str(COMMAND)),
        "nsenter": ("nsenter", f"--net={switch.netns.path}", str(COMMAND)),
    }[enter])  # fmt: skip
    assert inside.json("port", "list") == switch.json("port", "list")
    inside.ok("flow", "add", "br0", "priority=3,arp,actions=normal")
    assert switch.json("flow", "del", "br0", "arp")["removed"] == 1


def on_terminal(cli: Cli, *words: str, columns: int = 100) -> str:
    """What the command shows on a terminal of this width."""
    assert cli.netns is not None
    master, slave = pty.openpty()
    env = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm-256color"}
    argv = [str(COMMAND), "-n", cli.netns.name, *words]
    with subprocess.Popen(argv, stdin=slave, stdout=slave, stderr=slave, env=env) as child:
        os.close(slave)
        shown = b""
        while True:
            try:
                part = os.read(master, 65536)
            except OSError:
                break
            if not part:
                break
            shown += part
        os.close(master)
    assert child.returncode == 0, shown.decode()
    return shown.decode()


def test_tables_are_drawn_on_a_terminal_and_plain_when_piped(switch: Cli):
    drawn = on_terminal(switch, "port", "list")
    assert "─" in drawn
    assert "rx packets" in drawn
    plain = switch.ok("port", "list").stdout
    assert "─" not in plain
    header, first, second = plain.splitlines()
    assert header.split()[:4] == ["BRIDGE", "PORT", "OFPORT", "HOOK"]
    assert first.split()[:4] == ["br0", "p1", "1", "tcx"]
    assert len({len(line.split()) for line in (header, first, second)}) == 1


def test_json_on_a_terminal_is_indented_and_the_same(switch: Cli):
    assert json.loads(on_terminal(switch, "-j", "bridge", "list")) == switch.json("bridge", "list")


def test_a_live_table_of_rates_on_a_terminal(switch: Cli):
    drawn = on_terminal(switch, "stats", "--watch", "--interval", "50ms", "--count", "2")
    assert "rx pps" in drawn
    assert "p1" in drawn


def test_a_bulk_load_shows_its_progress_on_a_terminal_only(switch: Cli, tmp_path):
    file = tmp_path / "flows"
    file.write_text("".join(f"priority=5,tcp,tp_dst={port},actions=drop\n" for port in range(1, 20001)))
    shown = on_terminal(switch, "flow", "add", "br0", "--file", str(file))
    assert "20000/20000" in shown
    quiet = switch.ok("flow", "replace", "br0", file)
    assert (quiet.stdout, quiet.stderr) == ("", "")
    assert len(switch.ok("flow", "dump", "br0", "--no-stats").stdout.splitlines()) == 20000
    switch.ok("flow", "replace", "br0", "-", stdin="priority=7,icmp,actions=drop\n")


def test_control_c_ends_it_quietly(switch: Cli):
    child = switch.start("-j", "stats", "--watch", "--interval", "50ms")
    assert child.stdout is not None
    assert child.stderr is not None
    assert child.stdout.readline().startswith("[")
    child.send_signal(signal.SIGINT)
    assert (child.wait(), child.stderr.read()) == (130, "")


def test_the_reference_page_is_what_the_command_says():
    root = COMMAND.parents[1]
    done = subprocess.run(
        [str(root / "scripts/gen_reference"), "--check"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_version_is_told():
    words = Cli(None).ok("--version").stdout.split()
    assert words[0] == "pyoffload"
    assert words[1][0].isdigit()
