"""pyoffload.kernel.prog and link against the running kernel."""

from __future__ import annotations

import struct

import pytest

from pyoffload.errors import VerifierError
from pyoffload.kernel.link import Link, query
from pyoffload.kernel.prog import ATTACH_TYPE_TCX_INGRESS, PROG_TYPE_SCHED_CLS, Prog
from tests.kernel.conftest import returning, tc_program, xdp_program

pytestmark = pytest.mark.kernel


def test_a_program_runs_on_a_test_packet_and_says_what_it_is():
    with tc_program(7) as prog:
        info = prog.info()
        assert (info.name, info.type, info.verified_insns) == ("pyo_tc_ingress", PROG_TYPE_SCHED_CLS, 2)
        assert info.jited_size > 0
        run = prog.test_run(bytes(range(64)))
        assert (run.retval, run.data) == (7, bytes(range(64)))


def test_a_refused_program_comes_with_the_verifiers_reason_and_log():
    no_return_value = struct.pack("<BBhi", 0x95, 0, 0, 0)
    with pytest.raises(VerifierError) as caught:
        Prog.load(PROG_TYPE_SCHED_CLS, no_return_value, name="pyo_bad")
    assert "R0 !read_ok" in caught.value.message
    assert caught.value.message.startswith("program 'pyo_bad'")
    assert "0: (95) exit" in caught.value.log


def test_a_long_log_is_cut_in_the_middle():
    body = b"".join(struct.pack("<BBhi", 0xB7, 1, 0, number) for number in range(500))
    with pytest.raises(VerifierError) as caught:
        Prog.load(PROG_TYPE_SCHED_CLS, body + struct.pack("<BBhi", 0x95, 0, 0, 0), name="pyo_bad")
    lines = caught.value.log.splitlines()
    assert len(lines) == 101
    assert lines[40].startswith("… ")
    assert "processed" in lines[-1]


def test_a_link_holds_its_program_swaps_it_and_lets_go(host):
    host.ip("link add v0 type veth peer name v1")
    ifindex = host.ifindex("v0")
    with tc_program(1) as first, tc_program(2) as second:
        with Link.create(first.fd, ifindex, ATTACH_TYPE_TCX_INGRESS) as link:
            assert [entry.prog_id for entry in query(ifindex, ATTACH_TYPE_TCX_INGRESS) or ()] == [
                first.info().id
            ]
            link.update(second.fd, first.fd)
            info = link.info()
            assert (info.ifindex, info.prog_id, info.attach_type) == (
                ifindex,
                second.info().id,
                ATTACH_TYPE_TCX_INGRESS,
            )
            link.detach()
            assert link.info().ifindex == 0
        assert query(ifindex, ATTACH_TYPE_TCX_INGRESS) == []


def test_an_xdp_program_of_ours_takes_frames_in_fragments():
    with xdp_program() as prog:
        # Longer than a page: only a program loaded with BPF_F_XDP_HAS_FRAGS is run on it.
        assert prog.test_run(bytes(9000)).retval == 2


def test_a_pinned_program_is_opened_again(programs):
    with programs.open("tc_ingress") as prog:
        assert prog.info().name == "pyo_tc_ingress"
    assert programs.names() == ["tc_ingress", "xdp_ingress"]
    assert returning(1) != returning(2)
