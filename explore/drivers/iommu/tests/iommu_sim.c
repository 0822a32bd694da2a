// SPDX-License-Identifier: GPL-2.0-only
/*
 * A simulated IOMMU: its driver, its hardware, and the devices behind it.
 *
 * Hardware is a table from requester ID (and PASID) to domain. As in real
 * drivers, an attach writes the entries of the device and of the ID that a
 * bridge gives its transactions, an entry outlives the release of its device,
 * and a device that is plugged in again finds the entry of before.
 *
 * Memory of a domain stays until the sequence ends: a core that frees one too
 * early is reported, and does not take the kernel down.
 */
#include <linux/device.h>
#include <linux/dma-mapping.h>
#include <linux/iommu-dma.h>
#include <linux/iommu.h>
#include <linux/pci-ats.h>
#include <linux/pci.h>
#include <linux/property.h>
#include <linux/sched.h>
#include <linux/sizes.h>
#include <linux/slab.h>

#include "../iommu-priv.h"
#include "iommu_sim.h"

#define SIM_VENDOR		0x1f00
#define SIM_DEVICE		0x0001
#define SIM_BUS			0x40
#define SIM_PASID_CAP		0x200
#define SIM_MAX_MAP		48
#define SIM_USER_IOVA		0x10000000UL
#define SIM_USER_PAGES		4

struct sim_domain {
	struct iommu_domain domain;
	struct list_head list;
	u8 id;
	bool freed;
	unsigned int nr_map;
	struct {
		unsigned long iova;
		phys_addr_t paddr;
		size_t size;
	} map[SIM_MAX_MAP];
};

struct sim_region {
	enum iommu_resv_type type;
	unsigned long start;
	size_t size;
};

struct sim_buf {
	struct page *page;
	dma_addr_t iova;
	size_t size;
	bool live;
};

/* The device itself: goes when it is removed, and comes back by a rescan */
struct sim_dev {
	struct pci_dev pci;
	unsigned int slot;
};

/* What stays in a slot: configuration, and what hardware has for it */
struct sim_slot {
	struct sim_dev *sdev;
	bool used;
	unsigned int group;
	unsigned int flags;
	struct sim_region region[IOMMU_SIM_REGIONS];
	unsigned int nr_regions;
	struct iommu_domain *own;
	struct iommu_domain *pasid[IOMMU_SIM_PASIDS];
	/* Could not be blocked, which the core does not expect */
	bool pasid_stuck[IOMMU_SIM_PASIDS];
	bool claimed, resetting;
	/* The one that is in use, and the next one */
	struct iommu_attach_handle handle[IOMMU_SIM_PASIDS][2];
	unsigned int handle_at[IOMMU_SIM_PASIDS];
	struct iommu_domain *user_pasid[IOMMU_SIM_PASIDS];
	struct sim_buf buf[IOMMU_SIM_BUFS];
	unsigned int attaches;
	bool lost;
	bool bound;
	/* Attached, since it was plugged in */
	bool known;
};

struct sim_group {
	struct device *hwdev;
	struct iommu_device iommu;
	struct iommu_ops ops;
	struct iommu_domain identity;
	struct iommu_domain blocked;
	struct iommu_group *group;
	bool cuts;
	u8 setup;
	/* The entry of the ID that the bridge gives to what is behind it */
	struct iommu_domain *alias;
	struct pci_dev bridge;
	struct pci_bus behind;
	/* What the user has done */
	u8 claimed;
	struct iommu_domain *attached;
	enum { BY_NONE, BY_GROUP, BY_HANDLE, BY_DEVICE } how;
	struct device *attached_dev;
	struct iommu_attach_handle handle[2];
	unsigned int handle_at;
};

static struct {
	struct pci_bus *root;
	bool ready;
	struct sim_group group[IOMMU_SIM_GROUPS];
	struct sim_slot slot[IOMMU_SIM_DEVS];
	struct iommu_domain *user[IOMMU_SIM_DOMAINS];
	struct list_head domains;
	unsigned int nr_domains, nr_lent;
	u8 next_id;
	const struct iommu_sim_op *op;
	unsigned int fail_at;
	struct iommu_sim_state *state;
	struct page *pages;
} sim;

void iommu_sim_failslab(void);

/* Any two addresses will do */
static u8 sim_owners[3];

static struct sim_dev *to_sim_dev(struct device *dev)
{
	return container_of(dev, struct sim_dev, pci.dev);
}

static struct sim_slot *to_slot(struct device *dev)
{
	return &sim.slot[to_sim_dev(dev)->slot];
}

static struct sim_group *to_group(struct device *dev)
{
	return &sim.group[to_slot(dev)->group];
}

static struct device *slot_dev(struct sim_slot *slot)
{
	return slot->sdev ? &slot->sdev->pci.dev : NULL;
}

static struct sim_domain *to_sim_domain(struct iommu_domain *domain)
{
	return container_of(domain, struct sim_domain, domain);
}

static u8 sim_domain_id(struct iommu_domain *domain)
{
	if (!domain)
		return SIM_NONE;
	if (domain->type == IOMMU_DOMAIN_IDENTITY)
		return SIM_IDENTITY;
	if (domain->type == IOMMU_DOMAIN_BLOCKED)
		return SIM_BLOCKED;
	return to_sim_domain(domain)->freed ? SIM_FREED : to_sim_domain(domain)->id;
}

/* The entry that DMA of a device meets */
static struct iommu_domain *sim_hw(struct sim_slot *slot)
{
	return slot->flags & SIM_BEHIND_BRIDGE ? sim.group[slot->group].alias :
						 slot->own;
}

static phys_addr_t sim_translate(struct iommu_domain *domain, unsigned long iova)
{
	struct sim_domain *sdom;
	unsigned int i;

	if (!domain || domain->type == IOMMU_DOMAIN_BLOCKED)
		return ~0ULL;
	if (domain->type == IOMMU_DOMAIN_IDENTITY)
		return iova;
	sdom = to_sim_domain(domain);
	for (i = 0; i < sdom->nr_map; i++)
		if (iova - sdom->map[i].iova < sdom->map[i].size)
			return sdom->map[i].paddr + iova - sdom->map[i].iova;
	return ~0ULL;
}

static bool sim_is_direct(const struct sim_region *region)
{
	return region->type == IOMMU_RESV_DIRECT;
}

static bool sim_reaches(struct sim_slot *slot, const struct sim_region *region)
{
	struct iommu_domain *hw = sim_hw(slot);
	unsigned long at;

	for (at = region->start; at < region->start + region->size; at += PAGE_SIZE)
		if (sim_translate(hw, at) != at)
			return false;
	return true;
}

