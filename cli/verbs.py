"""Typer classes of the command line: verbs that take the global options too, nouns that are loaded when they are named."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Final, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption
from typer.main import get_group

from cli.session import session

F = TypeVar("F", bound=Callable[..., None])

# Every word after `pyoffload`, in the order of --help, and the module that holds it.
WORDS: Final = {
    "doctor": "lifecycle",
    "up": "lifecycle",
    "down": "lifecycle",
    "status": "lifecycle",
    "upgrade": "lifecycle",
    "sync": "lifecycle",
    "bridge": "bridge",
    "port": "port",
    "fdb": "fdb",
    "flow": "flow",
    "group": "group",
    "meter": "meter",
    "stats": "stats",
}


def set_json(value: bool | None) -> None:
    if value:
        session.json = True


def set_netns(value: str | None) -> None:
    if value is not None:
        session.netns = value


def _on_json(_ctx: Any, _param: Any, value: bool | None) -> None:
    set_json(value)


def _on_netns(_ctx: Any, _param: Any, value: str | None) -> None:
    set_netns(value)


class Verb(TyperCommand):
    """A command; -j and -n may also stand after it, as people write them there."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        json_option = TyperOption(
            param_decls=["-j", "--json"], is_flag=True, expose_value=False, hidden=True, callback=_on_json
        )
        netns_option = TyperOption(
            param_decls=["-n", "--netns"], expose_value=False, hidden=True, callback=_on_netns, metavar="NAME"
        )
        kwargs["params"] = [*kwargs.get("params", ()), json_option, netns_option]
        super().__init__(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        session.verb = verb_of(ctx)
        return super().invoke(ctx)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Arguments as manual pages write them: NAME, not {NAME}."""
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]


def verb_of(ctx: Any) -> str:
    """'pyoffload flow add' -> 'flow add'."""
    return str(ctx.command_path).partition(" ")[2]


class Words(TyperGroup):
    """The top level. A noun's module is imported when the noun is used: `port list` does not pay for `flow`."""

    def list_commands(self, ctx: Any) -> list[str]:
        del ctx
        return list(WORDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        del ctx
        module = WORDS.get(cmd_name)
        if module is None:
            return None
        group = get_group(importlib.import_module(f"cli.{module}").app)
        return group if module == cmd_name and module != "stats" else group.commands[cmd_name]

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        # So that TyperGroup can suggest the nearest word, without loading any module.
        self.commands = dict.fromkeys(WORDS)  # type: ignore[assignment]
        return super().resolve_command(ctx, args)


class _Settings:
    """Passed to every Typer(): no traceback with locals, no rich help (it costs 60 ms and cannot be piped)."""

    keywords: Final[dict[str, Any]] = {
        "add_completion": False,
        "pretty_exceptions_enable": False,
        "rich_markup_mode": None,
    }


def noun(name: str, text: str) -> typer.Typer:
    """A Typer app whose commands are a noun's verbs."""
    app = typer.Typer(name=name, help=text, **_Settings.keywords)
    app.callback()(_nothing)
    return app


def _nothing() -> None:
    pass


def verb(app: typer.Typer, name: str, **settings: Any) -> Callable[[F], F]:
    """Register a function as a verb of a noun. Its docstring is the help text."""
    return app.command(name, cls=Verb, **settings)
