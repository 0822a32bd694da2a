/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A simulated IOMMU that is driven one operation at a time.
 *
 * The layout of struct iommu_sim_op and struct iommu_sim_state is known to
 * tools/iommuq/explore/wire.py; a change needs another IOMMU_SIM_VERSION.
 */
#ifndef __IOMMU_SIM_H
#define __IOMMU_SIM_H

#include <linux/iommu.h>
#include <linux/notifier.h>
#include <linux/version.h>

#if LINUX_VERSION_CODE >= KERNEL_VERSION(7, 0, 0)
/* A driver is told which domain a device leaves, and blocks PASIDs by a domain */
#define IOMMU_SIM_OLD_DOMAIN
/* pci_dev_reset_iommu_prepare() and pci_dev_reset_iommu_done() */
#define IOMMU_SIM_RESET
/* iommu_replace_device_pasid() */
#define IOMMU_SIM_REPLACE_PASID
#endif

#define IOMMU_SIM_VERSION	4
#define IOMMU_SIM_DEVS		4
#define IOMMU_SIM_GROUPS	2
#define IOMMU_SIM_DOMAINS	3
#define IOMMU_SIM_PASIDS	2
#define IOMMU_SIM_REGIONS	3
#define IOMMU_SIM_BUFS		2

/* Not the code of an error: the operation makes no sense in this state */
#define IOMMU_SIM_NOT_NOW	1

enum iommu_sim_kind {
	SIM_END,
	SIM_SETUP,
	SIM_ADD,
	SIM_REMOVE,
	SIM_RESCAN,
	SIM_BIND,
	SIM_UNBIND,
	SIM_CLAIM_GROUP,
	SIM_RELEASE_GROUP,
	SIM_CLAIM_DEVICE,
	SIM_RELEASE_DEVICE,
	SIM_ALLOC,
	SIM_FREE,
	SIM_MAP,
	SIM_UNMAP,
	SIM_ATTACH_GROUP,
	SIM_DETACH_GROUP,
	SIM_REPLACE_GROUP,
	SIM_ATTACH_DEVICE,
	SIM_DETACH_DEVICE,
	SIM_ATTACH_PASID,
	SIM_DETACH_PASID,
	SIM_REPLACE_PASID,
	SIM_SET_TYPE,
	SIM_RESET_PREPARE,
	SIM_RESET_DONE,
	SIM_DMA_MAP,
	SIM_DMA_UNMAP,
	SIM_DEFERRED_ATTACH,
	SIM_KINDS
};

/* Kinds of domain, for a failing attach and in struct iommu_sim_state */
enum {
	SIM_NONE,
	SIM_IDENTITY,
	SIM_BLOCKED,
	/* In a state: the first of the paging domains */
	SIM_PAGING,
	SIM_FREED = 255,
};

/* SIM_SETUP: a */
#define SIM_HAS_IDENTITY	0x01
#define SIM_HAS_BLOCKED		0x02
#define SIM_HAS_RELEASE		0x04
/* An attach blocks the device first, and leaves it so when it fails */
#define SIM_CUTS		0x08

/* SIM_ADD: a */
#define SIM_PCI			0x01
#define SIM_UNTRUSTED		0x02
#define SIM_BEHIND_BRIDGE	0x04
#define SIM_DEFERRED		0x08
#define SIM_TYPE_SHIFT		4	/* 0, or the type that the driver insists on */

struct iommu_sim_op {
	u8 kind;
	u8 dev;
	u8 group;
	u8 domain;
	u8 a;
	u8 b;
	u8 c;
	/* The fail_at-th attach of that kind of domain fails */
	u8 fail_kind;
	u8 fail_at;
	u8 fail_errno;
	/* The fail_alloc-th allocation fails */
	u8 fail_alloc;
	/* And so does each later attach of that kind of domain */
	u8 fail_every;
	u8 pad[4];
} __packed;

struct iommu_sim_dev_state {
	u8 flags;
	u8 config;
	/* What translates its DMA, and what is programmed for its own ID */
	u8 hw;
	u8 own;
	u8 pasid[IOMMU_SIM_PASIDS];
	/* What its user has attached to the PASIDs */
	u8 user_pasid[IOMMU_SIM_PASIDS];
	/* Bit masks of direct regions, and of regions that translate 1:1 */
	u8 regions;
	u8 reach;
	/* Those of the direct ones that translate to something else */
	u8 astray;
	/* Live buffers of its driver, those it reaches, those inside of a region */
	u8 bufs;
	u8 bufs_ok;
	u8 bufs_bad;
	/* Attaches that the driver was asked for */
	u8 attaches;
	/* Lost a region at some time during the operation */
	u8 lost;
} __packed;

/* struct iommu_sim_dev_state: flags */
#define SIM_S_PRESENT		0x01
#define SIM_S_GROUPED		0x02
#define SIM_S_BOUND		0x08
#define SIM_S_DEFERRED		0x10
#define SIM_S_RESETTING		0x20
#define SIM_S_DMA_IOMMU		0x40
#define SIM_S_USED		0x80

/* struct iommu_sim_dev_state: config; the low two bits are the group */
#define SIM_C_PCI		0x04
#define SIM_C_UNTRUSTED		0x08
#define SIM_C_BEHIND_BRIDGE	0x10
#define SIM_C_CLAIMED		0x20
#define SIM_C_DEFERS		0x40

struct iommu_sim_group_state {
	u8 exists;
	u8 domain;
	u8 default_domain;
	u8 default_type;
	u8 blocking_domain;
	u8 owner;
	u8 owner_cnt;
	u8 nr_devs;
	u8 recovery_cnt;
	/* What users have done */
	u8 claimed;
	u8 attached;
	/* SIM_SETUP */
	u8 setup;
} __packed;

struct iommu_sim_state {
	s32 ret;
	u32 blocks;
	u8 fault_hit;
	u8 alloc_hit;
	u8 splats;
	/* A domain was freed while something was attached to it, or attached later */
	u8 freed_in_use;
	u8 freed_attached;
	u8 map_twice;
	/* A driver was told of another domain to leave than it had attached */
	u8 wrong_old;
	u8 live_domains;
	u8 leaks;
	/* The domains that users have allocated */
	u8 user[IOMMU_SIM_DOMAINS];
	struct iommu_sim_group_state group[IOMMU_SIM_GROUPS];
	struct iommu_sim_dev_state dev[IOMMU_SIM_DEVS];
} __packed;

/* What iommu_sim_core.c tells of a group */
struct iommu_sim_core {
	struct iommu_domain *domain;
	struct iommu_domain *default_domain;
	struct iommu_domain *blocking_domain;
	void *owner;
	unsigned int owner_cnt;
	unsigned int nr_devs;
	unsigned int recovery_cnt;
};

extern struct notifier_block iommu_sim_nb;

void iommu_sim_group_state(struct iommu_group *group, struct iommu_sim_core *core);
int iommu_sim_store_type(struct iommu_group *group, const char *type);
bool iommu_sim_no_groups(void);

int iommu_sim_init(void);
void iommu_sim_do(const struct iommu_sim_op *op, struct iommu_sim_state *state);

#endif /* __IOMMU_SIM_H */
