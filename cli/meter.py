"""pyoffload meter: OpenFlow meters in the words of ovs-ofctl."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

from cli import output
from cli.arguments import Bridge, object_id, object_id_or_all
from cli.session import session
from cli.verbs import noun, report, verb

app = noun("meter", "Meters: limits of a flow's rate.")

Meter: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="METER", help="Such as 'meter=1,kbps,burst,band=type=drop,rate=1000,burst_size=100'."
    ),
]


@verb(app, "add")
def add(bridge: Bridge, meter: Meter) -> None:
    """Add a meter."""
    from pyoffload import meters

    report(meters.add(session.instance(), bridge, meter))


@verb(app, "mod")
def modify(bridge: Bridge, meter: Meter) -> None:
    """Change a meter's rate in one step."""
    from pyoffload import meters

    report(meters.modify(session.instance(), bridge, meter))


@verb(app, "del")
def delete(
    bridge: Bridge,
    meter: Annotated[str, typer.Argument(metavar="METER", help="'meter=1', '1', or 'all'.")],
) -> None:
    """Delete a meter, and with it the flows that use it."""
    from pyoffload import meters

    report(meters.delete(session.instance(), bridge, object_id_or_all(meter, "METER", "meter")))


@verb(app, "list")
def list_(bridge: Bridge) -> None:
    """List the meters as ovs-ofctl dump-meters does."""
    from pyoffload import meters

    found = meters.list_meters(session.instance(), bridge)
    if session.json:
        output.document([info.as_dict() for info in found])
    else:
        output.lines([info.text() for info in found])


@verb(app, "show")
def show(
    bridge: Bridge,
    meter: Annotated[str, typer.Argument(metavar="METER", help="'meter=1' or '1'.")],
) -> None:
    """Show a meter with the number of packets it dropped."""
    from pyoffload import meters

    info = meters.show(session.instance(), bridge, object_id(meter, "METER", "meter"))
    if session.json:
        output.document(info.as_dict())
    else:
        output.lines([info.text()])
