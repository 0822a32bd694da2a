// SPDX-License-Identifier: GPL-2.0-only
/*
 * iommu_group_claim_dma_owner() where it is the only place that looks at
 * IOMMU_RESV_DIRECT: in kernels without __iommu_device_set_domain(). Such a
 * kernel probes a device in two ways, and either must note the regions.
 */

static struct mock_dev *mock_early_direct(struct mock_ctx *ctx)
{
	struct mock_dev *mdev = mock_new(ctx);

	mock_region(mdev, IOMMU_RESV_DIRECT);
	mock_add_early(mdev);
	return mdev;
}

static void expect_refused(struct mock_ctx *ctx)
{
	KUNIT_EXPECT_EQ(ctx->test, IOMMU_KUNIT_REFUSED,
			iommu_group_claim_dma_owner(ctx->group, &owner_a));
	KUNIT_EXPECT_FALSE(ctx->test, iommu_group_dma_owner_claimed(ctx->group));
}

/* Rule: refused before a domain is allocated, and before a device is attached. */
static void refused_before_attach(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	unsigned int nr_log;

	mock_plain(ctx);
	mock_direct(ctx);
	nr_log = ctx->nr_log;
	expect_refused(ctx);
	KUNIT_EXPECT_EQ(test, nr_log, ctx->nr_log);
	KUNIT_EXPECT_NULL(test, ctx->group->blocking_domain);
}

/* Rule: the place of the device in the group does not matter. */
static void refused_direct_first(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;

	mock_direct(ctx);
	mock_plain(ctx);
	expect_refused(ctx);
}

/* Rule: nor does the place of the region in the list: it may be the last, */
static void refused_last_region(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;

	mock_dev_with(ctx, IOMMU_RESV_RESERVED, IOMMU_RESV_DIRECT_RELAXABLE,
		      IOMMU_RESV_DIRECT);
	expect_refused(ctx);
}

/* or the first. */
static void refused_first_region(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;

	mock_dev_with(ctx, IOMMU_RESV_DIRECT, IOMMU_RESV_DIRECT_RELAXABLE,
		      IOMMU_RESV_MSI);
	expect_refused(ctx);
}

/* Rule: regions of other types do not count. */
static void claimed_with_other_regions(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev;

	mdev = mock_dev_with(ctx, IOMMU_RESV_DIRECT_RELAXABLE, IOMMU_RESV_RESERVED,
			     IOMMU_RESV_MSI, IOMMU_RESV_SW_MSI);
	KUNIT_ASSERT_EQ(test, 0, iommu_group_claim_dma_owner(ctx->group, &owner_a));
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, &ctx->blocked);
	iommu_group_release_dma_owner(ctx->group);
}

/* Rule: a device that was there before its IOMMU is noted, too. */
static void refused_early_device(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_early_direct(ctx);

	KUNIT_ASSERT_EQ(test, 0, bus_iommu_probe(&mock_bus));
	expect_refused(ctx);
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, ctx->group->default_domain);
	KUNIT_EXPECT_TRUE(test, mock_reaches(mdev, 0));
}

/* Rule: the same with iommu=pt. */
static void refused_early_device_identity(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_early_direct(ctx);

	ctx->def_type = IOMMU_DOMAIN_IDENTITY;
	KUNIT_ASSERT_EQ(test, 0, bus_iommu_probe(&mock_bus));
	expect_refused(ctx);
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, &ctx->identity);
}

/* Rule: several of them make one group, refused for the sake of one. */
static void refused_early_group(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *plain = mock_new(ctx);
	struct mock_dev *direct;

	mock_add_early(plain);
	direct = mock_early_direct(ctx);
	KUNIT_ASSERT_EQ(test, 0, bus_iommu_probe(&mock_bus));
	expect_refused(ctx);
	KUNIT_EXPECT_PTR_EQ(test, plain->hw, ctx->group->default_domain);
	KUNIT_EXPECT_TRUE(test, mock_reaches(direct, 0));
}

/* Rule: an attach that is put off does not put off the note. */
static void refused_deferred(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_new(ctx);

	mdev->defer = true;
	mock_region(mdev, IOMMU_RESV_DIRECT);
	KUNIT_ASSERT_TRUE(test, mock_add(mdev));
	expect_refused(ctx);
	KUNIT_EXPECT_EQ(test, 0, mock_attaches(mdev, &ctx->blocked));
}

/* Rule: another type of the default domain changes nothing. */
static void refused_after_type_change(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_direct(ctx);

	/* The driver must not insist on another type */
	ctx->def_type = 0;
	KUNIT_ASSERT_EQ(test, 8, iommu_group_store_type(ctx->group, "identity", 8));
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, &ctx->identity);
	expect_refused(ctx);
	KUNIT_ASSERT_EQ(test, 3, iommu_group_store_type(ctx->group, "DMA", 3));
	expect_refused(ctx);
	KUNIT_EXPECT_TRUE(test, mock_reaches(mdev, 0));
}

/* Rule: the note goes with the device; each probe looks anew. */
static void noted_at_each_probe(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_direct(ctx);

	expect_refused(ctx);
	iommu_release_device(&mdev->pci.dev);
	mdev->nr_regions = 0;
	KUNIT_ASSERT_EQ(test, 0, iommu_probe_device(&mdev->pci.dev));
	KUNIT_EXPECT_EQ(test, 0, iommu_group_claim_dma_owner(ctx->group, &owner_a));
	iommu_group_release_dma_owner(ctx->group);
	iommu_release_device(&mdev->pci.dev);
	mock_region(mdev, IOMMU_RESV_DIRECT);
	KUNIT_ASSERT_EQ(test, 0, iommu_probe_device(&mdev->pci.dev));
	expect_refused(ctx);
}

