"""bpf/abi.h and pyoffload/_abi.py say the same."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from pyoffload import _abi as abi

ROOT = Path(__file__).resolve().parents[2]


def gen_abi(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "scripts" / "gen_abi", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_checked_in_file_is_what_the_header_says():
    done = gen_abi("--check")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_header_that_changed_is_noticed(tmp_path):
    for name in ("scripts/gen_abi", "bpf/abi.h", "pyoffload/_abi.py"):
        target = tmp_path / name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    header = tmp_path / "bpf" / "abi.h"
    header.write_text(header.read_text().replace("#define MAX_PORTS 4096", "#define MAX_PORTS 8192"))
    command = [sys.executable, tmp_path / "scripts" / "gen_abi"]
    before = subprocess.run([*command, "--check"], capture_output=True, text=True, check=False)
    subprocess.run(command, check=True)
    after = subprocess.run([*command, "--check"], capture_output=True, text=True, check=False)
    assert before.returncode == 1
    assert "run scripts/gen_abi" in before.stderr
    assert after.returncode == 0
    assert "MAX_PORTS = 8192" in (tmp_path / "pyoffload" / "_abi.py").read_text()


def test_a_struct_with_hidden_padding_has_the_layout_that_c_gives_it(tmp_path):
    for name in ("scripts/gen_abi", "bpf/abi.h"):
        target = tmp_path / name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    (tmp_path / "pyoffload").mkdir()
    header = tmp_path / "bpf" / "abi.h"
    odd = "struct odd_one { abi_u8 a; abi_u64 b; abi_be16 c; };\n"
    header.write_text(header.read_text().replace("#endif\n", odd + "#endif\n"))
    done = subprocess.run(
        [sys.executable, tmp_path / "scripts" / "gen_abi"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    module: dict[str, object] = {}
    exec((tmp_path / "pyoffload" / "_abi.py").read_text(), module)  # noqa: S102  (our own output)
    odd_one = module["odd_one"]
    assert (ctypes.sizeof(odd_one), odd_one.b.offset, odd_one.c.offset) == (24, 8, 16)


def test_fields_of_wire_order_read_as_the_numbers_they_stand_for():
    key = abi.flow_key()
    key.dl_type = 0x0800
    key.nw_src = 0x0A000001
    raw = bytes(key)
    assert raw[14:16] == b"\x08\x00"
    assert raw[32:36] == bytes([10, 0, 0, 1])
    assert abi.flow_key.from_buffer_copy(raw).nw_src == 0x0A000001


def test_other_fields_are_in_the_order_of_the_machine():
    port = abi.port(ifindex=7, ofport=3)
    port.mode.pvid = 0x0102
    assert bytes(port)[:4] == b"\x07\0\0\0"
    assert bytes(port)[10:12] == b"\x02\x01"


@pytest.mark.parametrize(
    ("enum", "name", "value"),
    [
        (abi.drop_reason, "TABLE_MISS", 2),
        (abi.port_flag, "XDP_OUT", 1),
        (abi.tail_program, "CLASSIFY", 0),
        (abi.vlan_mode, "ACCESS", 1),
    ],
)
def test_enumerators_lose_the_words_of_their_enum(enum, name, value):
    assert enum[name] == value


def test_flags_can_be_combined_and_reasons_cannot():
    both = abi.bridge_flag.UP | abi.bridge_flag.FLOOD
    assert (both.value, abi.bridge_flag.FLOOD in both) == (3, True)
    assert not issubclass(abi.drop_reason, type(both))
