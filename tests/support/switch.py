"""The switch under test, driven by its Python interface from inside the host's namespace: a verb costs milliseconds
here, not the start of a process. What the command line makes of the same verbs is tested in tests/cli.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pyoffload.instance import Instance
from tests.support import leftovers
from tests.support.lab import Lab
from tests.support.netns import Netns
from tests.support.ports import Frame, Port


class Switch:
    """The datapath of one host namespace: up when made, purged before the namespace goes.

    ``cache``: with the flow cache (`up` without ``--no-cache``); ``tc``: "tcx" or "clsact", None for what the host gets.
    """

    def __init__(self, host: Netns, *, cache: bool = True, tc: str | None = None) -> None:
        from pyoffload import datapath

        self.host = host
        self.cache = cache
        self._env = {"PYOFFLOAD_TC": tc} if tc else {}
        host.defer(self._purge)
        with self.inside() as instance:
            datapath.up(instance, cache=cache)

    @contextlib.contextmanager
    def inside(self) -> Iterator[Instance]:
        """The calling thread is in the host's namespace during the ``with`` block."""
        with self.host.entered(), _environment(self._env):
            yield Instance.current()

    def _purge(self) -> None:
        from pyoffload import datapath

        try:
            with self.inside() as instance:
                datapath.down(instance, purge=True)
        finally:
            leftovers.remove_instance(self.host.name)

    # ---- bridges and ports

    def bridge(self, name: str = "br0", **options: Any) -> None:
        """`bridge add`."""
        from pyoffload import bridges

        with self.inside() as instance:
            bridges.add(instance, name, **options)

    def bridge_set(self, name: str = "br0", **options: Any) -> None:
        """Change options of a bridge."""
        from pyoffload import bridges

        with self.inside() as instance:
            bridges.change_bridge(instance, name, **options)

    def bridge_del(self, name: str = "br0") -> None:
        """`bridge del`."""
        from pyoffload import bridges

        with self.inside() as instance:
            bridges.delete(instance, name)

    def counters(self, bridge: str = "br0") -> dict[str, int]:
        """Counters of a bridge."""
        from pyoffload import stats

        with self.inside() as instance:
            return stats.bridge_counters(instance, bridge)

    def join(self, ports: Iterable[Port | str], bridge: str = "br0", **options: Any) -> list[Any]:
        """`port add` for each, with the same options; returns what `port show` says of each."""
        from pyoffload import ports as verbs

        with self.inside() as instance:
            return [verbs.add(instance, bridge, _ifname(port), **options) for port in ports]

    def join_at_once(self, ports: Sequence[tuple[Port | str, dict[str, Any]]], bridge: str = "br0") -> None:
        """Many ports, each with options (vlan, trunk as ids, native, isolated), in one change: for large bridges."""
        from pyoffload.change import change
        from pyoffload.model import PortConfig
        from pyoffload.reconcile import stage

        with self.inside() as instance, change(instance, "port add") as step:
            for ofport, (port, options) in enumerate(ports, 1):
                step.store.put_port(PortConfig(_ifname(port), bridge, ofport, **options))
            stage(step, must_attach=tuple(_ifname(port) for port, _ in ports))

    def port_set(self, port: Port | str, **options: Any) -> Any:
        """`port set`."""
        from pyoffload import ports as verbs

        with self.inside() as instance:
            return verbs.change_port(instance, _ifname(port), **options)

    def port_del(self, port: Port | str) -> None:
        """`port del`."""
        from pyoffload import ports as verbs

        with self.inside() as instance:
            verbs.delete(instance, _ifname(port))

    def port_show(self, port: Port | str) -> Any:
        """`port show`."""
        from pyoffload import ports as verbs

        with self.inside() as instance:
            return verbs.show(instance, _ifname(port))

    # ---- counters

    def stats(self, port: Port | str) -> Any:
        """Counters of a port."""
        from pyoffload import stats

        with self.inside() as instance:
            (found,) = stats.port_stats(instance, _ifname(port))
            return found

    def drops(self, port: Port | str) -> dict[str, int]:
        """Drops of frames that came from a port, by reason."""
        found: dict[str, int] = self.stats(port).drops
        return found

    @contextlib.contextmanager
    def dropping(self, port: Port | str, **reasons: int) -> Iterator[None]:
        """Assert that inside the ``with`` block so many frames from the port are dropped, for these reasons only."""
        before = self.drops(port)
        yield
        after = self.drops(port)
        grown = {
            name: count - before.get(name, 0) for name, count in after.items() if count != before.get(name, 0)
        }
        assert grown == reasons, f"{_ifname(port)}: dropped {grown}, not {reasons}"

    # ---- addresses

    def macs(self, bridge: str = "br0") -> dict[tuple[str, int], str]:
        """`fdb list`: (address, VLAN) to port."""
        return {(entry.mac, entry.vlan): entry.port for entry in self.fdb(bridge)}

    def fdb(self, bridge: str = "br0") -> list[Any]:
        """`fdb list`."""
        from pyoffload import fdb

        with self.inside() as instance:
            return list(fdb.list_macs(instance, bridge))

    def fdb_add(
        self, mac: str, port: Port | str, vlan: int = 0, *, bridge: str = "br0", **options: Any
    ) -> None:
        """`fdb add`."""
        from pyoffload import fdb

        with self.inside() as instance:
            fdb.add(instance, bridge, mac, _ifname(port), vlan=vlan, **options)

    def fdb_del(self, mac: str, vlan: int | None = None, *, bridge: str = "br0", **options: Any) -> int:
        """`fdb del`."""
        from pyoffload import fdb

        with self.inside() as instance:
            return fdb.delete(instance, bridge, mac, vlan=vlan, **options)

    def fdb_flush(self, bridge: str = "br0") -> int:
        """`fdb flush`."""
        from pyoffload import fdb

        with self.inside() as instance:
            return fdb.flush(instance, bridge)

    # ---- flows

    def flows(self, *lines: str, bridge: str = "br0") -> None:
        """`flow replace`: the tables hold exactly these flows."""
        from pyoffload import flowtable

        with self.inside() as instance:
            flowtable.replace(instance, bridge, "\n".join(lines) + "\n", source="test")

    def flow_add(self, line: str, bridge: str = "br0") -> None:
        """`flow add`."""
        from pyoffload import flowtable

        with self.inside() as instance:
            flowtable.add(instance, bridge, line)

    def flow_del(self, match: str = "", bridge: str = "br0") -> None:
        """`flow del`; without a match all."""
        from pyoffload import flowtable

        with self.inside() as instance:
            flowtable.delete(instance, bridge, match)

    def dump(self, bridge: str = "br0") -> list[Any]:
        """`flow dump`."""
        from pyoffload import flowtable

        with self.inside() as instance:
            return list(flowtable.dump(instance, bridge))


class Exchanger:
    """Sends into one port and tells what came out of all others, in terms that a test can compare."""

    def __init__(self, lab: Lab, ports: Sequence[Port]) -> None:
        self.lab = lab
        self.ports = tuple(ports)

    def __call__(self, sender: Port, *sent: Any) -> dict[Port, list[Frame]]:
        """Frames by port, silent ports left out; the sender's own port listens too."""
        got = self.lab.exchange(sender, sent, self.ports)
        return {port: came for port, came in got.items() if came}


def _ifname(port: Port | str) -> str:
    return port if isinstance(port, str) else port.ifname


@contextlib.contextmanager
def _environment(extra: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in extra}
    os.environ.update(extra)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
