"""Namespaces, waiting, leftovers and the runner of the command."""

from __future__ import annotations

import os
import socket
import subprocess
import threading

import pytest

from tests.support import leftovers, netns, offload
from tests.support.cli import Cli
from tests.support.eventually import eventually
from tests.support.hoststate import assert_unchanged, host_state, state_difference
from tests.support.netns import NETNS_DIR, LabError, Netns

pytestmark = pytest.mark.traffic


def test_a_namespace_goes_with_everything_that_runs_inside():
    with Netns("tst") as ns:
        assert len(ns.name) <= 15
        child = ns.start("sleep", "600")
        orphan = int(ns.run("sh", "-c", "sleep 600 >/dev/null 2>&1 & echo $!").stdout)
        assert sorted(ns.processes()) == sorted([child.pid, orphan])
    assert child.poll() is not None
    assert not ns.path.exists()
    eventually(
        lambda: not os.path.exists(f"/proc/{orphan}/ns") or netns._is_zombie(orphan), why="the orphan ends"
    )
    ns.close()


def test_only_the_calling_thread_enters_a_namespace():
    home = netns.current_inode()
    seen = []
    inside, leave = threading.Event(), threading.Event()
    with Netns("tst") as ns:

        def visit():
            with ns.entered():
                seen.append(netns.current_inode())
                inside.set()
                leave.wait(5)
            seen.append(netns.current_inode())

        thread = threading.Thread(target=visit)
        thread.start()
        assert inside.wait(5)
        assert netns.current_inode() == home
        leave.set()
        thread.join()
        assert seen == [ns.inode, home]


def test_an_exception_inside_leads_back_home():
    home = netns.current_inode()
    with Netns("tst") as ns, pytest.raises(KeyError), ns.entered():
        raise KeyError
    assert netns.current_inode() == home


def test_errors_of_commands_name_the_namespace_and_the_reason():
    with Netns("tst") as ns:
        with pytest.raises(LabError, match=rf"{ns.name}: ip: .*nosuch"):
            ns.ip("link set nosuch up")
        with pytest.raises(LabError, match="exited 3: bad"):
            ns.run("sh", "-c", "echo bad >&2; exit 3")
        with pytest.raises(LabError, match="no interface nosuch"):
            ns.ifindex("nosuch")


def test_the_deferred_is_undone_in_reverse_and_while_the_name_is_there():
    order = []
    with Netns("tst") as ns:
        ns.defer(lambda: order.append(("first", ns.path.exists())))
        ns.defer(lambda: order.append(("second", ns.path.exists())))
    assert order == [("second", True), ("first", True)]


def test_a_failing_undo_is_reported_and_the_namespace_still_goes():
    with pytest.raises(ZeroDivisionError), Netns("tst") as ns:
        ns.defer(lambda: 1 / 0)
    assert not ns.path.exists()


def test_eventually_returns_the_value_or_tells_what_was_seen():
    answers = iter([0, 0, 7])
    assert eventually(lambda: next(answers), every_s=0.001) == 7
    with pytest.raises(AssertionError, match=r"not within 0\.01 s: the sun rises; last seen: dark"):
        eventually(lambda: _fail("dark"), within_s=0.01, every_s=0.002, why="the sun rises")


def _fail(seen):
    raise AssertionError(seen)


def test_a_leftover_namespace_process_and_instance_are_reported_and_removed(tmp_path, monkeypatch):
    for name in ("RUN_DIR", "PIN_DIR", "STATE_DIR"):
        directory = tmp_path / name
        directory.mkdir()
        monkeypatch.setattr(leftovers, name, directory)
    check = leftovers.Leftovers()
    try:
        lost = Netns("lst")
        child = lost.start("sleep", "600")
        (tmp_path / "PIN_DIR" / lost.name).mkdir()
        (tmp_path / "PIN_DIR" / "somebody-else").mkdir()
        mine = [line for line in check.found() if lost.name in line]
        assert mine == [
            f"namespace {lost.name}",
            f"{tmp_path}/PIN_DIR/{lost.name}",
            f"process {child.pid} in namespace {lost.name}",
        ]
        child.wait(5)
        assert not (NETNS_DIR / lost.name).exists()
        assert [entry.name for entry in (tmp_path / "PIN_DIR").iterdir()] == ["somebody-else"]
        assert check.found(within_s=0.1) == []
        lost.close()
    finally:
        check.close()


def test_loaded_programs_are_found_by_name_and_missed_when_gone():
    number, fd = _load_program(b"pyo_lab_check")
    try:
        assert leftovers.our_programs()[number] == "pyo_lab_check"
    finally:
        os.close(fd)
    eventually(lambda: number not in leftovers.our_programs(), why="the program is unloaded")


