/* SPDX-License-Identifier: GPL-2.0-only */
#ifdef CONFIG_MAKER
int maker_map(struct maker *maker);
#else
static inline int maker_map(struct maker *maker) { return -ENODEV; }
#endif
#define to_maker(d) container_of(d, struct maker, domain)
