// SPDX-License-Identifier: GPL-2.0-only
/*
 * A mock IOMMU driver for the KUnit tests of the IOMMU core.
 *
 * Devices sit on a bus of their own and are probed through the bus notifier,
 * as real ones are. A test chooses their reserved regions, their group, the
 * attaches that fail and the kinds of domain the driver has; the mock keeps a
 * log of every attach the core asks for and of what each device ended up with.
 *
 * It also holds the core to what drivers rely on: group->mutex is held when a
 * device of the group changes, and no page is mapped twice.
 */
#include <kunit/test.h>
#include <linux/device.h>
#include <linux/dma-map-ops.h>
#include <linux/dma-mapping.h>
#include <linux/iommu.h>
#include <linux/pci.h>
#include <linux/sizes.h>
#include <linux/xarray.h>

#include "iommu_kunit_compat.h"
#ifdef IOMMU_KUNIT_STATIC_DOMAINS
#include <linux/iommu-dma.h>
#endif

#define MOCK_MAX_DEVS		4
#define MOCK_MAX_REGIONS	4
#define MOCK_MAX_LOG		64
#define MOCK_MAX_RIDS		16
#define MOCK_NR_DEVFNS		256
#define MOCK_MAX_PASIDS		8

/* Where the first reserved region of a device lies */
#define MOCK_REGION		0x3e000000UL

struct mock_ctx;

struct mock_domain {
	struct iommu_domain domain;
	struct mock_ctx *ctx;
	struct list_head list;
	/* The page table: number of a page -> mock_pte() */
	struct xarray pages;
	bool freed;
};

struct mock_dev {
	/* A PCI device only while a test says so, see mock_as_pci() */
	struct pci_dev pci;
	DECLARE_BITMAP(alias, MOCK_NR_DEVFNS);
	struct mock_ctx *ctx;
	/* Chosen by the test before mock_add() */
	struct {
		enum iommu_resv_type type;
		unsigned long start;
		size_t size;
		int prot;
	} region[MOCK_MAX_REGIONS];
	unsigned int nr_regions;
	/* There is no memory to list them */
	bool regions_fail;
	/* Or not once it has been attached, when the DMA API asks for them */
	bool regions_fail_later;
	bool defer;
	/* The ID by which its IOMMU knows it; 0: firmware does not say */
	u32 stream;
	/* And one more, if not 0 */
	u32 second_stream;
	/* An attach to one of these domains returns that error */
	struct iommu_domain *fail_domain;
	struct iommu_domain *fail_too;
	int fail_ret;
	/* As does one to any domain with page tables */
	bool fail_paging;
	/* And so many attaches, whatever the domain */
	unsigned int fail_next;
	/* So does one of a PASID */
	struct iommu_domain *fail_pasid;
	u32 max_pasids;
	/* The last attach failed, and then the device was put elsewhere or left behind */
	bool failed;
	bool stuck;
	/* Something was attached since it was probed */
	bool attached;
	/* What the "hardware" translates this device with, released or not */
	struct iommu_domain *hw;
	struct iommu_domain *pasid_hw[MOCK_MAX_PASIDS];
	bool added;
	/* How often the driver was told to let go of it */
	unsigned int nr_released;
};

struct mock_attach {
	struct mock_dev *mdev;
	struct iommu_domain *domain;
	int ret;
	/* Whether the domain had the first region of the device mapped by then */
	bool mapped;
	/* How often all of a domain had been flushed */
	unsigned int nr_flush_all;
};

