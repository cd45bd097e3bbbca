/* SPDX-License-Identifier: GPL-2.0-only */
/* <linux/if.h> and others include it when they think they are in user space: what they need of it. */
#ifndef PYOFFLOAD_STUB_SOCKET_H
#define PYOFFLOAD_STUB_SOCKET_H

typedef unsigned short sa_family_t;
struct sockaddr {
	sa_family_t sa_family;
	char sa_data[14];
};

#endif
