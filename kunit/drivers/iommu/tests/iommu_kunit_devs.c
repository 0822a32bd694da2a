// SPDX-License-Identifier: GPL-2.0-only
/*
 * Devices of the mock driver: how a test makes them, plugs them in, has the core
 * move them, and looks at what became of them.
 */

static const struct fwnode_operations mock_fwnode_ops;

#ifdef IOMMU_KUNIT_STATIC_DOMAINS
static const struct bus_type mock_bus = {
#else
/* The ops of the driver are in it */
static struct bus_type mock_bus = {
#endif
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
	ctx->pci_behind.sysdata = ctx->pci_sysdata;
	ctx->pci_behind.number = 1;
	ctx->pci_behind.parent = &ctx->pci_bus;
	ctx->pci_behind.self = &ctx->pci_bridge;
	/* From PCI Express to PCI; it only has to have a capability */
	ctx->pci_bridge.bus = &ctx->pci_bus;
	ctx->pci_bridge.subordinate = &ctx->pci_behind;
	ctx->pci_bridge.pcie_cap = 1;
	ctx->pci_bridge.pcie_flags_reg = PCI_EXP_TYPE_PCI_BRIDGE << 4;
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
	mock_now = ctx;
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
	unsigned int i, nr_left = 0;

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
	list_for_each_entry_safe(mdom, next, &ctx->domains, list) {
		nr_left += !mdom->freed;
		xa_destroy(&mdom->pages);
		kfree(mdom);
	}
	/* No domain was forgotten, unless the test was aborted */
	if (test->status != KUNIT_FAILURE)
		KUNIT_EXPECT_EQ(test, 0, nr_left);
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
	mdev = kzalloc_obj(*mdev);
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
	mdev->stream = ctx->nr_devs;
	return mdev;
}

static void mock_region(struct mock_dev *mdev, enum iommu_resv_type type)
{
	unsigned int i = mdev->nr_regions;

	KUNIT_ASSERT_LT(mdev->ctx->test, i, MOCK_MAX_REGIONS);
	mdev->region[i].type = type;
	mdev->region[i].start = MOCK_REGION + i * SZ_1M;
	mdev->region[i].size = SZ_4K;
	mdev->region[i].prot = IOMMU_READ | IOMMU_WRITE;
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
	u32 ids[] = { mdev->stream, mdev->second_stream };
	struct mock_ctx *ctx = mdev->ctx;
	int ret;

	mutex_lock(&iommu_probe_device_lock);
	ret = iommu_fwspec_init(&mdev->pci.dev, &ctx->fwnode);
	mutex_unlock(&iommu_probe_device_lock);
	KUNIT_ASSERT_EQ(ctx->test, 0, ret);
	if (mdev->stream && !dev_iommu_fwspec_get(&mdev->pci.dev)->num_ids)
		KUNIT_ASSERT_EQ(ctx->test, 0,
				iommu_fwspec_add_ids(&mdev->pci.dev, ids,
						     mdev->second_stream ? 2 : 1));
#endif
}

/*
 * Plug a device in. A probe that fails is not reported, so tell whether the
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
	if (!mdev->pci.dev.iommu_group)
		return false;
#ifdef IOMMU_KUNIT_STATIC_DOMAINS
	/* No property of a mock device says so */
	mdev->pci.dev.iommu->max_pasids = mdev->max_pasids;
#endif
	return true;
}

/* Plug a device in before there is an IOMMU for it, see mock_find_iommu() */
static void mock_add_early(struct mock_dev *mdev)
{
	struct kunit *test = mdev->ctx->test;

#ifndef IOMMU_KUNIT_STATIC_DOMAINS
	mock_bus.iommu_ops = NULL;
#endif
	KUNIT_ASSERT_EQ(test, 0, device_add(&mdev->pci.dev));
	mdev->added = true;
	KUNIT_ASSERT_NULL(test, mdev->pci.dev.iommu_group);
#ifndef IOMMU_KUNIT_STATIC_DOMAINS
	mock_bus.iommu_ops = &mdev->ctx->ops;
#endif
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
	return mock_region_reached(mdev, n, mdev->hw);
}

/* The group's own domain, for the DMA API */
static struct iommu_domain *mock_default(struct mock_ctx *ctx)
{
	return ctx->group->default_domain;
}

static void mock_reset_log(struct mock_ctx *ctx)
{
	ctx->nr_log = 0;
}

/*
 * Run statements in which the core must WARN, @nr times. Newer kernels keep the
 * report off the console and count; otherwise the reader of the console is told.
 */
#ifdef IOMMU_KUNIT_SUPPRESS
#define mock_warns(test, nr, ...) do {					\
	kunit_warning_suppress(test) {					\
		__VA_ARGS__;						\
		KUNIT_EXPECT_SUPPRESSED_WARNING_COUNT(test, nr);	\
	}								\
} while (0)
#else
#define mock_warns(test, nr, ...) do {					\
	unsigned int __nr = (nr);					\
									\
	while (__nr--)							\
		kunit_info(test, "expects splat: WARNING");		\
	__VA_ARGS__;							\
} while (0)
#endif

#ifdef IOMMU_KUNIT_STATIC_DOMAINS
/* Plug it in behind the bridge, which does DMA for it with an ID of its own */
static void mock_behind_bridge(struct mock_dev *mdev)
{
	mdev->pci.bus = &mdev->ctx->pci_behind;
}

/* Let its DMA bear the requester ID of another function, too, as a quirk says */
static void mock_alias(struct mock_dev *mdev, struct mock_dev *other)
{
	set_bit(other->pci.devfn, mdev->alias);
	mdev->pci.dma_alias_mask = mdev->alias;
}

static int mock_get_rid(struct pci_dev *pdev, u16 id, void *data)
{
	*(u16 *)data = id;
	return 0;
}

/* What translates the DMA of a device, as far as its requester ID tells */
static struct iommu_domain *mock_wire(struct mock_dev *mdev)
{
	struct mock_ctx *ctx = mdev->ctx;
	unsigned int i;
	u16 id;

	/* The last one is that of the bridge next to the IOMMU */
	pci_for_each_dma_alias(&mdev->pci, mock_get_rid, &id);
	for (i = 0; i < ctx->nr_rids; i++)
		if (ctx->rid[i].id == id)
			return ctx->rid[i].domain;
	return NULL;
}

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
					mdev->hw, flags);
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
#endif