/* Rule: a group that the driver would not block has no owner. */
static void claim_driver_error(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_plain(ctx);

	mdev->fail_domain = &ctx->blocked;
	mdev->fail_ret = -EIO;
	KUNIT_EXPECT_EQ(test, -EIO, iommu_group_claim_dma_owner(ctx->group, &owner_a));
	KUNIT_EXPECT_FALSE(test, iommu_group_dma_owner_claimed(ctx->group));
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, ctx->group->default_domain);
}

/* Rule: a group that no IOMMU driver has made is none of our business. */
static void claim_without_iommu(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_new(ctx);
	struct iommu_group *group;

	mock_bus.iommu_ops = NULL;
	KUNIT_ASSERT_FALSE(test, mock_add(mdev));
	KUNIT_ASSERT_NULL(test, mdev->pci.dev.iommu);
	group = iommu_group_alloc();
	KUNIT_ASSERT_FALSE(test, IS_ERR(group));
	KUNIT_EXPECT_EQ(test, 0, iommu_group_add_device(group, &mdev->pci.dev));
	/* There is nothing to block it with */
	KUNIT_EXPECT_EQ(test, -EINVAL, iommu_group_claim_dma_owner(group, &owner_a));
	iommu_group_remove_device(&mdev->pci.dev);
	iommu_group_put(group);
}

/* Rule: a device that is refused is not in the group, whatever comes next. */
static void late_direct_is_no_member(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *first = mock_plain(ctx);
	struct iommu_domain *user = mock_user_domain(first);
	struct mock_dev *late = mock_new(ctx);

	mock_region(late, IOMMU_RESV_DIRECT);
	KUNIT_ASSERT_EQ(test, 0, iommu_group_claim_dma_owner(ctx->group, &owner_a));
	KUNIT_EXPECT_FALSE(test, mock_add(late));
	KUNIT_EXPECT_NULL(test, late->pci.dev.iommu);
	KUNIT_EXPECT_EQ(test, 0, iommu_attach_group(user, ctx->group));
	KUNIT_EXPECT_PTR_EQ(test, first->hw, user);
	iommu_detach_group(user, ctx->group);
	iommu_domain_free(user);
	iommu_group_release_dma_owner(ctx->group);
	KUNIT_EXPECT_EQ(test, 0, mock_attaches(late, NULL));
}

/* Rule: the same device is welcome as soon as the owner has left. */
static void late_direct_probed_again(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *late = mock_new(ctx);

	mock_plain(ctx);
	mock_region(late, IOMMU_RESV_DIRECT);
	KUNIT_ASSERT_EQ(test, 0, iommu_group_claim_dma_owner(ctx->group, &owner_a));
	KUNIT_EXPECT_FALSE(test, mock_add(late));
	iommu_group_release_dma_owner(ctx->group);
	KUNIT_ASSERT_EQ(test, 0, iommu_probe_device(&late->pci.dev));
	KUNIT_EXPECT_PTR_EQ(test, late->hw, ctx->group->default_domain);
	KUNIT_EXPECT_TRUE(test, mock_reaches(late, 0));
	expect_refused(ctx);
}

/* Rule: an IOMMU that comes up later refuses it, and goes on with the others. */
static void late_direct_refused_by_bus_probe(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *late, *plain;

	mock_plain(ctx);
	late = mock_early_direct(ctx);
	plain = mock_new(ctx);
	mock_add_early(plain);
	KUNIT_ASSERT_EQ(test, 0, iommu_group_claim_dma_owner(ctx->group, &owner_a));
	KUNIT_EXPECT_EQ(test, 0, bus_iommu_probe(&mock_bus));
	KUNIT_EXPECT_NULL(test, late->pci.dev.iommu_group);
	KUNIT_EXPECT_NULL(test, late->pci.dev.iommu);
	KUNIT_EXPECT_EQ(test, 0, mock_attaches(late, NULL));
	KUNIT_EXPECT_PTR_EQ(test, plain->hw, &ctx->blocked);
	iommu_group_release_dma_owner(ctx->group);
	KUNIT_EXPECT_PTR_EQ(test, plain->hw, ctx->group->default_domain);
}

static struct kunit_case iommu_group_claim_cases[] = {
	KUNIT_CASE(refused_before_attach),
	KUNIT_CASE(refused_direct_first),
	KUNIT_CASE(refused_last_region),
	KUNIT_CASE(refused_first_region),
	KUNIT_CASE(claimed_with_other_regions),
	KUNIT_CASE(refused_early_device),
	KUNIT_CASE(refused_early_device_identity),
	KUNIT_CASE(refused_early_group),
	KUNIT_CASE(refused_deferred),
	KUNIT_CASE(refused_after_type_change),
	KUNIT_CASE(noted_at_each_probe),
	KUNIT_CASE(claim_driver_error),
	KUNIT_CASE(claim_without_iommu),
	KUNIT_CASE(late_direct_is_no_member),
	KUNIT_CASE(late_direct_probed_again),
	KUNIT_CASE(late_direct_refused_by_bus_probe),
	{}
};

static struct kunit_suite iommu_group_claim_suite = {
	.name = "iommu_group_claim",
	.suite_init = mock_suite_init,
	.suite_exit = mock_suite_exit,
	.init = mock_init,
	.exit = mock_exit,
	.test_cases = iommu_group_claim_cases,
};