struct mock_ctx {
	struct kunit *test;
	struct iommu_device iommu;
	struct iommu_ops ops;
	struct fwnode_handle fwnode;
	struct iommu_domain identity;
	struct iommu_domain blocked;
	bool no_blocked;
	/* A root bus, and one behind a bridge that has one requester ID for all */
	struct pci_bus pci_bus;
	struct pci_bus pci_behind;
	struct pci_dev pci_bridge;
	/* Architectures look into it; all zero is fine for those with an IOMMU */
	unsigned long pci_sysdata[32];
	/* What the "hardware" has for a requester ID: who comes last, wins */
	struct {
		u16 id;
		struct iommu_domain *domain;
	} rid[MOCK_MAX_RIDS];
	unsigned int nr_rids;
	struct iommu_group *group;
	struct list_head domains;
	struct mock_dev *devs[MOCK_MAX_DEVS];
	unsigned int nr_devs;
	struct mock_attach log[MOCK_MAX_LOG];
	unsigned int nr_log;
	/* Chosen by the test: default domain type, and a region not to map */
	int def_type;
	unsigned long fail_map;
	/* Where the addresses of its domains begin */
	dma_addr_t aperture_start;
	/* How the last page was mapped */
	int last_prot;
	/* There is no memory for another domain */
	bool fail_alloc;
	/* How often the driver was asked to flush what was mapped */
	unsigned int nr_flush;
	/* And all that hardware may have cached of a domain */
	unsigned int nr_flush_all;
	/* Domains that went away */
	unsigned int nr_freed;
	/* A domain went away while a device was still attached to it */
	unsigned int freed_in_use;
	/* Reserved regions that were handed out and not given back yet */
	unsigned int nr_lent;
	/* The thread that stops in one of the next callbacks, for another one to run */
	struct task_struct *stop_task;
	unsigned int stop_at;
	struct completion stopped;
};

static inline struct mock_dev *to_mock_dev(struct device *dev)
{
	return container_of(dev, struct mock_dev, pci.dev);
}

static inline struct mock_domain *to_mock_domain(struct iommu_domain *domain)
{
	return container_of(domain, struct mock_domain, domain);
}

static void mock_stop(struct mock_ctx *ctx)
{
	if (current != ctx->stop_task || ctx->stop_at--)
		return;
	ctx->stop_task = NULL;
	complete(&ctx->stopped);
	/* Time for the other one, which sleeps or ends soon */
	schedule_timeout_uninterruptible(2);
}

/* The core must not do two things to a group at a time */
static void mock_assert_locked(struct device *dev)
{
	struct iommu_group *group = dev->iommu_group;

	KUNIT_EXPECT_NOT_NULL(to_mock_dev(dev)->ctx->test, group);
	if (!group)
		return;
	lockdep_assert_held(&group->mutex);
	KUNIT_EXPECT_TRUE(to_mock_dev(dev)->ctx->test,
			  mutex_is_locked(&group->mutex));
}

/* An entry of a page table; pages are of 4 KiB, so twelve bits are free */
static void *mock_pte(phys_addr_t phys, int prot)
{
	return xa_mk_value(phys | (prot & (IOMMU_READ | IOMMU_WRITE)));
}

static phys_addr_t mock_pte_phys(void *pte)
{
	return xa_to_value(pte) & ~(SZ_4K - 1UL);
}

/* Do all DMA accesses of these kinds to this memory get there? */
static bool mock_domain_reaches(struct iommu_domain *domain,
				unsigned long start, size_t size, int prot)
{
	struct mock_domain *mdom;
	unsigned long addr;
	void *pte;

	if (!domain || domain->type == IOMMU_DOMAIN_BLOCKED)
		return false;
	if (domain->type == IOMMU_DOMAIN_IDENTITY)
		return true;
	mdom = to_mock_domain(domain);
	for (addr = start; addr < start + size; addr += SZ_4K) {
		pte = xa_load(&mdom->pages, addr / SZ_4K);
		if (!pte || mock_pte_phys(pte) != addr ||
		    (xa_to_value(pte) & prot) != prot)
			return false;
	}
	return true;
}

static bool mock_region_reached(struct mock_dev *mdev, unsigned int n,
				struct iommu_domain *domain)
{
	return n < mdev->nr_regions &&
	       mock_domain_reaches(domain, mdev->region[n].start,
				   mdev->region[n].size, mdev->region[n].prot);
}

struct mock_set_rid {
	struct mock_ctx *ctx;
	struct iommu_domain *domain;
};

static int mock_set_rid(struct pci_dev *pdev, u16 id, void *data)
{
	struct mock_set_rid *set = data;
	struct mock_ctx *ctx = set->ctx;
	unsigned int i;

	for (i = 0; i < ctx->nr_rids; i++)
		if (ctx->rid[i].id == id)
			break;
	if (i == MOCK_MAX_RIDS) {
		KUNIT_FAIL(ctx->test, "the table of requester IDs is full");
		return -ENOSPC;
	}
	ctx->rid[i].id = id;
	ctx->rid[i].domain = set->domain;
	if (i == ctx->nr_rids)
		ctx->nr_rids++;
	return 0;
}

