/* SPDX-License-Identifier: GPL-2.0-only */
/* kernel.h: the only kernel headers, and the only place that knows how maps are reached.
 *
 * Maps are made by Python (pyoffload/maps.py). Each is known here as FD_<name>, a number that the loader
 * replaces by the real file descriptor; so headers and macros may use maps, which bcc's own map methods do not allow.
 */
#ifndef PYOFFLOAD_KERNEL_H
#define PYOFFLOAD_KERNEL_H

#include <uapi/linux/bpf.h>
#include <uapi/linux/pkt_cls.h>
#include <uapi/linux/if_ether.h>
#include <uapi/linux/in.h>
#include <uapi/linux/in6.h>
#include <uapi/linux/ip.h>
#include <uapi/linux/ipv6.h>
#include <uapi/linux/icmpv6.h>
#include <uapi/linux/tcp.h>
#include <uapi/linux/udp.h>

#include "../abi.h"

#define INLINE static __always_inline
#define MAP(name) ((void *)bpf_pseudo_fd(1, FD_##name))

/* Keeps the compiler from moving memory accesses across it, or from merging neighbouring context stores. */
#define compiler_barrier() asm volatile("" ::: "memory")

/* Reads memory that another CPU may be writing exactly once (READ_ONCE is not to be had in bcc). */
#define read_once_u64(p) (*(volatile __u64 *)(p))
#define read_once_u32(p) (*(volatile __u32 *)(p))
#define write_once_u64(p, v) (*(volatile __u64 *)(p) = (v))

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the flow key's words are put together for little-endian machines"
#endif

#define MASK48 0x0000ffffffffffffULL
/* 2^30 ns, a good second: a shift where a division would cost as much as the rest of a hit. */
#define TICK(ns) ((__u32)((ns) >> TICK_SHIFT))

/* The same by jiffies: 256 of them, 0.25 to 2.6 s. The verifier turns the call into one load; a clock would cost 17 ns. */
#define TICK_NOW() ((__u32)(bpf_jiffies64() >> 8))

/* VLAN header behind the addresses (IEEE 802.1Q 9.3); <linux/if_vlan.h> of the kernel is not a user header. */
struct vlan_tag {
	__be16 tci;
	__be16 type;
};

#define ETH_P_8021Q_BE 0x0081  /* 0x8100 on the wire, read as a little-endian number */
#define ETH_P_8021AD_BE 0xa888 /* 0x88a8 */
#define ETH_P_IP_BE 0x0008
#define ETH_P_IPV6_BE 0xdd86
#define ETH_P_ARP_BE 0x0608
#define ETH_P_RARP_BE 0x3580

#define swap16(x) ((__u16)((((__u16)(x)) << 8) | (((__u16)(x)) >> 8)))

#endif
