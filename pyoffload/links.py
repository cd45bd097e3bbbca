"""Interfaces that belong to a bridge, and what an interface can do beyond what rtnetlink tells (netlink.py).

A bridge's port `local` is a veth pair: the host's end has the bridge's name, the other end is hidden and carries the
datapath. Both ends say whose they are by their alias.
"""

from __future__ import annotations

import binascii
import contextlib
from collections.abc import Collection

from pyoffload import netlink, rtnl
from pyoffload.checkpoints import checkpoint
from pyoffload.errors import AlreadyExists, HostError, NotFound, OffloadError

HOST_ALIAS = "pyoffload local"
PORT_ALIAS_PREFIX = "pyoffload "


def local_names(bridge: str) -> tuple[str, str]:
    """Names of the host's end and of the datapath's end of a bridge's `local`."""
    return bridge, f"pyo{binascii.crc32(bridge.encode(errors='surrogateescape')):08x}"


def create_local_pair(bridge: str) -> tuple[int, int]:
    """Make the pair of a bridge, or finish what is there of it; returns both ifindexes, the host's first.

    The host's end stays as it is made, down; the datapath's end is up and without IPv6, so that it says nothing of
    its own. AlreadyExists when somebody else's interface has the name.
    """
    host_name, port_name = local_names(bridge)
    found = _own_pair(bridge)
    if found is None:
        try:
            rtnl.create_veth(host_name, port_name)
        except AlreadyExists as err:
            raise AlreadyExists(
                f"there is an interface '{host_name}' already, which is not ours",
                hint="give the bridge another name, or remove the interface",
                errno=err.errno,
            ) from err
        except OffloadError as err:
            if "not supported" in err.message or "Unknown device type" in err.message:
                raise HostError(
                    "this kernel has no veth devices", hint="needs CONFIG_VETH", errno=err.errno
                ) from err
            raise
        checkpoint("local.created")
        found = _own_pair(bridge)
    if found is None:
        raise NotFound(f"interface '{host_name}' disappeared while it was set up")
    host, port = found
    if host.alias != HOST_ALIAS:
        rtnl.set_alias(host.ifindex, HOST_ALIAS)
    if port.alias != PORT_ALIAS_PREFIX + bridge:
        rtnl.set_alias(port.ifindex, PORT_ALIAS_PREFIX + bridge)
    if not port.up:
        # A kernel without IPv6 has no such file, and needs none.
        with (
            contextlib.suppress(FileNotFoundError),
            open(f"/proc/sys/net/ipv6/conf/{port_name}/disable_ipv6", "w", encoding="ascii") as file,
        ):
            file.write("1\n")
        checkpoint("local.named")
        rtnl.set_up(port.ifindex)
    return host.ifindex, port.ifindex


def delete_local_pair(bridge: str) -> bool:
    """Whether there was one. Interfaces that are not ours are left alone."""
    found = _own_pair(bridge)
    return found is not None and rtnl.delete_link(found[1].ifindex)


def list_local_pairs(found: Collection[netlink.Link] | None = None) -> list[str]:
    """Bridges whose pair exists, complete or not, whether or not the bridge does.

    ``found``: all interfaces, where the caller has asked for them already.
    """
    if found is None:
        found = netlink.dump_links()
    by_index = {link.ifindex: link for link in found}
    bridges: set[str] = set()
    for link in found:
        if link.kind != "veth" or not link.ifname.startswith("pyo"):
            continue
        host = by_index.get(link.peer_ifindex) if link.peer_netnsid is None else None
        # The hidden end's name tells; the alias is not there yet if a command died while it made the pair.
        names = [host.ifname] if host else []
        names.append(link.alias.removeprefix(PORT_ALIAS_PREFIX))
        bridges.update(name for name in names if local_names(name)[1] == link.ifname)
    return sorted(bridges)


def is_complete(bridge: str, host: netlink.Link | None, port: netlink.Link | None) -> bool:
    """Whether nothing is left to do for `create_local_pair`; ``host`` and ``port`` have the names of the ends."""
    return (
        host is not None
        and port is not None
        and host.alias == HOST_ALIAS
        and port.alias == PORT_ALIAS_PREFIX + bridge
        and port.up
        and host.peer_ifindex == port.ifindex
    )


def _own_pair(bridge: str) -> tuple[netlink.Link, netlink.Link] | None:
    """Host's and datapath's end. The hidden end's name and its being the peer make it ours: the aliases are
    written later, and a command may have died in between.
    """
    host_name, port_name = local_names(bridge)
    host = netlink.get_link(host_name)
    port = netlink.get_link(port_name)
    if host is None or port is None or host.kind != "veth" or host.peer_ifindex != port.ifindex:
        return None
    return host, port


def takes_xdp_frames(link: netlink.Link) -> bool:
    """Whether XDP programs may redirect to the interface. A veth says yes while its peer runs NAPI (XDP or GRO)."""
    features = netlink.xdp_features()
    if features is None:  # before Linux 6.3 only what is always so can be known
        return link.kind == "tun"
    return bool(features.get(link.ifindex, 0) & netlink.XDP_NDO_XMIT)


def is_physical(link: netlink.Link) -> bool:
    """Hardware (or a hypervisor's), which filters by MAC address unless it is promiscuous. Not a guest's vif."""
    return link.kind == "" and link.ifname != "lo" and netlink.driver(link.ifname) not in {"", "vif"}
