"""The datapath of one network namespace, as the command line sees it: its life cycle, its state, and changes to it."""

from pyoffload.change import Change, change
from pyoffload.lifecycle import UpgradeResult, UpResult, down, sync, up, upgrade
from pyoffload.status import HookStatus, Status, TableStatus, status

__all__ = [
    "Change",
    "HookStatus",
    "Status",
    "TableStatus",
    "UpResult",
    "UpgradeResult",
    "change",
    "down",
    "status",
    "sync",
    "up",
    "upgrade",
]