/* Does a page of it translate to another one? */
static bool sim_goes_astray(struct sim_slot *slot, const struct sim_region *region)
{
	struct iommu_domain *hw = sim_hw(slot);
	unsigned long at;

	for (at = region->start; at < region->start + region->size; at += PAGE_SIZE)
		if (sim_translate(hw, at) != ~0ULL && sim_translate(hw, at) != at)
			return true;
	return false;
}

static bool sim_reaches_all(struct sim_slot *slot)
{
	unsigned int i;

	for (i = 0; i < slot->nr_regions; i++)
		if (sim_is_direct(&slot->region[i]) && !sim_reaches(slot, &slot->region[i]))
			return false;
	return true;
}

/* Called whenever hardware has changed: an operation may lose a region for a moment */
static void sim_note_lost(void)
{
	unsigned int i;

	for (i = 0; i < IOMMU_SIM_DEVS; i++)
		if (sim.slot[i].sdev && !sim_reaches_all(&sim.slot[i]))
			sim.slot[i].lost = true;
}

static bool sim_fails(struct iommu_domain *domain)
{
	unsigned int kind = min(sim_domain_id(domain), SIM_PAGING);

	if (!sim.fail_at || kind != sim.op->fail_kind)
		return false;
	if (sim.fail_at > 1) {
		sim.fail_at--;
		return false;
	}
	if (!sim.op->fail_every)
		sim.fail_at = 0;
	sim.state->fault_hit = 1;
	return true;
}

static void sim_program(struct sim_slot *slot, struct iommu_domain *domain)
{
	slot->own = domain;
	if (slot->flags & SIM_BEHIND_BRIDGE)
		sim.group[slot->group].alias = domain;
}

static int sim_attach_dev(struct iommu_domain *domain, struct device *dev
#ifdef IOMMU_SIM_OLD_DOMAIN
			  , struct iommu_domain *old
#endif
			  )
{
	struct sim_slot *slot = to_slot(dev);

	/* Drivers have no lock of their own against two attaches of a device */
	iommu_group_mutex_assert(dev);
	slot->attaches++;
	if (sim_domain_id(domain) == SIM_FREED)
		sim.state->freed_attached++;
#ifdef IOMMU_SIM_OLD_DOMAIN
	/* The first attach leaves what was there before the device was known */
	if (slot->known && old && slot->own && old != slot->own)
		sim.state->wrong_old++;
#endif
	if (to_group(dev)->cuts)
		sim_program(slot, NULL);
	if (sim_fails(domain)) {
		sim_note_lost();
		return -sim.op->fail_errno;
	}
	sim_program(slot, domain);
	slot->known = true;
	sim_note_lost();
	return 0;
}

static int sim_set_pasid(struct iommu_domain *domain, struct device *dev,
			 ioasid_t pasid, struct iommu_domain *old)
{
	struct sim_slot *slot = to_slot(dev);

	if (WARN_ON(!pasid || pasid > IOMMU_SIM_PASIDS))
		return -EINVAL;
	if (sim_domain_id(domain) == SIM_FREED)
		sim.state->freed_attached++;
#ifdef IOMMU_SIM_OLD_DOMAIN
	if (old && slot->pasid[pasid - 1] && old != slot->pasid[pasid - 1] &&
	    !slot->pasid_stuck[pasid - 1])
		sim.state->wrong_old++;
#endif
	if (sim_fails(domain)) {
		slot->pasid_stuck[pasid - 1] |= domain->type == IOMMU_DOMAIN_BLOCKED;
		return -sim.op->fail_errno;
	}
	slot->pasid_stuck[pasid - 1] = false;
	slot->pasid[pasid - 1] = domain->type == IOMMU_DOMAIN_BLOCKED ? NULL : domain;
	return 0;
}

#ifndef IOMMU_SIM_OLD_DOMAIN
static void sim_remove_pasid(struct device *dev, ioasid_t pasid,
			     struct iommu_domain *domain)
{
	to_slot(dev)->pasid[pasid - 1] = NULL;
}
#endif

static int sim_map_pages(struct iommu_domain *domain, unsigned long iova,
			 phys_addr_t paddr, size_t pgsize, size_t pgcount,
			 int prot, gfp_t gfp, size_t *mapped)
{
	struct sim_domain *sdom = to_sim_domain(domain);
	size_t size = pgsize * pgcount;
	unsigned int i;
	void *table;

	for (i = 0; i < sdom->nr_map; i++) {
		if (iova >= sdom->map[i].iova + sdom->map[i].size ||
		    sdom->map[i].iova >= iova + size)
			continue;
		sim.state->map_twice++;
		return -EADDRINUSE;
	}
	/* The table that a real driver would need */
	table = kmalloc(64, gfp);
	if (!table || sdom->nr_map == SIM_MAX_MAP) {
		kfree(table);
		return -ENOMEM;
	}
	kfree(table);
	sdom->map[sdom->nr_map].iova = iova;
	sdom->map[sdom->nr_map].paddr = paddr;
	sdom->map[sdom->nr_map++].size = size;
	*mapped = size;
	return 0;
}

static size_t sim_unmap_pages(struct iommu_domain *domain, unsigned long iova,
			      size_t pgsize, size_t pgcount,
			      struct iommu_iotlb_gather *gather)
{
	struct sim_domain *sdom = to_sim_domain(domain);
	size_t left = pgsize * pgcount;
	unsigned int i;

	/* Whole mappings, as each user here maps and unmaps */
	while (left) {
		for (i = 0; i < sdom->nr_map; i++)
			if (sdom->map[i].iova == iova && sdom->map[i].size <= left)
				break;
		if (i == sdom->nr_map)
			break;
		iova += sdom->map[i].size;
		left -= sdom->map[i].size;
		sdom->map[i] = sdom->map[--sdom->nr_map];
	}
	sim_note_lost();
	return pgsize * pgcount - left;
}

/* Lazy unmapping calls it without asking */
static void sim_flush_iotlb_all(struct iommu_domain *domain)
{
}

static phys_addr_t sim_iova_to_phys(struct iommu_domain *domain, dma_addr_t iova)
{
	phys_addr_t found = sim_translate(domain, iova);

	return found == ~0ULL ? 0 : found;
}

