// SPDX-License-Identifier: GPL-2.0-only
/*
 * A mock IOMMU driver for the KUnit tests of the IOMMU core.
 *
 * Devices sit on a bus of their own and are probed through the bus notifier,
 * as real ones are. A test chooses their reserved regions, their group, the
 * attaches that fail and the kinds of domain the driver has; the mock keeps a
 * log of every attach the core asks for and of what each device ended up with.
 */
#include <kunit/test.h>
#include <kunit/test-bug.h>
#include <linux/device.h>
#include <linux/iommu.h>
#include <linux/pci.h>
#include <linux/sizes.h>

#include "iommu_kunit_compat.h"

#define MOCK_MAX_DEVS		4
#define MOCK_MAX_REGIONS	4
#define MOCK_MAX_MAPPINGS	8
#define MOCK_MAX_LOG		32

/* Where the first reserved region of a device lies, one page */
#define MOCK_REGION		0x3e000000UL

struct mock_ctx;

struct mock_domain {
	struct iommu_domain domain;
	struct mock_ctx *ctx;
	struct list_head list;
	struct {
		unsigned long iova;
		size_t size;
	} map[MOCK_MAX_MAPPINGS];
	unsigned int nr_map;
};

struct mock_dev {
	/* A PCI device only while a test says so, see mock_as_pci() */
	struct pci_dev pci;
	struct mock_ctx *ctx;
	/* Chosen by the test before mock_add() */
	struct {
		enum iommu_resv_type type;
		unsigned long start;
	} region[MOCK_MAX_REGIONS];
	unsigned int nr_regions;
	bool defer;
	/* An attach to one of these domains returns that error */
	struct iommu_domain *fail_domain;
	struct iommu_domain *fail_too;
	int fail_ret;
	/* What the "hardware" translates this device with, released or not */
	struct iommu_domain *hw;
	bool added;
};

struct mock_attach {
	struct mock_dev *mdev;
	struct iommu_domain *domain;
	int ret;
	/* Whether the domain had the first region of the device mapped by then */
	bool mapped;
};

struct mock_ctx {
	struct kunit *test;
	struct iommu_device iommu;
	struct iommu_ops ops;
	struct fwnode_handle fwnode;
	struct iommu_domain identity;
	struct iommu_domain blocked;
	bool no_blocked;
	struct pci_bus pci_bus;
	/* Architectures look into it; all zero is fine for those with an IOMMU */
	unsigned long pci_sysdata[32];
	struct iommu_group *group;
	struct list_head domains;
	struct mock_dev *devs[MOCK_MAX_DEVS];
	unsigned int nr_devs;
	struct mock_attach log[MOCK_MAX_LOG];
	unsigned int nr_log;
	/* Chosen by the test: default domain type, and a region not to map */
	int def_type;
	unsigned long fail_map;
	/* How often the driver was asked to flush what was mapped */
	unsigned int nr_flush;
	/* A domain went away while a device was still attached to it */
	unsigned int freed_in_use;
	/* Reserved regions that were handed out and not given back yet */
	unsigned int nr_lent;
};

static inline struct mock_dev *to_mock_dev(struct device *dev)
{
	return container_of(dev, struct mock_dev, pci.dev);
}

static inline struct mock_domain *to_mock_domain(struct iommu_domain *domain)
{
	return container_of(domain, struct mock_domain, domain);
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
	int ret = domain == mdev->fail_domain || domain == mdev->fail_too ?
		  mdev->fail_ret : 0;

	if (ctx->nr_log < MOCK_MAX_LOG)
		ctx->log[ctx->nr_log++] = (struct mock_attach){
			.mdev = mdev,
			.domain = domain,
			.ret = ret,
			.mapped = mdev->nr_regions &&
				  iommu_iova_to_phys(domain, mdev->region[0].start),
		};
	else
		KUNIT_FAIL(ctx->test, "the log of attaches is full");
	if (!ret)
		mdev->hw = domain;
	return ret;
}

static int mock_map_pages(struct iommu_domain *domain, unsigned long iova,
			  phys_addr_t paddr, size_t pgsize, size_t pgcount,
			  int prot, gfp_t gfp, size_t *mapped)
{
	struct mock_domain *mdom = to_mock_domain(domain);

	if (iova == mdom->ctx->fail_map || mdom->nr_map == MOCK_MAX_MAPPINGS)
		return -ENOMEM;
	/* Nothing but 1:1 is ever mapped here */
	if (iova != paddr)
		return -EINVAL;
	mdom->map[mdom->nr_map].iova = iova;
	mdom->map[mdom->nr_map++].size = pgsize * pgcount;
	*mapped = pgsize * pgcount;
	return 0;
}

