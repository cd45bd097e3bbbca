"""What is wrong is said in one line and a hint, with the right exit code, and changes nothing."""

from __future__ import annotations

import pytest

from tests.cli.conftest import configuration
from tests.support.cli import Cli

# Words of the command line, and what the message has to say.
WRONG_USAGE = [
    ([], "no command given"),
    (["bridge"], "what to do with a bridge"),
    (["brigde", "list"], "'bridge'"),
    (["bridge", "ad", "x"], "unknown verb 'ad'"),
    (["bridge", "add"], "'NAME'"),
    (["bridge", "add", "a", "b"], "(b)"),
    (["bridge", "add", "x", "--frob"], "--frob"),
    (["--frob"], "--frob"),
    (["--netns"], "--netns"),
    (["-n", "a/b", "bridge", "list"], "a/b"),
    (["bridge", "add", ""], "NAME"),
    (["bridge", "add", "x" * 16], "x" * 16),
    (["bridge", "add", "a/b"], "a/b"),
    (["bridge", "add", "a b"], "a b"),
    (["bridge", "add", "a\nb"], "a\\nb"),
    (["bridge", "add", ".."], ".."),
    (["bridge", "add", "x", "--vni", "0"], "--vni"),
    (["bridge", "add", "x", "--vni", "16777216"], "--vni"),
    (["bridge", "add", "x", "--vni", "ten"], "'ten'"),
    (["bridge", "add", "x", "--mac-age", "5q"], "'5q'"),
    (["bridge", "add", "x", "--mac-age", ""], "--mac-age"),
    (["bridge", "add", "x", "--mac-age", "-5s"], "--mac-age"),
    (["bridge", "add", "x", "--mac-limit", "0"], "--mac-limit"),
    (["bridge", "add", "x", "--mac-limit", "many"], "'many'"),
    (["bridge", "add", "x", "--flood", "maybe"], "'maybe'"),
    (["port", "add", "br0"], "'IFNAME'"),
    (["port", "add", "br0", "x" * 16], "x" * 16),
    (["port", "add", "br0", "spare", "--vlan", "0"], "'0'"),
    (["port", "add", "br0", "spare", "--vlan", "4095"], "'4095'"),
    (["port", "add", "br0", "spare", "--vlan", "x"], "'x'"),
    (["port", "add", "br0", "spare", "--trunk", "10-"], "--trunk"),
    (["port", "add", "br0", "spare", "--trunk", "20-10"], "20-10"),
    (["port", "add", "br0", "spare", "--trunk", ""], "--trunk"),
    (["port", "add", "br0", "spare", "--trunk", "1,5000"], "'5000'"),
    (["port", "add", "br0", "spare", "--native", "5"], "--native"),
    (["port", "add", "br0", "spare", "--trunk", "10", "--native", "x"], "--native"),
    (["port", "add", "br0", "spare", "--vlan", "5", "--trunk", "6"], "--vlan"),
    (["port", "add", "br0", "spare", "--vlan", "5", "--native", "6"], "--native"),
    (["port", "add", "br0", "spare", "--mac", "52:54"], "'52:54'"),
    (["port", "add", "br0", "spare", "--ip", "10.0.0.300"], "'10.0.0.300'"),
    (["port", "add", "br0", "spare", "--hook", "dpdk"], "'dpdk'"),
    (["port", "set", "p1"], "nothing to change"),
    (["port", "set", "p1", "--vlan", "5000"], "'5000'"),
    (["port", "set", "p1", "--vlan", "5", "--no-vlan"], "--no-vlan"),
    (["fdb", "add", "br0", "zz", "p1"], "'zz'"),
    (["fdb", "add", "br0", "01:00:5e:00:00:01", "p1"], "01:00:5e:00:00:01"),
    (["fdb", "add", "br0", "02:00:00:00:00:01", "p1", "--vlan", "9999"], "'9999'"),
    (["fdb", "del", "br0", "1"], "'1'"),
    (["flow", "add", "br0"], "FLOW"),
    (["flow", "add", "br0", "actions=drop", "--file", "x"], "--file"),
    (["flow", "add", "br0", "--file"], "--file"),
    (["flow", "mod", "br0"], "'MATCH'"),
    (["flow", "del", "br0"], "'MATCH'"),
    (["flow", "dump", "br0", "--table", "99"], "--table"),
    (["flow", "dump", "br0", "--table", "x"], "'x'"),
    (["flow", "cache"], "flow cache"),
    (["flow", "cache", "list", "--top", "0"], "--top"),
    (["group", "del", "br0", "x"], "'x'"),
    (["group", "show", "br0", "all"], "'all'"),
    (["meter", "del", "br0", "-1"], "-1"),
    (["stats", "p1", "--watch", "--interval", "soon"], "'soon'"),
    (["stats", "p1", "--watch", "--count", "0"], "--count"),
    (["up", "--cache-entries", "lots"], "'lots'"),
    (["up", "extra"], "extra"),
    # Verbs of later versions are not known yet, and say so as any unknown word does.
    (["sg", "list"], "unknown command 'sg'"),
    (["trace", "p1", "00"], "unknown command 'trace'"),
    (["apply", "x.yaml"], "unknown command 'apply'"),
]

