"""What a host namespace looks like, so that before and after can be compared: nothing may be left changed."""

from __future__ import annotations

import ctypes
import json
import struct
from typing import Any

from tests.support import leftovers, offload
from tests.support.netns import Netns

BPF_PROG_QUERY = 16
BPF_TCX_INGRESS = 46
BPF_TCX_EGRESS = 47
HOOKS = {"tcx ingress": BPF_TCX_INGRESS, "tcx egress": BPF_TCX_EGRESS}
# Counters and states that live their own life; everything else of a link is compared.
VOLATILE = {"stats", "stats64", "operstate"}


def host_state(ns: Netns) -> dict[str, Any]:
    """Links with settings, offloads, qdiscs, filters, attached programs, addresses, routes, rules; by name.

    Two states of a host that was left alone are equal; `state_difference` tells what is not.
    """
    links = {link["ifname"]: link for link in ns.ip_json("link")}
    state: dict[str, Any] = {}
    for name, link in links.items():
        state[f"link {name}"] = {key: value for key, value in link.items() if key not in VOLATILE}
        state[f"offloads {name}"] = offload.features(ns, name)
        state[f"programs {name}"] = attached(ns, link["ifindex"])
        for parent in ("ingress", "egress"):
            filters = ns.run("tc", "-j", "filter", "show", "dev", name, parent, check=False).stdout
            state[f"filters {name} {parent}"] = json.loads(filters.strip() or "[]")
    state["qdiscs"] = json.loads(ns.run("tc", "-j", "qdisc", "show").stdout or "[]")
    state["addresses"] = [
        (entry["ifname"], address["local"], address["prefixlen"])
        for entry in ns.ip_json("addr")
        for address in entry["addr_info"]
    ]
    for family in ("-4", "-6"):
        state[f"routes {family}"] = ns.run("ip", family, "route", "show", "table", "all").stdout.splitlines()
        state[f"rules {family}"] = ns.run("ip", family, "rule").stdout.splitlines()
    return state


def state_difference(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """One line per thing that changed, came or went."""
    return [
        f"{key}: {before.get(key, 'not there')} became {after.get(key, 'not there')}"
        for key in sorted({*before, *after})
        if before.get(key) != after.get(key)
    ]


def assert_unchanged(before: dict[str, Any], ns: Netns) -> None:
    """Assert that the host is as it was."""
    changed = state_difference(before, host_state(ns))
    assert not changed, "the host is not as it was:\n" + "\n".join(changed)


def attached(ns: Netns, ifindex: int) -> dict[str, list[int]]:
    """Ids of the programs at the TCX hooks of an interface (kernels before 6.6 have none); `ip -d link` has XDP."""
    found: dict[str, list[int]] = {}
    with ns.entered():
        for hook, kind in HOOKS.items():
            ids = (ctypes.c_uint32 * 64)()
            # target_ifindex, attach_type, query_flags, attach_flags, prog_ids, count (linux/bpf.h, struct query)
            attr = ctypes.create_string_buffer(
                struct.pack("IIIIQI", ifindex, kind, 0, 0, ctypes.addressof(ids), len(ids)), 128
            )
            if leftovers.bpf(BPF_PROG_QUERY, attr) == 0:
                found[hook] = list(ids[: struct.unpack_from("I", attr, 24)[0]])
    return found
