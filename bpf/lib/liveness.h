/* SPDX-License-Identifier: GPL-2.0-only */
/* liveness.h: port_alive(): is this port's interface up, with carrier, right now?
 *
 * No helper tells a program that, and no process of ours watches links. So the program looks at the kernel's own
 * struct net_device: from the packet's device to its network namespace, to the list of devices by ifindex
 * (net/core/dev.c: dev_get_by_index_rcu). The offsets come from the running kernel's BTF (-DOFFSET_...). Where they
 * cannot be had, a port is alive as long as it is attached.
 */
#ifndef PYOFFLOAD_LIVENESS_H
#define PYOFFLOAD_LIVENESS_H

#include "maps.h"

#ifdef OFFSET_net_device_state

#define NETDEV_HASH_ENTRIES 256	 /* NETDEV_HASHENTRIES */
#define NETDEV_HASH_CHAIN 16	 /* devices looked at in one chain */
#define NETDEV_STATE_NOCARRIER 4 /* 1 << __LINK_STATE_NOCARRIER */
#define NETDEV_FLAG_UP 1	 /* IFF_UP */

INLINE __u64 kernel_u64(__u64 addr)
{
	__u64 v = 0;

	bpf_probe_read_kernel(&v, sizeof(v), (void *)addr);
	return v;
}

INLINE __u32 kernel_u32(__u64 addr)
{
	__u32 v = 0;

	bpf_probe_read_kernel(&v, sizeof(v), (void *)addr);
	return v;
}

INLINE int interface_alive(struct __sk_buff *skb, __u32 ifindex)
{
	__u64 dev = kernel_u64((__u64)(void *)skb + OFFSET_sk_buff_dev);
	__u64 net = kernel_u64(dev + OFFSET_net_device_nd_net);
	__u64 node = kernel_u64(kernel_u64(net + OFFSET_net_dev_index_head) +
				8 * (ifindex & (NETDEV_HASH_ENTRIES - 1)));

	for (int i = 0; i < NETDEV_HASH_CHAIN; i++) {
		if (!node)
			return 0;
		dev = node - OFFSET_net_device_index_hlist;
		if (kernel_u32(dev + OFFSET_net_device_ifindex) == ifindex)
			return (kernel_u32(dev + OFFSET_net_device_flags) & NETDEV_FLAG_UP) &&
			       !(kernel_u32(dev + OFFSET_net_device_state) &
				 NETDEV_STATE_NOCARRIER);
		node = kernel_u64(node);
	}
	return 0;
}

/* Notes which device a port is; skb came in by it. */
INLINE void port_note_device(struct __sk_buff *skb, struct port *p)
{
	__u64 dev = kernel_u64((__u64)(void *)skb + OFFSET_sk_buff_dev);

	if (p->device != dev)
		p->device = dev;
}

/* The port's interface is known to be down or without carrier. bpf_redirect_peer does not look at the interface that it
 * passes over, and no redirect tells that it failed. A device that is gone does not have the port's ifindex any more. */
INLINE int port_is_down(const struct port *p)
{
	__u64 dev = p->device;

	if (!dev || kernel_u32(dev + OFFSET_net_device_ifindex) != p->ifindex)
		return 0;
	return !(kernel_u32(dev + OFFSET_net_device_flags) & NETDEV_FLAG_UP) ||
	       (kernel_u32(dev + OFFSET_net_device_state) & NETDEV_STATE_NOCARRIER);
}

#else

INLINE void port_note_device(struct __sk_buff *skb, struct port *p)
{
}

INLINE int port_is_down(const struct port *p)
{
	return 0;
}

INLINE int interface_alive(struct __sk_buff *skb, __u32 ifindex)
{
	return 1;
}

#endif

INLINE int slot_is_down(__u32 slot)
{
	struct port *p = port_at(slot);

	return p && port_is_down(p);
}

INLINE int port_alive(struct __sk_buff *skb, __u32 slot)
{
	struct port *p = port_at(slot & (MAX_PORTS - 1));

	return slot != PORT_SLOT_NONE && p && p->deliver != PORT_DELIVER_ABSENT &&
	       interface_alive(skb, p->ifindex);
}

#endif
