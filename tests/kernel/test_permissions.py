"""Without the capabilities: exit code 3, one line that names what is missing, and nothing to be seen or changed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.kernel

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
NOBODY = 65534
PRELUDE = """
from pyoffload import maps, attach, links, loader, rtnl
from pyoffload.errors import OffloadError
from pyoffload.instance import Instance
from pyoffload.kernel import Map, MapType
i = Instance.current()
try:
    {statement}
    print("done")
except OffloadError as err:
    print(err.exit_code, err.message, "|", err.hint)
"""


def as_nobody(statement: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE.format(statement=statement)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
    )
    if "ModuleNotFoundError" in done.stderr or "Permission denied: '" + ROOT in done.stderr:
        pytest.skip("this checkout is not readable for others")
    assert done.stderr == ""
    return done.stdout.strip()


def test_making_a_map_names_the_capabilities(up):
    said = as_nobody("Map.create(MapType.HASH, 4, 4, 4, name='fdb')")
    assert said.startswith("3 creating map 'fdb': not permitted | ")
    assert "CAP_BPF" in said
    assert "CAP_NET_ADMIN" in said
    assert "CAP_PERFMON" in said


@pytest.mark.parametrize(
    "statement",
    [
        "i.require_up()",
        "maps.open_map(i, 'ports')",
        "i.lock().__enter__()",
        "i.make_pin_dirs()",
        "i.make_state_dir()",
        "links.create_local_pair('br0')",
        "rtnl.add_clsact(1)",
    ],
)
def test_every_door_is_closed_with_exit_code_3(up, statement):
    said = as_nobody(statement)
    assert said.startswith("3 "), said
    assert "not permitted" in said
    assert "root" in said


def test_entering_a_namespace_names_the_capability(host):
    said = as_nobody(f"Instance.current('{host.name}')")
    assert said.startswith(f"3 cannot enter network namespace '{host.name}': not permitted")
    assert "CAP_SYS_ADMIN" in said