static size_t mock_unmap_pages(struct iommu_domain *domain, unsigned long iova,
			       size_t pgsize, size_t pgcount,
			       struct iommu_iotlb_gather *gather)
{
	return pgsize * pgcount;
}

static phys_addr_t mock_iova_to_phys(struct iommu_domain *domain,
				     dma_addr_t iova)
{
	struct mock_domain *mdom = to_mock_domain(domain);
	unsigned int i;

	for (i = 0; i < mdom->nr_map; i++)
		if (iova >= mdom->map[i].iova &&
		    iova - mdom->map[i].iova < mdom->map[i].size)
			return iova;
	return 0;
}

/*
 * The memory stays until the test case ends: a core that frees a domain too
 * early then fails an expectation, where it would take the kernel down.
 */
static void mock_domain_free(struct iommu_domain *domain)
{
	struct mock_domain *mdom = to_mock_domain(domain);
	struct mock_ctx *ctx = mdom->ctx;
	unsigned int i;

	for (i = 0; i < ctx->nr_devs; i++)
		if (ctx->devs[i]->hw == domain)
			ctx->freed_in_use++;
}

#ifdef IOMMU_KUNIT_OLD_DOMAIN
/* iommu_map() flushes what it has mapped */
static int mock_iotlb_sync_map(struct iommu_domain *domain, unsigned long iova,
			       size_t size)
{
	to_mock_domain(domain)->ctx->nr_flush++;
	return 0;
}
#else
/* Whoever maps something flushes it */
static void mock_flush_iotlb_all(struct iommu_domain *domain)
{
	to_mock_domain(domain)->ctx->nr_flush++;
}
#endif

static const struct iommu_domain_ops mock_paging_ops = {
	.attach_dev = mock_attach_dev,
#ifdef IOMMU_KUNIT_OLD_DOMAIN
	.iotlb_sync_map = mock_iotlb_sync_map,
#else
	.flush_iotlb_all = mock_flush_iotlb_all,
#endif
	.map_pages = mock_map_pages,
	.unmap_pages = mock_unmap_pages,
	.iova_to_phys = mock_iova_to_phys,
	.free = mock_domain_free,
};

static struct iommu_domain *__mock_alloc_paging(struct mock_ctx *ctx)
{
	struct mock_domain *mdom = kzalloc(sizeof(*mdom), GFP_KERNEL);

