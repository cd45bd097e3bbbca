"""The application: global options, and the one place where an error becomes two lines and an exit code."""

from __future__ import annotations

import gc

gc.disable()  # a command is over before cycles matter, and looking for them takes a tenth of its time

# ruff: noqa: E402
import os
import sys
from typing import Annotated, Any, Final, NoReturn

import typer
from typer.main import get_command

from cli import complete, output
from cli.session import session
from cli.verbs import WORDS, Words, set_json, set_netns, verb_of

# Typer carries its own copy of Click and exports only the leaf of the exceptions' tree.
_UsageError: Final[Any] = typer.BadParameter.__mro__[1]
_CliError: Final[Any] = typer.BadParameter.__mro__[2]

# Typer's words for which there are plainer ones.
_WORDING: Final = {
    "is not a valid int range": "is not a whole number",
    "is not a valid int": "is not a whole number",
    "is not a valid integer range": "is not a whole number",
    "is not a valid integer": "is not a whole number",
}

EXIT_FAILED: Final = 1
EXIT_NOT_PERMITTED: Final = 3
EXIT_INTERRUPTED: Final = 130
EXIT_BROKEN_PIPE: Final = 141  # what a shell shows for a command that SIGPIPE ended

app = typer.Typer(
    name=output.PROGRAM,
    cls=Words,
    add_completion=any(arg.startswith(("--install-c", "--show-c", "--help", "-h")) for arg in sys.argv)
    or "_PYOFFLOAD_COMPLETE" in os.environ,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from pyoffload import __version__

        output.lines([f"{output.PROGRAM} {__version__}"])
        raise typer.Exit


@app.callback(help="A virtual switch in the kernel's fast path: XDP and TC programs, managed from here.")
def _global_options(
    netns: Annotated[
        str | None,
        typer.Option(
            "--netns",
            "-n",
            metavar="NAME",
            help="Work inside this named network namespace.",
            autocompletion=complete.namespaces,
        ),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", "-j", help="One JSON document on stdout instead of a table.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", "-V", is_eager=True, callback=_print_version, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    del version
    set_netns(netns)
    set_json(json)


def main() -> NoReturn:
    """Entry point of the `pyoffload` command."""
    code = run(sys.argv[1:])
    try:
        output.flush()
    except BrokenPipeError:
        output.silence()
        code = code or EXIT_BROKEN_PIPE
    # All is written and closed; taking the interpreter's modules apart would take another 8 ms.
    os._exit(code)


def run(args: list[str]) -> int:
    """Run one command; returns its exit code. Prints every error, raises none."""
    try:
        code = get_command(app).main(args, prog_name=output.PROGRAM, standalone_mode=False)
    except _CliError as err:
        return _cli_error(err)
    except BrokenPipeError:
        output.silence()
        return EXIT_BROKEN_PIPE
    except (KeyboardInterrupt, typer.Abort):
        return EXIT_INTERRUPTED
    except SystemExit as err:  # Typer's completion ends like this
        return err.code if isinstance(err.code, int) else EXIT_FAILED
    except Exception as err:
        return _failure(err)
    return code if isinstance(code, int) else 0


def _failure(err: Exception) -> int:
    from pyoffload.errors import OffloadError

    if isinstance(err, OffloadError):
        message, line = _with_place(err)
        output.error(message, verb=session.verb, hint=err.hint)
        # A file that fails is a failed operation, not wrong usage of the command.
        return EXIT_FAILED if line else err.exit_code
    if isinstance(err, PermissionError):
        where = f": {err.filename}" if err.filename else ""
        output.error(
            f"not permitted{where} ({err.strerror})",
            verb=session.verb,
            hint="run it as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON",
        )
        return EXIT_NOT_PERMITTED
    if isinstance(err, OSError) and err.strerror:
        where = f"{err.filename}: " if err.filename else ""
        output.error(f"{where}{err.strerror}", verb=session.verb)
        return EXIT_FAILED
    if os.environ.get("PYOFFLOAD_DEBUG"):
        raise err
    output.error(
        f"internal error: {type(err).__name__}: {err} ({_place(err)})",
        verb=session.verb,
        hint="this is a defect of pyoffload; PYOFFLOAD_DEBUG=1 shows where it comes from",
    )
    return EXIT_FAILED


def _with_place(err: Any) -> tuple[str, int | None]:
    """Message and, for a FlowSyntaxError in a file, line; such an error points at the word by its column."""
    message = str(err.message)
    offset, line = getattr(err, "offset", None), getattr(err, "line", None)
    if offset is not None:
        word = err.text[offset : offset + err.length]
        near = "" if not word or word in message else f"'{word}' at "
        message = f"{message} ({near}column {offset + 1})"
    if line is not None:
        message = f"{err.source}:{line}: {message}"
    return message, line


def _place(err: Exception) -> str:
    """File and line where an exception was raised."""
    trace = err.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "unknown place"
    return f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}"


def _cli_error(err: Any) -> int:
    """What Typer says about wrong usage, in our form: one line, then how it is meant."""
    text = str(err.format_message()).strip().rstrip(".")
    ctx = getattr(err, "ctx", None)
    verb = verb_of(ctx) if ctx is not None else session.verb
    text, _, suggestion = text.partition(" Did you mean ")
    text = text.rstrip(".")
    hint: str | None = f"{output.PROGRAM} --help"
    if text.startswith("No such command "):
        text = text.replace("No such command", f"unknown {'verb' if verb else 'command'}")
        hint = _known_words(ctx, suggestion)
    elif text == "Missing command":
        text = f"what to do with a {verb}?" if verb else "no command given"
        hint = _known_words(ctx, "")
    elif ctx is not None:
        hint = " ".join(ctx.get_usage().split()).removeprefix("Usage: ")
    for theirs, ours in _WORDING.items():
        text = text.replace(theirs, ours)
    output.error(text[:1].lower() + text[1:], verb=verb, hint=hint)
    return int(getattr(err, "exit_code", 2))


def _known_words(ctx: Any, suggestion: str) -> str | None:
    if suggestion:
        return f"did you mean {suggestion.rstrip('?')}?"
    if ctx is None:
        return None
    words = WORDS if ctx.parent is None else ctx.command.list_commands(ctx)
    return f"one of {', '.join(words)}"


if __name__ == "__main__":
    main()
