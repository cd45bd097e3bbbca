"""The wheel, and the ways to start the command from a checkout."""

from __future__ import annotations

import importlib.metadata
import os
import secrets
import shutil
import subprocess
import sys
import time
import venv
import zipfile
from pathlib import Path

import pytest

import pyoffload

ROOT = Path(__file__).resolve().parent.parent
COMMAND = ROOT / "scripts" / "pyoffload"

# What a user's shell would have: nothing of the environment that runs the tests.
CLEAN_ENV = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": os.environ.get("HOME", "/root"),
    "LANG": "C.UTF-8",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_ROOT_USER_ACTION": "ignore",
}


def run(*command: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(word) for word in command],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
        stdin=subprocess.DEVNULL,
        **{"env": CLEAN_ENV, **options},
    )
    assert done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stdout}{done.stderr}"
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy: a build must not write into the checkout."""
    work = tmp_path_factory.mktemp("wheel")
    source = work / "source"
    source.mkdir()
    for name in ("pyoffload", "cli", "bpf"):
        shutil.copytree(ROOT / name, source / name)
    for path in (ROOT / "pyproject.toml", ROOT / ".gitignore", *ROOT.glob("*.md")):
        shutil.copy(path, source)
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", work, source, env=os.environ)
    (built,) = work.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """An environment that holds the wheel and its locked dependencies, and nothing else of this checkout."""
    prefix = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(prefix, with_pip=True, symlinks=True)
    pip = (prefix / "bin" / "python", "-I", "-m", "pip", "install", "-qq")
    # pip's settings from outside (a mirror, say) go in; they do not change what the hashes let through.
    pip_env = {**CLEAN_ENV, **{name: value for name, value in os.environ.items() if name.startswith("PIP_")}}
    run(*pip, "--require-hashes", "-r", ROOT / "requirements.lock", env=pip_env)
    # With its dependencies, without an index: the lock must hold everything that the wheel asks for.
    run(*pip, "--no-index", wheel, env=pip_env)
    return prefix


def files_below(directory: str) -> set[str]:
    return {
        str(path.relative_to(ROOT))
        for path in (ROOT / directory).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_holds_the_packages_and_bpf_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    packages = files_below("pyoffload") | files_below("cli")
    datapath = {f"pyoffload/_{name}" for name in files_below("bpf")}
    assert "pyoffload/__init__.py" in names
    assert "pyoffload/_bpf/abi.h" in names
    assert names == packages | datapath


def test_the_version_is_the_same_everywhere(wheel):
    assert wheel.name.split("-")[1] == pyoffload.__version__ == importlib.metadata.version("pyoffload")
    assert f"## [{pyoffload.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_wheel_alone_works_in_a_clean_environment(installed, tmp_path):
    python = installed / "bin" / "python"
    where = run(python, "-c", "import pyoffload, cli; print(pyoffload.__file__, cli.__file__)", cwd=tmp_path)
    assert all(path.startswith(str(installed)) for path in where.stdout.split())
    shown = run(installed / "bin" / "pyoffload", "--help", cwd=tmp_path)
    assert "Usage: pyoffload" in shown.stdout
    for noun in ("bridge", "port", "flow", "status"):
        assert noun in shown.stdout


def test_the_installed_environment_is_consistent(installed):
    run(installed / "bin" / "python", "-I", "-m", "pip", "check")


def test_the_command_runs_from_any_directory_and_through_links(tmp_path):
    direct = run(COMMAND, "--help", cwd="/")
    (tmp_path / "links").mkdir()
    link = tmp_path / "links" / "offload"
    link.symlink_to(COMMAND)
    outer = tmp_path / "again"
    outer.symlink_to(link)
    assert run(outer, "--help", cwd=tmp_path).stdout == direct.stdout
    for cwd, name in (
        (ROOT, "scripts/pyoffload"),
        (ROOT / "scripts", "./pyoffload"),
        (ROOT / "tests", "../scripts/pyoffload"),
    ):
        assert run(name, "--help", cwd=cwd).stdout == direct.stdout
    assert run("bash", "pyoffload", "--help", cwd=ROOT / "scripts").stdout == direct.stdout


def test_modules_in_the_current_directory_do_not_shadow_ours(tmp_path):
    for name in ("cli", "pyoffload", "typer"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('shadowed')\n")
    shown = run(COMMAND, "--help", cwd=tmp_path, env={**CLEAN_ENV, "PYTHONPATH": str(tmp_path)})
    assert "Usage: pyoffload" in shown.stdout


@pytest.mark.kernel
def test_the_command_runs_inside_a_network_namespace(tmp_path):
    name = f"pkg-{secrets.token_hex(4)}"
    run("ip", "netns", "add", name)
    try:
        shown = run("ip", "netns", "exec", name, COMMAND, "--help", cwd=tmp_path)
    finally:
        run("ip", "netns", "del", name)
    assert "Usage: pyoffload" in shown.stdout


def test_without_an_environment_the_command_says_what_to_do(tmp_path):
    (tmp_path / "scripts").mkdir()
    copy = shutil.copy(COMMAND, tmp_path / "scripts")
    done = subprocess.run([copy, "status"], check=False, capture_output=True, text=True, env=CLEAN_ENV)
    assert done.returncode == 4
    assert done.stdout == ""
    assert "run scripts/setup first" in done.stderr


def test_a_second_set_up_does_nothing_in_under_three_seconds():
    started = time.monotonic()
    done = run(ROOT / "scripts" / "setup", "--test")
    assert done.stdout == "setup: nothing to do\n", (
        "run scripts/setup --test before the tests, as scripts/test does"
    )
    assert time.monotonic() - started < 3


def test_set_up_refuses_words_it_does_not_know():
    done = subprocess.run(
        [ROOT / "scripts" / "setup", "--tset"], check=False, capture_output=True, text=True, env=CLEAN_ENV
    )
    assert done.returncode == 2
    assert "--tset" in done.stderr
