/* SPDX-License-Identifier: GPL-2.0-only */
/* bcc includes this before everything else. The user headers do not know these, kernel headers do. */
#ifndef PYOFFLOAD_STUB_KCONFIG_H
#define PYOFFLOAD_STUB_KCONFIG_H

/* bcc refuses to work without; whether the kernel has it, loading will tell. */
#define CONFIG_BPF_SYSCALL 1
#define __HAVE_BUILTIN_BSWAP16__ 1
#define __HAVE_BUILTIN_BSWAP32__ 1
#define __HAVE_BUILTIN_BSWAP64__ 1

#include <linux/types.h>

typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef __s8 s8;
typedef __s16 s16;
typedef __s32 s32;
typedef __s64 s64;
typedef __SIZE_TYPE__ size_t;
typedef unsigned long uintptr_t;
typedef _Bool bool;
enum {
	false,
	true
};

#ifndef NULL
#define NULL ((void *)0)
#endif
#ifndef offsetof
#define offsetof(type, member) __builtin_offsetof(type, member)
#endif
#define barrier() __asm__ volatile("" ::: "memory")

#endif
