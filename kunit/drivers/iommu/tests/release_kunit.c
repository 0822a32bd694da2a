// SPDX-License-Identifier: GPL-2.0-only
/*
 * Where a device goes that leaves its IOMMU driver: hot-unplugged, or removed in
 * sysfs. The mock says, as most drivers do, that it should be blocked then.
 */

static int release_init(struct kunit *test)
{
	struct mock_ctx *ctx;
	int ret = mock_init(test);

	if (ret)
		return ret;
	ctx = test->priv;
	ctx->ops.release_domain = &ctx->blocked;
	return 0;
}

/* Rule: a device that is not needed any more is blocked. */
static void release_plain(struct kunit *test)
{
	struct mock_dev *mdev = mock_plain(test->priv);
	struct mock_ctx *ctx = test->priv;

	mock_del(mdev);
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, &ctx->blocked);
}

/* Rule: a driver that has nothing to do for it has no say in it. */
static void release_without_callback(struct kunit *test)
{
	struct mock_dev *mdev = mock_plain(test->priv);
	struct mock_ctx *ctx = test->priv;

	ctx->ops.release_device = NULL;
	mock_del(mdev);
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, &ctx->blocked);
}

/* Rule: nor firmware, if the region is relaxable. */
static void release_relaxable(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_dev_with(ctx, IOMMU_RESV_DIRECT_RELAXABLE);

	mock_del(mdev);
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, &ctx->blocked);
}

/* Rule: a driver that wants another domain gets it. */
static void release_other_domain(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_plain(ctx);

	ctx->ops.release_domain = &ctx->identity;
	mock_del(mdev);
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, &ctx->identity);
}

/* Rule: a driver that wants none is left alone. */
static void release_no_domain(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_direct(ctx);

	ctx->ops.release_domain = NULL;
	mock_reset_log(ctx);
	mock_del(mdev);
	KUNIT_EXPECT_EQ(test, 0, mock_attaches(mdev, NULL));
}

/* Rule: what was never attached is not touched; for the crash kernel. */
static void release_deferred(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_new(ctx);

	mdev->defer = true;
	mock_region(mdev, IOMMU_RESV_DIRECT);
	KUNIT_ASSERT_TRUE(test, mock_add(mdev));
	mock_del(mdev);
	KUNIT_EXPECT_EQ(test, 0, mock_attaches(mdev, NULL));
}

/* Rule: the last to leave is in no domain that goes with it. */
static void release_last(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *first = mock_plain(ctx);
	struct mock_dev *second = mock_plain(ctx);

	mock_del(first);
	KUNIT_EXPECT_PTR_EQ(test, second->hw, mock_default(ctx));
	KUNIT_EXPECT_EQ(test, 0, ctx->nr_freed);
	mock_del(second);
	KUNIT_EXPECT_PTR_EQ(test, second->hw, &ctx->blocked);
	KUNIT_EXPECT_EQ(test, 1, ctx->nr_freed);
	KUNIT_EXPECT_EQ(test, 0, ctx->freed_in_use);
	KUNIT_EXPECT_NULL(test, mock_default(ctx));
}

/* Rule: who stays behind the same bridge, with its requester ID, keeps its domain. */
static void release_beside_shared_rid(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *other = mock_new(ctx);
	struct mock_dev *mdev = mock_new(ctx);

	mock_behind_bridge(other);
	mock_behind_bridge(mdev);
	KUNIT_ASSERT_TRUE(test, mock_add(other));
	KUNIT_ASSERT_TRUE(test, mock_add(mdev));
	KUNIT_ASSERT_PTR_EQ(test, mock_wire(other), mock_default(ctx));
	mock_del(mdev);
	KUNIT_EXPECT_PTR_EQ(test, mock_wire(other), mock_default(ctx));
}

#ifdef IOMMU_KUNIT_RELEASE
/* As hotplug does it, but with what PCI knows of the device */
static void mock_release_as_pci(struct mock_dev *mdev)
{
	mock_as_pci(mdev, true);
	iommu_release_device(&mdev->pci.dev);
	mock_as_pci(mdev, false);
}

/* Rule: firmware goes on using its region, whether a driver is there or not. */
static void release_direct(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_direct(ctx);

	mock_del(mdev);
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, &ctx->identity);
	KUNIT_EXPECT_TRUE(test, mock_reaches(mdev, 0));
}

/* Rule: the same if others stay in the group. */
static void release_direct_from_group(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *other = mock_plain(ctx);
	struct mock_dev *mdev = mock_direct(ctx);

	mock_as_pci(other, true);
	mock_release_as_pci(mdev);
	mock_as_pci(other, false);
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, &ctx->identity);
	KUNIT_EXPECT_PTR_EQ(test, other->hw, ctx->group->default_domain);
}

/* Rule: also if the drivers of those have IOVAs, which are not its concern. */
static void release_direct_beside_driver(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *other = mock_plain(ctx);
	struct mock_dev *mdev = mock_direct(ctx);

	KUNIT_ASSERT_EQ(test, 0, iommu_device_use_default_domain(&other->pci.dev));
	mock_del(mdev);
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, &ctx->identity);
	KUNIT_EXPECT_PTR_EQ(test, other->hw, mock_default(ctx));
	iommu_device_unuse_default_domain(&other->pci.dev);
}

/* Rule, end goal 3: an untrusted device never ends in identity. */
static void release_direct_untrusted(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_direct(ctx);

	mdev->pci.untrusted = true;
	mock_release_as_pci(mdev);
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, &ctx->blocked);
	KUNIT_EXPECT_EQ(test, 0, mock_attaches(mdev, &ctx->identity));
}

