"""A descriptor of something in the kernel that an object owns: a map, a program, a link."""

from __future__ import annotations

import os
from typing import Self


class Descriptor:
    """Closed by close(), by leaving a ``with`` block, and at the latest with the object."""

    fd: int

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "fd", -1) >= 0:
            self.close()