	if (!mdom)
		return NULL;
	mdom->ctx = ctx;
	mdom->domain.ops = &mock_paging_ops;
	mdom->domain.pgsize_bitmap = SZ_4K;
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
static struct iommu_domain *mock_domain_alloc(unsigned int type)
{
	struct mock_ctx *ctx = kunit_get_current_test()->priv;

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
	KUNIT_FAIL(kunit_get_current_test(), "flush of a domain without page tables");
}

static const struct iommu_domain_ops mock_static_ops = {
	.attach_dev = mock_attach_dev,
	.flush_iotlb_all = mock_flush_static,
#ifndef IOMMU_KUNIT_STATIC_DOMAINS
	.free = mock_static_free,
#endif
};

static struct iommu_device *mock_probe_device(struct device *dev)
{
	return &to_mock_dev(dev)->ctx->iommu;
}

/*
 * The core has attached a driver's release_domain by now. Where there is none
 * the driver cuts the device off.
 */
static void mock_release_device(struct device *dev)
{
	struct mock_dev *mdev = to_mock_dev(dev);

#ifdef IOMMU_KUNIT_STATIC_DOMAINS
	if (mdev->ctx->ops.release_domain)
		return;
#endif
	mdev->hw = NULL;
}

static struct iommu_group *mock_device_group(struct device *dev)
{
	struct mock_ctx *ctx = to_mock_dev(dev)->ctx;

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

static void mock_get_resv_regions(struct device *dev, struct list_head *head)
{
	struct mock_dev *mdev = to_mock_dev(dev);
	struct iommu_resv_region *region;
	unsigned int i;

	for (i = 0; i < mdev->nr_regions; i++) {
		region = iommu_alloc_resv_region(mdev->region[i].start, SZ_4K,
						 IOMMU_READ | IOMMU_WRITE,
						 mdev->region[i].type,
						 GFP_KERNEL);
		if (!region) {
			KUNIT_FAIL(mdev->ctx->test, "no memory for a region");
			return;
		}
		region->free = mock_put_resv_region;
		mdev->ctx->nr_lent++;
		list_add_tail(&region->list, head);
	}
}

static bool mock_is_attach_deferred(struct device *dev)
{
	return to_mock_dev(dev)->defer;
}

static int mock_def_domain_type(struct device *dev)
{
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
	.default_domain_ops = &mock_paging_ops,
};

static const struct fwnode_operations mock_fwnode_ops;

static struct bus_type mock_bus = {
	.name = "iommu_kunit",
};

static struct notifier_block mock_bus_nb = {
	.notifier_call = iommu_bus_notifier,
};

static int mock_suite_init(struct kunit_suite *suite)
{
	int ret = bus_register(&mock_bus);

	if (ret)
		return ret;
	ret = bus_register_notifier(&mock_bus, &mock_bus_nb);
	if (ret)
		bus_unregister(&mock_bus);
	return ret;
}

static void mock_suite_exit(struct kunit_suite *suite)
{
	bus_unregister_notifier(&mock_bus, &mock_bus_nb);
	bus_unregister(&mock_bus);
}

static int mock_init(struct kunit *test)
{
	struct mock_ctx *ctx = kunit_kzalloc(test, sizeof(*ctx), GFP_KERNEL);
	int ret;

	if (!ctx)
		return -ENOMEM;
	ctx->test = test;
	ctx->ops = mock_iommu_ops;
#ifdef IOMMU_KUNIT_STATIC_DOMAINS
	ctx->ops.identity_domain = &ctx->identity;
	ctx->ops.blocked_domain = &ctx->blocked;
#endif
	ctx->identity.type = IOMMU_DOMAIN_IDENTITY;
	ctx->identity.ops = &mock_static_ops;
	ctx->blocked.type = IOMMU_DOMAIN_BLOCKED;
	ctx->blocked.ops = &mock_static_ops;
	ctx->pci_bus.sysdata = ctx->pci_sysdata;
	ctx->def_type = IOMMU_DOMAIN_DMA;
	INIT_LIST_HEAD(&ctx->domains);
	fwnode_init(&ctx->fwnode, &mock_fwnode_ops);

	ret = iommu_device_sysfs_add(&ctx->iommu, NULL, NULL, "iommu_kunit");
	if (ret)
		return ret;
	ctx->iommu.ops = &ctx->ops;
#ifdef IOMMU_KUNIT_STATIC_DOMAINS
	/*
	 * iommu_device_register() would offer this driver to the devices of
	 * every bus, and iommu_device_register_bus() is there for the iommufd
	 * selftest only, so put it on the list by hand. Only devices that name
	 * ctx->fwnode find it.
	 */
	ctx->iommu.fwnode = &ctx->fwnode;
#ifdef IOMMU_KUNIT_OLD_DOMAIN
	ctx->iommu.ready = true;
#endif
	spin_lock(&iommu_device_lock);
	list_add_tail(&ctx->iommu.list, &iommu_device_list);
	spin_unlock(&iommu_device_lock);
#else
	mock_bus.iommu_ops = &ctx->ops;
#endif
	test->priv = ctx;
	return 0;
}

/* A device is removed as hotplug does it */
static void mock_del(struct mock_dev *mdev)
{
	if (!mdev->added)
		return;
	/* A test that was aborted may have left it a PCI device */
	mdev->pci.dev.bus = &mock_bus;
	device_del(&mdev->pci.dev);
	mdev->added = false;
}

static void mock_set_default_domain(struct mock_ctx *ctx)
{
	mutex_lock(&ctx->group->mutex);
	__iommu_group_set_domain(ctx->group, ctx->group->default_domain);
	mutex_unlock(&ctx->group->mutex);
}

static void mock_exit(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_domain *mdom, *next;
	unsigned int i;

	if (!ctx)
		return;
	/* The core warns of a group that goes away claimed or in a foreign domain */
	if (ctx->group && ctx->group->owner)
		iommu_group_release_dma_owner(ctx->group);
	if (ctx->group && ctx->group->default_domain)
		mock_set_default_domain(ctx);
	for (i = ctx->nr_devs; i-- > 0;)
		mock_del(ctx->devs[i]);
	if (ctx->group)
		iommu_group_put(ctx->group);
	/* Not before the last domain is gone: its end looks at every device */
	for (i = 0; i < ctx->nr_devs; i++)
		put_device(&ctx->devs[i]->pci.dev);
	KUNIT_EXPECT_EQ(test, 0, ctx->freed_in_use);
	KUNIT_EXPECT_EQ(test, 0, ctx->nr_lent);
	list_for_each_entry_safe(mdom, next, &ctx->domains, list)
		kfree(mdom);
#ifdef IOMMU_KUNIT_STATIC_DOMAINS
	spin_lock(&iommu_device_lock);
	list_del(&ctx->iommu.list);
	spin_unlock(&iommu_device_lock);
#else
	mock_bus.iommu_ops = NULL;
#endif
	iommu_device_sysfs_remove(&ctx->iommu);
}

/* The devices are freed by mock_exit(), after the core has let go of them */
static void mock_dev_release(struct device *dev)
{
	kfree(to_mock_dev(dev));
}

/* Make a device; the test may set it up further before mock_add() */
static struct mock_dev *mock_new(struct mock_ctx *ctx)
{
	struct mock_dev *mdev;

