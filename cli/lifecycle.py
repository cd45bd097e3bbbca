"""pyoffload doctor, up, down, status, upgrade, sync: the datapath as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cli import complete, output
from cli.session import session
from cli.verbs import noun, verb

if TYPE_CHECKING:
    from pyoffload.datapath import UpResult

app = noun("lifecycle", "The datapath as a whole.")


@verb(app, "doctor")
def doctor(
    ifname: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[IFNAME]...",
            help="Only these interfaces.",
            autocompletion=complete.interfaces,
            show_default=False,
        ),
    ] = None,
) -> None:
    """Tell what this kernel, these interfaces and tools can do, and which hook each interface would get."""
    from pyoffload import doctor as examine

    jit = examine.jit_setting() or None  # before -n takes us to where it cannot be seen
    report = examine.examine(session.instance(), tuple(ifname or ()), jit=jit)
    if session.json:
        output.document(report.as_dict())
        return
    output.table(
        ("check", "state", "finding"),
        [(check.name, check.state, check.finding) for check in report.checks],
    )
    hints = [f"{check.name}: {check.hint}" for check in report.checks if check.hint]
    if report.interfaces:
        output.lines([""])
        output.table(
            ("interface", "kind", "driver", "mtu", "hook", "why", "xdp", "holders"),
            [
                (
                    face.ifname,
                    face.kind,
                    face.driver,
                    face.mtu,
                    face.hook,
                    face.why,
                    face.xdp.removeprefix("xdp "),
                    face.holder_texts(),
                )
                for face in report.interfaces
            ],
            right=frozenset({"mtu"}),
        )
    hints += [f"{face.ifname}: {text}" for face in report.interfaces for text in face.warnings]
    if hints:
        output.lines(["", *hints])


@verb(app, "up")
def up(
    no_cache: Annotated[bool, typer.Option("--no-cache", hidden=True)] = False,
    cache_entries: Annotated[str | None, typer.Option("--cache-entries", hidden=True)] = None,
) -> None:
    """Compile, load and pin the datapath, and put the saved configuration in force. Idempotent."""
    from pyoffload import datapath, units

    entries = None if cache_entries is None else units.parse_count(cache_entries, "--cache-entries")
    result = datapath.up(session.instance(), cache=False if no_cache else None, cache_entries=entries)
    _report(result)
    output.note("the datapath was up already" if result.already_up else f"up after {result.seconds:.1f} s")


@verb(app, "sync")
def sync() -> None:
    """Attach ports whose interfaces came back, and repair what differs from the configuration."""
    from pyoffload import datapath

    _report(datapath.sync(session.instance()))


def _report(result: UpResult) -> None:
    for name, why in result.ports_failed:
        output.warning(f"port {name} is not attached: {why}")
    if session.json:
        output.document(result.as_dict())


@verb(app, "down")
def down(
    purge: Annotated[bool, typer.Option("--purge", help="Forget the configuration as well.")] = False,
) -> None:
    """Detach everything and leave the host as it was found; the configuration is kept."""
    from pyoffload import datapath

    changed = datapath.down(session.instance(), purge=purge)
    if session.json:
        output.document({"changed": changed, "up": False, "purged": purge})


@verb(app, "upgrade")
def upgrade() -> None:
    """Compile this version's programs and swap them in place: no packet and no flow is lost."""
    from pyoffload import datapath

    result = datapath.upgrade(session.instance())
    if session.json:
        output.document(result.as_dict())


@verb(app, "status")
def status() -> None:
    """Show version, hooks and owners, tables with fill and capacity, and drift from the configuration."""
    from pyoffload import datapath

    found = datapath.status(session.instance())
    for text in found.drift:
        output.warning(text)
    if session.json:
        output.document(found.as_dict())
        return
    output.fields(
        [
            ("datapath", "up" if found.up else "down"),
            ("version", found.version),
            ("abi", found.abi_version),
            ("up since", None if found.since_s is None else f"{found.since_s:.0f}s"),
            ("flow cache", "on" if found.cache else "off"),
            ("bridges", found.bridges),
            ("ports", found.ports),
            ("drift", f"{len(found.drift)} differences" if found.drift else "none"),
        ]
    )
    if found.hooks:
        output.lines([""])
        output.table(
            ("interface", "ifindex", "bridge", "hook", "owner"),
            [(hook.ifname, hook.ifindex, hook.bridge, hook.hook, hook.owner) for hook in found.hooks],
            right=frozenset({"ifindex"}),
        )
    if found.tables:
        output.lines([""])
        output.table(
            ("table", "used", "capacity", "fill"),
            [
                (table.name, table.used, table.capacity, f"{100 * table.used / max(1, table.capacity):.0f}%")
                for table in found.tables
            ],
            right=frozenset({"used", "capacity", "fill"}),
        )