def test_the_state_of_a_host_shows_what_changed(lab):
    (guest,) = lab.guests(1)
    before = host_state(lab.host)
    assert_unchanged(before, lab.host)
    lab.host.run("tc", "qdisc", "add", "dev", guest.ifname, "clsact")
    offload.set_features(lab.host, guest.ifname, gro=True)
    lab.host.ip(f"link set {guest.ifname} promisc on")
    changed = state_difference(before, host_state(lab.host))
    assert [line.split(":")[0] for line in changed] == [
        f"link {guest.ifname}",
        f"offloads {guest.ifname}",
        "qdiscs",
    ]
    with pytest.raises(AssertionError, match="the host is not as it was"):
        assert_unchanged(before, lab.host)


def _load_program(name):
    """A socket filter of two instructions: r0 = 0; exit."""
    import ctypes
    import struct

    code = ctypes.create_string_buffer(
        struct.pack("<BBhi", 0xB7, 0, 0, 0) + struct.pack("<BBhi", 0x95, 0, 0, 0)
    )
    licence = ctypes.create_string_buffer(b"GPL")
    attr = struct.pack(
        "IIQQIIQII16s", 1, 2, ctypes.addressof(code), ctypes.addressof(licence), 0, 0, 0, 0, 0, name
    )
    fd = leftovers.bpf(5, ctypes.create_string_buffer(attr, 128))
    assert fd >= 0, os.strerror(ctypes.get_errno())
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as info:
        number = next(int(line.split()[1]) for line in info if line.startswith("prog_id:"))
    return number, fd


@pytest.fixture
def fake(tmp_path):
    """A Cli whose command is a shell script: the runner is judged, not the command."""

    def make(script):
        path = tmp_path / "command"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return Cli(None, command=(str(path),))

    return make


def test_the_runner_gives_json_and_environment(fake):
    cli = fake('[ "$1" = -j ] && echo "{\\"verb\\": \\"$3\\", \\"debug\\": \\"$PYOFFLOAD_DEBUG\\"}"')
    assert cli.json("port", "list", env={"PYOFFLOAD_DEBUG": "1"}) == {"verb": "list", "debug": "1"}
    assert cli.fastest("-j", "port", "list", runs=2) < 1


def test_the_runner_refuses_output_that_is_not_as_it_should_be(fake):
    assert fake("echo 'what is wrong' >&2; echo 'hint: do this' >&2; exit 2").fails(2, "x").hint == "do this"
    for script, why in (
        ("exit 2", "does not say why"),
        ("echo a >&2; exit 1", "exit code 2 wanted"),
        ("echo a >&2; echo b >&2; exit 2", "no hint"),
        ("echo a >&2; echo hint: b >&2; echo c >&2; exit 2", "more than a line"),
        ("echo Traceback >&2; exit 2", "a traceback"),
        ("echo 'x: internal error: KeyError' >&2; exit 2", "an internal error"),
        ("echo 'something else' >&2; exit 2", "'this word' is not said"),
    ):
        with pytest.raises(AssertionError, match=why):
            fake(script).fails(2, "x", says="this word" if "else" in script else "")
    with pytest.raises(AssertionError, match="one JSON document"):
        fake("echo {}{}").json("x")
    with pytest.raises(AssertionError, match="not finished"):
        fake("exec sleep 60").run("x", timeout_s=0.05)


def test_the_runner_sees_a_command_die_by_signal(fake):
    assert fake('[ "$PYOFFLOAD_KILL_AT" = here ] && kill -9 $$').killed("here", "up").code == -9
    assert fake('echo one two >"$PYOFFLOAD_CHECKPOINT_LOG"').checkpoints("up") == ["one", "two"]


@pytest.mark.parametrize("enter", ["flag", "ip", "nsenter"])
def test_the_runner_enters_the_namespace_as_asked(fake, tmp_path, enter):
    fake('[ "$1" = -n ] && { echo flag; exit; }; readlink /proc/self/ns/net')
    with Netns("tst") as ns:
        said = Cli(ns, enter=enter, command=(str(tmp_path / "command"),)).ok("status").stdout.strip()
        assert said == ("flag" if enter == "flag" else f"net:[{ns.inode}]")


def test_sockets_of_a_namespace_are_closed_with_it():
    with Netns("tst") as ns:
        sock = ns.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1", 0))
        assert subprocess.run(["true"], check=True).returncode == 0
    assert sock.fileno() == -1
