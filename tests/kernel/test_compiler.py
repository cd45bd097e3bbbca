"""From C to instructions: flattening, bcc in a child, errors that name file and line, the kept results."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from pyoffload import btf, compiler
from pyoffload.errors import CompileError, HostError
from pyoffload.kernel.prog import PROG_TYPE_SCHED_CLS, Prog
from pyoffload.loader import OBJECTS, with_fds
from pyoffload.maps import PLACEHOLDER_BASE, SPECS, create_in_memory

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    """No test sees what another one, or the user, has compiled."""
    monkeypatch.setenv("PYOFFLOAD_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def tree(tmp_path):
    """Writes sources into a directory and returns its path."""

    def write(**files: str) -> str:
        for name, text in files.items():
            path = tmp_path / "bpf" / name.replace("__", "/").replace("_h", ".h").replace("_c", ".c")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return str(tmp_path / "bpf")

    return write


PROGRAM = """#include <uapi/linux/bpf.h>
#include "lib/one.h"
int prog(struct __sk_buff *skb)
{
	return ONE;
}
"""


def compiled(root: str, name: str = "prog", **defines: int) -> compiler.Compiled:
    return compiler.compile_all([compiler.source(name, defines, root)])[0]


def test_each_header_is_put_in_once_and_lines_keep_their_names(tree):
    root = tree(
        prog_c='#include "lib/a.h"\n#include "lib/b.h"\nint x;\n',
        lib__a_h='#include "b.h"\nint a;\n',
        lib__b_h='#include "../lib/a.h"\nint b;\n',
    )
    assert compiler.flatten(f"{root}/prog.c", root).splitlines() == [
        '#line 1 "prog.c"',
        '#line 1 "lib/a.h"',
        '#line 1 "lib/b.h"',
        "",
        "int b;",
        '#line 2 "lib/a.h"',
        "int a;",
        '#line 2 "prog.c"',
        "",
        "int x;",
    ]


def test_a_header_that_is_missing_is_named_with_its_place(tree):
    root = tree(prog_c='int x;\n#include "lib/none.h"\n')
    with pytest.raises(CompileError, match=r'prog\.c:2: there is no "lib/none\.h"'):
        compiler.flatten(f"{root}/prog.c", root)


def test_a_program_compiles_and_runs_without_kernel_headers(tree):
    root = tree(prog_c=PROGRAM, lib__one_h="#define ONE 1\n")
    insns = compiled(root).programs["prog"]
    with Prog.load(PROG_TYPE_SCHED_CLS, insns, name="pyo_test") as prog:
        assert prog.test_run(bytes(64)).retval == 1


def test_a_compile_error_names_file_line_and_reason(tree):
    root = tree(prog_c=PROGRAM, lib__one_h="/* two\n lines */\nstatic int f(void) { return nonsense; }\n")
    with pytest.raises(CompileError, match=r"^lib/one\.h:3:\d+: use of undeclared identifier 'nonsense'"):
        compiled(root)


def test_a_warning_in_our_files_is_an_error(tree):
    root = tree(
        prog_c=PROGRAM.replace("return ONE", "int unused = 3; return ONE"), lib__one_h="#define ONE 1\n"
    )
    with pytest.raises(CompileError, match=r"prog\.c:5:\d+: unused variable 'unused'"):
        compiled(root)


def test_a_compiler_that_crashes_is_an_error_and_no_traceback(tree):
    # A 32-bit atomic whose result is used makes LLVM abort the process.
    crash = "u32 v = 1; return __sync_fetch_and_add(&v, skb->mark);"
    root = tree(prog_c=PROGRAM.replace("return ONE;", crash), lib__one_h="")
    with pytest.raises(CompileError, match=r"prog\.c: the compiler (crashed|failed)"):
        compiled(root)


def test_the_result_is_kept_until_source_or_flags_change(tree, own_cache):
    root = tree(prog_c=PROGRAM, lib__one_h="#ifndef ONE\n#define ONE 1\n#endif\n")
    first = compiled(root)
    again = compiled(root)
    assert (first.from_cache, again.from_cache) == (False, True)
    assert again.programs == first.programs
    assert not compiled(root, ONE=2).from_cache
    tree(prog_c=PROGRAM.replace("ONE", "ONE + 1"))
    assert not compiled(root).from_cache
    assert len(list(own_cache.glob("*.json"))) == 3


def test_a_kept_result_that_others_could_have_written_is_not_used(tree, own_cache):
    root = tree(prog_c=PROGRAM, lib__one_h="#define ONE 1\n")
    compiled(root)
    (kept,) = own_cache.glob("*.json")
    kept.chmod(0o666)
    assert not compiled(root).from_cache
    kept.chmod(0o644)
    own_cache.chmod(0o777)
    assert not compiled(root).from_cache


def test_a_damaged_result_is_compiled_again(tree, own_cache):
    root = tree(prog_c=PROGRAM, lib__one_h="#define ONE 1\n")
    first = compiled(root)
    (kept,) = own_cache.glob("*.json")
    kept.write_text('{"prog": "0')
    again = compiled(root)
    assert (again.from_cache, again.programs) == (False, first.programs)


def test_without_bcc_the_package_is_named(monkeypatch, tree):
    root = tree(prog_c=PROGRAM, lib__one_h="#define ONE 1\n")
    monkeypatch.setattr(compiler, "BCC_DIRS", ("/nowhere/bcc",))
    with pytest.raises(HostError) as caught:
        compiled(root)
    assert (caught.value.exit_code, caught.value.hint) == (4, "apt install python3-bpfcc")


def test_without_user_headers_the_package_is_named(monkeypatch, tree):
    root = tree(prog_c=PROGRAM, lib__one_h="#define ONE 1\n")
    monkeypatch.setattr(compiler, "USER_HEADERS", "/nowhere")
    with pytest.raises(HostError) as caught:
        compiled(root)
    assert (caught.value.exit_code, caught.value.hint) == (4, "apt install linux-libc-dev")


def test_importing_the_reading_side_does_not_import_bcc():
    text = "import sys; from pyoffload import attach, hooks, maps; print([m for m in ('bcc', 'pyroute2', 'scapy', 'asyncio', 'subprocess') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.kernel
def test_the_verifiers_words_come_with_lines_of_the_source(tree):
    unsafe = PROGRAM.replace("return ONE;", "return *(u8 *)(long)skb->data;")
    root = tree(prog_c=unsafe, lib__one_h="")
    text = compiler.source("prog", None, root)
    insns = compiler.compile_all([text])[0].programs["prog"]
    log = compiler.explain(text, "prog", PROG_TYPE_SCHED_CLS, 0, insns, [])
    assert "@ prog.c:" in log
    assert "invalid access to packet" in log


def test_every_map_in_the_datapath_is_one_of_ours():
    wanted = set()
    for spec in OBJECTS:
        text = compiler.source(spec.source)
        wanted |= set(re.findall(r"MAP\((\w+)\)", text.text)) - {"map", "name"}
    assert wanted <= {spec.name for spec in SPECS}


@pytest.mark.kernel
def test_placeholders_become_descriptors():
    made = create_in_memory(1 << 10)
    fds = {name: bpf_map.fd for name, bpf_map in made.items()}
    number = next(i for i, spec in enumerate(SPECS) if spec.name == "ports")
    load = bytes([0x18, 0x11, 0, 0]) + (PLACEHOLDER_BASE + number).to_bytes(4, "little") + bytes(8)
    assert with_fds(load, fds)[4:8] == fds["ports"].to_bytes(4, "little")
    with pytest.raises(CompileError, match="names map 5"):
        with_fds(bytes([0x18, 0x11, 0, 0, 5, 0, 0, 0]) + bytes(8), fds)


# ---- the kernel's type information


def test_all_offsets_are_read_from_the_running_kernel():
    if not os.path.exists(btf.VMLINUX):
        pytest.skip("this kernel has no BTF")
    defines = btf.kernel_defines(None)
    assert set(defines) == {f"OFFSET_{name}_{member}" for name, member in btf.WANTED}
    assert all(0 <= offset < 4096 for offset in defines.values())


def test_offsets_are_kept_for_this_kernel(tmp_path, monkeypatch):
    first = btf.kernel_defines(str(tmp_path))
    monkeypatch.setattr(btf, "VMLINUX", "/nowhere")
    assert btf.kernel_defines(str(tmp_path)) == first


@pytest.mark.parametrize("blob", [b"", b"\x9f\xeb", b"x" * 100, b"\x9f\xeb\x01\x00" + b"\xff" * 60])
def test_type_information_that_is_not_understood_gives_no_offsets(tmp_path, monkeypatch, blob):
    path = tmp_path / "vmlinux"
    path.write_bytes(blob)
    monkeypatch.setattr(btf, "VMLINUX", str(path))
    assert btf.kernel_defines(None) == {}