static void sim_domain_free(struct iommu_domain *domain)
{
	struct sim_domain *sdom = to_sim_domain(domain);
	unsigned int i, p;

	if (sdom->freed) {
		sim.state->freed_in_use++;
		return;
	}
	for (i = 0; i < IOMMU_SIM_DEVS; i++) {
		if (sim.slot[i].own == domain)
			sim.state->freed_in_use++;
		for (p = 0; p < IOMMU_SIM_PASIDS; p++)
			if (sim.slot[i].pasid[p] == domain)
				sim.state->freed_in_use++;
	}
	for (i = 0; i < IOMMU_SIM_GROUPS; i++)
		if (sim.group[i].alias == domain)
			sim.state->freed_in_use++;
	sdom->freed = true;
	sim.nr_domains--;
}

static const struct iommu_domain_ops sim_paging_ops = {
	.attach_dev = sim_attach_dev,
	.set_dev_pasid = sim_set_pasid,
	.map_pages = sim_map_pages,
	.unmap_pages = sim_unmap_pages,
	.flush_iotlb_all = sim_flush_iotlb_all,
	.iova_to_phys = sim_iova_to_phys,
	.free = sim_domain_free,
};

static const struct iommu_domain_ops sim_static_ops = {
	.attach_dev = sim_attach_dev,
	.set_dev_pasid = sim_set_pasid,
};

static struct iommu_domain *sim_alloc_paging(struct device *dev)
{
	struct sim_domain *sdom = kzalloc(sizeof(*sdom), GFP_KERNEL);

	if (!sdom)
		return NULL;
	sdom->id = sim.next_id < SIM_FREED - 1 ? sim.next_id++ : sim.next_id;
	sdom->domain.pgsize_bitmap = SZ_4K;
	sdom->domain.geometry.aperture_end = DMA_BIT_MASK(48);
	sdom->domain.geometry.force_aperture = true;
	list_add_tail(&sdom->list, &sim.domains);
	sim.nr_domains++;
	return &sdom->domain;
}

static struct iommu_device *sim_probe_device(struct device *dev)
{
	return &to_group(dev)->iommu;
}

/* A driver with a release_domain has nothing left to do: the core has attached it */
static void sim_release_device(struct device *dev)
{
	memset(to_slot(dev)->pasid, 0, sizeof(to_slot(dev)->pasid));
	memset(to_slot(dev)->pasid_stuck, 0, sizeof(to_slot(dev)->pasid_stuck));
	/* Nor does one touch hardware that it has not programmed */
	if (to_group(dev)->ops.release_domain || dev->iommu->attach_deferred)
		return;
	sim_program(to_slot(dev), NULL);
	sim_note_lost();
}

static struct iommu_group *sim_device_group(struct device *dev)
{
	struct sim_group *group = to_group(dev);

	if (group->group)
		return iommu_group_ref_get(group->group);
	group->group = iommu_group_alloc();
	if (IS_ERR(group->group)) {
		struct iommu_group *error = group->group;

		group->group = NULL;
		return error;
	}
	return group->group;
}

static void sim_put_resv_region(struct device *dev, struct iommu_resv_region *region)
{
	sim.nr_lent--;
	kfree(region);
}

/* It returns an error, or nothing */
typedef typeof(((struct iommu_ops *)NULL)->get_resv_regions(NULL, NULL)) sim_resv_t;

static sim_resv_t sim_get_resv_regions(struct device *dev, struct list_head *head)
{
	struct sim_slot *slot = to_slot(dev);
	struct iommu_resv_region *region;
	unsigned int i;

	for (i = 0; i < slot->nr_regions; i++) {
		region = iommu_alloc_resv_region(slot->region[i].start,
						 slot->region[i].size,
						 IOMMU_READ | IOMMU_WRITE,
						 slot->region[i].type, GFP_KERNEL);
		if (!region)
			return (sim_resv_t)-ENOMEM;
		region->free = sim_put_resv_region;
		sim.nr_lent++;
		list_add_tail(&region->list, head);
	}
	return (sim_resv_t)0;
}

static bool sim_is_attach_deferred(struct device *dev)
{
	return to_slot(dev)->flags & SIM_DEFERRED;
}

static int sim_def_domain_type(struct device *dev)
{
	switch (to_slot(dev)->flags >> SIM_TYPE_SHIFT) {
	case 1:
		return IOMMU_DOMAIN_DMA;
	case 2:
		return to_group(dev)->ops.identity_domain ? IOMMU_DOMAIN_IDENTITY : 0;
	}
	return 0;
}

static bool sim_capable(struct device *dev, enum iommu_cap cap)
{
	return cap == IOMMU_CAP_CACHE_COHERENCY || cap == IOMMU_CAP_DEFERRED_FLUSH;
}

static const struct iommu_ops sim_ops = {
	.capable = sim_capable,
	.domain_alloc_paging = sim_alloc_paging,
	.probe_device = sim_probe_device,
	.release_device = sim_release_device,
	.device_group = sim_device_group,
	.get_resv_regions = sim_get_resv_regions,
	.is_attach_deferred = sim_is_attach_deferred,
	.def_domain_type = sim_def_domain_type,
#ifndef IOMMU_SIM_OLD_DOMAIN
	.remove_dev_pasid = sim_remove_pasid,
#endif
	.default_domain_ops = &sim_paging_ops,
};

/* The drivers and buses of the devices */

static void sim_unmap_buf(struct sim_slot *slot, unsigned int i)
{
	struct sim_buf *buf = &slot->buf[i];

	if (!buf->live)
		return;
	buf->live = false;
	dma_unmap_page(slot_dev(slot), buf->iova, buf->size, DMA_BIDIRECTIONAL);
}

static int sim_driver_probe(struct device *dev)
{
	to_slot(dev)->bound = true;
	return 0;
}

static void sim_driver_remove(struct device *dev)
{
	unsigned int i;

	for (i = 0; i < IOMMU_SIM_BUFS; i++)
		sim_unmap_buf(to_slot(dev), i);
	to_slot(dev)->bound = false;
}

static int sim_pci_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	return sim_driver_probe(&pdev->dev);
}

static void sim_pci_remove(struct pci_dev *pdev)
{
	sim_driver_remove(&pdev->dev);
}

static const struct pci_device_id sim_pci_ids[] = {
	{ PCI_DEVICE(SIM_VENDOR, SIM_DEVICE) },
	{}
};

static struct pci_driver sim_pci_driver = {
	.name = "iommu_sim",
	.id_table = sim_pci_ids,
	.probe = sim_pci_probe,
	.remove = sim_pci_remove,
};

/* Drivers are bound by name only */
static int sim_bus_match(struct device *dev, const struct device_driver *drv)
{
	return 0;
}

static int sim_bus_dma_configure(struct device *dev)
{
	return iommu_device_use_default_domain(dev);
}

static void sim_bus_dma_cleanup(struct device *dev)
{
	iommu_device_unuse_default_domain(dev);
}