static int mock_attach_dev(struct iommu_domain *domain,
#ifdef IOMMU_KUNIT_OLD_DOMAIN
			   struct device *dev, struct iommu_domain *old)
#else
			   struct device *dev)
#endif
{
	struct mock_dev *mdev = to_mock_dev(dev);
	struct mock_ctx *ctx = mdev->ctx;
	struct mock_set_rid set = { .ctx = ctx, .domain = domain };
	int ret = 0;

	if (domain == mdev->fail_domain || domain == mdev->fail_too ||
	    (mdev->fail_paging && domain->type & __IOMMU_DOMAIN_PAGING) ||
	    mdev->fail_next)
		ret = mdev->fail_ret;
	if (mdev->fail_next)
		mdev->fail_next--;
	mock_stop(ctx);
#ifndef IOMMU_KUNIT_DEFERRED_LOCKED
	if (!mdev->defer)
#endif
		mock_assert_locked(dev);
	if (ctx->nr_log < MOCK_MAX_LOG)
		ctx->log[ctx->nr_log++] = (struct mock_attach){
			.mdev = mdev,
			.domain = domain,
			.ret = ret,
			.mapped = mock_region_reached(mdev, 0, domain),
			.nr_flush_all = ctx->nr_flush_all,
		};
	else
		KUNIT_FAIL(ctx->test, "the log of attaches is full");
#ifdef IOMMU_KUNIT_OLD_DOMAIN
	/* What the core says that the device leaves must be so, while it can know */
	if (mdev->attached && !mdev->stuck)
		KUNIT_EXPECT_PTR_EQ(ctx->test, old, mdev->hw);
#endif
	if (ret) {
		mdev->failed = true;
		return ret;
	}
	mdev->stuck = mdev->failed;
	mdev->failed = false;
	mdev->attached = true;
	mdev->hw = domain;
	return pci_for_each_dma_alias(&mdev->pci, mock_set_rid, &set);
}

#ifdef IOMMU_KUNIT_STATIC_DOMAINS
static int mock_set_dev_pasid(struct iommu_domain *domain, struct device *dev,
			      ioasid_t pasid, struct iommu_domain *old)
{
	struct mock_dev *mdev = to_mock_dev(dev);

	mock_assert_locked(dev);
	KUNIT_EXPECT_LT(mdev->ctx->test, pasid, MOCK_MAX_PASIDS);
	if (pasid >= MOCK_MAX_PASIDS)
		return -EINVAL;
	/* What the core says of a PASID must be so */
	if (old)
		KUNIT_EXPECT_PTR_EQ(mdev->ctx->test, old, mdev->pasid_hw[pasid]);
	if (domain == mdev->fail_pasid)
		return mdev->fail_ret;
	mdev->pasid_hw[pasid] = domain;
	return 0;
}
#endif

#ifdef IOMMU_KUNIT_REMOVE_PASID
static void mock_remove_dev_pasid(struct device *dev, ioasid_t pasid,
				  struct iommu_domain *domain)
{
	struct mock_dev *mdev = to_mock_dev(dev);

	mock_set_dev_pasid(&mdev->ctx->blocked, dev, pasid, domain);
}
#endif

/* As page tables do, map page by page, up to the first that cannot be mapped */
static int mock_map_pages(struct iommu_domain *domain, unsigned long iova,
			  phys_addr_t paddr, size_t pgsize, size_t pgcount,
			  int prot, gfp_t gfp, size_t *mapped)
{
	struct mock_domain *mdom = to_mock_domain(domain);
	int ret;

	mock_stop(mdom->ctx);
	for (; pgcount; pgcount--) {
		if (iova == mdom->ctx->fail_map)
			return -ENOMEM;
		mdom->ctx->last_prot = prot;
		ret = xa_insert(&mdom->pages, iova / SZ_4K, mock_pte(paddr, prot), gfp);
		if (ret == -EBUSY)
			KUNIT_FAIL(mdom->ctx->test, "%lx is mapped already", iova);
		if (ret)
			return ret;
		*mapped += pgsize;
		iova += pgsize;
		paddr += pgsize;
	}
	return 0;
}

static size_t mock_unmap_pages(struct iommu_domain *domain, unsigned long iova,
			       size_t pgsize, size_t pgcount,
			       struct iommu_iotlb_gather *gather)
{
	struct mock_domain *mdom = to_mock_domain(domain);
	size_t done = 0;

