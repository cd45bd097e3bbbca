"""pyoffload flow: flow tables in the words of ovs-ofctl, and the flows offloaded to the exact-match fast path."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from cli import complete, output
from cli.arguments import AnyBridge, Bridge
from cli.session import session
from cli.verbs import noun, report, verb

app = noun("flow", "Flow tables, in the syntax of ovs-ofctl.")
cache_app = noun("cache", "The exact-match fast path.")
app.add_typer(cache_app)


@verb(app, "add")
def add(
    bridge: Bridge,
    flow: Annotated[
        str | None,
        typer.Argument(
            metavar="FLOW",
            help="Such as 'priority=100,tcp,tp_dst=80,actions=output:tap1'.",
            show_default=False,
        ),
    ] = None,
    file: Annotated[
        str | None,
        typer.Option(
            "--file",
            metavar="FILE",
            help="Add every flow of a file; '-' is standard input.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Add one flow, or every flow of a file: all or nothing."""
    from pyoffload import flowtable
    from pyoffload.errors import UsageError

    if (flow is None) == (file is None):
        what = (
            "FLOW and --file exclude each other" if file is not None else "neither FLOW nor --file is given"
        )
        raise UsageError(what, hint="flow add BRIDGE FLOW, or flow add BRIDGE --file FILE")
    if flow is not None:
        report(flowtable.add(session.instance(), bridge, flow))
    elif file is not None:
        text, source = read_text(file)
        with output.progress(f"adding flows to {bridge}") as progress:
            change = flowtable.add_file(session.instance(), bridge, text, source=source, progress=progress)
        report(change)


@verb(app, "replace")
def replace(
    bridge: Bridge,
    file: Annotated[str, typer.Argument(metavar="FILE", help="File of flows; '-' is standard input.")],
) -> None:
    """Let the tables hold exactly the flows of a file, in one step; counters of unchanged flows go on."""
    from pyoffload import flowtable

    text, source = read_text(file)
    with output.progress(f"replacing the flows of {bridge}") as progress:
        change = flowtable.replace(session.instance(), bridge, text, source=source, progress=progress)
    report(change)


@verb(app, "mod")
def modify(
    bridge: Bridge,
    match: Annotated[str, typer.Argument(metavar="MATCH", help="Match and new actions: 'tcp,actions=drop'.")],
    strict: Annotated[
        bool, typer.Option("--strict", help="Only the flow with exactly this match and priority.")
    ] = False,
) -> None:
    """Change the actions of the flows that MATCH covers; their counters go on."""
    from pyoffload import flowtable

    report(flowtable.modify(session.instance(), bridge, match, strict=strict))


@verb(app, "del")
def delete(
    bridge: Bridge,
    match: Annotated[str, typer.Argument(metavar="MATCH", help="Which flows; '' is all of them.")],
    strict: Annotated[
        bool, typer.Option("--strict", help="Only the flow with exactly this match and priority.")
    ] = False,
) -> None:
    """Delete the flows that MATCH covers."""
    from pyoffload import flowtable

    report(flowtable.delete(session.instance(), bridge, match, strict=strict))


@verb(app, "dump")
def dump(
    bridge: Bridge,
    match: Annotated[
        str, typer.Argument(metavar="MATCH", help="Only flows that this covers.", show_default=False)
    ] = "",
    table: Annotated[
        int | None, typer.Option(metavar="N", min=0, max=31, help="Only this table.", show_default=False)
    ] = None,
    stats: Annotated[bool, typer.Option("--stats/--no-stats", help="With counters and ages.")] = True,
) -> None:
    """Print the flows as ovs-ofctl does."""
    from pyoffload import flowtable

    found = flowtable.dump(session.instance(), bridge, match, table=table, stats=stats)
    if session.json:
        output.document([info.as_dict() for info in found])
    else:
        output.lines([info.text(stats=stats) for info in found])


@verb(cache_app, "list")
def cache_list(
    bridge: AnyBridge = None,
    port: Annotated[
        str | None,
        typer.Option(
            "--port",
            metavar="IF",
            help="Only from this port.",
            autocompletion=complete.ports,
            show_default=False,
        ),
    ] = None,
    top: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Only the N busiest.", show_default=False)
    ] = None,
) -> None:
    """List the flows that are offloaded to the exact-match fast path."""
    from pyoffload import flowcache

    found = flowcache.list_entries(session.instance(), bridge, port, top)
    rows = [entry.as_dict() for entry in found]
    if session.json:
        output.document(rows)
        return
    output.mappings(rows, right=frozenset({"packets", "bytes", "idle_s"}))


def read_text(name: str) -> tuple[str, str]:
    """The whole text of a file, and the file's name for messages; '-' is standard input."""
    from pyoffload.errors import OffloadError

    source = "<stdin>" if name == "-" else name
    try:
        if name == "-":
            data = sys.stdin.buffer.read()
        else:
            with open(name, "rb") as file:
                data = file.read()
        return data.decode("utf-8"), source
    except (OSError, ValueError) as err:
        why = (err.strerror or str(err)) if isinstance(err, OSError) else f"not UTF-8 text ({err})"
        raise OffloadError(
            f"{source}: {why}", hint="one flow per line, as ovs-ofctl add-flows takes them"
        ) from err
