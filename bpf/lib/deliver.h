/* SPDX-License-Identifier: GPL-2.0-only */
/* deliver.h: the last step: hand the packet, or a copy of it, to a port. */
#ifndef PYOFFLOAD_DELIVER_H
#define PYOFFLOAD_DELIVER_H

#include "maps.h"

/* Bytes of a frame as they are counted: with the tag that the kernel keeps beside the packet. */
INLINE __u32 frame_len(struct __sk_buff *skb)
{
	return skb->len + (skb->vlan_present ? 4 : 0);
}

/* Gives the packet itself away; the result is the program's. */
INLINE int deliver(struct __sk_buff *skb, __u32 ifindex, __u32 how)
{
	if (how == PORT_DELIVER_PEER) {
#ifdef PEER_KEEPS_TYPE
		/* before Linux 6.16 the frame stays "for another host", as our end of the veth saw it, and the
		 * guest's stack would throw it away */
		bpf_skb_change_type(skb, 0 /* PACKET_HOST */);
#endif
		return bpf_redirect_peer(ifindex, 0);
	}
	return bpf_redirect(ifindex, how == PORT_DELIVER_INGRESS ? BPF_F_INGRESS : 0);
}

/* Gives a copy away. Returns 0, or the error (no memory, interface down). */
INLINE int deliver_copy(struct __sk_buff *skb, __u32 ifindex, __u32 how)
{
	return bpf_clone_redirect(skb, ifindex, how == PORT_DELIVER_INGRESS ? BPF_F_INGRESS : 0);
}

#endif