/* Rule: nor does one that an untrusted device may drive. */
static void release_direct_beside_untrusted(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *other = mock_plain(ctx);
	struct mock_dev *mdev = mock_direct(ctx);

	other->pci.untrusted = true;
	mock_as_pci(other, true);
	mock_release_as_pci(mdev);
	mock_as_pci(other, false);
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, &ctx->blocked);
	KUNIT_EXPECT_EQ(test, 0, mock_attaches(mdev, &ctx->identity));
}

/* Release a device with a region that has the requester ID of another one */
static struct mock_dev *release_behind_bridge(struct mock_ctx *ctx)
{
	struct mock_dev *other = mock_new(ctx);
	struct mock_dev *mdev = mock_new(ctx);

	mock_behind_bridge(other);
	mock_behind_bridge(mdev);
	mock_region(mdev, IOMMU_RESV_DIRECT);
	KUNIT_ASSERT_TRUE(ctx->test, mock_add(other));
	KUNIT_ASSERT_TRUE(ctx->test, mock_add(mdev));
	KUNIT_ASSERT_NE(ctx->test, other->pci.devfn, mdev->pci.devfn);
	KUNIT_ASSERT_PTR_EQ(ctx->test, other->hw, mock_default(ctx));
	mock_as_pci(other, true);
	mock_release_as_pci(mdev);
	mock_as_pci(other, false);
	return mdev;
}

/* Rule: nor does one whose requester ID others go on using. */
static void release_direct_shared_rid(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = release_behind_bridge(ctx);

	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, &ctx->blocked);
	/* What the other sends bears the ID of the bridge, too */
	KUNIT_EXPECT_EQ(test, 0, mock_attaches(mdev, &ctx->identity));
}

/* Rule: nor one that is the same for the IOMMU: firmware maps several IDs to one. */
static void release_direct_shared_stream(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *other = mock_new(ctx);
	struct mock_dev *mdev = mock_new(ctx);

	mdev->stream = other->stream;
	mock_region(mdev, IOMMU_RESV_DIRECT);
	KUNIT_ASSERT_TRUE(test, mock_add(other));
	KUNIT_ASSERT_TRUE(test, mock_add(mdev));
	mock_as_pci(other, true);
	mock_release_as_pci(mdev);
	mock_as_pci(other, false);
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, &ctx->blocked);
	KUNIT_EXPECT_EQ(test, 0, mock_attaches(mdev, &ctx->identity));
}

/* Rule: unless those are in identity themselves, and would be cut off. */
static void release_direct_shared_rid_in_identity(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev;

	ctx->def_type = IOMMU_DOMAIN_IDENTITY;
	mdev = release_behind_bridge(ctx);
	KUNIT_EXPECT_EQ(test, 0, mock_attaches(mdev, &ctx->blocked));
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, &ctx->identity);
}

/* Rule: what was pulled needs no region, and its ID goes to what is plugged in. */
static void release_direct_pulled(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_direct(ctx);

	mdev->pci.error_state = pci_channel_io_perm_failure;
	mock_release_as_pci(mdev);
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, &ctx->blocked);
	KUNIT_EXPECT_EQ(test, 0, mock_attaches(mdev, &ctx->identity));
}

/* Rule: nor one that uses the ID of another function besides its own. */
static void release_direct_alias(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *other = mock_plain(ctx);
	struct mock_dev *mdev = mock_direct(ctx);

	mock_alias(mdev, other);
	mock_as_pci(other, true);
	mock_release_as_pci(mdev);
	mock_as_pci(other, false);
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, &ctx->blocked);
	KUNIT_EXPECT_EQ(test, 0, mock_attaches(mdev, &ctx->identity));
}

/* Rule: no domain is freed under a device, so there is a second choice. */
static void release_direct_identity_fails(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_direct(ctx);

	mdev->fail_domain = &ctx->identity;
	mdev->fail_ret = -EINVAL;
	mock_del(mdev);
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, &ctx->blocked);
	KUNIT_EXPECT_EQ(test, 0, ctx->freed_in_use);
}

/* Rule: a driver without a static identity domain has the device blocked. */
static void release_direct_no_identity(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev;

	ctx->ops.identity_domain = NULL;
	mdev = mock_direct(ctx);
	mock_del(mdev);
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, &ctx->blocked);
}

#endif

static struct kunit_case iommu_release_cases[] = {
	KUNIT_CASE(release_plain),
	KUNIT_CASE(release_without_callback),
	KUNIT_CASE(release_relaxable),
	KUNIT_CASE(release_other_domain),
	KUNIT_CASE(release_no_domain),
	KUNIT_CASE(release_deferred),
	KUNIT_CASE(release_last),
	KUNIT_CASE(release_beside_shared_rid),
#ifdef IOMMU_KUNIT_RELEASE
	KUNIT_CASE(release_direct),
	KUNIT_CASE(release_direct_from_group),
	KUNIT_CASE(release_direct_beside_driver),
	KUNIT_CASE(release_direct_untrusted),
	KUNIT_CASE(release_direct_beside_untrusted),
	KUNIT_CASE(release_direct_shared_rid),
	KUNIT_CASE(release_direct_shared_rid_in_identity),
	KUNIT_CASE(release_direct_shared_stream),
	KUNIT_CASE(release_direct_pulled),
	KUNIT_CASE(release_direct_alias),
	KUNIT_CASE(release_direct_identity_fails),
	KUNIT_CASE(release_direct_no_identity),
#endif
	{}
};

static struct kunit_suite iommu_release_suite = {
	.name = "iommu_release",
	.suite_init = mock_suite_init,
	.suite_exit = mock_suite_exit,
	.init = release_init,
	.exit = mock_exit,
	.test_cases = iommu_release_cases,
};
