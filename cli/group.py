"""pyoffload group: OpenFlow groups in the words of ovs-ofctl."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

from cli import output
from cli.arguments import Bridge, object_id, object_id_or_all
from cli.session import session
from cli.verbs import noun, report, verb

app = noun("group", "Groups: all, select, indirect and fast_failover.")

Group: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="GROUP", help="Such as 'group_id=1,type=select,bucket=output:tap0,bucket=output:tap1'."
    ),
]


@verb(app, "add")
def add(bridge: Bridge, group: Group) -> None:
    """Add a group."""
    from pyoffload import groups

    report(groups.add(session.instance(), bridge, group))


@verb(app, "mod")
def modify(bridge: Bridge, group: Group) -> None:
    """Change a group's type and buckets in one step."""
    from pyoffload import groups

    report(groups.modify(session.instance(), bridge, group))


@verb(app, "del")
def delete(
    bridge: Bridge,
    group: Annotated[str, typer.Argument(metavar="GROUP", help="'group_id=1', '1', or 'all'.")],
) -> None:
    """Delete a group, and with it the flows that use it."""
    from pyoffload import groups

    report(groups.delete(session.instance(), bridge, object_id_or_all(group, "GROUP", "group_id")))


@verb(app, "list")
def list_(bridge: Bridge) -> None:
    """List the groups as ovs-ofctl dump-groups does."""
    from pyoffload import groups

    found = groups.list_groups(session.instance(), bridge)
    if session.json:
        output.document([info.as_dict() for info in found])
    else:
        output.lines([info.text() for info in found])


@verb(app, "show")
def show(
    bridge: Bridge,
    group: Annotated[str, typer.Argument(metavar="GROUP", help="'group_id=1' or '1'.")],
) -> None:
    """Show a group with the counters of its buckets."""
    from pyoffload import groups

    info = groups.show(session.instance(), bridge, object_id(group, "GROUP", "group_id"))
    if session.json:
        output.document(info.as_dict())
    else:
        output.lines([info.text()])
