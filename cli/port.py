"""pyoffload port: interfaces of guests on a bridge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import typer

from cli import complete, output
from cli.arguments import AnyBridge, Bridge, ExistOk, MissingOk, Port
from cli.session import session
from cli.verbs import noun, verb

if TYPE_CHECKING:
    from pyoffload.ports import PortInfo

app = noun("port", "Interfaces of guests (tap, veth, vif) on a bridge.")

Interface: TypeAlias = Annotated[
    str, typer.Argument(metavar="IFNAME", help="The interface.", autocompletion=complete.interfaces)
]
Vlan: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--vlan", metavar="N", help="Access port of this VLAN: untagged to the guest.", show_default=False
    ),
]
Trunk: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--trunk", metavar="LIST", help="Trunk of these VLANs, such as 10,20-29.", show_default=False
    ),
]
Native: TypeAlias = Annotated[
    str | None,
    typer.Option("--native", metavar="N", help="VLAN of a trunk's untagged frames.", show_default=False),
]
Macs: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--mac", metavar="MAC", help="Address of the guest; may be repeated.", show_default=False),
]
Addresses: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--ip", metavar="ADDR", help="Address of the guest; may be repeated.", show_default=False),
]
Groups: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--sg", metavar="NAME", help="Security group; may be repeated.", show_default=False),
]
Hook: TypeAlias = Literal["auto", "tc", "xdp"]


@verb(app, "add")
def add(
    bridge: Bridge,
    ifname: Interface,
    vlan: Vlan = None,
    trunk: Trunk = None,
    native: Native = None,
    mac: Macs = None,
    ip: Addresses = None,
    sg: Groups = None,
    hook: Annotated[
        Hook, typer.Option(metavar="auto|tc|xdp", help="Where the datapath takes the guest's packets.")
    ] = "auto",
    isolated: Annotated[bool, typer.Option("--isolated", help="No traffic to other isolated ports.")] = False,
    exist_ok: ExistOk = False,
) -> None:
    """Put an interface on a bridge. Without --vlan and --trunk it carries every VLAN as it is."""
    from pyoffload import ports, units

    units.check_ifname(ifname, "IFNAME")
    info = ports.add(
        session.instance(),
        bridge,
        ifname,
        **_vlans(vlan, trunk, native),
        mac=_macs(mac),
        ip=_addresses(ip),
        sg=tuple(sg or ()),
        hook=hook,
        isolated=isolated,
        exist_ok=exist_ok,
    )
    if session.json:
        output.document(info.as_dict())


@verb(app, "set")
def set_(
    ifname: Port,
    vlan: Vlan = None,
    trunk: Trunk = None,
    native: Native = None,
    no_vlan: Annotated[bool, typer.Option("--no-vlan", help="Carry every VLAN as it is.")] = False,
    mac: Macs = None,
    ip: Addresses = None,
    sg: Groups = None,
    hook: Annotated[
        Hook | None,
        typer.Option(
            metavar="auto|tc|xdp", help="Where the datapath takes the guest's packets.", show_default=False
        ),
    ] = None,
    isolated: Annotated[
        bool | None,
        typer.Option(
            "--isolated/--no-isolated", help="No traffic to other isolated ports.", show_default=False
        ),
    ] = None,
) -> None:
    """Change a port. What is not named stays; --mac '' and --ip '' forget all addresses."""
    from pyoffload import ports
    from pyoffload.errors import UsageError

    changes: dict[str, Any] = {}
    if vlan is not None or trunk is not None or native is not None:
        if no_vlan:
            raise UsageError("--no-vlan contradicts --vlan, --trunk and --native", hint="give one of them")
        changes |= {
            key: value for key, value in _vlans(vlan, trunk, native, alone=True).items() if value is not None
        }
    if no_vlan:
        changes |= {"vlan": None, "trunk": None, "native": None}
    if mac is not None:
        changes["mac"] = _macs([] if mac == [""] else mac)
    if ip is not None:
        changes["ip"] = _addresses([] if ip == [""] else ip)
    if sg is not None:
        changes["sg"] = tuple(name for name in sg if name)
    if hook is not None:
        changes["hook"] = hook
    if isolated is not None:
        changes["isolated"] = isolated
    if not changes:
        raise UsageError("nothing to change", hint="name at least one option, such as --vlan 10")
    info = ports.change_port(session.instance(), ifname, **changes)
    if session.json:
        output.document(info.as_dict())


@verb(app, "del")
def delete(ifname: Port, missing_ok: MissingOk = False) -> None:
    """Take a port off its bridge. The interface itself stays."""
    from pyoffload import ports

    done = ports.delete(session.instance(), ifname, missing_ok=missing_ok)
    if session.json:
        output.document({"changed": done, "ifname": ifname})


@verb(app, "list")
def list_(bridge: AnyBridge = None) -> None:
    """List ports with their counters."""
    from pyoffload import ports

    found = ports.list_ports(session.instance(), bridge)
    if session.json:
        output.document([info.as_dict() for info in found])
        return
    output.table(
        (
            "bridge",
            "port",
            "ofport",
            "hook",
            "vlan",
            "rx packets",
            "rx bytes",
            "tx packets",
            "tx bytes",
            "drops",
        ),
        [
            (
                info.bridge,
                info.ifname,
                info.ofport,
                info.hook,
                vlan_text(info),
                info.rx_packets,
                info.rx_bytes,
                info.tx_packets,
                info.tx_bytes,
                sum(info.drops.values()),
            )
            for info in found
        ],
        right=frozenset({"ofport", "rx packets", "rx bytes", "tx packets", "tx bytes", "drops"}),
    )


@verb(app, "show")
def show(ifname: Port) -> None:
    """Show a port: settings, hook, counters and drops by reason."""
    from pyoffload import ports

    info = ports.show(session.instance(), ifname)
    if session.json:
        output.document(info.as_dict())
        return
    output.fields(
        [
            ("port", info.ifname),
            ("bridge", info.bridge),
            ("ifindex", info.ifindex),
            ("ofport", info.ofport),
            ("hook", info.hook),
            ("deliver", info.deliver),
            ("vlan", vlan_text(info)),
            ("isolated", info.isolated),
            ("mac", info.mac),
            ("ip", info.ip),
            ("sg", info.sg),
            ("rx", f"{info.rx_packets} packets, {info.rx_bytes} bytes"),
            ("tx", f"{info.tx_packets} packets, {info.tx_bytes} bytes"),
            *((f"drop {reason}", count) for reason, count in info.drops.items() if count),
        ]
    )


def vlan_text(info: PortInfo) -> str | None:
    """'10', 'trunk 10,20-29' or 'trunk 10,20-29 native 10'; None for a transparent port."""
    if info.vlan is not None:
        return str(info.vlan)
    if info.trunk is None:
        return None
    from pyoffload import units

    return f"trunk {units.format_vlans(info.trunk)}" + (
        f" native {info.native}" if info.native is not None else ""
    )


def _vlans(vlan: str | None, trunk: str | None, native: str | None, *, alone: bool = False) -> dict[str, Any]:
    """The VLAN options as ports.add() takes them; `alone`: --native may change a trunk that exists."""
    from pyoffload import units
    from pyoffload.errors import UsageError

    if vlan is not None and (trunk is not None or native is not None):
        other = "--trunk" if trunk is not None else "--native"
        raise UsageError(
            f"--vlan contradicts {other}", hint="--vlan N makes an access port, --trunk LIST a trunk"
        )
    if native is not None and trunk is None and not alone:
        raise UsageError("--native without --trunk", hint="--trunk 10,20-29 --native 10")
    return {
        "vlan": None if vlan is None else units.parse_vlan(vlan, "--vlan"),
        "trunk": None if trunk is None else units.format_vlans(units.parse_vlan_list(trunk, "--trunk")),
        "native": None if native is None else units.parse_vlan(native, "--native"),
    }


def _macs(words: list[str] | None) -> tuple[str, ...]:
    from pyoffload import units

    return tuple(dict.fromkeys(units.parse_mac(word, "--mac") for word in words or ()))


def _addresses(words: list[str] | None) -> tuple[str, ...]:
    from pyoffload import units

    return tuple(dict.fromkeys(units.parse_address(word, "--ip") for word in words or ()))
