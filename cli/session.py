"""What the global options say, for the verb that is running: a process runs exactly one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyoffload.instance import Instance


class Session:
    """`verb` is the noun and verb for messages, "flow add"."""

    __slots__ = ("_instance", "json", "netns", "verb")

    def __init__(self) -> None:
        self.json = False
        self.netns: str | None = None
        self.verb = ""
        self._instance: Instance | None = None

    def instance(self) -> Instance:
        """The host the verb works on; with -n the process moves into that namespace."""
        if self._instance is None:
            from pyoffload.instance import Instance

            self._instance = Instance.current(self.netns)
        return self._instance


session = Session()
