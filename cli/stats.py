"""pyoffload stats: counters of ports, drops by reason, and rates while one watches."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cli import complete, output
from cli.session import session
from cli.verbs import noun, verb

if TYPE_CHECKING:
    from pyoffload.stats import PortStats

app = noun("statistics", "Counters.")

RIGHT: Final = frozenset({"rx packets", "rx bytes", "tx packets", "tx bytes", "drops"})
RATE_RIGHT: Final = frozenset({"rx pps", "rx bit/s", "tx pps", "tx bit/s", "drops/s"})
COUNTERS: Final = ("rx_packets", "rx_bytes", "tx_packets", "tx_bytes")


@verb(app, "stats")
def stats(
    ifname: Annotated[
        str | None,
        typer.Argument(
            metavar="IFNAME", help="Only this port.", autocompletion=complete.ports, show_default=False
        ),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show rates, again and again, until ^C.")] = False,
    interval: Annotated[str, typer.Option(metavar="TIME", help="With --watch: how often.")] = "1s",
    count: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="With --watch: stop after N times.", show_default=False),
    ] = None,
) -> None:
    """Show packets, bytes and drops by reason; rates with --watch."""
    from pyoffload import stats as source, units

    instance = session.instance()
    if watch:
        every_ns = units.parse_duration(interval, "--interval")
        _watch(_samples(lambda: source.port_stats(instance, ifname), max(every_ns, 50_000_000), count))
        return
    found = source.port_stats(instance, ifname)
    if session.json:
        output.document([port.as_dict() for port in found])
        return
    output.table(
        ("port", "bridge", "rx packets", "rx bytes", "tx packets", "tx bytes", "drops", "reasons"),
        [
            (
                port.ifname,
                port.bridge,
                port.rx_packets,
                port.rx_bytes,
                port.tx_packets,
                port.tx_bytes,
                sum(port.drops.values()),
                [f"{reason}={n}" for reason, n in port.drops.items() if n],
            )
            for port in found
        ],
        right=RIGHT,
    )


def _samples(read: Any, every_ns: int, count: int | None) -> Iterator[list[dict[str, Any]]]:
    """Rates per port between one reading and the next; nothing but a timer runs in between."""
    import gc
    from select import select

    gc.enable()  # this command may run for days
    before: dict[str, PortStats] = {port.ifname: port for port in read()}
    taken = 0
    while count is None or taken < count:
        select([], [], [], every_ns / 1e9)
        now = {port.ifname: port for port in read()}
        yield [rates(before[name], port) for name, port in now.items() if name in before]
        before = now
        taken += 1


def rates(before: PortStats, now: PortStats) -> dict[str, Any]:
    """Per second, from two readings; a port that began anew counts from zero."""
    seconds = max(now.clock_ns - before.clock_ns, 1) / 1e9
    result: dict[str, Any] = {"ifname": now.ifname, "bridge": now.bridge}
    for name in COUNTERS:
        grown = getattr(now, name) - getattr(before, name)
        result[f"{name}_per_s"] = round((grown if grown >= 0 else getattr(now, name)) / seconds, 1)
    drops = {reason: n - before.drops.get(reason, 0) for reason, n in now.drops.items()}
    result["drops_per_s"] = {reason: round(n / seconds, 1) for reason, n in drops.items() if n > 0}
    return result


def _watch(samples: Iterator[list[dict[str, Any]]]) -> None:
    """A live table on a terminal; a table or one JSON document per line and interval elsewhere."""
    if session.json:
        import json

        for sample in samples:
            output.write(json.dumps(sample) + "\n")
            output.flush()
        return
    headers = ("port", "bridge", "rx pps", "rx bit/s", "tx pps", "tx bit/s", "drops/s", "reasons")
    if not sys.stdout.isatty():
        for sample in samples:
            output.table(headers, [_row(port) for port in sample], right=RATE_RIGHT)
            output.flush()
        return
    from rich.live import Live

    def draw(sample: list[dict[str, Any]]) -> Any:
        return output.rich_table(
            headers, [[output.cell(value) for value in _row(port)] for port in sample], RATE_RIGHT
        )

    with Live(draw([]), console=output.console(), auto_refresh=False) as live:
        for sample in samples:
            live.update(draw(sample), refresh=True)


def _row(port: dict[str, Any]) -> tuple[object, ...]:
    from pyoffload import units

    drops: dict[str, float] = port["drops_per_s"]
    return (
        port["ifname"],
        port["bridge"],
        units.format_count_rate(port["rx_packets_per_s"]),
        units.format_rate(port["rx_bytes_per_s"] * 8),
        units.format_count_rate(port["tx_packets_per_s"]),
        units.format_rate(port["tx_bytes_per_s"] * 8),
        f"{sum(drops.values()):.0f}",
        [f"{reason}={n:.0f}" for reason, n in drops.items()],
    )
