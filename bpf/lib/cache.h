/* SPDX-License-Identifier: GPL-2.0-only */
/* cache.h: the exact-match flow cache: cache_find(), cache_claim()/cache_publish().
 *
 * An open-addressing table in one array map: BPF hash maps touch several cache lines per look-up and were 2.7 times
 * slower at a million flows. A flow may live in any of the CACHE_WAYS entries of its bucket and prefers the one its
 * hash names, so that most hits read one entry only.
 *
 * Each entry carries a sequence number: even while it may be read, odd while one CPU writes it. A reader takes what it
 * needs between two looks at the number and uses it only when both are the same; so nobody ever acts on half an entry.
 * On machines that reorder loads the atomic addition to `hits` between the two looks is the barrier.
 */
#ifndef PYOFFLOAD_CACHE_H
#define PYOFFLOAD_CACHE_H

#include "maps.h"
#include "packet.h"

#define CACHE_HITS_PACKET (1ULL << 40)
#define CACHE_HITS_BYTES (CACHE_HITS_PACKET - 1)
#define CACHE_HITS_FOLD (1ULL << 63 | 1ULL << 39) /* either half is half full */

/* An entry that was not hit for so many ticks makes room for a new flow. */
#define CACHE_IDLE 10
#define CACHE_IDLE_ONE_PACKET 1

/* Reduces the key to what decisions of this generation depend on, and puts the port's slot in: OpenFlow numbers are
 * unique in a bridge only. On a bridge that looks at layer 2 only, words 4 to 8 are zero and are not touched here, nor
 * hashed nor compared: all its entries are of that kind. */
INLINE void cache_mask_key(__u64 *w, const struct bridge *br, __u32 generation, __u32 slot,
			   __u32 needs_l3)
{
	const __u64 *mask = br->cache_mask[generation & 1];

	w[2] = (w[2] & mask[2] & ~0xffffULL) | slot;
	w[3] &= mask[3];
	if (!needs_l3)
		return; /* words 0 and 1 always count in full */
	w[4] &= mask[4];
	w[5] &= mask[5];
	w[6] &= mask[6];
	w[7] &= mask[7];
	w[8] &= mask[8];
}

/* Multilinear hashing with secret random factors (Dietzfelbinger 1996; Lemire and Kaser 2014), then mixed so that all
 * bits count in the index. */
INLINE __u32 cache_hash(const __u64 *w, const struct config *cfg, __u32 needs_l3)
{
	__u64 h = w[0] * cfg->hash_seed[0] + w[1] * cfg->hash_seed[1] + w[2] * cfg->hash_seed[2] +
		  w[3] * cfg->hash_seed[3];

	if (needs_l3) {
		h += w[4] * cfg->hash_seed[4];
		if (w[5] | w[6] | w[7] | w[8])
			h += w[5] * cfg->hash_seed[5] + w[6] * cfg->hash_seed[6] +
			     w[7] * cfg->hash_seed[7] + w[8] * cfg->hash_seed[8];
	}
	h ^= h >> 32;
	h *= 0x9e3779b97f4a7c15ULL;
	return h >> 32;
}

INLINE struct cache_bucket *cache_bucket_of(const struct config *cfg, __u32 hash)
{
	return cache_bucket_at((hash & cfg->cache_mask) / CACHE_WAYS);
}

/* Way number `i` in the order in which a flow of this hash looks for itself. */
INLINE struct cache_entry *cache_way(struct cache_bucket *b, __u32 hash, __u32 i)
{
	return &b->entry[(hash + i) & (CACHE_WAYS - 1)];
}

