"""Everything that can go wrong, as one tree; the command line turns a member into an exit code and two lines.

OffloadError                1  the operation failed and nothing changed
├── KernelError             1  a system call failed for a reason that has no class of its own
│   └── TableFull           1  a map of fixed size holds no more
├── AlreadyExists           1
├── NotFound                1
│   └── DatapathDown        1  there is nothing loaded in this network namespace
├── HookBusy                1  somebody else's program, or a bridge, holds the interface
├── LockTimeout             1  another command is at work
├── CompileError            1  the datapath's C does not compile
├── VerifierError           1  the kernel refused a program
├── AbiMismatch             1  pins, programs and this version do not fit each other
├── UsageError              2
├── NotPermitted            3
└── HostError               4  this host cannot: kernel option or package missing
"""

# ruff: noqa: N818  (the names are what went wrong; "Error" on each would add nothing)

from __future__ import annotations

from typing import ClassVar


class OffloadError(Exception):
    """Failure that a person reads: one line what, where and why; `hint` says what to do about it.

    ``errno`` is the system's error number where a system call was the reason, else 0.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None, errno: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.errno = errno


class KernelError(OffloadError):
    pass


class TableFull(KernelError):
    pass


class AlreadyExists(OffloadError):
    pass


class NotFound(OffloadError):
    pass


class DatapathDown(NotFound):
    pass


class HookBusy(OffloadError):
    pass


class LockTimeout(OffloadError):
    pass


class CompileError(OffloadError):
    pass


class VerifierError(OffloadError):
    """``log`` is what the verifier said, shortened to its first and last lines."""

    def __init__(self, message: str, *, hint: str | None = None, errno: int = 0, log: str = "") -> None:
        super().__init__(message, hint=hint, errno=errno)
        self.log = log


class AbiMismatch(OffloadError):
    pass


class UsageError(OffloadError):
    exit_code = 2


class NotPermitted(OffloadError):
    exit_code = 3


class HostError(OffloadError):
    exit_code = 4
