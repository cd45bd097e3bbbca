"""The configuration on disk: what comes back, what readers see, what is refused."""

from __future__ import annotations

import os
import sqlite3
import stat

import pytest

from pyoffload.errors import LockTimeout, OffloadError
from pyoffload.model import BridgeConfig, PortConfig, StaticMac
from pyoffload.store import SCHEMA_VERSION, Store

BRIDGE = BridgeConfig("br0", 3, 77, 30_000_000_000, 10, flood=False)
PORTS = (
    PortConfig("tap0", "br0", 1, vlan=10, isolated=True),
    PortConfig("tap1", "br0", 2, trunk=(10, 20, 21, 22), native=5, hook="xdp"),
    PortConfig("tap2", "br0", 3, mac=("52:54:00:00:00:01",), ip=("192.0.2.1", "2001:db8::1"), sg=("web",)),
)


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "default" / "config.db")


def fill(path: str) -> None:
    with Store.open_path(path) as store, store.transaction():
        store.put_bridge(BRIDGE)
        for port in PORTS:
            store.put_port(port)
        store.put_static(StaticMac("br0", "52:54:00:00:00:09", 10, "tap0"))


def test_what_is_saved_comes_back(path):
    fill(path)
    store = Store.open_path_readonly(path)
    assert store.bridges() == [BRIDGE]
    assert store.ports("br0") == list(PORTS)
    assert store.port("tap1") == PORTS[1]
    assert store.static_fdb("br0") == [StaticMac("br0", "52:54:00:00:00:09", 10, "tap0")]
    assert store.bridge("br1") is None
    assert store.port("tap9") is None


def test_deleting_a_bridge_takes_its_ports_and_static_addresses(path):
    fill(path)
    with Store.open_path(path) as store:
        with store.transaction():
            store.delete_bridge("br0")
        assert store.ports() == []
        assert store.static_fdb() == []


def test_changing_a_port_keeps_its_static_addresses(path):
    fill(path)
    with Store.open_path(path) as store:
        with store.transaction():
            store.put_port(PortConfig("tap0", "br0", 1, vlan=11))
        assert store.port("tap0").vlan == 11
        assert len(store.static_fdb("br0")) == 1


def test_an_exception_in_a_transaction_leaves_no_trace(path):
    fill(path)
    with Store.open_path(path) as store:
        with pytest.raises(NotImplementedError), store.transaction():  # noqa: PT012
            store.delete_bridge("br0")
            raise NotImplementedError
        assert store.bridges() == [BRIDGE]


def test_only_owner_and_group_may_read_the_file(path):
    fill(path)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o640
    assert stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode) & 0o027 == 0


def test_a_reader_creates_nothing_where_nothing_is(path):
    assert Store.open_path_readonly(path) is None
    assert not os.path.exists(os.path.dirname(path))


def test_a_reader_leaves_no_files_beside_the_database(path):
    fill(path)
    before = {
        name: os.stat(os.path.join(os.path.dirname(path), name)) for name in os.listdir(os.path.dirname(path))
    }
    store = Store.open_path_readonly(path)
    assert store.ports()
    store.close()
    after = {
        name: os.stat(os.path.join(os.path.dirname(path), name)) for name in os.listdir(os.path.dirname(path))
    }
    assert list(before) == list(after) == ["config.db"]
    assert before["config.db"].st_mtime_ns == after["config.db"].st_mtime_ns


def test_a_reader_sees_the_last_commit_while_a_writer_is_at_work(path):
    fill(path)
    early = Store.open_path_readonly(path)  # before there is a WAL
    with Store.open_path(path) as writer:
        writer.begin()
        writer.put_bridge(BridgeConfig("br1", 4))
        late = Store.open_path_readonly(path)
        for reader in (early, late):
            assert [bridge.name for bridge in reader.bridges()] == ["br0"]
        writer.commit()
        assert [bridge.name for bridge in late.bridges()] == ["br0", "br1"]
    assert [bridge.name for bridge in Store.open_path_readonly(path).bridges()] == ["br0", "br1"]


def test_a_reader_from_before_a_change_reads_the_file_anew(path):
    fill(path)
    reader = Store.open_path_readonly(path)
    with Store.open_path(path) as writer, writer.transaction():
        writer.delete_port("tap1")
    assert [port.ifname for port in reader.ports()] == ["tap0", "tap2"]


def test_a_second_writer_is_told_that_another_is_at_work(path, monkeypatch):
    fill(path)
    monkeypatch.setattr("pyoffload.store.BUSY_TIMEOUT_S", 0.05)
    with Store.open_path(path) as first, Store.open_path(path) as second:
        first.begin()
        with pytest.raises(LockTimeout, match="another process"):
            second.begin()


def test_a_newer_schema_is_refused_and_left_alone(path):
    fill(path)
    with sqlite3.connect(path) as conn:
        conn.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    conn.close()
    for opener in (Store.open_path, Store.open_path_readonly):
        with pytest.raises(OffloadError, match="newer pyoffload"):
            opener(path)


def test_a_damaged_file_is_one_clear_error(path):
    fill(path)
    with open(path, "r+b") as file:
        file.write(b"this is no database at all" * 200)
    with pytest.raises(OffloadError, match=r"config\.db") as caught:
        Store.open_path_readonly(path)
    assert caught.value.hint


def test_options_are_kept_and_forgotten(path):
    with Store.open_path(path) as store:
        with store.transaction():
            store.set_option("no_cache", "1")
        assert store.option("no_cache") == "1"
        with store.transaction():
            store.set_option("no_cache", None)
        assert store.option("no_cache") is None


def test_a_commit_is_on_disk_before_it_returns(path):
    with Store.open_path(path) as store:
        assert store.conn.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
        assert store.conn.execute("PRAGMA journal_mode").fetchone() == ("wal",)
