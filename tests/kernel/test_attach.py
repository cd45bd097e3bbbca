"""Programs go on hooks and come off again, and nobody else's program is ever touched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from pyoffload import attach, hooks, netlink, rtnl
from pyoffload.errors import HookBusy, HostError, NotFound, UsageError
from pyoffload.kernel.link import XDP_MODE_NATIVE, Link, query
from pyoffload.kernel.prog import ATTACH_TYPE_TCX_INGRESS, ATTACH_TYPE_XDP
from tests.kernel.conftest import pin_programs, tc_program, xdp_program
from tests.support.hoststate import assert_unchanged, host_state

pytestmark = pytest.mark.kernel

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
needs_tcx = pytest.mark.skipif(
    os.geteuid() == 0 and not hooks.supports_tcx(), reason="this kernel has no TCX (6.6)"
)


@pytest.fixture
def v0(host) -> int:
    """A veth pair v0, v1 that is up; the ifindex of v0."""
    host.ip("link add v0 type veth peer name v1", "link set v0 up", "link set v1 up")
    host.wait_running(["v0", "v1"])
    return host.ifindex("v0")


@pytest.fixture(params=["tcx", "clsact"])
def tc_kind(request, monkeypatch) -> str:
    """Both ways of attaching TC programs, one after the other; what attach() calls it."""
    if request.param == "tcx" and not hooks.supports_tcx():
        pytest.skip("this kernel has no TCX (6.6)")
    monkeypatch.setenv("PYOFFLOAD_TC", request.param)
    return {"tcx": "tcx", "clsact": "tc"}[request.param]


def on_tc_hook(ifindex: int) -> list[int]:
    """Ids of all programs on TCX and clsact ingress."""
    tcx = [entry.prog_id for entry in query(ifindex, ATTACH_TYPE_TCX_INGRESS) or ()]
    return tcx + [f.prog_id or 0 for f in netlink.clsact_filters(ifindex) if f.direction == "ingress"]


def prog_id(programs, name: str) -> int:
    with programs.open(name) as prog:
        return prog.info().id


def test_attach_is_idempotent_and_detach_leaves_the_host_as_it_was(host, instance, programs, v0, tc_kind):
    before = host_state(host)
    for _ in range(2):
        assert attach.attach(instance, v0, "v0", "tc", programs) == tc_kind
        assert on_tc_hook(v0) == [prog_id(programs, "tc_ingress")]
        assert attach.attached(instance) == {(v0, "tc"): tc_kind}
    assert attach.detach(instance, v0, "tc") is True
    assert attach.detach(instance, v0, "tc") is False
    assert attach.attached(instance) == {}
    assert os.listdir(instance.links_dir) == []
    assert_unchanged(before, host)


def test_xdp_goes_on_natively_and_off_again(host, instance, programs, v0):
    before = host_state(host)
    for _ in range(2):
        assert attach.attach(instance, v0, "v0", "xdp", programs) == "xdp native"
        link = netlink.get_link(v0)
        assert link is not None
        assert link.xdp == (("native", prog_id(programs, "xdp_ingress")),)
    assert attach.attached(instance) == {(v0, "xdp"): "xdp native"}
    assert attach.detach(instance, v0, "xdp") is True
    assert_unchanged(before, host)


def test_both_hooks_of_an_interface_are_independent(instance, programs, v0):
    attach.attach(instance, v0, "v0", "xdp", programs)
    kind = attach.attach(instance, v0, "v0", "tc", programs)
    assert attach.attached(instance) == {(v0, "xdp"): "xdp native", (v0, "tc"): kind}
    attach.detach(instance, v0, "xdp")
    assert attach.attached(instance) == {(v0, "tc"): kind}


def test_generic_xdp_is_only_had_on_request(host, instance, programs, monkeypatch):
    host.ip("link add m0 type veth peer name m1", "link add mv0 link m0 type macvlan")
    ifindex = host.ifindex("mv0")
    with pytest.raises(HostError, match="'mv0': the driver does not take an XDP program") as caught:
        attach.attach(instance, ifindex, "mv0", "xdp", programs)
    assert caught.value.exit_code == 4
    monkeypatch.setenv("PYOFFLOAD_XDP_GENERIC", "1")
    for _ in range(2):
        assert attach.attach(instance, ifindex, "mv0", "xdp", programs) == "xdp generic"
    assert attach.detach(instance, ifindex, "xdp")


def test_jumbo_frames_are_no_reason_to_refuse_xdp(host, instance, programs, v0):
    host.ip("link set v0 mtu 9000", "link set v1 mtu 9000")
    assert attach.attach(instance, v0, "v0", "xdp", programs) == "xdp native"


@needs_tcx
def test_somebody_elses_tcx_program_is_named_and_left_alone(instance, programs, v0, tc_kind):
    with tc_program(name="firewall") as other, Link.create(other.fd, v0, ATTACH_TYPE_TCX_INGRESS):
        number = other.info().id
        with pytest.raises(HookBusy) as caught:
            attach.attach(instance, v0, "v0", "tc", programs)
        assert caught.value.message == (
            f"'v0' cannot be attached: tcx program 'firewall' (id {number}) holds the hook"
        )
        assert on_tc_hook(v0) == [number]


def test_somebody_elses_clsact_filter_is_named_and_left_alone(instance, programs, v0, tc_kind):
    rtnl.add_clsact(v0)
    with tc_program(name="shaper") as other:
        rtnl.replace_ingress_filter(v0, 1, 1, "shaper.o:[x]", other.fd)
        with pytest.raises(HookBusy, match=r"clsact filter 'shaper.o:\[x\]' \(prio 1, handle 0x1\)"):
            attach.attach(instance, v0, "v0", "tc", programs)
        assert on_tc_hook(v0) == [other.info().id]


def test_a_filter_that_only_borrows_our_name_is_not_ours(instance, programs, v0):
    rtnl.add_clsact(v0)
    with tc_program(name="impostor") as other:
        rtnl.replace_ingress_filter(v0, hooks.FILTER_PRIO, hooks.FILTER_HANDLE, hooks.FILTER_NAME, other.fd)
        with pytest.raises(HookBusy, match="clsact filter 'pyoffload'"):
            attach.attach(instance, v0, "v0", "tc", programs)
        assert on_tc_hook(v0) == [other.info().id]


def test_somebody_elses_xdp_program_is_named_and_left_alone(instance, programs, v0):
    with (
        xdp_program(name="scrubber") as other,
        Link.create(other.fd, v0, ATTACH_TYPE_XDP, XDP_MODE_NATIVE),
        pytest.raises(HookBusy, match=f"xdp program 'scrubber' \\(id {other.info().id}\\)"),
    ):
        attach.attach(instance, v0, "v0", "xdp", programs)


def test_the_port_of_a_linux_bridge_is_refused_by_the_bridges_name(host, instance, programs, v0):
    host.ip("link add br-lan type bridge", "link set v0 master br-lan")
    for hook in ("tc", "xdp"):
        with pytest.raises(HookBusy, match="interface is a port of bridge 'br-lan'"):
            attach.attach(instance, v0, "v0", hook, programs)
    assert attach.attached(instance) == {}


def test_an_ingress_qdisc_that_is_no_clsact_is_refused(host, instance, programs, v0, monkeypatch):
    monkeypatch.setenv("PYOFFLOAD_TC", "clsact")
    host.run("tc", "qdisc", "add", "dev", "v0", "ingress")
    with pytest.raises(HookBusy, match="another ingress qdisc holds the hook"):
        attach.attach(instance, v0, "v0", "tc", programs)


def test_an_interface_that_has_gone_is_not_found(instance, programs):
    with pytest.raises(NotFound, match="no interface 'gone0'"):
        attach.attach(instance, 99999, "gone0", "tc", programs)


def test_a_clsact_qdisc_that_was_there_before_stays(host, instance, programs, v0, monkeypatch):
    monkeypatch.setenv("PYOFFLOAD_TC", "clsact")
    rtnl.add_clsact(v0)
    with tc_program(name="egress_meter") as other:
        other.pin(f"{instance.pin_dir}/other")
        host.run(
            "tc",
            "filter",
            "add",
            "dev",
            "v0",
            "egress",
            "bpf",
            "da",
            "object-pinned",
            f"{instance.pin_dir}/other",
        )
    before = host_state(host)
    assert attach.attach(instance, v0, "v0", "tc", programs) == "tc"
    attach.detach(instance, v0, "tc")
    assert_unchanged(before, host)


def test_our_own_clsact_qdisc_stays_while_somebody_uses_it(instance, programs, v0, monkeypatch):
    monkeypatch.setenv("PYOFFLOAD_TC", "clsact")
    attach.attach(instance, v0, "v0", "tc", programs)
    with tc_program(name="latecomer") as other:
        rtnl.replace_ingress_filter(v0, 7, 1, "latecomer", other.fd)
        attach.detach(instance, v0, "tc")
        assert on_tc_hook(v0) == [other.info().id]


def test_swap_replaces_the_program_everywhere(instance, programs, v0, host, tc_kind):
    host.ip("link add w0 type veth peer name w1")
    w0 = host.ifindex("w0")
    attach.attach(instance, v0, "v0", "tc", programs)
    attach.attach(instance, w0, "w0", "xdp", programs)
    newer = pin_programs(instance, 2, tc=0, xdp=1)
    assert attach.swap(instance, newer) == 2
    assert attach.attached_programs(instance) == {
        (v0, "tc"): prog_id(newer, "tc_ingress"),
        (w0, "xdp"): prog_id(newer, "xdp_ingress"),
    }
    assert on_tc_hook(v0) == [prog_id(newer, "tc_ingress")]
    assert attach.swap(instance, newer) == 0


@needs_tcx
def test_a_port_moves_between_tcx_and_clsact_when_told_so(instance, programs, v0, monkeypatch):
    for word, kind in (("clsact", "tc"), ("tcx", "tcx"), ("clsact", "tc")):
        monkeypatch.setenv("PYOFFLOAD_TC", word)
        assert attach.attach(instance, v0, "v0", "tc", programs) == kind
        assert attach.attached(instance) == {(v0, "tc"): kind}
        assert on_tc_hook(v0) == [prog_id(programs, "tc_ingress")]
    monkeypatch.delenv("PYOFFLOAD_TC")
    assert attach.attach(instance, v0, "v0", "tc", programs) == "tc"  # what works is left alone
    attach.detach(instance, v0, "tc")
    assert not netlink.has_clsact(v0)


def test_a_wrong_word_in_the_environment_is_wrong_usage(instance, programs, v0, monkeypatch):
    monkeypatch.setenv("PYOFFLOAD_TC", "ebpf")
    with pytest.raises(UsageError, match="PYOFFLOAD_TC is 'ebpf'"):
        attach.attach(instance, v0, "v0", "tc", programs)


def test_attachments_of_deleted_interfaces_are_forgotten(host, instance, programs, v0, tc_kind):
    attach.attach(instance, v0, "v0", "tc", programs)
    attach.attach(instance, v0, "v0", "xdp", programs)
    assert attach.collect_garbage(instance) == []
    host.ip("link del v0")
    assert attach.attached(instance) == {}
    assert sorted(attach.collect_garbage(instance)) == [(v0, "tc"), (v0, "xdp")]
    assert os.listdir(instance.links_dir) == []


def test_an_interface_that_was_moved_away_loses_our_program(host, instance, programs, v0):
    attach.attach(instance, v0, "v0", "tc", programs)
    host.ip("netns add " + host.name + "x")
    try:
        host.ip(f"link set v0 netns {host.name}x")
        assert attach.collect_garbage(instance) == [(v0, "tc")]
        assert os.listdir(instance.links_dir) == []
    finally:
        host.ip("netns del " + host.name + "x")


def test_the_same_index_used_again_is_attached_afresh(host, instance, programs, v0, tc_kind):
    attach.attach(instance, v0, "v0", "tc", programs)
    host.ip("link del v0", f"link add again index {v0} type veth peer name again1")
    assert attach.attached(instance) == {}
    assert attach.attach(instance, v0, "again", "tc", programs) == tc_kind
    assert on_tc_hook(v0) == [prog_id(programs, "tc_ingress")]


def test_a_port_whose_program_somebody_removed_is_attached_again(host, instance, programs, v0, monkeypatch):
    monkeypatch.setenv("PYOFFLOAD_TC", "clsact")
    attach.attach(instance, v0, "v0", "tc", programs)
    host.run("tc", "qdisc", "del", "dev", "v0", "clsact")
    assert attach.attached(instance) == {}
    attach.attach(instance, v0, "v0", "tc", programs)
    assert attach.attached(instance) == {(v0, "tc"): "tc"}
    attach.detach(instance, v0, "tc")
    assert not netlink.has_clsact(v0)


def test_detach_all_takes_every_hook(host, instance, programs, v0, tc_kind):
    host.ip("link add w0 type veth peer name w1")
    before = host_state(host)
    attach.attach(instance, v0, "v0", "tc", programs)
    attach.attach(instance, host.ifindex("w0"), "w0", "xdp", programs)
    attach.attach(instance, host.ifindex("w1"), "w1", "tc", programs)
    assert attach.detach_all(instance) == 3
    assert_unchanged(before, host)


# ---- killed at every step


CHECKPOINTS = {
    "tcx": ["attach.pinned", "swap.one", "detach.link", "detach.one"],
    "clsact": [
        "attach.clsact_noted",
        "attach.clsact_added",
        "attach.filter_noted",
        "swap.one",
        "detach.filter",
        "detach.qdisc",
        "detach.one",
    ],
    "xdp": ["attach.pinned", "swap.one", "detach.link", "detach.one"],
}
WHOLE_LIFE = """
import sys
from pyoffload import attach, loader
from pyoffload.instance import Instance
i = Instance.current()
ifindex, hook = int(sys.argv[1]), sys.argv[2]
attach.attach(i, ifindex, "v0", hook, loader.LoadedPrograms(1, i.progs_dir + "/1"))
attach.swap(i, loader.LoadedPrograms(2, i.progs_dir + "/2"))
attach.detach_all(i)
"""


def live(ifindex: int, hook: str, **environment: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", WHOLE_LIFE, str(ifindex), hook],
        env={**os.environ, **environment},
        cwd=ROOT,
        check=False,
        timeout=60,
    )
    return done.returncode


@pytest.mark.parametrize("way", ["tcx", "clsact", "xdp"])
def test_every_checkpoint_is_passed_on_the_way(instance, programs, v0, way, tmp_path):
    pin_programs(instance, 2, tc=0, xdp=1)
    log = tmp_path / "log"
    environment = {"PYOFFLOAD_KILL_AT": "?", "PYOFFLOAD_CHECKPOINT_LOG": str(log)}
    if way != "xdp":
        environment["PYOFFLOAD_TC"] = way
    assert live(v0, "xdp" if way == "xdp" else "tc", **environment) == 0
    assert set(log.read_text().split()) == set(CHECKPOINTS[way])


@pytest.mark.parametrize(
    ("way", "name"), [(way, name) for way, names in CHECKPOINTS.items() for name in names]
)
def test_whatever_a_killed_command_left_the_next_one_completes(
    host, instance, programs, v0, way, name, monkeypatch
):
    newer = pin_programs(instance, 2, tc=0, xdp=1)
    hook = "xdp" if way == "xdp" else "tc"
    before = host_state(host)
    if way != "xdp":
        monkeypatch.setenv("PYOFFLOAD_TC", way)
    assert live(v0, hook, PYOFFLOAD_KILL_AT=name) == -signal.SIGKILL

    attach.collect_garbage(instance)
    attach.attach(instance, v0, "v0", hook, newer)
    assert list(attach.attached_programs(instance)) == [(v0, hook)]
    if hook == "tc":
        assert on_tc_hook(v0) == [prog_id(newer, "tc_ingress")]
    assert attach.detach_all(instance) == 1
    assert os.listdir(instance.links_dir) == []
    assert_unchanged(before, host)
