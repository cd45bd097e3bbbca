/* SPDX-License-Identifier: GPL-2.0-only */
/* classify.h: the flow tables: search_on() finds the flow that a packet matches.
 *
 * Tuple space search (Srinivasan, Suri, Varghese 1999): the flows of a table are grouped by mask, one exact-match look-up a
 * mask, masks in the order of their highest priority, so that the search ends when nothing better can come. How many masks
 * there are is decided by who writes the flows, never by traffic.
 */
#ifndef PYOFFLOAD_CLASSIFY_H
#define PYOFFLOAD_CLASSIFY_H

#include "../lib/maps.h"
#include "../lib/scratch.h"

/* Masks and flows that one run looks at: a full table, a flow under each of its masks. */
#define SEARCH_STEPS 128

/* Does the flow exist for this packet: by its version, and not timed out? */
INLINE int flow_visible(const struct flow *f, const struct scratch *s)
{
	if (f->add_version > s->version || f->remove_version <= s->version)
		return 0;
	if (f->deadline_ns && (__s64)(s->now - f->deadline_ns) >= 0)
		return 0;
	if (f->idle_ns && (__s64)(s->now - f->used_ns) > (__s64)f->idle_ns)
		return 0;
	return 1;
}

/* One element of the chain of flows that have the match in hand: the first that exists is the best of them. */
INLINE void search_chain(struct scratch *s)
{
	struct flow *f = flow_at(s->chain);

	if (f && !flow_visible(f, s)) {
		s->chain = f->next;
		return;
	}
	if (f && (s->found == FLOW_SLOT_NONE || f->priority > s->best_priority)) {
		s->found = s->chain;
		s->best_priority = f->priority;
	}
	s->chain = FLOW_SLOT_NONE;
}

/* Looks the packet up under the mask of a subtable. */
INLINE void search_subtable(struct scratch *s, const struct subtable *st)
{
	__u64 *cur = (__u64 *)&s->cur;
	__u32 *head;

	s->index_key.subtable = st->id;
#pragma unroll
	for (int w = 0; w < FLOW_KEY_WORDS; w++)
		s->index_key.words[w] = cur[w] & st->mask[w];
	head = bpf_map_lookup_elem(MAP(flow_index), &s->index_key);
	if (head)
		s->chain = *head;
}

/* Begins the search of s->table. Returns 0 if there is nothing to search. */
INLINE int search_begin(struct scratch *s)
{
	__u32 bridge = s->bridge, index = s->table & (MAX_TABLES - 1);
	void *classifier = bpf_map_lookup_elem(MAP(classifiers), &bridge);
	struct subtable *st;

	s->found = FLOW_SLOT_NONE;
	s->chain = FLOW_SLOT_NONE;
	s->best_priority = 0;
	s->classifier = (__u64)classifier;
	if (!classifier)
		return 0;
	st = bpf_map_lookup_elem(classifier, &index);
	if (!st)
		return 0;
	s->subtable = st->first;
	s->end_subtable = st->first + st->count;
	return 1;
}

/* Goes on with the search. Returns 1 when it is finished: s->found is the slot of the flow that the packet matches, or
 * FLOW_SLOT_NONE; 0: call again. Subtables and chains are walked by one flat loop whose state is in the scratch, so that the
 * verifier follows it once a step. */
INLINE int search_on(struct scratch *s)
{
	__u32 bridge = s->bridge, index;
	void *classifier = bpf_map_lookup_elem(MAP(classifiers), &bridge);
	struct subtable *st;

	/* exchanged since the search began: indices mean something else now */
	if (s->classifier != (__u64)classifier && !search_begin(s))
		return 1;
	if (!classifier)
		return 1;
	for (int i = 0; i < SEARCH_STEPS; i++) {
		if (s->chain != FLOW_SLOT_NONE) {
			search_chain(s);
			continue;
		}
		if (s->subtable >= s->end_subtable)
			return 1;
		index = s->subtable++;
		st = bpf_map_lookup_elem(classifier, &index);
		if (!st || (s->found != FLOW_SLOT_NONE && s->best_priority >= st->max_priority))
			return 1;
		search_subtable(s, st);
	}
	return 0;
}

#endif
