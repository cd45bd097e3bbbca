"""pyoffload bridge: virtual switches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cli import output
from cli.arguments import ExistOk, MissingOk, NamedBridge, NewBridge
from cli.session import session
from cli.verbs import noun, verb

if TYPE_CHECKING:
    from pyoffload.bridges import BridgeInfo

app = noun("bridge", "Virtual switches.")

MAX_VNI = (1 << 24) - 1


@verb(app, "add")
def add(
    name: NewBridge,
    vni: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, max=MAX_VNI, help="Virtual network the bridge belongs to.", show_default=False
        ),
    ] = None,
    mac_age: Annotated[
        str, typer.Option(metavar="TIME", help="How long a learned MAC address is kept without traffic.")
    ] = "300s",
    mac_limit: Annotated[
        int, typer.Option(metavar="N", min=1, help="Learned MAC addresses the bridge may hold.")
    ] = 8192,
    flood: Annotated[
        Literal["on", "off"],
        typer.Option(metavar="on|off", help="Send frames to unknown addresses to every port."),
    ] = "on",
    exist_ok: ExistOk = False,
) -> None:
    """Make a bridge. Brings the datapath up first where it is down."""
    from pyoffload import bridges, units

    units.check_ifname(name, "NAME")
    info = bridges.add(
        session.instance(),
        name,
        vni=vni,
        mac_age_s=units.parse_duration(mac_age, "--mac-age") / units.NS_PER_S,
        mac_limit=mac_limit,
        flood=flood == "on",
        exist_ok=exist_ok,
    )
    if session.json:
        output.document(info.as_dict())


@verb(app, "del")
def delete(name: NamedBridge, missing_ok: MissingOk = False) -> None:
    """Delete a bridge with its ports' configuration, flows, groups and meters."""
    from pyoffload import bridges

    done = bridges.delete(session.instance(), name, missing_ok=missing_ok)
    if session.json:
        output.document({"changed": done, "bridge": name})


@verb(app, "list")
def list_() -> None:
    """List the bridges."""
    from pyoffload import bridges

    found = bridges.list_bridges(session.instance())
    if session.json:
        output.document([info.as_dict() for info in found])
        return
    output.table(
        ("bridge", "vni", "ports", "macs", "mac limit", "mac age", "flood", "state"),
        [
            (
                info.name,
                info.vni,
                info.n_ports,
                info.macs,
                info.mac_limit,
                _age(info),
                "on" if info.flood else "off",
                "up" if info.up else "down",
            )
            for info in found
        ],
        right=frozenset({"vni", "ports", "macs", "mac limit", "mac age"}),
    )


@verb(app, "show")
def show(name: NamedBridge) -> None:
    """Show a bridge: settings, ports and counters."""
    from pyoffload import bridges

    info = bridges.show(session.instance(), name)
    if session.json:
        output.document(info.as_dict())
        return
    local = info.local
    output.fields(
        [
            ("bridge", info.name),
            ("state", "up" if info.up else "down"),
            ("vni", info.vni),
            ("flood", "on" if info.flood else "off"),
            ("mac age", _age(info)),
            ("macs", f"{info.macs} of {info.mac_limit}"),
            ("local", None if local is None else local.ifname),
            ("ports", info.ports),
            *((key.replace("_", " "), value) for key, value in info.counters.items()),
        ]
    )


def _age(info: BridgeInfo) -> str:
    from pyoffload import units

    return units.format_duration(round(info.mac_age_s * units.NS_PER_S))
