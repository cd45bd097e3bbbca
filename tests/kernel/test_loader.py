"""The real datapath is compiled, accepted by the verifier, pinned and replaced."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from pyoffload import _abi as abi, compiler, loader, maps
from pyoffload.errors import DatapathDown, VerifierError
from pyoffload.kernel.map import Map
from pyoffload.kernel.prog import Prog

pytestmark = pytest.mark.kernel

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MAX_VERIFIED_INSNS = (
    1_000_000 // 2
)  # the kernel's limit is a million; other kernels' verifiers are less clever
TC_ACT_SHOT = 2
TC_ACT_UNSPEC = 0xFFFFFFFF
TAILS = [member for member in abi.tail_program if member.name != "PROGRAMS"]


def test_every_program_is_loaded_pinned_and_within_the_verifiers_limits(up):
    loaded = loader.load(up)
    assert loaded.generation == 1
    names = loaded.names()
    assert set(names) == {"tc_ingress", "xdp_ingress", *(f"tc_{member.name.lower()}" for member in TAILS)}
    for name in names:
        with loaded.open(name) as prog:
            info = prog.info()
            assert info.name == f"pyo_{name}"[:15]
            assert 0 < info.verified_insns < MAX_VERIFIED_INSNS, name
        assert os.stat(f"{loaded.directory}/{name}").st_mode & 0o777 == 0o600


def test_the_array_of_tail_programs_is_full_and_stays_so(up):
    loaded = loader.load(up)
    with Map.open(f"{loaded.directory}/tail_programs") as tails:
        for member in TAILS:
            prog_id = int.from_bytes(tails.lookup(int(member)) or b"", "little")
            with Prog.by_id(prog_id) as prog:
                assert prog.info().name == f"pyo_tc_{member.name.lower()}"[:15]


def test_programs_use_the_pinned_maps(up):
    loaded = loader.load(up)
    lo = 1
    with (
        loaded.open("tc_ingress") as prog,
        maps.open_map(up, "ports", writable=True) as ports,
        maps.open_map(up, "port_drops") as drops,
    ):
        # The packet of an interface that is no port is not ours.
        assert prog.test_run(bytes(64)).retval == TC_ACT_UNSPEC
        # That of a port whose bridge is not up is dropped and counted.
        ports.update(lo, bytes(abi.port(ifindex=lo, bridge=0, ofport=1)))
        assert prog.test_run(bytes(64)).retval == TC_ACT_SHOT
        reason = abi.drop_reason.BRIDGE_DOWN
        assert drops.lookup_percpu_sum(lo * abi.N_DROP_REASONS + reason, "Q") == (1,)


def test_a_second_set_stands_beside_the_first_until_that_is_removed(up):
    first = loader.load(up)
    second = loader.load(up)
    assert (first.generation, second.generation) == (1, 2)
    assert loader.open_current(up) == second
    assert loader.remove_old(up) == 1
    assert os.listdir(up.progs_dir) == ["2"]
    assert loader.remove_old(up) == 0


def test_nothing_is_loaded_at_first(up):
    assert not loader.is_loaded(up)
    with pytest.raises(DatapathDown):
        loader.open_current(up)


@pytest.mark.parametrize("name", ["load.compiled", "load.pinned", "load.renamed"])
def test_a_killed_load_leaves_whole_sets_only(up, name):
    text = "from pyoffload import loader; from pyoffload.instance import Instance; loader.load(Instance.current())"
    done = subprocess.run(
        [sys.executable, "-c", text], env={**os.environ, "PYOFFLOAD_KILL_AT": name}, cwd=ROOT, check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert loader.is_loaded(up) == (name == "load.renamed")
    loaded = loader.load(up)
    assert loader.open_current(up) == loaded
    loader.remove_old(up)
    assert os.listdir(up.progs_dir) == [str(loaded.generation)]


def test_a_program_that_the_verifier_refuses_changes_nothing(up, monkeypatch):
    loaded = loader.load(up)
    real = compiler.compile_all

    def spoil(sources, **options):
        results = real(sources, **options)
        results[0].programs["tc_emit"] = bytes([0x95]) + bytes(7)
        return results

    monkeypatch.setattr(compiler, "compile_all", spoil)
    with pytest.raises(VerifierError, match="program 'pyo_tc_emit'"):
        loader.load(up)
    assert loader.open_current(up) == loaded
    assert sorted(os.listdir(up.progs_dir)) == ["1"]
