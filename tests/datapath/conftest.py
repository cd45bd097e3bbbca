"""Every way in which the datapath can run: with and without the flow cache, on TCX and on the clsact qdisc."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.netns import Netns
from tests.support.switch import Switch


@dataclass(frozen=True, slots=True)
class Way:
    """One combination; `switch` brings the datapath up that way."""

    cache: bool
    tc: str

    def switch(self, host: Netns) -> Switch:
        return Switch(host, cache=self.cache, tc=self.tc)


WAYS = [
    pytest.param(Way(cache, tc), id=f"{'cache' if cache else 'no-cache'}-{tc}")
    for tc in ("tcx", "clsact")
    for cache in (True, False)
]


@pytest.fixture(scope="module", params=WAYS)
def way(request: pytest.FixtureRequest) -> Any:
    """One combination after the other for all tests of a module."""
    return request.param
