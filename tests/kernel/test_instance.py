"""Every network namespace is a host of its own, whichever way a command came into it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap

import pytest

from pyoffload import bpffs, maps
from pyoffload.errors import AbiMismatch, DatapathDown, LockTimeout, NotFound, UsageError
from pyoffload.instance import Instance
from tests.kernel.conftest import SMALL_CACHE
from tests.support.eventually import eventually
from tests.support.netns import Netns

pytestmark = pytest.mark.kernel

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PRELUDE = "import json, sys; from pyoffload.instance import Instance; from pyoffload import maps, bpffs\n"
TELL = "i = Instance.current(); print(json.dumps([i.name, i.netns_cookie, i.is_up()]))"


def python(text: str) -> list[str]:
    return [sys.executable, "-c", PRELUDE + textwrap.dedent(text)]


def run(*command: str) -> list[object]:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=60)
    assert done.returncode == 0, done.stderr
    answer: list[object] = json.loads(done.stdout)
    return answer


def ways_into(name: str) -> dict[str, list[str]]:
    return {
        "ip netns exec": ["ip", "netns", "exec", name],
        "nsenter --net": ["nsenter", f"--net=/run/netns/{name}"],
        "ip netns exec, unshare -m": ["ip", "netns", "exec", name, "unshare", "-m"],
    }


@pytest.fixture
def outside():
    """A namespace; the test stays outside. Its instance is removed afterwards."""
    with Netns("krn") as ns:
        yield ns
        with ns.entered():
            made = Instance.current()
            with made.lock():
                made.remove_pins()


def test_an_instance_is_named_after_its_namespace(outside):
    for command in ways_into(outside.name).values():
        assert run(*command, *python(TELL))[0] == outside.name


def test_option_n_enters_the_namespace_and_nothing_else(outside):
    text = f"i = Instance.current('{outside.name}'); import os; print(json.dumps([i.name, os.stat('/proc/self/ns/mnt').st_ino]))"
    assert run(*python(text)) == [outside.name, os.stat("/proc/self/ns/mnt").st_ino]


def test_the_hosts_own_namespace_is_called_default():
    assert run(*python(TELL))[0] == "default"
    own_mounts = ["unshare", "-m"]
    assert run(*own_mounts, *python(TELL))[0] == "default"


def test_a_namespace_without_name_is_called_by_its_inode():
    name = run("unshare", "-n", *python(TELL))[0]
    assert isinstance(name, str)
    assert name.removeprefix("ns-").isdecimal()


def test_a_namespace_named_default_is_refused():
    path = "/run/netns/default"
    if os.path.exists(path):
        pytest.skip("somebody's namespace has this name")
    subprocess.run(["ip", "netns", "add", "default"], check=True)
    try:
        with pytest.raises(UsageError, match="named 'default' cannot be used"):
            in_thread(lambda: Instance.current("default"))
    finally:
        subprocess.run(["ip", "netns", "del", "default"], check=True)


@pytest.mark.parametrize("name", ["", "..", "a/b"])
def test_what_cannot_be_a_namespaces_name_is_wrong_usage(name):
    with pytest.raises(UsageError):
        Instance.current(name)


def test_a_namespace_that_is_not_there_is_not_found():
    with pytest.raises(NotFound, match="no network namespace 'pyo-nowhere'"):
        Instance.current("pyo-nowhere")


@pytest.mark.parametrize("way", ["ip netns exec", "nsenter --net", "ip netns exec, unshare -m"])
def test_pins_made_one_way_are_seen_every_way(outside, way):
    up = f"i = Instance.current(); i.write_runtime(); maps.create_all(i, cache_entries={SMALL_CACHE}); print('[]')"
    ways = ways_into(outside.name)
    run(*ways[way], *python(up))
    for command in ways.values():
        assert run(*command, *python(TELL))[2] is True
    assert run(*python(f"i = Instance.current('{outside.name}'); print(json.dumps([i.is_up()]))")) == [True]


def test_mount_and_directories_are_for_root_only(up):
    assert os.stat(bpffs.RUN_DIR).st_mode & 0o777 == 0o750
    assert os.stat(bpffs.MOUNT_POINT).st_mode & 0o777 == 0o750
    assert os.stat(up.pin_dir).st_mode & 0o777 == 0o750
    assert os.stat(f"{up.maps_dir}/ports").st_mode & 0o777 == 0o640


def test_names_that_a_bpf_filesystem_refuses_are_encoded(instance):
    odd = Instance("a.b%c", instance.netns_cookie)
    assert os.path.basename(odd.pin_dir) == "a%2Eb%25c"
    odd.make_pin_dirs()
    assert os.path.isdir(odd.pin_dir)
    os.rmdir(odd.pin_dir)


def test_pins_of_a_deleted_namespace_of_the_same_name_count_as_down(up):
    later = Instance(up.name, up.netns_cookie + 1)
    assert up.is_up()
    assert not later.is_up()
    assert later.is_stale()
    with pytest.raises(DatapathDown):
        later.require_up()


def test_pins_of_another_version_are_refused(up):
    up.write_runtime(abi_version=-1)
    with pytest.raises(AbiMismatch, match="loaded by another version"):
        up.require_up()


def test_maps_are_all_there_or_none(instance, monkeypatch):
    made = []

    def fail_at_the_fifth(spec):
        made.append(spec)
        if len(made) == 5:
            raise DatapathDown("no more")
        return real(spec)

    real = maps.create
    monkeypatch.setattr(maps, "create", fail_at_the_fifth)
    with pytest.raises(DatapathDown):
        maps.create_all(instance, cache_entries=SMALL_CACHE)
    assert not instance.is_up()
    monkeypatch.undo()
    maps.create_all(instance, cache_entries=SMALL_CACHE)
    assert instance.is_up()
    assert len(maps.open_all(instance)) == len(maps.SPECS) - len(maps.PER_LOAD)


def test_making_maps_again_keeps_what_is_in_them(up):
    with maps.open_map(up, "ports", writable=True) as ports:
        ports.update(5, b"x" * 32)
    again = maps.create_all(up, cache_entries=SMALL_CACHE)
    assert again["ports"].lookup(5) == b"x" * 32


def test_a_pin_that_is_another_map_is_not_opened(up):
    os.unlink(f"{up.maps_dir}/ports")
    with maps.create(maps.spec_of("bridges")) as wrong:
        wrong.pin(f"{up.maps_dir}/ports")
    with pytest.raises(AbiMismatch, match="'ports' is not what this version"):
        maps.open_map(up, "ports")


def test_down_leaves_nothing_of_the_instance(instance):
    maps.create_all(instance, cache_entries=SMALL_CACHE)
    with instance.lock():
        instance.remove_pins()
    assert not instance.is_up()
    assert not os.path.exists(instance.run_dir)
    assert not os.path.exists(instance.pin_dir)


def test_the_lock_names_who_holds_it_and_dies_with_him(instance):
    text = (
        f"i = Instance.current('{instance.name}')\nwith i.lock(): print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        python(text), stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(LockTimeout) as caught, instance.lock(0.1):
            pass
        assert f"process {holder.pid} (-c" in caught.value.message
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with instance.lock(5):
            pass
    finally:
        holder.kill()
        holder.communicate()


def test_two_commands_never_hold_the_lock_at_once_even_while_down_removes_it(outside):
    """Each of four processes counts up in a file, reading and writing under the lock, whose file keeps vanishing."""
    counter = f"/run/{outside.name}.count"
    text = f"""
    i = Instance.current('{outside.name}')
    for _ in range(50):
        with i.lock():
            n = int(open('{counter}').read())
            open('{counter}', 'w').write(str(n + 1))
    """
    with open(counter, "w", encoding="ascii") as file:
        file.write("0")
    try:
        workers = [subprocess.Popen(python(text), cwd=ROOT) for _ in range(4)]
        assert [worker.wait(60) for worker in workers] == [0] * 4
        with open(counter, encoding="ascii") as file:
            assert file.read() == "200"
    finally:
        os.unlink(counter)


def test_the_time_to_wait_for_the_lock_can_be_set(instance, monkeypatch):
    monkeypatch.setenv("PYOFFLOAD_LOCK_TIMEOUT", "0.05")
    with instance.lock(), pytest.raises(LockTimeout, match=r"gave up after 0\.05 s"), instance.lock():
        pass
    monkeypatch.setenv("PYOFFLOAD_LOCK_TIMEOUT", "soon")
    with pytest.raises(UsageError, match="PYOFFLOAD_LOCK_TIMEOUT is 'soon'"), instance.lock():
        pass


def test_state_lives_where_it_is_told_to(instance, monkeypatch, tmp_path):
    monkeypatch.setenv("PYOFFLOAD_STATE_DIR", str(tmp_path / "state"))
    made = instance.make_state_dir()
    assert made == str(tmp_path / "state" / instance.name)
    assert os.stat(made).st_mode & 0o777 == 0o750
    shutil.rmtree(made)


def in_thread(function):
    """Call in a thread of its own, which may end in another namespace; its exception is raised here."""
    import threading

    caught: list[BaseException] = []

    def body() -> None:
        try:
            function()
        except BaseException as err:
            caught.append(err)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    eventually(lambda: not thread.is_alive())
    if caught:
        raise caught[0]
