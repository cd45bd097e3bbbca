/* SPDX-License-Identifier: GPL-2.0-only */
/* bcc's helpers.h includes it; we use nothing of it. */
