/* SPDX-License-Identifier: GPL-2.0-only */
/* bench.c: what the measurements are made with: a generator, receivers that count, and the bare redirects.
 *
 * FD_settings, FD_received and FD_devmap are replaced by map descriptors, TARGET by the ifindex a redirect goes to, when
 * a topology loads its programs (programs.py): so a bare redirect costs the helper and nothing else.
 */
#include <uapi/linux/bpf.h>
#include <uapi/linux/pkt_cls.h>

#define MAP(name) ((void *)bpf_pseudo_fd(1, FD_##name))
#define FRAME_LEN 60
#define SADDR_AT 26
#define CHECK_AT 24
#define SPORT_AT 34

/* programs.py: SETTINGS */
struct settings {
	__u64 head[5];	  /* the frame's first 40 octets; source address, source port and IP checksum are zero */
	__u32 sum;	  /* ones' complement sum of the IP header in `head` */
	__u32 mask;	  /* number of flows - 1 */
	__u32 sequential; /* 1: one flow after the other; 0: any, all equally likely */
	__u32 next;
};

/* Writes the whole header: recycled frames keep what others did to them. */
int generate(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *data_end = (void *)(long)ctx->data_end;
	struct settings *s;
	__u32 zero = 0, flow, saddr, sum;

	s = bpf_map_lookup_elem(MAP(settings), &zero);
	if (!s || data + FRAME_LEN > data_end)
		return XDP_ABORTED;
	flow = s->sequential ? s->next++ : bpf_get_prandom_u32();
	/* an odd factor: every flow has its own 32 bits, of which address and port hold 24 and 16 */
	flow = ((flow & s->mask) + 1) * 0x9e3779b1;
	saddr = 0x0a | flow << 8;
	sum = s->sum + (saddr & 0xffff) + (saddr >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	*(__u64 *)data = s->head[0];
	*(__u64 *)(data + 8) = s->head[1];
	*(__u64 *)(data + 16) = s->head[2];
	*(__u64 *)(data + 24) = s->head[3];
	*(__u64 *)(data + 32) = s->head[4];
	*(__u16 *)(data + 40) = 0;
	*(__u16 *)(data + CHECK_AT) = ~sum;
	*(__u32 *)(data + SADDR_AT) = saddr;
	*(__u16 *)(data + SPORT_AT) = flow >> 16;
	return XDP_TX;
}

/* Only frames of the generator count: a namespace says something of its own now and then. */
static __always_inline void count(__u32 is_ours)
{
	__u32 zero = 0;
	__u64 *n;

	if (!is_ours)
		return;
	n = bpf_map_lookup_elem(MAP(received), &zero);
	if (n)
		(*n)++;
}

int receive_tc(struct __sk_buff *skb)
{
	count(skb->len == FRAME_LEN && skb->protocol == 0x0008);
	return TC_ACT_SHOT;
}

int receive_xdp(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *data_end = (void *)(long)ctx->data_end;

	if (data + FRAME_LEN <= data_end)
		count(data_end - data == FRAME_LEN && *(__u16 *)(data + 12) == 0x0008);
	return XDP_DROP;
}

/* At a tap (TUNSETFILTEREBPF), in place of the ring that a virtual machine reads: 0 drops the frame. */
int receive_tap(struct __sk_buff *skb)
{
	count(skb->len == FRAME_LEN && skb->protocol == 0x0008);
	return 0;
}

int redirect(struct __sk_buff *skb)
{
	return bpf_redirect(TARGET, 0);
}

int redirect_peer(struct __sk_buff *skb)
{
	return bpf_redirect_peer(TARGET, 0);
}

int redirect_map(struct xdp_md *ctx)
{
	return bpf_redirect_map(MAP(devmap), 0, 0);
}

int empty(struct __sk_buff *skb)
{
	return TC_ACT_SHOT;
}

int empty_xdp(struct xdp_md *ctx)
{
	return XDP_DROP;
}