static const struct bus_type sim_bus = {
	.name = "iommu_sim",
	.match = sim_bus_match,
	.probe = sim_driver_probe,
	.remove = sim_driver_remove,
	.dma_configure = sim_bus_dma_configure,
	.dma_cleanup = sim_bus_dma_cleanup,
};

static struct device_driver sim_driver = {
	.name = "iommu_sim",
	.bus = &sim_bus,
};

/* Configuration space that is all ones, but for PASIDs of two bits */
static int sim_pci_read(struct pci_bus *bus, unsigned int devfn, int where,
			int size, u32 *value)
{
	*value = where == SIM_PASID_CAP + PCI_PASID_CAP ? 2 << 8 : ~0;
	return PCIBIOS_SUCCESSFUL;
}

static int sim_pci_write(struct pci_bus *bus, unsigned int devfn, int where,
			 int size, u32 value)
{
	return PCIBIOS_SUCCESSFUL;
}

static struct pci_ops sim_pci_ops = {
	.read = sim_pci_read,
	.write = sim_pci_write,
};

static void sim_dev_release(struct device *dev)
{
	kfree(to_sim_dev(dev));
}

static int sim_plug(unsigned int number)
{
	struct sim_slot *slot = &sim.slot[number];
	struct sim_group *group = &sim.group[slot->group];
	struct sim_dev *sdev = kzalloc(sizeof(*sdev), GFP_KERNEL);
	struct device *dev;
	/* What IOMMUs that are not of PCI know it by */
	u32 stream = number + 1;
	int ret;

	if (!sdev)
		return -ENOMEM;
	sdev->slot = number;
	slot->known = false;
	dev = &sdev->pci.dev;
	device_initialize(dev);
	dev->release = sim_dev_release;
	dev->dma_mask = &dev->coherent_dma_mask;
	dev->coherent_dma_mask = DMA_BIT_MASK(32);
	dev->dma_parms = NULL;
	sdev->pci.vendor = SIM_VENDOR;
	sdev->pci.device = SIM_DEVICE;
	sdev->pci.subordinate = NULL;
	INIT_LIST_HEAD(&sdev->pci.bus_list);
	if (slot->flags & SIM_PCI) {
		dev->bus = &pci_bus_type;
		dev->parent = sim.root->bridge;
		sdev->pci.bus = slot->flags & SIM_BEHIND_BRIDGE ? &group->behind : sim.root;
		sdev->pci.devfn = PCI_DEVFN(number + 1, 0);
		sdev->pci.untrusted = !!(slot->flags & SIM_UNTRUSTED);
		/* For a reset to concern the IOMMU, and for PASIDs: of PCIe only */
		if (!(slot->flags & SIM_BEHIND_BRIDGE)) {
			sdev->pci.ats_cap = 0x100;
			sdev->pci.pasid_cap = SIM_PASID_CAP;
		}
	} else {
		dev->bus = &sim_bus;
	}
	/*
	 * No software node, which could give PASIDs to a device that is not PCI:
	 * software_node_notify() takes a reference less after a failed allocation.
	 */
	ret = dev_set_name(dev, "sim%u", number);
	if (!ret) {
		mutex_lock(&iommu_probe_device_lock);
		ret = iommu_fwspec_init(dev, group->iommu.fwnode);
		mutex_unlock(&iommu_probe_device_lock);
	}
	if (!ret)
		ret = iommu_fwspec_add_ids(dev, &stream, 1);
	slot->sdev = sdev;
	if (!ret) {
		ret = device_add(dev);
		if (!ret)
			return 0;
	}
	slot->sdev = NULL;
	if (dev->iommu)
		dev_iommu_free(dev);
	put_device(dev);
	return ret;
}

static void sim_unplug(struct sim_slot *slot)
{
	struct device *dev = slot_dev(slot);

	device_del(dev);
	slot->sdev = NULL;
	slot->bound = false;
	slot->resetting = false;
	slot->claimed = false;
	put_device(dev);
}

/* Forget a group that went with its last device */
static void sim_update_groups(void)
{
	unsigned int i, g;

	for (g = 0; g < IOMMU_SIM_GROUPS; g++) {
		bool found = false;

		for (i = 0; i < IOMMU_SIM_DEVS; i++) {
			struct device *dev = slot_dev(&sim.slot[i]);

			if (dev && dev->iommu_group && sim.slot[i].group == g)
				found = true;
		}
		if (!found)
			sim.group[g].group = NULL;
	}
}

/* Where a region lies: low, or where the first IOVAs of a 32 bit device are */
static void sim_set_regions(struct sim_slot *slot, unsigned int number, u8 types, u8 shape)
{
	static const enum iommu_resv_type kinds[] = {
		0, IOMMU_RESV_DIRECT, IOMMU_RESV_DIRECT_RELAXABLE, IOMMU_RESV_RESERVED,
	};
	bool high = shape & 1, large = shape & 2;
	unsigned int i;

	slot->nr_regions = 0;
	for (i = 0; i < IOMMU_SIM_REGIONS; i++) {
		unsigned int kind = (types >> (2 * i)) & 3;
		struct sim_region *region = &slot->region[slot->nr_regions];

		if (!kind)
			continue;
		region->type = kinds[kind];
		region->size = large ? 3 * SZ_4K : SZ_4K;
		if (high && !i)
			region->start = 0xfffff000UL + SZ_4K - region->size -
					number * SZ_16K;
		else
			region->start = 0x3e000000UL + number * SZ_1M + i * SZ_64K;
		slot->nr_regions++;
	}
}

/* Is another device of the group there, which keeps it alive? */
static bool sim_has_sibling(struct sim_slot *slot)
{
	unsigned int i;

	for (i = 0; i < IOMMU_SIM_DEVS; i++)
		if (&sim.slot[i] != slot && sim.slot[i].sdev &&
		    sim.slot[i].group == slot->group &&
		    slot_dev(&sim.slot[i])->iommu_group)
			return true;
	return false;
}

static bool sim_has_pasid(struct sim_slot *slot)
{
	unsigned int p;

	for (p = 0; p < IOMMU_SIM_PASIDS; p++)
		if (slot->user_pasid[p])
			return true;
	return false;
}

static bool sim_group_has_pasid(unsigned int number)
{
	unsigned int i;

	for (i = 0; i < IOMMU_SIM_DEVS; i++)
		if (sim.slot[i].group == number && sim_has_pasid(&sim.slot[i]))
			return true;
	return false;
}