	KUNIT_ASSERT_LT(ctx->test, ctx->nr_devs, MOCK_MAX_DEVS);
	mdev = kzalloc(sizeof(*mdev), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(ctx->test, mdev);
	mdev->ctx = ctx;
	device_initialize(&mdev->pci.dev);
	mdev->pci.dev.bus = &mock_bus;
	mdev->pci.dev.release = mock_dev_release;
	ctx->devs[ctx->nr_devs++] = mdev;
	KUNIT_ASSERT_EQ(ctx->test, 0,
			dev_set_name(&mdev->pci.dev, "iommu_kunit%u", ctx->nr_devs));
	mdev->pci.bus = &ctx->pci_bus;
	mdev->pci.devfn = PCI_DEVFN(ctx->nr_devs, 0);
	return mdev;
}

static void mock_region(struct mock_dev *mdev, enum iommu_resv_type type)
{
	unsigned int i = mdev->nr_regions;

	KUNIT_ASSERT_LT(mdev->ctx->test, i, MOCK_MAX_REGIONS);
	mdev->region[i].type = type;
	mdev->region[i].start = MOCK_REGION + i * SZ_1M;
	mdev->nr_regions++;
}

/* Take the driver its blocked domain; before the first device is plugged in */
static void mock_no_blocked(struct mock_ctx *ctx)
{
	ctx->no_blocked = true;
#ifdef IOMMU_KUNIT_STATIC_DOMAINS
	ctx->ops.blocked_domain = NULL;
#endif
}

/* Say which IOMMU a device has, as firmware's tables do */
static void mock_find_iommu(struct mock_dev *mdev)
{
#ifdef IOMMU_KUNIT_STATIC_DOMAINS
	struct mock_ctx *ctx = mdev->ctx;
	int ret;

	mutex_lock(&iommu_probe_device_lock);
	ret = iommu_fwspec_init(&mdev->pci.dev, &ctx->fwnode);
	mutex_unlock(&iommu_probe_device_lock);
	KUNIT_ASSERT_EQ(ctx->test, 0, ret);
#endif
}

/*
 * Plug a device in. Nobody hears of a probe that fails, so tell whether the
 * device is in a group.
 */
static bool mock_add(struct mock_dev *mdev)
{
	struct mock_ctx *ctx = mdev->ctx;
	int ret;

	mock_find_iommu(mdev);
	ret = device_add(&mdev->pci.dev);
	KUNIT_ASSERT_EQ(ctx->test, 0, ret);
	mdev->added = true;
	return mdev->pci.dev.iommu_group;
}

/* A device with these regions, plugged in */
static struct mock_dev *__mock_dev(struct mock_ctx *ctx,
				   const enum iommu_resv_type *types,
				   unsigned int nr)
{
	struct mock_dev *mdev = mock_new(ctx);
	unsigned int i;

	for (i = 0; i < nr; i++)
		mock_region(mdev, types[i]);
	KUNIT_ASSERT_TRUE(ctx->test, mock_add(mdev));
	return mdev;
}

#define mock_dev_with(ctx, ...) ({					\
	const enum iommu_resv_type __types[] = { __VA_ARGS__ };		\
	__mock_dev(ctx, __types, ARRAY_SIZE(__types));			\
})

static struct mock_dev *mock_plain(struct mock_ctx *ctx)
{
	return __mock_dev(ctx, NULL, 0);
}

static struct mock_dev *mock_direct(struct mock_ctx *ctx)
{
	return mock_dev_with(ctx, IOMMU_RESV_DIRECT);
}

/* The domain that a user of VFIO or iommufd would bring along */
static struct iommu_domain *mock_user_domain(struct mock_dev *mdev)
{
	struct iommu_domain *domain = iommu_paging_domain_alloc(&mdev->pci.dev);

