"""What the shell may complete: names of bridges, ports and interfaces. Never prints, never fails, changes nothing."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyoffload.store import Store


def _store(ctx: Any) -> Store | None:
    from pyoffload.instance import Instance
    from pyoffload.store import Store

    netns = ctx.find_root().params.get("netns")
    return Store.open_readonly(Instance.current(netns))


def bridges(ctx: Any, args: list[str], incomplete: str) -> list[str]:
    del args, incomplete
    with contextlib.suppress(Exception):
        store = _store(ctx)
        if store is not None:
            return [bridge.name for bridge in store.bridges()]
    return []


def ports(ctx: Any, args: list[str], incomplete: str) -> list[str]:
    """Of the bridge that stands before, else of all."""
    del args, incomplete
    with contextlib.suppress(Exception):
        store = _store(ctx)
        if store is not None:
            return [port.ifname for port in store.ports(ctx.params.get("bridge"))]
    return []


def interfaces(ctx: Any, args: list[str], incomplete: str) -> list[str]:
    del args, incomplete
    with contextlib.suppress(Exception):
        import socket

        _store(ctx)  # moves into the namespace of -n
        return sorted(name for _, name in socket.if_nameindex() if name != "lo")
    return []


def namespaces(ctx: Any, args: list[str], incomplete: str) -> list[str]:
    del ctx, args, incomplete
    with contextlib.suppress(Exception):
        import os

        return sorted(os.listdir("/run/netns"))
    return []