static bool sim_may_remove(struct sim_slot *slot)
{
	struct sim_group *group = &sim.group[slot->group];
	struct device *dev = slot_dev(slot);

	/* Its user, or its driver, has it open and waits or holds a reference */
	if (!dev || slot->claimed || slot->resetting || sim_has_pasid(slot))
		return false;
	if (group->how == BY_DEVICE && group->attached_dev == dev)
		return false;
	if (!dev->iommu_group)
		return true;
	return sim_has_sibling(slot) || (!group->claimed && !group->attached);
}

static bool sim_is_claimed(unsigned int number)
{
	unsigned int i;

	for (i = 0; i < IOMMU_SIM_DEVS; i++)
		if (sim.slot[i].claimed && sim.slot[i].group == number)
			return true;
	return sim.group[number].claimed;
}

static bool sim_in_use(struct iommu_domain *domain)
{
	unsigned int i, p;

	for (i = 0; i < IOMMU_SIM_GROUPS; i++)
		if (sim.group[i].attached == domain)
			return true;
	for (i = 0; i < IOMMU_SIM_DEVS; i++)
		for (p = 0; p < IOMMU_SIM_PASIDS; p++)
			if (sim.slot[i].user_pasid[p] == domain)
				return true;
	return false;
}

static void sim_detach(struct sim_group *group)
{
	switch (group->how) {
	case BY_GROUP:
		iommu_detach_group(group->attached, group->group);
		break;
	case BY_HANDLE:
		iommu_detach_group_handle(group->attached, group->group);
		break;
	case BY_DEVICE:
		iommu_detach_device(group->attached, group->attached_dev);
		break;
	case BY_NONE:
		return;
	}
	group->attached = NULL;
	group->attached_dev = NULL;
	group->how = BY_NONE;
}

static int sim_attach(struct sim_group *group, unsigned int how,
		      struct iommu_domain *domain, struct device *dev)
{
	struct iommu_attach_handle *handle = &group->handle[group->handle_at ^ 1];
	int ret;

	if (how == BY_DEVICE) {
		ret = iommu_attach_device(domain, dev);
	} else if (how == BY_GROUP) {
		ret = iommu_attach_group(domain, group->group);
	} else {
		handle->domain = domain;
		if (group->attached)
			ret = iommu_replace_group_handle(group->group, domain, handle);
		else
			ret = iommu_attach_group_handle(domain, group->group, handle);
	}
	if (ret)
		return ret;
	if (how == BY_HANDLE)
		group->handle_at ^= 1;
	group->attached = domain;
	group->how = how;
	group->attached_dev = dev;
	return 0;
}

static int sim_bind(struct sim_slot *slot)
{
	struct device *dev = slot_dev(slot);

	return device_driver_attach(slot->flags & SIM_PCI ? &sim_pci_driver.driver :
							    &sim_driver, dev);
}

static int sim_dma_map(struct sim_slot *slot, unsigned int i, unsigned int pages)
{
	struct sim_buf *buf = &slot->buf[i];
	struct device *dev = slot_dev(slot);

	buf->size = pages * PAGE_SIZE;
	buf->iova = dma_map_page(dev, buf->page, 0, buf->size, DMA_BIDIRECTIONAL);
	if (dma_mapping_error(dev, buf->iova))
		return -ENOMEM;
	buf->live = true;
	return 0;
}

#ifdef IOMMU_SIM_RESET
static int sim_reset_prepare(struct sim_slot *slot)
{
	int ret = pci_dev_reset_iommu_prepare(&slot->sdev->pci);

	/* Nothing happens for a device without ATS */
	slot->resetting = !ret && pci_ats_supported(&slot->sdev->pci);
	return ret;
}

static int sim_reset_done(struct sim_slot *slot)
{
	slot->resetting = false;
	pci_dev_reset_iommu_done(&slot->sdev->pci);
	return 0;
}
#else
static int sim_reset_prepare(struct sim_slot *slot)
{
	return IOMMU_SIM_NOT_NOW;
}

static int sim_reset_done(struct sim_slot *slot)
{
	return IOMMU_SIM_NOT_NOW;
}
#endif

static int sim_attach_pasid(struct sim_slot *slot, unsigned int p,
			    struct iommu_domain *domain)
{
	int ret;

	ret = iommu_attach_device_pasid(domain, slot_dev(slot), p + 1,
					&slot->handle[p][slot->handle_at[p]]);
	if (!ret)
		slot->user_pasid[p] = domain;
	return ret;
}

#ifdef IOMMU_SIM_REPLACE_PASID
/* "Caller should always provide a new handle" */
static int sim_replace_pasid(struct sim_slot *slot, unsigned int p,
			     struct iommu_domain *domain)
{
	unsigned int next = slot->handle_at[p] ^ 1;
	int ret;

	ret = iommu_replace_device_pasid(domain, slot_dev(slot), p + 1,
					 &slot->handle[p][next]);
	if (ret)
		return ret;
	slot->handle_at[p] = next;
	slot->user_pasid[p] = domain;
	return 0;
}
#else
static int sim_replace_pasid(struct sim_slot *slot, unsigned int p,
			     struct iommu_domain *domain)
{
	return IOMMU_SIM_NOT_NOW;
}
#endif

static void sim_detach_pasid(struct sim_slot *slot, unsigned int p)
{
	struct iommu_domain *domain = slot->user_pasid[p];

	slot->user_pasid[p] = NULL;
	iommu_detach_device_pasid(domain, slot_dev(slot), p + 1);
}

static void sim_set_up(struct sim_group *group, u8 how)
{
	group->ops.identity_domain = how & SIM_HAS_IDENTITY ? &group->identity : NULL;
	group->ops.blocked_domain = how & SIM_HAS_BLOCKED ? &group->blocked : NULL;
	group->ops.release_domain = how & SIM_HAS_RELEASE && how & SIM_HAS_BLOCKED ?
				    &group->blocked : NULL;
	group->cuts = how & SIM_CUTS;
	group->setup = how;
}