# Flows, each with the word that the message has to point at and its column.
WRONG_FLOWS = [
    ("icmp,tp_dts=4,actions=drop", "tp_dts", 6),
    ("icmp,actions=output:nope", "nope", 21),
    ("ip,nw_src=10.0.0.300,actions=drop", "10.0.0.300", 11),
    ("ip,nw_src=10.0.0.0/33,actions=drop", "33", 20),
    ("tcp,tp_dst=70000,actions=drop", "70000", 12),
    ("table=32,actions=drop", "32", 7),
    ("priority=65536,actions=drop", "65536", 10),
    ("priority=high,actions=drop", "high", 10),
    ("in_port=zz,actions=drop", "zz", 9),
    ("tcp,actions=frobnicate", "frobnicate", 13),
    ("dl_src=xx,actions=drop", "xx", 8),
    ("ipv6,ipv6_src=1::2::3,actions=drop", "1::2::3", 15),
    ("icmp", "no actions", 5),
    ("", "no actions", 1),
    ("tp_dst=80,actions=drop", "tp_dst", 1),
    ("ct_state=+trk,actions=drop", "ct_state", 1),
    ("tun_id=5,actions=drop", "tun_id", 1),
    ("actions=ct(commit)", "ct", 9),
    ("actions=set_tunnel:5", "set_tunnel", 9),
    ("actions=goto_table:99", "99", 20),
    ("actions=group:x", "x", 15),
    ("actions=mod_vlan_vid:9999", "9999", 22),
    ("actions=mod_dl_src:zz", "zz", 20),
    ("idle_timeout=70000,actions=drop", "70000", 14),
    ("cookie=zz,actions=drop", "zz", 8),
]


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    ("words", "says"), WRONG_USAGE, ids=[" ".join(words) or "nothing" for words, _ in WRONG_USAGE]
)
def test_wrong_usage_is_one_line_and_a_hint_and_changes_nothing(switch: Cli, words, says):
    failure = switch.fails(2, *words, says=says)
    assert failure.stdout == ""
    assert failure.hint


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(("flow", "word", "column"), WRONG_FLOWS, ids=[flow for flow, _, _ in WRONG_FLOWS])
def test_a_wrong_flow_is_refused_with_the_word_and_its_column(switch: Cli, flow, word, column):
    failure = switch.fails(2, "flow", "add", "br0", flow, says=word)
    assert failure.message.startswith("pyoffload: flow add: ")
    assert f"column {column})" in failure.message


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("verb", ["add", "replace"])
def test_a_file_with_a_wrong_line_fails_as_a_whole_and_names_the_line(switch: Cli, tmp_path, verb):
    file = tmp_path / "flows.txt"
    file.write_text(
        "# two good ones\npriority=1,tcp,actions=drop\npriority=2,udp,actions=drop\nudp,tp_dts=1,actions=drop\n"
    )
    words = ("--file", file) if verb == "add" else (file,)
    failure = switch.fails(1, "flow", verb, "br0", *words, says="tp_dts")
    assert failure.message.startswith(f"pyoffload: flow {verb}: {file}:4: ")