	KUNIT_ASSERT_FALSE(mdev->ctx->test, IS_ERR_OR_NULL(domain));
	return domain;
}

/* How often the driver was asked to attach a device, since the log was reset */
static unsigned int mock_attaches(struct mock_dev *mdev,
				  struct iommu_domain *domain)
{
	struct mock_ctx *ctx = mdev->ctx;
	unsigned int i, nr = 0;

	for (i = 0; i < ctx->nr_log; i++)
		if (ctx->log[i].mdev == mdev &&
		    (!domain || ctx->log[i].domain == domain))
			nr++;
	return nr;
}

/* Does DMA of the device to its n-th region still reach memory? */
static bool mock_reaches(struct mock_dev *mdev, unsigned int n)
{
	unsigned long addr = mdev->region[n].start;

	if (!mdev->hw)
		return false;
	return iommu_iova_to_phys(mdev->hw, addr) == addr;
}

#ifdef IOMMU_KUNIT_STATIC_DOMAINS
/*
 * Let the core take a device for a PCI device on a root bus, as long as a test
 * calls the core by itself. PCI must not see it be added or removed.
 */
static void mock_as_pci(struct mock_dev *mdev, bool pci)
{
	mdev->pci.dev.bus = pci ? &pci_bus_type : &mock_bus;
}

static int mock_set_device(struct mock_dev *mdev, struct iommu_domain *domain,
			   unsigned int flags)
{
	struct iommu_group *group = mdev->ctx->group;
	int ret;

	mutex_lock(&group->mutex);
#ifdef IOMMU_KUNIT_OLD_DOMAIN
	ret = __iommu_device_set_domain(group, &mdev->pci.dev, domain,
					group->domain, flags);
#else
	ret = __iommu_device_set_domain(group, &mdev->pci.dev, domain, flags);
#endif
	mutex_unlock(&group->mutex);
	return ret;
}

static int mock_set_group(struct mock_ctx *ctx, struct iommu_domain *domain,
			  unsigned int flags)
{
	int ret;

	mutex_lock(&ctx->group->mutex);
	ret = __iommu_group_set_domain_internal(ctx->group, domain, flags);
	mutex_unlock(&ctx->group->mutex);
	return ret;
}

/* As writing to the type file of the group does */
static int mock_set_default_type(struct mock_ctx *ctx, int type)
{
	int ret;

	/* The driver must not insist on another type */
	ctx->def_type = 0;
	mutex_lock(&ctx->group->mutex);
	ret = iommu_setup_default_domain(ctx->group, type);
	mutex_unlock(&ctx->group->mutex);
	return ret;
}

/* Give the group the blocking domain that claiming it would allocate */
static struct iommu_domain *mock_blocking_domain(struct mock_ctx *ctx)
{
	int ret;

	mutex_lock(&ctx->group->mutex);
	ret = __iommu_group_alloc_blocking_domain(ctx->group);
	mutex_unlock(&ctx->group->mutex);
	KUNIT_ASSERT_EQ(ctx->test, 0, ret);
	return ctx->group->blocking_domain;
}

/* Whether the first region was there each time that this domain was attached */
static bool mock_mapped_at_attach(struct mock_dev *mdev,
				  struct iommu_domain *domain)
{
	struct mock_ctx *ctx = mdev->ctx;
	bool mapped = false;
	unsigned int i;

	for (i = 0; i < ctx->nr_log; i++) {
		if (ctx->log[i].mdev != mdev || ctx->log[i].domain != domain)
			continue;
		mapped = ctx->log[i].mapped;
		if (!mapped)
			break;
	}
	return mapped;
}

static void mock_reset_log(struct mock_ctx *ctx)
{
	ctx->nr_log = 0;
}
#endif