/* Leave everything in the order in which its users would, and count what is left */
static int sim_end(void)
{
	struct sim_domain *sdom, *next;
	struct sim_slot *slot;
	unsigned int i, p;

	for (i = 0; i < IOMMU_SIM_DEVS; i++) {
		slot = &sim.slot[i];
		if (!slot->sdev)
			continue;
		if (slot->resetting)
			sim_reset_done(slot);
		for (p = 0; p < IOMMU_SIM_PASIDS; p++)
			if (slot->user_pasid[p])
				sim_detach_pasid(slot, p);
	}
	/* iommu_detach_device() is for a group of one */
	for (i = 0; i < IOMMU_SIM_DEVS; i++) {
		struct sim_group *group = &sim.group[sim.slot[i].group];

		if (sim.slot[i].sdev && group->how == BY_DEVICE &&
		    group->attached_dev != slot_dev(&sim.slot[i]))
			sim_unplug(&sim.slot[i]);
	}
	for (i = 0; i < IOMMU_SIM_GROUPS; i++) {
		sim_detach(&sim.group[i]);
		if (sim.group[i].claimed)
			iommu_group_release_dma_owner(sim.group[i].group);
		sim.group[i].claimed = 0;
	}
	for (i = 0; i < IOMMU_SIM_DEVS; i++) {
		slot = &sim.slot[i];
		if (slot->claimed)
			iommu_device_release_dma_owner(slot_dev(slot));
		slot->claimed = false;
	}
	for (i = 0; i < IOMMU_SIM_DEVS; i++)
		if (sim.slot[i].sdev)
			sim_unplug(&sim.slot[i]);
	for (i = 0; i < IOMMU_SIM_DOMAINS; i++) {
		if (sim.user[i])
			iommu_domain_free(sim.user[i]);
		sim.user[i] = NULL;
	}
	sim_update_groups();
	sim.state->leaks = (sim.nr_domains ? 1 : 0) | (sim.nr_lent ? 2 : 0) |
			   (iommu_sim_no_groups() ? 0 : 4);
	list_for_each_entry_safe(sdom, next, &sim.domains, list)
		kfree(sdom);
	INIT_LIST_HEAD(&sim.domains);
	for (i = 0; i < IOMMU_SIM_DEVS; i++) {
		struct page *page[IOMMU_SIM_BUFS];

		for (p = 0; p < IOMMU_SIM_BUFS; p++)
			page[p] = sim.slot[i].buf[p].page;
		memset(&sim.slot[i], 0, sizeof(sim.slot[i]));
		for (p = 0; p < IOMMU_SIM_BUFS; p++)
			sim.slot[i].buf[p].page = page[p];
	}
	for (i = 0; i < IOMMU_SIM_GROUPS; i++) {
		sim.group[i].alias = NULL;
		sim_set_up(&sim.group[i], SIM_HAS_IDENTITY | SIM_HAS_BLOCKED | SIM_HAS_RELEASE);
	}
	sim.nr_domains = 0;
	sim.nr_lent = 0;
	sim.next_id = SIM_PAGING;
	return 0;
}

static bool sim_group_is_empty(unsigned int number)
{
	unsigned int i;

	for (i = 0; i < IOMMU_SIM_DEVS; i++)
		if (sim.slot[i].used && sim.slot[i].group == number)
			return false;
	return true;
}

static int sim_setup(const struct iommu_sim_op *op)
{
	if (!sim_group_is_empty(op->group))
		return IOMMU_SIM_NOT_NOW;
	sim_set_up(&sim.group[op->group], op->a);
	return 0;
}

static int sim_add(const struct iommu_sim_op *op)
{
	struct sim_slot *slot = &sim.slot[op->dev];

	if (slot->used)
		return IOMMU_SIM_NOT_NOW;
	slot->used = true;
	slot->group = op->group;
	slot->flags = op->a;
	if (!(slot->flags & SIM_PCI))
		slot->flags &= ~(SIM_UNTRUSTED | SIM_BEHIND_BRIDGE);
	sim_set_regions(slot, op->dev, op->b, op->c);
	return sim_plug(op->dev);
}

