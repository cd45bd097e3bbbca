/* SPDX-License-Identifier: GPL-2.0-only */
/* fdb.h: the MAC table: learn, find, refresh, and make room without any help from user space.
 *
 * Whoever changes where a MAC is bumps the epoch that its hash names; a cached decision remembers the epochs of its two
 * MACs and is void when one has changed. Epochs are shared by MACs with the same hash: that costs a look-up, never truth.
 * Expired entries are reclaimed by a clock (fdb_ring) that turns a few places at each attempt to learn.
 */
#ifndef PYOFFLOAD_FDB_H
#define PYOFFLOAD_FDB_H

#include "maps.h"

#define FDB_RING_TRIES 8
#define FDB_SWEEP 16

INLINE void fdb_key_make(struct fdb_key *k, const __u8 *mac, __u32 vlan, __u32 bridge)
{
	__builtin_memcpy(k->mac, mac, 6);
	k->vlan = vlan;
	k->bridge = bridge;
}

INLINE __u32 fdb_epoch_index(const struct fdb_key *k)
{
	__u64 h = *(const __u64 *)k * 0x9e3779b97f4a7c15ULL + k->bridge * 0xc2b2ae3d27d4eb4fULL;

	return (h >> 40) & (MAX_FDB_EPOCHS - 1);
}

INLINE void fdb_bump(const struct fdb_key *k)
{
	__u32 *epoch = fdb_epoch_at(fdb_epoch_index(k));

	if (epoch)
		__sync_fetch_and_add(epoch, 1);
}

INLINE struct fdb_entry *fdb_get(struct fdb_key *k)
{
	return bpf_map_lookup_elem(MAP(fdb), k);
}

/* Neither a static entry nor one heard of within `age_ns`. Established traffic refreshes its entry once a tick only, so an
 * entry may look a tick older than its station is. */
INLINE int fdb_expired(const struct fdb_entry *e, __u64 now, __u64 age_ns)
{
	if (e->flags & FDB_STATIC)
		return 0;
	return !e->seen_ns || (__s64)(now - e->seen_ns) > (__s64)(age_ns + (1ULL << TICK_SHIFT));
}

/* Deletes the entry behind a place of the ring if it has expired. Returns 1 if the place is free then. */
INLINE int fdb_reclaim(struct fdb_key *place, __u64 now)
{
	struct fdb_key k = *place;
	struct fdb_entry *e = fdb_get(&k);
	struct bridge *br = bridge_at(k.bridge);
	struct bridge_counters *n;
	struct fdb_state *state;

	if (!e)
		return 1;
	if (e->flags & FDB_STATIC)
		return 0;
	if (br && !fdb_expired(e, now, br->mac_age_ns))
		return 0;
	if (bpf_map_delete_elem(MAP(fdb), &k))
		return 1; /* another CPU was first, and counts */
	fdb_bump(&k);
	state = fdb_state_at(k.bridge);
	if (state)
		__sync_fetch_and_add(&state->n_learned, -1ULL);
	n = bridge_counters_at(k.bridge);
	if (n)
		n->mac_aged++;
	return 1;
}

/* Looks at the next places of the ring for expired entries. */
INLINE void fdb_sweep(__u64 now)
{
	struct fdb_state *hands = fdb_state_at(0);

	if (!hands)
		return;
	for (int i = 0; i < FDB_SWEEP; i++) {
		__u64 used = hands->hand, at = __sync_fetch_and_add(&hands->sweep_hand, 1);
		struct fdb_key *place;

		if (!used)
			return;
		if (used > MAX_FDB)
			used = MAX_FDB;
		place = fdb_ring_at(at % used);
		if (place)
			fdb_reclaim(place, now);
	}
}

INLINE void fdb_insert(struct fdb_key *k, __u32 slot, __u64 now, struct bridge *br,
		       struct bridge_counters *n)
{
	struct fdb_state *state = fdb_state_at(k->bridge), *hands = fdb_state_at(0);
	struct fdb_entry e = { .seen_ns = now, .port = slot };
	struct fdb_key *place = NULL;
	long error = 0;

	if (!state || !hands)
		return;
	if (state->n_learned >= br->mac_limit) {
		fdb_sweep(now);
		if (state->n_learned >= br->mac_limit) {
			n->mac_limit_hit++;
			return;
		}
	}
	for (int i = 0; i < FDB_RING_TRIES; i++) {
		__u64 at = __sync_fetch_and_add(&hands->hand, 1);

		place = fdb_ring_at(at & (MAX_FDB - 1));
		if (place && fdb_reclaim(place, now))
			break;
		place = NULL;
	}
	if (place)
		error = bpf_map_update_elem(MAP(fdb), k, &e, BPF_NOEXIST);
	if (!place || error) {
		if (error != -17) /* EEXIST: another CPU learned it at the same time */
			n->mac_table_full++;
		return;
	}
	*place = *k;
	__sync_fetch_and_add(&state->n_learned, 1);
	fdb_bump(k);
	n->mac_learned++;
}

/* Notes that `k` sends from port `slot`. */
INLINE void fdb_learn(struct fdb_key *k, __u32 slot, __u64 now, struct bridge *br,
		      struct bridge_counters *n)
{
	struct fdb_entry *e = fdb_get(k);

	if (!e) {
		fdb_insert(k, slot, now, br, n);
		return;
	}
	if (e->flags & FDB_STATIC)
		return;
	if (e->port == slot && !fdb_expired(e, now, br->mac_age_ns)) {
		e->seen_ns = now;
		return;
	}
	if (e->port != slot && !fdb_expired(e, now, br->mac_age_ns))
		n->mac_moved++;
	e->port = slot;
	e->seen_ns = now;
	fdb_bump(k);
	/* another CPU may have reclaimed the entry and given its memory to another MAC: then that one was written to */
	if (fdb_get(k) != e)
		e->seen_ns = 0;
}

#endif
