"""pyoffload fdb: MAC addresses and the ports behind which they are."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

from cli import complete, output
from cli.arguments import Bridge, ExistOk, MissingOk
from cli.session import session
from cli.verbs import noun, verb

app = noun("fdb", "MAC addresses of a bridge, learned and static.")

Mac: TypeAlias = Annotated[str, typer.Argument(metavar="MAC", help="MAC address.")]
Vlan: TypeAlias = Annotated[
    str | None, typer.Option("--vlan", metavar="N", help="VLAN of the address.", show_default=False)
]


@verb(app, "list")
def list_(bridge: Bridge) -> None:
    """List MAC addresses; an age is the time since the last frame from there."""
    from pyoffload import fdb

    found = fdb.list_macs(session.instance(), bridge)
    if session.json:
        output.document([info.as_dict() for info in found])
        return
    output.table(
        ("mac", "vlan", "port", "kind", "age"),
        [
            (
                info.mac,
                info.vlan or None,
                info.port or info.remote,
                "static" if info.static else "learned",
                None if info.static or info.age_s is None else f"{info.age_s:.0f}s",
            )
            for info in found
        ],
        right=frozenset({"vlan", "age"}),
    )


@verb(app, "add")
def add(
    bridge: Bridge,
    mac: Mac,
    port: Annotated[
        str, typer.Argument(metavar="PORT", help="Port behind which it is.", autocompletion=complete.ports)
    ],
    vlan: Vlan = None,
    exist_ok: ExistOk = False,
) -> None:
    """Add a static MAC address: it never moves and never ages."""
    from pyoffload import fdb, units

    address = units.parse_mac(mac, "MAC")
    number = 0 if vlan is None else units.parse_vlan(vlan, "--vlan")
    fdb.add(session.instance(), bridge, address, port, vlan=number, exist_ok=exist_ok)
    if session.json:
        output.document({"changed": True, "mac": address, "vlan": number, "port": port})


@verb(app, "del")
def delete(bridge: Bridge, mac: Mac, vlan: Vlan = None, missing_ok: MissingOk = False) -> None:
    """Delete a MAC address, static or learned; without --vlan in every VLAN."""
    from pyoffload import fdb, units

    address = units.parse_mac(mac, "MAC")
    number = None if vlan is None else units.parse_vlan(vlan, "--vlan")
    count = fdb.delete(session.instance(), bridge, address, vlan=number, missing_ok=missing_ok)
    if session.json:
        output.document({"changed": count > 0, "deleted": count})


@verb(app, "flush")
def flush(bridge: Bridge) -> None:
    """Forget every learned MAC address of a bridge; static ones stay."""
    from pyoffload import fdb

    count = fdb.flush(session.instance(), bridge)
    if session.json:
        output.document({"changed": count > 0, "deleted": count})
