"""Stored action texts in the words of another OpenFlow version."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from pyoffload.flow.format import NATIVE, OPENFLOW10, Dialect, format_actions, match_facts
from pyoffload.flow.ops import FlowActions
from pyoffload.flow.syntax import PortNames

# Native texts without any of these read the same in OpenFlow 1.0.
_NOT_IN_OPENFLOW10 = ("goto_table", "set_field", "mod_nw_ttl", "mod_nw_ecn")


class _NoNames:
    """Stored texts have ports by number."""

    @staticmethod
    def number(_name: str, /) -> int | None:
        return None

    @staticmethod
    def name(_ofport: int, /) -> str | None:
        return None


def translate_actions(
    text: str, key: bytes, mask: bytes, dialect: Dialect = OPENFLOW10, names: PortNames | None = None
) -> str:
    """``text`` is FlowSpec.actions_text, ``key`` and ``mask`` its match. ``names``: ports by name instead of by number."""
    if names is None and (
        dialect is NATIVE
        or (
            dialect is OPENFLOW10
            and not any(word in text for word in _NOT_IN_OPENFLOW10)
            and "tp_" not in text
        )
    ):
        return text
    facts = match_facts(key, mask)
    if names is None:
        return _translated(text, dialect, facts)
    return format_actions(_parser()(text).steps, dialect, names, facts)


@lru_cache(maxsize=4096)
def _translated(text: str, dialect: Dialect, facts: int) -> str:
    return format_actions(_parser()(text).steps, dialect, None, facts)


@lru_cache(maxsize=1)
def _parser() -> Callable[[str], FlowActions]:
    from pyoffload.flow.parse import FlowParser

    return FlowParser(_NoNames()).actions
