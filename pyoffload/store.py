"""The configuration: what the admin asked for, kept in SQLite so that `up` can put it back in force.

One file per instance, ``<state_dir>/config.db``, mode 0640 in a directory of mode 0750. The maps in the kernel are
what runs; this is what should run. Everything that reads or writes configuration does it through `Store`.

Readers need no lock, create nothing and work beside a writer (WAL). While nobody writes there is no WAL file,
and making one would be a change; the file is then read as it is, and a query during which a writer changed it
is repeated.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self

from pyoffload.errors import LockTimeout, NotPermitted, OffloadError
from pyoffload.model import BridgeConfig, PortConfig, StaticMac
from pyoffload.units import format_vlans, parse_vlan_list

if TYPE_CHECKING:
    import sqlite3

    from pyoffload.instance import Instance

SCHEMA_VERSION = 1
FILE_NAME = "config.db"
BUSY_TIMEOUT_S = 5.0
_READ_TRIES = 5

_SCHEMA = """
CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE bridges (
    name TEXT PRIMARY KEY,
    slot INTEGER NOT NULL UNIQUE,
    vni INTEGER,
    mac_age_ns INTEGER NOT NULL,
    mac_limit INTEGER NOT NULL,
    flood INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE ports (
    ifname TEXT PRIMARY KEY,
    bridge TEXT NOT NULL REFERENCES bridges (name) ON DELETE CASCADE,
    ofport INTEGER NOT NULL,
    vlan INTEGER,
    trunk TEXT,
    native INTEGER,
    hook TEXT NOT NULL,
    isolated INTEGER NOT NULL,
    mac TEXT NOT NULL,
    ip TEXT NOT NULL,
    sg TEXT NOT NULL,
    UNIQUE (bridge, ofport)
) WITHOUT ROWID;
CREATE TABLE static_fdb (
    bridge TEXT NOT NULL REFERENCES bridges (name) ON DELETE CASCADE,
    mac TEXT NOT NULL,
    vlan INTEGER NOT NULL,
    ifname TEXT NOT NULL REFERENCES ports (ifname) ON DELETE CASCADE,
    PRIMARY KEY (bridge, mac, vlan)
) WITHOUT ROWID;
"""


class Store:
    """The configuration of one instance. Changes happen inside `transaction()` only."""

    def __init__(self, conn: sqlite3.Connection, path: str, unchanged: tuple[int, int, int] | None) -> None:
        self.conn = conn
        self.path = path
        # What the file looked like when it was opened without WAL; None: SQLite itself sees to consistency.
        self._unchanged = unchanged

    @classmethod
    def open(cls, instance: Instance) -> Store:
        """Open for change; makes the directory, the file and its tables where they are missing."""
        return cls.open_path(os.path.join(instance.state_dir, FILE_NAME))

    @classmethod
    def open_path(cls, path: str) -> Store:
        """As `open`, by the file's path."""
        directory = os.path.dirname(path)
        try:
            os.makedirs(directory, mode=0o750, exist_ok=True)
            # The file is made by us, not by SQLite, so that it never has another mode; -wal and -shm inherit it.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640))
        except PermissionError as err:
            raise NotPermitted(f"{path}: {err.strerror}", hint="run as root") from err
        except OSError as err:
            raise OffloadError(f"{path}: {err.strerror}") from err
        return cls._open_writable(path)

    @classmethod
    def in_memory(cls) -> Store:
        """An empty configuration that is not kept anywhere."""
        return cls._open_writable(":memory:")

    @classmethod
    def _open_writable(cls, path: str) -> Store:
        import sqlite3

        with _errors(path):
            conn = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
            try:
                conn.execute("PRAGMA journal_mode=WAL")
                conn.execute("PRAGMA synchronous=FULL")
                conn.execute("PRAGMA foreign_keys=ON")
                _create_schema(conn, path)
            except BaseException:
                conn.close()
                raise
        return cls(conn, path, None)

    @classmethod
    def open_readonly(cls, instance: Instance) -> Store | None:
        """Open for reading; None where nothing was ever configured."""
        return cls.open_path_readonly(os.path.join(instance.state_dir, FILE_NAME))

    @classmethod
    def open_path_readonly(cls, path: str) -> Store | None:
        """As `open_readonly`, by the file's path."""
        try:
            conn, seen = _connect_readonly(path)
        except FileNotFoundError:
            return None
        store = cls(conn, path, seen)
        if not store.rows("SELECT 1 FROM sqlite_master LIMIT 1"):
            store.close()  # a first writer is at work, or died before its first commit
            return None
        _check_version(store.rows("PRAGMA user_version")[0][0], path)
        return store

    def close(self) -> None:
        """Close; an open transaction is rolled back."""
        self.conn.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """BEGIN IMMEDIATE; COMMIT (durable, synchronous=FULL) at the end of the block, ROLLBACK on an exception."""
        self.begin()
        try:
            yield self.conn
        except BaseException:
            self.rollback()
            raise
        self.commit()

    def begin(self) -> None:
        with _errors(self.path):
            self.conn.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        with _errors(self.path):
            self.conn.execute("COMMIT")

    def rollback(self) -> None:
        """End the transaction, if there is one, without a trace."""
        if self.conn.in_transaction:
            with _errors(self.path):
                self.conn.execute("ROLLBACK")

    def rows(self, sql: str, args: Sequence[Any] = ()) -> list[Any]:
        """All rows of one query, from one state of the file."""
        for _ in range(_READ_TRIES):
            with _errors(self.path):
                try:
                    got = self.conn.execute(sql, args).fetchall()
                except Exception:
                    if self._unchanged in {None, _identity(self.path)}:
                        raise
                    got = None
            if got is not None and self._unchanged in {None, _identity(self.path)}:
                return got
            self.conn.close()
            self.conn, self._unchanged = _connect_readonly(self.path)
        raise LockTimeout(f"{self.path}: changed all the time while it was read", hint="try again")

    # Meta -------------------------------------------------------------------------------------------------------

    def option(self, key: str) -> str | None:
        """A saved option of the instance, e.g. ``no_cache``, or None."""
        rows = self.rows("SELECT value FROM meta WHERE key = ?", (key,))
        return str(rows[0][0]) if rows else None

    def set_option(self, key: str, value: str | None) -> None:
        """Save an option; None forgets it."""
        if value is None:
            self.conn.execute("DELETE FROM meta WHERE key = ?", (key,))
        else:
            self.conn.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    @property
    def config_rev(self) -> int:
        """How many changes have been committed."""
        return int(self.option("config_rev") or 0)

    # Bridges ----------------------------------------------------------------------------------------------------

    def bridges(self) -> list[BridgeConfig]:
        """All bridges, by name."""
        return [_bridge(row) for row in self.rows(f"SELECT {_BRIDGE_COLUMNS} FROM bridges ORDER BY name")]

    def bridge(self, name: str) -> BridgeConfig | None:
        rows = self.rows(f"SELECT {_BRIDGE_COLUMNS} FROM bridges WHERE name = ?", (name,))
        return _bridge(rows[0]) if rows else None

    def put_bridge(self, bridge: BridgeConfig) -> None:
        """Add it, or change the one of that name."""
        self.conn.execute(
            "INSERT INTO bridges VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET"
            " vni = excluded.vni, mac_age_ns = excluded.mac_age_ns,"
            " mac_limit = excluded.mac_limit, flood = excluded.flood",
            (bridge.name, bridge.slot, bridge.vni, bridge.mac_age_ns, bridge.mac_limit, bridge.flood),
        )

    def delete_bridge(self, name: str) -> None:
        """Delete it with its ports and static addresses."""
        self.conn.execute("DELETE FROM bridges WHERE name = ?", (name,))

    # Ports ------------------------------------------------------------------------------------------------------

    def ports(self, bridge: str | None = None) -> list[PortConfig]:
        """All ports (of one bridge), by bridge and OpenFlow number."""
        where, args = ("WHERE bridge = ?", (bridge,)) if bridge is not None else ("", ())
        rows = self.rows(f"SELECT {_PORT_COLUMNS} FROM ports {where} ORDER BY bridge, ofport", args)
        return [_port(row) for row in rows]

    def port(self, ifname: str) -> PortConfig | None:
        rows = self.rows(f"SELECT {_PORT_COLUMNS} FROM ports WHERE ifname = ?", (ifname,))
        return _port(rows[0]) if rows else None

    def put_port(self, port: PortConfig) -> None:
        """Add it, or change the one of that name; static addresses on it stay."""
        self.conn.execute(
            "INSERT INTO ports VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (ifname) DO UPDATE SET"
            " vlan = excluded.vlan, trunk = excluded.trunk, native = excluded.native, hook = excluded.hook,"
            " isolated = excluded.isolated, mac = excluded.mac, ip = excluded.ip, sg = excluded.sg",
            (
                port.ifname,
                port.bridge,
                port.ofport,
                port.vlan,
                None if port.trunk is None else format_vlans(port.trunk),
                port.native,
                port.hook,
                port.isolated,
                ",".join(port.mac),
                ",".join(port.ip),
                ",".join(port.sg),
            ),
        )

    def delete_port(self, ifname: str) -> None:
        """Delete it with the static addresses on it."""
        self.conn.execute("DELETE FROM ports WHERE ifname = ?", (ifname,))

    # Static MAC addresses -----------------------------------------------------------------------------------------

    def static_fdb(self, bridge: str | None = None) -> list[StaticMac]:
        """All static addresses (of one bridge)."""
        where, args = ("WHERE bridge = ?", (bridge,)) if bridge is not None else ("", ())
        rows = self.rows(
            f"SELECT bridge, mac, vlan, ifname FROM static_fdb {where} ORDER BY bridge, mac, vlan", args
        )
        return [StaticMac(*row) for row in rows]

    def put_static(self, entry: StaticMac) -> None:
        """Add it, or move it to another port."""
        self.conn.execute(
            "INSERT OR REPLACE INTO static_fdb VALUES (?, ?, ?, ?)",
            (entry.bridge, entry.mac, entry.vlan, entry.ifname),
        )

    def delete_static(self, bridge: str, mac: str, vlan: int | None = None) -> int:
        """Delete it in one VLAN or in all; returns how many there were."""
        sql = "DELETE FROM static_fdb WHERE bridge = ? AND mac = ?"
        args: tuple[object, ...] = (bridge, mac)
        if vlan is not None:
            sql, args = sql + " AND vlan = ?", (*args, vlan)
        return self.conn.execute(sql, args).rowcount


_BRIDGE_COLUMNS = "name, slot, vni, mac_age_ns, mac_limit, flood"
_PORT_COLUMNS = "ifname, bridge, ofport, vlan, trunk, native, hook, isolated, mac, ip, sg"


def _bridge(row: Sequence[Any]) -> BridgeConfig:
    name, slot, vni, mac_age_ns, mac_limit, flood = row
    return BridgeConfig(name, slot, vni, mac_age_ns, mac_limit, bool(flood))


def _port(row: Sequence[Any]) -> PortConfig:
    ifname, bridge, ofport, vlan, trunk, native, hook, isolated, *lists = row
    mac, ip, sg = (tuple(filter(None, text.split(","))) for text in lists)
    vlans = None if trunk is None else parse_vlan_list(trunk, "trunk")
    return PortConfig(ifname, bridge, ofport, vlan, vlans, native, hook, bool(isolated), mac, ip, sg)


def _create_schema(conn: sqlite3.Connection, path: str) -> None:
    version = conn.execute("PRAGMA user_version").fetchone()[0]
    if version:
        _check_version(version, path)
        return
    conn.execute("BEGIN IMMEDIATE")
    try:
        if not conn.execute("PRAGMA user_version").fetchone()[0]:  # nobody was faster
            for statement in filter(str.strip, _SCHEMA.split(";")):
                conn.execute(statement)
            _flow_schema(conn)
            conn.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    except BaseException:
        conn.execute("ROLLBACK")
        raise
    conn.execute("COMMIT")


def _flow_schema(conn: sqlite3.Connection) -> None:
    from pyoffload.flowstore import flowtable_schema

    flowtable_schema(conn)


def _check_version(version: int, path: str) -> None:
    if version > SCHEMA_VERSION:
        raise OffloadError(
            f"{path}: schema {version} was written by a newer pyoffload; this one knows {SCHEMA_VERSION}",
            hint="install the newer version again, or move the file away to begin with an empty configuration",
        )


def _identity(path: str) -> tuple[int, int, int]:
    stat = os.stat(path)
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _connect_readonly(path: str) -> tuple[sqlite3.Connection, tuple[int, int, int] | None]:
    import sqlite3
    from urllib.parse import quote

    try:
        seen = _identity(path)
        with open(path, "rb"):
            pass
    except PermissionError as err:
        raise NotPermitted(
            f"{path}: {err.strerror}", hint="run as root or as a member of the file's group"
        ) from err
    uri = f"file:{quote(path)}?mode=ro"
    with _errors(path):
        if os.path.exists(path + "-wal"):
            return sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None), None
        return sqlite3.connect(uri + "&immutable=1", uri=True, isolation_level=None), seen


@contextlib.contextmanager
def _errors(path: str) -> Iterator[None]:
    import sqlite3

    try:
        yield
    except sqlite3.OperationalError as err:
        code = getattr(err, "sqlite_errorcode", 0) & 0xFF
        if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
            raise LockTimeout(f"{path}: another process is changing it", hint="try again") from err
        if code in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM}:
            raise NotPermitted(f"{path}: {err}", hint="run as root") from err
        raise OffloadError(
            f"{path}: {err}", hint="is the disk full?" if code == sqlite3.SQLITE_FULL else None
        ) from err
    except sqlite3.DatabaseError as err:
        raise OffloadError(
            f"{path}: {err}", hint="the file is damaged; move it away to begin with an empty configuration"
        ) from err