static int sim_run(const struct iommu_sim_op *op)
{
	static const char * const types[] = { "DMA", "DMA-FQ", "identity", "auto" };
	struct sim_slot *slot = &sim.slot[op->dev % IOMMU_SIM_DEVS];
	struct sim_group *group = &sim.group[op->group % IOMMU_SIM_GROUPS];
	struct iommu_domain **user = &sim.user[op->domain % IOMMU_SIM_DOMAINS];
	void *owner = &sim_owners[1 + op->a % 2];
	struct device *dev = slot_dev(slot);
	unsigned int p = op->a % IOMMU_SIM_PASIDS;
	int ret;

	switch (op->kind) {
	case SIM_END:
		return sim_end();
	case SIM_SETUP:
		return sim_setup(op);
	case SIM_ADD:
		return sim_add(op);
	case SIM_REMOVE:
		if (!sim_may_remove(slot))
			break;
		sim_unplug(slot);
		return 0;
	case SIM_RESCAN:
		if (!slot->used || slot->sdev)
			break;
		return sim_plug(op->dev % IOMMU_SIM_DEVS);
	case SIM_BIND:
		if (!dev || slot->bound || slot->claimed || slot->resetting)
			break;
		return sim_bind(slot);
	case SIM_UNBIND:
		if (!dev || !slot->bound || slot->resetting || sim_has_pasid(slot))
			break;
		device_release_driver(dev);
		return 0;
	case SIM_CLAIM_GROUP:
		if (!group->group || group->claimed)
			break;
		ret = iommu_group_claim_dma_owner(group->group, owner);
		group->claimed = ret ? 0 : 1 + op->a % 2;
		return ret;
	case SIM_RELEASE_GROUP:
		if (!group->claimed || group->attached || sim_group_has_pasid(op->group))
			break;
		group->claimed = 0;
		iommu_group_release_dma_owner(group->group);
		return 0;
	case SIM_CLAIM_DEVICE:
		/*
		 * Its driver is the owner's, which does no DMA by itself. VFIO
		 * claims groups and iommufd devices, and none of them both.
		 */
		if (!dev || slot->claimed || slot->bound ||
		    sim.group[slot->group].claimed)
			break;
		ret = iommu_device_claim_dma_owner(dev, owner);
		slot->claimed = !ret;
		return ret;
	case SIM_RELEASE_DEVICE:
		if (!slot->claimed || sim.group[slot->group].attached ||
		    sim_has_pasid(slot))
			break;
		slot->claimed = false;
		iommu_device_release_dma_owner(dev);
		return 0;
	case SIM_ALLOC:
		if (!dev || !dev->iommu_group || *user)
			break;
		*user = iommu_paging_domain_alloc(dev);
		ret = PTR_ERR_OR_ZERO(*user);
		if (ret)
			*user = NULL;
		return ret;
	case SIM_FREE:
		if (!*user || sim_in_use(*user))
			break;
		iommu_domain_free(*user);
		*user = NULL;
		return 0;
	case SIM_MAP:
		if (!*user)
			break;
		p = op->a % SIM_USER_PAGES;
		if (sim_translate(*user, SIM_USER_IOVA + p * SZ_64K) != ~0ULL)
			break;
		return iommu_map(*user, SIM_USER_IOVA + p * SZ_64K,
				 page_to_phys(sim.pages) + p * SZ_4K, SZ_4K,
				 IOMMU_READ | IOMMU_WRITE, GFP_KERNEL);
	case SIM_UNMAP:
		p = op->a % SIM_USER_PAGES;
		if (!*user ||
		    sim_translate(*user, SIM_USER_IOVA + p * SZ_64K) == ~0ULL)
			break;
		return iommu_unmap(*user, SIM_USER_IOVA + p * SZ_64K, SZ_4K) == SZ_4K ?
		       0 : -EIO;
	case SIM_ATTACH_GROUP:
		/* Handles are iommufd's, which claims what it attaches */
		if (!group->group || !*user || group->attached ||
		    (op->a & 1 && !sim_is_claimed(op->group)))
			break;
		return sim_attach(group, BY_GROUP + (op->a & 1), *user, NULL);
	case SIM_DETACH_GROUP:
		if (group->how != BY_GROUP && group->how != BY_HANDLE)
			break;
		sim_detach(group);
		return 0;
	case SIM_REPLACE_GROUP:
		if (group->how != BY_HANDLE || !*user)
			break;
		return sim_attach(group, BY_HANDLE, *user, NULL);
	case SIM_ATTACH_DEVICE:
		/* "Caller must be a probed driver on dev" */
		if (!dev || !dev->iommu_group || !*user || sim.group[slot->group].attached ||
		    (!slot->bound && !slot->claimed))
			break;
		return sim_attach(&sim.group[slot->group], BY_DEVICE, *user, dev);
	case SIM_DETACH_DEVICE:
		group = &sim.group[slot->group];
		if (group->how != BY_DEVICE || group->attached_dev != dev)
			break;
		/* iommu_detach_device() warns of a group with more devices */
		if (sim_has_sibling(slot))
			break;
		sim_detach(group);
		return 0;
	case SIM_ATTACH_PASID:
		/* "Caller must be a probed driver on dev" */
		if (!dev || !dev->iommu_group || !*user || slot->user_pasid[p] ||
		    (!slot->bound && !slot->claimed))
			break;
		return sim_attach_pasid(slot, p, *user);
	case SIM_DETACH_PASID:
		if (!dev || !slot->user_pasid[p])
			break;
		sim_detach_pasid(slot, p);
		return 0;
	case SIM_REPLACE_PASID:
		if (!dev || !slot->user_pasid[p] || !*user)
			break;
		return sim_replace_pasid(slot, p, *user);
	case SIM_SET_TYPE:
		if (!group->group)
			break;
		return iommu_sim_store_type(group->group, types[op->a % ARRAY_SIZE(types)]);
	case SIM_RESET_PREPARE:
		if (!dev || !(slot->flags & SIM_PCI) || slot->resetting)
			break;
		return sim_reset_prepare(slot);
	case SIM_RESET_DONE:
		if (!dev || !slot->resetting)
			break;
		return sim_reset_done(slot);
	case SIM_DMA_MAP:
		p = op->a % IOMMU_SIM_BUFS;
		if (!dev || !slot->bound || slot->resetting || slot->buf[p].live)
			break;
		return sim_dma_map(slot, p, 1 + op->b % 4);
	case SIM_DMA_UNMAP:
		p = op->a % IOMMU_SIM_BUFS;
		if (!dev || !slot->bound || !slot->buf[p].live)
			break;
		sim_unmap_buf(slot, p);
		return 0;
	case SIM_DEFERRED_ATTACH:
		if (!dev || !slot->bound || !dev->iommu_group || !dev->iommu->attach_deferred)
			break;
		return iommu_deferred_attach(dev, iommu_get_dma_domain(dev));
	}
	return IOMMU_SIM_NOT_NOW;
}

static bool sim_buf_ok(struct sim_slot *slot, struct sim_buf *buf)
{
	unsigned long at;

	for (at = 0; at < buf->size; at += PAGE_SIZE)
		if (sim_translate(sim_hw(slot), buf->iova + at) != page_to_phys(buf->page) + at)
			return false;
	return true;
}

/* Does a buffer lie where a device of the group has a region? */
static bool sim_buf_bad(struct sim_slot *slot, struct sim_buf *buf)
{
	unsigned int i, r;

	for (i = 0; i < IOMMU_SIM_DEVS; i++) {
		struct sim_slot *other = &sim.slot[i];

		if (!other->sdev || other->group != slot->group ||
		    !slot_dev(other)->iommu_group)
			continue;
		for (r = 0; r < other->nr_regions; r++)
			if (buf->iova < other->region[r].start + other->region[r].size &&
			    other->region[r].start < buf->iova + buf->size)
				return true;
	}
	return false;
}

static void sim_dev_state(struct sim_slot *slot, struct iommu_sim_dev_state *state)
{
	struct device *dev = slot_dev(slot);
	unsigned int i;

	state->flags = slot->used ? SIM_S_USED : 0;
	state->config = slot->group | (slot->flags & SIM_PCI ? SIM_C_PCI : 0) |
			(slot->flags & SIM_UNTRUSTED ? SIM_C_UNTRUSTED : 0) |
			(slot->flags & SIM_BEHIND_BRIDGE ? SIM_C_BEHIND_BRIDGE : 0) |
			(slot->flags & SIM_DEFERRED ? SIM_C_DEFERS : 0) |
			(slot->claimed ? SIM_C_CLAIMED : 0);
	state->hw = sim_domain_id(sim_hw(slot));
	state->own = sim_domain_id(slot->own);
	for (i = 0; i < IOMMU_SIM_PASIDS; i++) {
		state->pasid[i] = sim_domain_id(slot->pasid[i]);
		state->user_pasid[i] = sim_domain_id(slot->user_pasid[i]);
	}
	for (i = 0; i < slot->nr_regions; i++) {
		state->regions |= sim_is_direct(&slot->region[i]) << i;
		state->reach |= sim_reaches(slot, &slot->region[i]) << i;
		state->astray |= (sim_is_direct(&slot->region[i]) &&
				  sim_goes_astray(slot, &slot->region[i])) << i;
	}
	state->attaches = min(slot->attaches, 255u);
	state->lost = slot->lost;
	if (!dev)
		return;
	state->flags |= SIM_S_PRESENT | (dev->iommu_group ? SIM_S_GROUPED : 0) |
			(slot->bound ? SIM_S_BOUND : 0) |
			(slot->resetting ? SIM_S_RESETTING : 0);
	if (dev->iommu_group)
		state->flags |= dev->iommu->attach_deferred ? SIM_S_DEFERRED : 0;
	state->flags |= use_dma_iommu(dev) ? SIM_S_DMA_IOMMU : 0;
	for (i = 0; i < IOMMU_SIM_BUFS; i++) {
		if (!slot->buf[i].live)
			continue;
		state->bufs |= BIT(i);
		state->bufs_ok |= sim_buf_ok(slot, &slot->buf[i]) << i;
		/* Physical addresses are no IOVAs */
		if (use_dma_iommu(dev))
			state->bufs_bad |= sim_buf_bad(slot, &slot->buf[i]) << i;
	}
}