@pytest.mark.usefixtures("unchanged")
def test_a_wrong_line_on_standard_input_is_named_as_well(switch: Cli):
    failure = switch.fails(1, "flow", "add", "br0", "--file", "-", stdin="actions=drop\nfrob\n")
    assert failure.message.startswith("pyoffload: flow add: <stdin>:2: ")


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("kind", ["missing", "directory", "not text"])
def test_a_file_that_cannot_be_read_is_named(switch: Cli, tmp_path, kind):
    file = tmp_path / "flows"
    if kind == "directory":
        file.mkdir()
    elif kind == "not text":
        file.write_bytes(b"\xff\xfe actions=drop\n")
    switch.fails(1, "flow", "replace", "br0", file, says=str(file))


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["bridge", "show", "nope"], "nope"),
        (["bridge", "del", "nope"], "nope"),
        (["bridge", "add", "br0"], "br0"),
        (["bridge", "add", "p1"], "p1"),
        (["bridge", "add", "spare"], "spare"),
        (["port", "show", "spare"], "spare"),
        (["port", "del", "spare"], "spare"),
        (["port", "set", "spare", "--vlan", "5"], "spare"),
        (["port", "add", "nope", "spare"], "nope"),
        (["port", "add", "br0", "nothere"], "nothere"),
        (["port", "add", "br0", "p1"], "p1"),
        (["port", "list", "nope"], "nope"),
        (["fdb", "list", "nope"], "nope"),
        (["fdb", "del", "br0", "02:00:00:00:00:09"], "02:00:00:00:00:09"),
        (["fdb", "add", "br0", "02:00:00:00:00:09", "spare"], "spare"),
        (["flow", "add", "nope", "actions=drop"], "nope"),
        (["flow", "dump", "nope"], "nope"),
        (["flow", "cache", "list", "nope"], "nope"),
        (["group", "show", "br0", "5"], "5"),
        (["meter", "show", "br0", "5"], "5"),
        (["stats", "nope"], "nope"),
        (["doctor", "nope"], "nope"),
    ],
    ids=" ".join,
)
def test_what_is_not_there_or_there_already_is_exit_1(switch: Cli, words, says):
    assert switch.fails(1, *words, says=says).stdout == ""


def test_an_unknown_namespace_is_named(switch: Cli):
    Cli(None).fails(1, "-n", "no-such-netns", "bridge", "list", says="no-such-netns")


@pytest.mark.usefixtures("unchanged")
def test_exist_ok_and_missing_ok_make_it_no_error(switch: Cli):
    switch.ok("bridge", "add", "br0", "--exist-ok")
    switch.ok("bridge", "del", "nope", "--missing-ok")
    switch.ok("port", "del", "spare", "--missing-ok")
    switch.ok("port", "add", "br0", "p2", "--vlan", "10", "--exist-ok")
    switch.ok("fdb", "del", "br0", "02:00:00:00:00:09", "--missing-ok")


def test_without_capabilities_it_is_exit_3_and_says_what_is_needed(switch: Cli):
    assert switch.netns is not None
    drop = (
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--inh-caps=-all",
        "--bounding-set=-all",
    )
    nobody = Cli(None, command=("nsenter", f"--net={switch.netns.path}", *drop, *Cli(None)._prefix))
    before = configuration(switch)
    for words in (["bridge", "add", "x"], ["port", "list"], ["status"], ["flow", "dump", "br0"], ["down"]):
        nobody.fails(3, *words, says="root")
    assert configuration(switch) == before


def test_a_message_never_breaks_the_line_or_steers_the_terminal(switch: Cli):
    failure = switch.fails(2, "bridge", "add", "a\x1b[31m\r\nb")
    assert failure.message.isprintable()


def test_a_broken_pipe_is_quiet(switch: Cli):
    child = switch.start("-j", "doctor")
    assert child.stdout is not None
    child.stdout.close()
    assert child.stderr is not None
    assert child.stderr.read() == ""
    assert child.wait() == 141
