/* SPDX-License-Identifier: GPL-2.0-only */
/* tail.h: going on in another program. The kernel allows 33 tail calls a packet; where one is refused, the packet ends
 * here, counted. */
#ifndef PYOFFLOAD_TAIL_H
#define PYOFFLOAD_TAIL_H

#include "maps.h"
#include "scratch.h"

INLINE int drop(struct scratch *s, __u32 reason)
{
	count_drop(s->in_slot, reason);
	return TC_ACT_SHOT;
}

/* As go_on(), before there is a scratch. */
INLINE int
try
	(struct __sk_buff *skb, __u32 slot, __u32 program)
	{
		bpf_tail_call_(bpf_pseudo_fd(1, FD_tail_programs), skb, program);
		count_drop(slot, DROP_REASON_PIPELINE_LIMIT);
		return TC_ACT_SHOT;
	}

INLINE int go_on(struct __sk_buff *skb, struct scratch *s, __u32 program)
{
	bpf_tail_call_(bpf_pseudo_fd(1, FD_tail_programs), skb, program);
	return drop(s, DROP_REASON_PIPELINE_LIMIT);
}

#endif