static void sim_group_state(struct sim_group *group, struct iommu_sim_group_state *state)
{
	struct iommu_sim_core core;

	iommu_sim_group_state(group->group, &core);
	state->exists = !!group->group;
	state->claimed = group->claimed;
	state->attached = sim_domain_id(group->attached);
	state->setup = group->setup;
	state->domain = sim_domain_id(core.domain);
	state->default_domain = sim_domain_id(core.default_domain);
	state->default_type = core.default_domain ? core.default_domain->type : 0;
	state->blocking_domain = sim_domain_id(core.blocking_domain);
	state->owner_cnt = min(core.owner_cnt, 255u);
	state->nr_devs = core.nr_devs;
	state->recovery_cnt = core.recovery_cnt;
	if (core.owner == &sim_owners[1] || core.owner == &sim_owners[2])
		state->owner = (u8 *)core.owner - sim_owners;
	else if (core.owner)
		state->owner = 3;
}

/* Run one operation, and report what the core and the hardware look like after it */
void iommu_sim_do(const struct iommu_sim_op *op, struct iommu_sim_state *state)
{
	unsigned int i;

	memset(state, 0, sizeof(*state));
	if (op->kind >= SIM_KINDS || op->dev >= IOMMU_SIM_DEVS ||
	    op->group >= IOMMU_SIM_GROUPS || op->domain >= IOMMU_SIM_DOMAINS) {
		state->ret = -ENOTTY;
		return;
	}
	sim.op = op;
	sim.fail_at = op->fail_at;
	sim.state = state;
	for (i = 0; i < IOMMU_SIM_DEVS; i++) {
		sim.slot[i].attaches = 0;
		sim.slot[i].lost = false;
	}
	current->fail_nth = op->fail_alloc;
	state->ret = sim_run(op);
	state->alloc_hit = op->fail_alloc && !current->fail_nth;
	current->fail_nth = 0;
	sim_update_groups();
	state->live_domains = min(sim.nr_domains, 255u);
	for (i = 0; i < IOMMU_SIM_DOMAINS; i++)
		state->user[i] = sim_domain_id(sim.user[i]);
	for (i = 0; i < IOMMU_SIM_GROUPS; i++)
		sim_group_state(&sim.group[i], &state->group[i]);
	for (i = 0; i < IOMMU_SIM_DEVS; i++)
		sim_dev_state(&sim.slot[i], &state->dev[i]);
}

static int sim_init_group(struct sim_group *group, unsigned int number)
{
	struct fwnode_handle *fwnode = fwnode_create_software_node(NULL, NULL);
	int ret;

	if (IS_ERR(fwnode))
		return PTR_ERR(fwnode);
	group->hwdev = root_device_register(number ? "iommu_sim1" : "iommu_sim0");
	if (IS_ERR(group->hwdev))
		return PTR_ERR(group->hwdev);
	device_set_node(group->hwdev, fwnode);
	group->ops = sim_ops;
	group->identity.type = IOMMU_DOMAIN_IDENTITY;
	group->identity.ops = &sim_static_ops;
	group->blocked.type = IOMMU_DOMAIN_BLOCKED;
	group->blocked.ops = &sim_static_ops;
	sim_set_up(group, SIM_HAS_IDENTITY | SIM_HAS_BLOCKED | SIM_HAS_RELEASE);
	group->iommu.max_pasids = 1 + IOMMU_SIM_PASIDS;
	/* A bridge from PCIe to PCI, whose own ID is that of all that is behind it */
	group->behind.parent = sim.root;
	group->behind.self = &group->bridge;
	group->behind.number = SIM_BUS + 1 + number;
	group->behind.ops = &sim_pci_ops;
	group->behind.sysdata = sim.root->sysdata;
	group->bridge.bus = sim.root;
	group->bridge.subordinate = &group->behind;
	group->bridge.pcie_cap = 0x40;
	group->bridge.pcie_flags_reg = PCI_EXP_TYPE_PCI_BRIDGE << 4;
	group->bridge.devfn = PCI_DEVFN(16 + number, 0);
	ret = iommu_device_sysfs_add(&group->iommu, group->hwdev, NULL, "iommu_sim%u", number);
	if (ret)
		return ret;
	return iommu_device_register(&group->iommu, &group->ops, group->hwdev);
}

int iommu_sim_init(void)
{
	static struct resource busn = {
		.name = "iommu_sim",
		.start = SIM_BUS,
		.end = SIM_BUS + 8,
		.flags = IORESOURCE_BUS,
	};
	LIST_HEAD(resources);
	unsigned int i, p;
	int ret;

	/* Once for all of those that run operations */
	if (sim.ready)
		return 0;
	/* What an earlier attempt has left is not taken back: there is no second one */
	if (sim.root)
		return -EBUSY;
	iommu_sim_failslab();
	INIT_LIST_HEAD(&sim.domains);
	sim.next_id = SIM_PAGING;
	sim.pages = alloc_pages(GFP_KERNEL, 2);
	pci_add_resource(&resources, &busn);
	sim.root = pci_create_root_bus(NULL, SIM_BUS, &sim_pci_ops, NULL, &resources);
	if (!sim.pages || !sim.root)
		return -ENOMEM;
	ret = bus_register(&sim_bus);
	if (!ret)
		ret = bus_register_notifier(&sim_bus, &iommu_sim_nb);
	if (!ret)
		ret = driver_register(&sim_driver);
	if (!ret)
		ret = pci_register_driver(&sim_pci_driver);
	for (i = 0; i < IOMMU_SIM_GROUPS && !ret; i++)
		ret = sim_init_group(&sim.group[i], i);
	for (i = 0; i < IOMMU_SIM_DEVS && !ret; i++) {
		for (p = 0; p < IOMMU_SIM_BUFS; p++) {
			sim.slot[i].buf[p].page = alloc_pages(GFP_KERNEL, 2);
			if (!sim.slot[i].buf[p].page)
				ret = -ENOMEM;
		}
	}
	sim.ready = !ret;
	return ret;
}
