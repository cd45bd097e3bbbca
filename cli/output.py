"""The only printing: results on stdout (one JSON document, or a table), everything about them on stderr.

A table is drawn by rich on a terminal and is plain aligned text when piped, so that awk can read it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

PROGRAM: Final = "pyoffload"
Progress = Callable[[int, int], None]


def one_line(text: str) -> str:
    """`text` with everything that would break the line, or steer a terminal, spelt out."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def document(value: object) -> None:
    """One JSON document on stdout; indented where a person is looking."""
    import json

    write(json.dumps(value, indent=2 if sys.stdout.isatty() else None, default=_plain) + "\n")


def _plain(value: object) -> object:
    """What the json module has no form for, but our results may hold."""
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError(f"no JSON form for {type(value).__name__}")


def write(text: str) -> None:
    sys.stdout.write(text)


def lines(rows: Sequence[str]) -> None:
    """Text as it is, line by line."""
    if rows:
        write("\n".join(rows) + "\n")


def table(
    headers: Sequence[str], rows: Sequence[Sequence[object]], *, right: frozenset[str] = frozenset()
) -> None:
    """Columns under `headers`; those named in `right` are aligned right. None is shown as "-"."""
    cells = [[cell(value) for value in row] for row in rows]
    if sys.stdout.isatty():
        _rich_table(headers, cells, right)
    else:
        _plain_table(headers, cells, right)


def mappings(rows: Sequence[dict[str, Any]], *, right: frozenset[str] = frozenset()) -> None:
    """Dictionaries of the same keys as a table; the keys are the headers."""
    if rows:
        headers = list(rows[0])
        table(
            [header.replace("_", " ") for header in headers],
            [[row.get(header) for header in headers] for row in rows],
            right=frozenset(header.replace("_", " ") for header in right),
        )


def cell(value: object) -> str:
    if value is None or value in ("", [], ()):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ",".join(cell(item) for item in value)
    return one_line(str(value))


def _plain_table(headers: Sequence[str], cells: list[list[str]], right: frozenset[str]) -> None:
    widths = [max([len(header), *(len(row[i]) for row in cells)]) for i, header in enumerate(headers)]
    printed = [[header.upper().replace(" ", "_") for header in headers], *cells]
    lines(
        [
            "  ".join(
                text.rjust(width) if header in right else text.ljust(width)
                for header, text, width in zip(headers, row, widths, strict=True)
            ).rstrip()
            for row in printed
        ]
    )


def _rich_table(headers: Sequence[str], cells: list[list[str]], right: frozenset[str]) -> None:
    console().print(rich_table(headers, cells, right))


def rich_table(headers: Sequence[str], cells: Sequence[Sequence[str]], right: frozenset[str]) -> Any:
    """The same as a rich.table.Table, for `Live` as well."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for header in headers:
        drawn.add_column(header, justify="right" if header in right else "left", overflow="fold")
    for row in cells:
        drawn.add_row(*(Text(text, style="dim" if text == "-" else "") for text in row))
    return drawn


def console() -> Any:
    from rich.console import Console

    return Console(highlight=False, markup=False)


def fields(pairs: Sequence[tuple[str, object]]) -> None:
    """One object, a line per field."""
    width = max((len(name) for name, _ in pairs), default=0)
    lines([f"{name.ljust(width)}  {cell(value)}" for name, value in pairs])


def warning(text: str) -> None:
    _diagnostic(f"{PROGRAM}: warning: {one_line(text)}")


def note(text: str) -> None:
    """What a person at a terminal wants to know and a script does not."""
    if sys.stderr.isatty():
        _diagnostic(one_line(text))


def error(message: str, *, verb: str = "", hint: str | None = None) -> None:
    """Two lines: what went wrong in which verb, and what to do about it."""
    _diagnostic(": ".join(one_line(part) for part in (PROGRAM, verb, message) if part))
    if hint:
        _diagnostic(f"hint: {one_line(hint)}")


def _diagnostic(text: str) -> None:
    with suppress(OSError, ValueError):  # nobody is listening; the exit code still tells
        print(text, file=sys.stderr, flush=True)


@contextmanager
def progress(what: str) -> Iterator[Progress | None]:
    """A bar on stderr while a long operation runs: yields `report(done, total)`, or None where nobody watches."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress as Bar, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)

        def report(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield report
        total = bar.tasks[0].total
        if total is not None:
            report(int(total), int(total))


def flush() -> None:
    """Bring everything out. BrokenPipeError is the reader's wish to stop, and is passed on."""
    sys.stdout.flush()
    with suppress(OSError, ValueError):
        sys.stderr.flush()


def silence() -> None:
    """The reader of stdout has gone: nothing more, also not from the interpreter's own flush at the end."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
