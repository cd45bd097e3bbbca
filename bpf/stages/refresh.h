/* SPDX-License-Identifier: GPL-2.0-only */
/* refresh.h: is a cached decision still true? What every hit looks at, and what is looked at once a tick. */
#ifndef PYOFFLOAD_REFRESH_H
#define PYOFFLOAD_REFRESH_H

#include "../lib/cache.h"
#include "../lib/fdb.h"
#include "../lib/liveness.h"
#include "../lib/maps.h"
#include "credit.h"

/* The MAC table's part of a decision is still true. */
INLINE int hit_fdb_valid(const struct cache_entry *e)
{
	__u32 *src = fdb_epoch_at(e->fdb_src), *dst = fdb_epoch_at(e->fdb_dst);

	return src && dst && *src == e->fdb_src_epoch && *dst == e->fdb_dst_epoch;
}

/* Once a tick: the source is alive, and the destination must not have aged out. */
INLINE int hit_fdb_refresh(const struct cache_entry *e, const __u64 *w, const struct bridge *br,
			   __u64 now)
{
	struct fdb_key k;
	struct fdb_entry *f;

	/* the addresses that "normal" saw: behind the flow's own edit */
	const __u8 *dst = e->edit.fields & EDIT_ETH ? e->edit.dl_dst : (const __u8 *)&w[0];
	const __u8 *src = e->edit.fields & EDIT_ETH ? e->edit.dl_src : (const __u8 *)&w[1];

	fdb_key_make(&k, src, e->vlan, e->bridge);
	f = fdb_get(&k);
	if (!f)
		return 0; /* there was no room for it; maybe now */
	if (!(f->flags & FDB_STATIC)) {
		if (fdb_expired(f, now, br->mac_age_ns))
			return 0; /* to be learned anew */
		f->seen_ns = now;
	}
	if (e->flags & CACHE_DROP)
		return 1;
	fdb_key_make(&k, dst, e->vlan, e->bridge);
	f = fdb_get(&k);
	return f && !fdb_expired(f, now, br->mac_age_ns) &&
	       (f->port == e->out || (e->flags & CACHE_MULTI));
}

/* Once a tick, and for decisions with timeouts always. `w`: the packet's first two words. Returns 0: decide anew. */
INLINE int hit_refresh(struct cache_entry *e, const __u64 *w, const struct bridge *br)
{
	__u64 now = bpf_ktime_get_coarse_ns();
	struct port *out = port_at(e->out);
	__u32 flags = e->flags;

	if ((flags & CACHE_FDB) && !hit_fdb_refresh(e, w, br, now))
		return 0;
	if (!(flags & CACHE_DROP) && out && port_is_down(out))
		return 0; /* on the slow path every such packet is counted */
	if ((flags & CACHE_TIMED) && !credit_valid(e, now))
		return 0;
	credit_seen(e, now);
	e->seen = TICK(now);
	e->tick = TICK_NOW();
	return 1;
}

#endif
