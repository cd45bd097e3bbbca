"""Typer classes of the command line: verbs that take the global options too, nouns that are loaded when they are named."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption
from typer.main import get_command

from cli import output
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


class Noun(TyperGroup):
    """The verbs of a Typer app, each made when it is used: reading a signature takes a millisecond."""

    def __init__(self, app: typer.Typer) -> None:
        super().__init__(name=app.info.name, help=app.info.help, rich_markup_mode=None)
        self._verbs = {str(info.name): info for info in app.registered_commands}
        groups = (info.typer_instance for info in app.registered_groups)
        self._nouns = {str(group.info.name): group for group in groups if group is not None}
        # The names alone, for suggestions.
        self.commands = dict.fromkeys([*self._verbs, *self._nouns])  # type: ignore[assignment]

    def list_commands(self, ctx: Any) -> list[str]:
        del ctx
        return list(self.commands)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        del ctx
        if cmd_name in self._nouns:
            return Noun(self._nouns[cmd_name])
        info = self._verbs.get(cmd_name)
        if info is None:
            return None
        single = typer.Typer(**_SETTINGS)
        single.registered_commands = [info]
        return get_command(single)


class Words(TyperGroup):
    """The top level. A noun's module is imported when the noun is used: `port list` does not pay for `flow`."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.commands = dict.fromkeys(WORDS)  # type: ignore[assignment]

    def list_commands(self, ctx: Any) -> list[str]:
        del ctx
        return list(WORDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        module = WORDS.get(cmd_name)
        if module is None:
            return None
        noun = Noun(importlib.import_module(f"cli.{module}").app)
        return noun if noun.name == cmd_name else noun.get_command(ctx, cmd_name)


# For every Typer(): no traceback with locals, no rich help (it takes 60 ms more and cannot be piped).
_SETTINGS: Final[dict[str, Any]] = {
    "add_completion": False,
    "pretty_exceptions_enable": False,
    "rich_markup_mode": None,
}


def noun(name: str, text: str) -> typer.Typer:
    """A Typer app whose commands are a noun's verbs."""
    return typer.Typer(name=name, help=text, **_SETTINGS)


def verb(app: typer.Typer, name: str, **settings: Any) -> Callable[[F], F]:
    """Register a function as a verb of a noun. Its docstring is the help text."""
    return app.command(name, cls=Verb, **settings)


class Change(Protocol):
    """What a changing verb says it did."""

    @property
    def warnings(self) -> tuple[str, ...]: ...

    def as_dict(self) -> dict[str, Any]: ...


def report(change: Change) -> None:
    """Warnings on stderr; what changed only for scripts."""
    for text in change.warnings:
        output.warning(text)
    if session.json:
        output.document(change.as_dict())
