"""The kernel's BPF objects through raw bpf(2): no bcc, no libbpf, importable in a few milliseconds."""

from pyoffload.kernel.link import Link, LinkInfo
from pyoffload.kernel.map import ANY, EXIST, NOEXIST, Map, MapType, possible_cpus
from pyoffload.kernel.prog import Prog, ProgInfo, TestRun

__all__ = [
    "ANY",
    "EXIST",
    "NOEXIST",
    "Link",
    "LinkInfo",
    "Map",
    "MapType",
    "Prog",
    "ProgInfo",
    "TestRun",
    "possible_cpus",
]
