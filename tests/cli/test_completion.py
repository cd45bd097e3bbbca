"""Completion as Typer gives it: scripts for the shells, and words, names of bridges, ports and interfaces."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.support.cli import COMMAND, Cli

# Typer's own switch: the shell is named on the command line instead of being found among the parent processes.
NAME_THE_SHELL = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}


def complete(line: str) -> list[str]:
    """What bash would offer for the last word of the line."""
    words = line.split(" ")
    env = {
        **os.environ,
        "_PYOFFLOAD_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }
    done = subprocess.run([str(COMMAND)], env=env, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("shell", "line"),
    [
        ("bash", "complete -o default -F _pyoffload_completion pyoffload"),
        ("zsh", "compdef _pyoffload_completion pyoffload"),
        ("fish", "complete --command pyoffload"),
    ],
)
def test_the_script_for_each_shell_is_shown(shell, line):
    assert line in Cli(None).ok("--show-completion", shell, env=NAME_THE_SHELL).stdout


@pytest.mark.parametrize(
    ("shell", "place"), [("bash", ".bashrc"), ("zsh", ".zshrc"), ("fish", ".config/fish")]
)
def test_the_script_for_each_shell_is_installed_for_the_user(tmp_path, shell, place):
    # An empty PATH entry first, so that no shell of this machine is asked about its version.
    Cli(None).ok("--install-completion", shell, env={**NAME_THE_SHELL, "HOME": str(tmp_path)})
    assert (tmp_path / place).exists()


def test_the_script_works_in_a_real_bash():
    script = (
        f'PATH={COMMAND.parent}:$PATH; eval "$(pyoffload --show-completion bash)"; COMP_WORDS=(pyoffload flow re);'
        ' COMP_CWORD=2; _pyoffload_completion pyoffload; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        env={**os.environ, **NAME_THE_SHELL},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "replace\n"


def test_nouns_verbs_and_options_are_completed():
    assert complete("pyoffload p") == ["port"]
    assert complete("pyoffload port ") == ["add", "set", "del", "list", "show"]
    assert complete("pyoffload port add --n") == ["--native"]
    assert complete("pyoffload flow cache ") == ["list"]


def test_names_are_completed(switch: Cli):
    assert switch.netns is not None
    here = f"pyoffload -n {switch.netns.name}"
    assert complete(f"{here} bridge show ") == ["br0"]
    assert complete(f"{here} port show p") == ["p1", "p2"]
    assert complete(f"{here} port add br0 spa") == ["spare", "spare-peer"]
    assert complete(f"{here} stats p2") == ["p2"]


def test_names_of_namespaces_are_completed(switch: Cli):
    assert switch.netns is not None
    assert switch.netns.name in complete(f"pyoffload -n {switch.netns.name[:6]}")


def test_nothing_is_offered_and_nothing_said_where_nothing_can_be_known():
    assert complete("pyoffload -n no-such-netns bridge show ") == []
    assert complete("pyoffload nonsense ") == complete("pyoffload ")
