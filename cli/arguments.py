"""Arguments and options that several verbs share, each written once."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

from cli import complete

Bridge: TypeAlias = Annotated[
    str, typer.Argument(metavar="BRIDGE", help="Name of the bridge.", autocompletion=complete.bridges)
]
NewBridge: TypeAlias = Annotated[
    str, typer.Argument(metavar="NAME", help="Name of the bridge: 1 to 15 characters.")
]
NamedBridge: TypeAlias = Annotated[
    str, typer.Argument(metavar="NAME", help="Name of the bridge.", autocompletion=complete.bridges)
]
AnyBridge: TypeAlias = Annotated[
    str | None,
    typer.Argument(
        metavar="BRIDGE", help="Only of this bridge.", autocompletion=complete.bridges, show_default=False
    ),
]
Port: TypeAlias = Annotated[
    str, typer.Argument(metavar="IFNAME", help="Name of the port.", autocompletion=complete.ports)
]
ExistOk: TypeAlias = Annotated[bool, typer.Option("--exist-ok", help="No error if it exists already.")]
MissingOk: TypeAlias = Annotated[bool, typer.Option("--missing-ok", help="No error if it is not there.")]


def object_id(text: str, what: str, key: str, *, or_all: bool = False) -> int:
    """The number of '1' or 'group_id=1' (`key` is 'group_id')."""
    from pyoffload.errors import UsageError

    word = text.strip().removeprefix(f"{key}=")
    try:
        number = int(word, 0)
    except ValueError:
        number = -1
    if not 0 <= number <= 0xFFFFFFFF or "_" in word:
        hint = f"a number, {key}=NUMBER" + (" or all" if or_all else "")
        raise UsageError(f"{what}: '{text}' is not a number", hint=hint)
    return number


def object_id_or_all(text: str, what: str, key: str) -> int | None:
    """The same; None for 'all'."""
    if text.strip().removeprefix(f"{key}=") == "all":
        return None
    return object_id(text, what, key, or_all=True)
