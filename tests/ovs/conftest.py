from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.support.openvswitch import OpenVSwitch, is_installed

# The comparison with a running Open vSwitch is an extra: what it printed is recorded, and test_recorded.py needs no more.
collect_ignore = [] if is_installed() and os.geteuid() == 0 else ["test_live.py"]


@pytest.fixture(scope="module")
def ovs(tmp_path_factory) -> Iterator[OpenVSwitch]:
    with OpenVSwitch(tmp_path_factory.mktemp("ovs")) as switch:
        yield switch