	while (pgcount-- && xa_erase(&mdom->pages, (iova + done) / SZ_4K))
		done += pgsize;
	return done;
}

static phys_addr_t mock_iova_to_phys(struct iommu_domain *domain,
				     dma_addr_t iova)
{
	void *pte = xa_load(&to_mock_domain(domain)->pages, iova / SZ_4K);

	return pte ? mock_pte_phys(pte) | (iova & (SZ_4K - 1)) : 0;
}

/*
 * The memory stays until the test case ends: a core that frees a domain too
 * early then fails an expectation, where it would take the kernel down.
 */
static void mock_domain_free(struct iommu_domain *domain)
{
	struct mock_domain *mdom = to_mock_domain(domain);
	struct mock_ctx *ctx = mdom->ctx;
	unsigned int i, pasid;

	mock_stop(ctx);
	KUNIT_EXPECT_FALSE_MSG(ctx->test, mdom->freed, "a domain is freed again");
	mdom->freed = true;
	ctx->nr_freed++;
	for (i = 0; i < ctx->nr_devs; i++) {
		if (ctx->devs[i]->hw == domain)
			ctx->freed_in_use++;
		for (pasid = 0; pasid < MOCK_MAX_PASIDS; pasid++)
			if (ctx->devs[i]->pasid_hw[pasid] == domain)
				ctx->freed_in_use++;
	}
}

#ifdef IOMMU_KUNIT_OLD_DOMAIN
/* iommu_map() flushes what it has mapped */
static int mock_iotlb_sync_map(struct iommu_domain *domain, unsigned long iova,
			       size_t size)
{
	to_mock_domain(domain)->ctx->nr_flush++;
	return 0;
}
#endif

static void mock_flush_iotlb_all(struct iommu_domain *domain)
{
	to_mock_domain(domain)->ctx->nr_flush_all++;
#ifndef IOMMU_KUNIT_OLD_DOMAIN
	/* The caller of iommu_map() flushes */
	to_mock_domain(domain)->ctx->nr_flush++;
#endif
}

static const struct iommu_domain_ops mock_paging_ops = {
	.attach_dev = mock_attach_dev,
#ifdef IOMMU_KUNIT_OLD_DOMAIN
	.iotlb_sync_map = mock_iotlb_sync_map,
#endif
	.flush_iotlb_all = mock_flush_iotlb_all,
	.map_pages = mock_map_pages,
	.unmap_pages = mock_unmap_pages,
	.iova_to_phys = mock_iova_to_phys,
#ifdef IOMMU_KUNIT_STATIC_DOMAINS
	.set_dev_pasid = mock_set_dev_pasid,
#endif
	.free = mock_domain_free,
};

static struct iommu_domain *__mock_alloc_paging(struct mock_ctx *ctx)
{
	struct mock_domain *mdom = kzalloc_obj(*mdom);

	mock_stop(ctx);
	if (!mdom)
		return NULL;
	if (ctx->fail_alloc) {
		kfree(mdom);
		return NULL;
	}
	mdom->ctx = ctx;
	xa_init(&mdom->pages);
	mdom->domain.ops = &mock_paging_ops;
	mdom->domain.pgsize_bitmap = SZ_4K;
	mdom->domain.geometry.aperture_start = ctx->aperture_start;
	mdom->domain.geometry.aperture_end = DMA_BIT_MASK(48);
	mdom->domain.geometry.force_aperture = true;
	list_add_tail(&mdom->list, &ctx->domains);
	return &mdom->domain;
}

#ifdef IOMMU_KUNIT_STATIC_DOMAINS
static struct iommu_domain *mock_alloc_paging(struct device *dev)
{
	return __mock_alloc_paging(to_mock_dev(dev)->ctx);
}
#else
/* The ctx of the test that runs, for callbacks that get neither device nor domain */
static struct mock_ctx *mock_now;

static struct iommu_domain *mock_domain_alloc(unsigned int type)
{
	struct mock_ctx *ctx = mock_now;

	if (type == IOMMU_DOMAIN_IDENTITY)
		return &ctx->identity;
	if (type == IOMMU_DOMAIN_BLOCKED)
		return ctx->no_blocked ? NULL : &ctx->blocked;
	return __mock_alloc_paging(ctx);
}

/* What is static here is a domain like any other to this kernel */
static void mock_static_free(struct iommu_domain *domain)
{
}
#endif

