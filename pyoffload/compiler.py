"""From the C in bpf/ to BPF instructions: flatten the sources, have bcc compile them in a child, keep the result.

The instructions name maps by placeholder (maps.PLACEHOLDER_BASE + place in maps.SPECS), so they need neither maps nor
privileges, and can be kept: the same source, flags and compiler are compiled once per machine.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, Self

from pyoffload import __version__
from pyoffload.errors import CompileError, HostError, OffloadError
from pyoffload.maps import PLACEHOLDER_BASE, SPECS

CACHE_DIR = "/var/cache/pyoffload"
CACHE_FILES = 16  # as many compiled objects are kept
CHILD_TIMEOUT_S = 120.0
BCC_DIRS = (
    "/usr/lib/python3/dist-packages/bcc",
    "/usr/lib/python3/site-packages/bcc",
    *(f"/usr/lib/python3.{minor}/site-packages/bcc" for minor in range(11, 16)),
)
USER_HEADERS = "/usr/include"
_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]+"([^"]+)"', re.ASCII)
_DIAGNOSTIC = re.compile(r"^(\S+?):(\d+):(\d+): (?:fatal )?error: (.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Compiled:
    """Instructions of each program of one source, with placeholders for maps."""

    name: str
    programs: dict[str, bytes]
    from_cache: bool


@dataclass(frozen=True, slots=True)
class Source:
    """What the compiler gets: one text, and flags without those that depend on a temporary directory."""

    name: str
    text: str
    cflags: tuple[str, ...]


def bpf_dir() -> str:
    """Directory of the C sources: beside the package in a checkout, inside it in a wheel."""
    here = os.path.dirname(os.path.abspath(__file__))
    for directory in (f"{here}/_bpf", f"{os.path.dirname(here)}/bpf"):
        if os.path.isfile(f"{directory}/abi.h"):
            return directory
    raise HostError(f"the datapath's sources are missing beside {here}", hint="install pyoffload again")


def flatten(path: str, root: str) -> str:
    """The file with every ``#include "..."`` replaced by that file's text, each file once.

    bcc rewrites only the main text, and then only the functions in it are inlined; ``#line`` keeps the names and
    lines of the files (relative to ``root``) in messages.
    """
    lines: list[str] = []
    _flatten(path, root, set(), lines)
    return "".join(lines)


def _flatten(path: str, root: str, seen: set[str], lines: list[str]) -> None:
    seen.add(path)
    name = os.path.relpath(path, root)
    lines.append(f'#line 1 "{name}"\n')
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            found = _INCLUDE.match(line)
            if not found:
                lines.append(line)
                continue
            wanted = os.path.normpath(f"{os.path.dirname(path)}/{found[1]}")
            if wanted in seen:
                lines.append("\n")
                continue
            if not os.path.isfile(wanted):
                raise CompileError(f'{name}:{number}: there is no "{found[1]}"')
            _flatten(wanted, root, seen, lines)
            lines.append(f'#line {number + 1} "{name}"\n')


def source(name: str, defines: Mapping[str, str | int] | None = None, root: str | None = None) -> Source:
    """Source bpf/<name>.c, ready for the compiler."""
    root = root or bpf_dir()
    flags = ["-D__LINUX_BPF_H__", "-Wall", "-Werror", "-Wno-unused-function"]
    flags.append(
        "-Wno-incompatible-pointer-types-discards-qualifiers"
    )  # bcc's helper prototypes know no const
    flags += [f"-DFD_{spec.name}={PLACEHOLDER_BASE + i}" for i, spec in enumerate(SPECS)]
    flags += [f"-D{key}={value}" for key, value in (defines or {}).items()]
    return Source(name, flatten(f"{root}/{name}.c", root), tuple(flags))


def compile_all(sources: Sequence[Source], *, use_cache: bool = True) -> list[Compiled]:
    """Compile, or take from the cache; what has to be compiled is compiled at the same time.

    CompileError names the first error with file and line; HostError when there is no bcc or no user headers.
    """
    bcc = find_bcc()
    keys = {text.name: _key(text, bcc) for text in sources}
    done: dict[str, Compiled] = {}
    if use_cache:
        for text in sources:
            programs = _from_cache(keys[text.name])
            if programs is not None:
                done[text.name] = Compiled(text.name, programs, from_cache=True)
    missing = [text for text in sources if text.name not in done]
    if missing:
        with _stub_tree() as tree, contextlib.ExitStack() as children:
            started = [(text, children.enter_context(_Child(text, tree, bcc))) for text in missing]
            for text, child in started:
                answer = child.answer()
                programs = {name: bytes.fromhex(insns) for name, insns in answer["programs"].items()}
                _to_cache(keys[text.name], programs)
                done[text.name] = Compiled(text.name, programs, from_cache=False)
    return [done[text.name] for text in sources]


def explain(
    text: Source, program: str, kind: int, attach_type: int, insns: bytes, map_fds: Sequence[int]
) -> str:
    """What the verifier says about a program with real map descriptors in it, with source lines."""
    request = {"explain": {"name": program, "type": kind, "attach_type": attach_type, "insns": insns.hex()}}
    with _stub_tree() as tree, _Child(text, tree, find_bcc(), request, map_fds) as child:
        return str(child.answer()["log"])


def find_bcc() -> str:
    """Directory of the distribution's bcc module. PyPI's "bcc" is another project."""
    for directory in BCC_DIRS:
        if os.path.isfile(f"{directory}/__init__.py") and os.path.isfile(f"{directory}/libbcc.py"):
            return directory
    raise HostError("bcc, the compiler of the datapath, is missing", hint="apt install python3-bpfcc")


def bcc_version(directory: str) -> str:
    """Version without importing bcc, which takes 50 ms."""
    try:
        with open(f"{directory}/version.py", encoding="utf-8") as file:
            found = re.search(r"__version__ *= *['\"]([^'\"]+)", file.read())
    except OSError:
        return "unknown"
    return found[1] if found else "unknown"


class _Child:
    """The compiler at work; leaving the block ends it in any case."""

    def __init__(
        self,
        text: Source,
        tree: str,
        bcc: str,
        request: Mapping[str, Any] | None = None,
        inherit: Sequence[int] = (),
    ) -> None:
        self.text = text
        includes = [f"-I{tree}/include", f"-I{USER_HEADERS}", f"-I{USER_HEADERS}/{_multiarch()}"]
        self.request = {
            "source": text.text,
            "cflags": [*text.cflags, *includes],
            "bcc": bcc,
            **(request or {}),
        }
        self.tree = tree
        self.inherit = inherit

    def __enter__(self) -> Self:
        read_end, write_end = os.pipe()
        script = f"{os.path.dirname(os.path.abspath(__file__))}/compile_child.py"
        self.errors: IO[bytes] = tempfile.TemporaryFile()
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-I", script, str(write_end)],
                stdin=subprocess.PIPE,
                stdout=self.errors,
                stderr=self.errors,
                pass_fds=(write_end, *self.inherit),
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "BCC_KERNEL_SOURCE": self.tree, "LC_ALL": "C"},
            )
        except OSError as err:
            os.close(read_end)
            raise OffloadError(f"cannot start the compiler: {err.strerror}", errno=err.errno or 0) from err
        finally:
            os.close(write_end)
        self.answers = os.fdopen(read_end, "rb")
        if self.process.stdin is not None:  # it is a pipe; said for mypy
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.write(json.dumps(self.request).encode())
                self.process.stdin.close()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.answers.close()
        self.errors.close()

    def answer(self) -> dict[str, Any]:
        raw = self.answers.read()
        try:
            code = self.process.wait(CHILD_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise CompileError(f"{self.text.name}.c: the compiler does not come to an end") from None
        if code == 0 and raw:
            answer: dict[str, Any] = json.loads(raw)
            return answer
        self.errors.seek(0)
        said = self.errors.read().decode("utf-8", "replace")
        raise _failure(self.text.name, code, said)


def _failure(name: str, code: int, said: str) -> OffloadError:
    if code == 4:
        return HostError(
            f"bcc, the compiler of the datapath, does not start: {said.strip() or 'it is missing'}",
            hint="apt install python3-bpfcc",
        )
    found = _DIAGNOSTIC.search(said)
    if found:
        file, line, column, message = found.groups()
        if "file not found" in message:
            return HostError(f"{file}:{line}: {message}", hint="apt install linux-libc-dev")
        return CompileError(f"{file}:{line}:{column}: {message}")
    last = next((line for line in reversed(said.splitlines()) if line.strip()), "")
    if code < 0:
        return CompileError(f"{name}.c: the compiler crashed (signal {-code}): {last}")
    return CompileError(f"{name}.c: the compiler failed: {last}")


def _multiarch() -> str:
    return f"{os.uname().machine}-linux-gnu"


@contextlib.contextmanager
def _stub_tree() -> Iterator[str]:
    """A directory that bcc takes for kernel headers: bpf/stub and the user headers under their kernel name."""
    if not os.path.isfile(f"{USER_HEADERS}/linux/bpf.h"):
        raise HostError("the kernel's user headers are missing", hint="apt install linux-libc-dev")
    with tempfile.TemporaryDirectory(prefix="pyoffload-") as directory:
        tree = f"{directory}/stub"
        shutil.copytree(f"{bpf_dir()}/stub", tree)
        os.mkdir(f"{tree}/include/uapi")
        os.symlink(f"{USER_HEADERS}/linux", f"{tree}/include/uapi/linux")
        yield tree


# ---- kept results


def _key(text: Source, bcc: str) -> str:
    digest = hashlib.sha256()
    for part in (__version__, bcc_version(bcc), os.uname().machine, *text.cflags, text.text, *_stub_texts()):
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()


def _stub_texts() -> Iterator[str]:
    for directory, _, names in sorted(os.walk(f"{bpf_dir()}/stub")):
        for name in sorted(names):
            with open(f"{directory}/{name}", encoding="utf-8") as file:
                yield file.read()


def cache_dir() -> str | None:
    """Where results are kept (PYOFFLOAD_CACHE_DIR, else CACHE_DIR), made if need be; None if others could write to it."""
    directory = os.environ.get("PYOFFLOAD_CACHE_DIR") or CACHE_DIR
    with contextlib.suppress(OSError):
        os.makedirs(directory, mode=0o755, exist_ok=True)
    return directory if _trusted(directory) else None


def _trusted(path: str) -> bool:
    """Whether nobody but root (or the user himself) could have written it."""
    try:
        status = os.stat(path)
    except OSError:
        return False
    return status.st_uid in {0, os.geteuid()} and not stat.S_IMODE(status.st_mode) & 0o022


def _from_cache(key: str) -> dict[str, bytes] | None:
    path = f"{cache_dir()}/{key}.json"
    if not _trusted(path):
        return None
    try:
        with open(path, encoding="ascii") as file:
            return {name: bytes.fromhex(insns) for name, insns in json.load(file).items()}
    except (OSError, ValueError, AttributeError):
        return None  # damaged or gone: compile again


def _to_cache(key: str, programs: Mapping[str, bytes]) -> None:
    directory = cache_dir()
    if directory is None:
        return
    path = f"{directory}/{key}.json"
    with contextlib.suppress(OSError):  # without a cache the next command compiles again, that is all
        with open(f"{path}.{os.getpid()}", "w", encoding="ascii") as file:
            json.dump({name: insns.hex() for name, insns in programs.items()}, file)
        os.rename(f"{path}.{os.getpid()}", path)
        kept = sorted(
            (entry for entry in os.scandir(directory) if len(entry.name) == len(key) + len(".json")),
            key=lambda entry: entry.stat().st_mtime,
        )
        for entry in kept[:-CACHE_FILES]:
            os.unlink(entry.path)