INLINE int cache_key_equal(const struct cache_entry *e, const __u64 *w, __u32 needs_l3)
{
	if ((e->key[0] ^ w[0]) | (e->key[1] ^ w[1]) | (e->key[2] ^ w[2]) | (e->key[3] ^ w[3]))
		return 0;
	if (!needs_l3)
		return 1;
	if (e->key[4] != w[4])
		return 0;
	/* equal so far: both IPv6 or both not; entries of other families hold zeros there, and so does w */
	if (w[5] | w[6] | w[7] | w[8] | (e->flags & CACHE_LONG))
		return !((e->key_long[0] ^ w[5]) | (e->key_long[1] ^ w[6]) |
			 (e->key_long[2] ^ w[7]) | (e->key_long[3] ^ w[8]));
	return 1;
}

/* The entry of key w that was decided under `generation`, and its sequence number; NULL: none. */
INLINE struct cache_entry *cache_find(struct cache_bucket *b, __u32 hash, const __u64 *w,
				      __u32 needs_l3, __u32 generation, __u64 *seq)
{
#pragma unroll
	for (int i = 0; i < CACHE_WAYS; i++) {
		struct cache_entry *e = cache_way(b, hash, i);

		*seq = read_once_u64(&e->seq);
		compiler_barrier();
		if (e->generation == generation && cache_key_equal(e, w, needs_l3) && !(*seq & 1))
			return e;
	}
	return NULL;
}

/* True while what was read since cache_find() belongs together. */
INLINE int cache_still(struct cache_entry *e, __u64 seq)
{
	compiler_barrier();
	return read_once_u64(&e->seq) == seq;
}

/* Counts a hit. 24 bits of packets and 40 of bytes share a word, so that one atomic addition counts both exactly;
 * whoever finds it half full moves it to the totals. */
INLINE void cache_count(struct cache_entry *e, __u32 len)
{
	__u64 old = __sync_fetch_and_add(&e->hits, CACHE_HITS_PACKET | len);

	if (old & CACHE_HITS_FOLD) {
		__u64 taken = __sync_lock_test_and_set(&e->hits, 0);

		__sync_fetch_and_add(&e->packets, taken >> 40);
		__sync_fetch_and_add(&e->bytes, taken & CACHE_HITS_BYTES);
	}
}

/* An entry of the bucket for a new flow, already marked as being written; NULL: every one is in use, or busy.
 * An entry of an older generation is free; a live one gives way only when it has been idle: established flows are
 * never pushed out by new ones, however many there are. */
INLINE struct cache_entry *cache_claim(struct cache_bucket *b, __u32 hash, const __u64 *w,
				       __u32 now, __u64 *seq, int *busy)
{
	struct cache_entry *victim = NULL;
	__u32 best = 0;

	for (int i = 0; i < CACHE_WAYS; i++) {
		struct cache_entry *e = cache_way(b, hash, i);
		struct bridge *br = bridge_at(e->bridge);
		__u32 idle = now - e->seen, rank = 0;

		if (cache_key_equal(e, w, 1))
			rank = 5; /* its own, of an older generation or outdated by the MAC table */
		else if (!br || e->generation != br->policy.generation ||
			 read_once_u64(&e->seq) == 0)
			rank = 4;
		else if (idle > CACHE_IDLE)
			rank = 2;
		else if (idle > CACHE_IDLE_ONE_PACKET && e->hits < 2 * CACHE_HITS_PACKET &&
			 !e->packets)
			rank = 1;
		if (rank > best) {
			best = rank;
			victim = e;
		}
	}
	*busy = 0;
	if (!victim)
		return NULL;
	*seq = read_once_u64(&victim->seq);
	if ((*seq & 1) || __sync_val_compare_and_swap(&victim->seq, *seq, *seq + 1) != *seq) {
		*busy = 1;
		return NULL;
	}
	return victim;
}

/* Makes a claimed entry readable. */
INLINE void cache_publish(struct cache_entry *e, __u64 seq)
{
	/* a full barrier on every machine: what was written is visible before the number is even again */
	__sync_fetch_and_add(&e->hits, 0);
	compiler_barrier();
	write_once_u64(&e->seq, seq + 2);
}

#endif