/* Real drivers have no page tables here that they could flush, and may crash */
static void mock_flush_static(struct iommu_domain *domain)
{
	struct mock_ctx *ctx = domain->type == IOMMU_DOMAIN_IDENTITY ?
			       container_of(domain, struct mock_ctx, identity) :
			       container_of(domain, struct mock_ctx, blocked);

	KUNIT_FAIL(ctx->test, "flush of a domain without page tables");
}

static const struct iommu_domain_ops mock_static_ops = {
	.attach_dev = mock_attach_dev,
	.flush_iotlb_all = mock_flush_static,
#ifdef IOMMU_KUNIT_STATIC_DOMAINS
	.set_dev_pasid = mock_set_dev_pasid,
#else
	.free = mock_static_free,
#endif
};

static struct iommu_device *mock_probe_device(struct device *dev)
{
	mock_stop(to_mock_dev(dev)->ctx);
	to_mock_dev(dev)->attached = false;
	return &to_mock_dev(dev)->ctx->iommu;
}

/*
 * The core has attached a driver's release_domain by now. Where there is none
 * the driver cuts the device off.
 */
static void mock_release_device(struct device *dev)
{
	struct mock_dev *mdev = to_mock_dev(dev);

	mdev->nr_released++;
#ifdef IOMMU_KUNIT_STATIC_DOMAINS
	/* A probe that failed before device_group() has none */
	if (dev->iommu_group)
		mock_assert_locked(dev);
	if (mdev->ctx->ops.release_domain)
		return;
#endif
	mdev->hw = NULL;
}

static struct iommu_group *mock_device_group(struct device *dev)
{
	struct mock_ctx *ctx = to_mock_dev(dev)->ctx;

	mock_stop(ctx);
	/* The first reference is the test's own: the group outlives its devices */
	if (!ctx->group) {
		struct iommu_group *group = iommu_group_alloc();

		if (IS_ERR(group))
			return group;
		ctx->group = group;
	}
	return iommu_group_ref_get(ctx->group);
}

static void mock_put_resv_region(struct device *dev,
				 struct iommu_resv_region *region)
{
	to_mock_dev(dev)->ctx->nr_lent--;
	kfree(region);
}

static iommu_kunit_resv_t mock_get_resv_regions(struct device *dev,
						struct list_head *head)
{
	struct mock_dev *mdev = to_mock_dev(dev);
	struct iommu_resv_region *region;
	unsigned int i;

	mock_stop(mdev->ctx);
	if (mdev->regions_fail || (mdev->regions_fail_later && mdev->attached))
		return (iommu_kunit_resv_t)-ENOMEM;
	for (i = 0; i < mdev->nr_regions; i++) {
		region = iommu_alloc_resv_region(mdev->region[i].start,
						 mdev->region[i].size,
						 mdev->region[i].prot,
						 mdev->region[i].type,
						 GFP_KERNEL);
		if (!region) {
			KUNIT_FAIL(mdev->ctx->test, "no memory for a region");
			return (iommu_kunit_resv_t)-ENOMEM;
		}
		region->free = mock_put_resv_region;
		mdev->ctx->nr_lent++;
		list_add_tail(&region->list, head);
	}
	return (iommu_kunit_resv_t)0;
}

static bool mock_is_attach_deferred(struct device *dev)
{
	mock_stop(to_mock_dev(dev)->ctx);
	return to_mock_dev(dev)->defer;
}

static int mock_def_domain_type(struct device *dev)
{
	mock_stop(to_mock_dev(dev)->ctx);
	mock_assert_locked(dev);
	return to_mock_dev(dev)->ctx->def_type;
}

static const struct iommu_ops mock_iommu_ops = {
#ifdef IOMMU_KUNIT_STATIC_DOMAINS
	.domain_alloc_paging = mock_alloc_paging,
#else
	.domain_alloc = mock_domain_alloc,
#endif
	.probe_device = mock_probe_device,
	.release_device = mock_release_device,
	.device_group = mock_device_group,
	.get_resv_regions = mock_get_resv_regions,
	.is_attach_deferred = mock_is_attach_deferred,
	.def_domain_type = mock_def_domain_type,
#ifdef IOMMU_KUNIT_REMOVE_PASID
	.remove_dev_pasid = mock_remove_dev_pasid,
#endif
	.default_domain_ops = &mock_paging_ops,
};
