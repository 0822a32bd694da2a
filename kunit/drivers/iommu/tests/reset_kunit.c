// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the core does to a PCI device around its reset:
 * pci_dev_reset_iommu_prepare() and pci_dev_reset_iommu_done().
 */

/* Only devices with ATS are looked at; this one is plugged in */
static struct mock_dev *mock_ats(struct mock_ctx *ctx, bool direct)
{
	struct mock_dev *mdev = direct ? mock_direct(ctx) : mock_plain(ctx);

	mdev->pci.ats_cap = 1;
	mock_as_pci(mdev, true);
	return mdev;
}

/* Rule: no translation and no invalidation while a device is being reset. */
static void reset_blocks_plain(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_ats(ctx, false);

	KUNIT_ASSERT_EQ(test, 0, pci_dev_reset_iommu_prepare(&mdev->pci));
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, &ctx->blocked);
	pci_dev_reset_iommu_done(&mdev->pci);
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, ctx->group->default_domain);
	mock_as_pci(mdev, false);
}

/* Rule: not even for firmware, which cannot use the device meanwhile. */
static void reset_blocks_direct(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_ats(ctx, true);

	KUNIT_ASSERT_EQ(test, 0, pci_dev_reset_iommu_prepare(&mdev->pci));
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, &ctx->blocked);
	/* The region is back with the domain */
	pci_dev_reset_iommu_done(&mdev->pci);
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, ctx->group->default_domain);
	KUNIT_EXPECT_TRUE(test, mock_reaches(mdev, 0));
	mock_as_pci(mdev, false);
}

/* Rule: a device without ATS has nothing to be invalidated. */
static void reset_without_ats(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_ats(ctx, true);

	mdev->pci.ats_cap = 0;
	mock_reset_log(ctx);
	KUNIT_EXPECT_EQ(test, 0, pci_dev_reset_iommu_prepare(&mdev->pci));
	pci_dev_reset_iommu_done(&mdev->pci);
	KUNIT_EXPECT_EQ(test, 0, mock_attaches(mdev, NULL));
	mock_as_pci(mdev, false);
}

/* Rule: a reset within a reset is one reset. */
static void reset_nested(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_ats(ctx, true);

	KUNIT_ASSERT_EQ(test, 0, pci_dev_reset_iommu_prepare(&mdev->pci));
	KUNIT_ASSERT_EQ(test, 0, pci_dev_reset_iommu_prepare(&mdev->pci));
	pci_dev_reset_iommu_done(&mdev->pci);
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, &ctx->blocked);
	pci_dev_reset_iommu_done(&mdev->pci);
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, ctx->group->default_domain);
	mock_as_pci(mdev, false);
}

/* Rule: nothing else is attached meanwhile. */
static void reset_keeps_others_out(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_ats(ctx, false);

	KUNIT_ASSERT_EQ(test, 0, pci_dev_reset_iommu_prepare(&mdev->pci));
	KUNIT_EXPECT_EQ(test, -EBUSY, mock_set_group(ctx, &ctx->identity, 0));
	pci_dev_reset_iommu_done(&mdev->pci);
	KUNIT_EXPECT_EQ(test, 0, mock_set_group(ctx, &ctx->identity, 0));
	mock_as_pci(mdev, false);
}

/* Rule: who is blocked already stays so. */
static void reset_blocked_already(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_ats(ctx, false);

	KUNIT_ASSERT_EQ(test, 0, mock_set_group(ctx, mock_blocking_domain(ctx), 0));
	mock_reset_log(ctx);
	KUNIT_ASSERT_EQ(test, 0, pci_dev_reset_iommu_prepare(&mdev->pci));
	pci_dev_reset_iommu_done(&mdev->pci);
	KUNIT_EXPECT_EQ(test, 0, mock_attaches(mdev, NULL));
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, &ctx->blocked);
	mock_as_pci(mdev, false);
}

/* Rule: an error leaves the device usable, and the reset does not happen. */
static void reset_blocking_fails(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_ats(ctx, true);

	mdev->fail_domain = &ctx->blocked;
	mdev->fail_ret = -EIO;
	KUNIT_EXPECT_EQ(test, -EIO, pci_dev_reset_iommu_prepare(&mdev->pci));
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, ctx->group->default_domain);
	/* The next one is a reset of its own */
	mdev->fail_domain = NULL;
	KUNIT_EXPECT_EQ(test, 0, pci_dev_reset_iommu_prepare(&mdev->pci));
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, &ctx->blocked);
	pci_dev_reset_iommu_done(&mdev->pci);
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, ctx->group->default_domain);
	mock_as_pci(mdev, false);
}

/* Rule: the domain of a group is no PASID, though its handle is kept beside them. */
static void reset_leaves_the_handle(struct kunit *test)
{
	struct iommu_attach_handle handle = {};
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_ats(ctx, false);
	struct iommu_domain *user = mock_user_domain(mdev);

	mdev->pci.dev.iommu->max_pasids = MOCK_MAX_PASIDS;
	KUNIT_ASSERT_EQ(test, 0, iommu_group_claim_dma_owner(ctx->group, ctx));
	KUNIT_ASSERT_EQ(test, 0, iommu_attach_group_handle(user, ctx->group, &handle));
	KUNIT_ASSERT_EQ(test, 0, pci_dev_reset_iommu_prepare(&mdev->pci));
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, &ctx->blocked);
	KUNIT_EXPECT_NULL(test, mdev->pasid_hw[IOMMU_NO_PASID]);
	pci_dev_reset_iommu_done(&mdev->pci);
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, user);
	KUNIT_EXPECT_NULL(test, mdev->pasid_hw[IOMMU_NO_PASID]);
	iommu_detach_group_handle(user, ctx->group);
	iommu_group_release_dma_owner(ctx->group);
	iommu_domain_free(user);
	mock_as_pci(mdev, false);
}

/* Rule: the group may move on meanwhile, and the device follows. */
static void reset_follows_group(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_ats(ctx, true);

	KUNIT_ASSERT_EQ(test, 0, pci_dev_reset_iommu_prepare(&mdev->pci));
	KUNIT_EXPECT_EQ(test, 0,
			mock_set_group(ctx, &ctx->identity,
				       IOMMU_SET_DOMAIN_MUST_SUCCEED));
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, &ctx->blocked);
	pci_dev_reset_iommu_done(&mdev->pci);
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, &ctx->identity);
	mock_as_pci(mdev, false);
}

/* Let the attach after a reset fail, and tell where the device ended up */
static struct iommu_domain *reset_fails(struct mock_dev *mdev)
{
	struct mock_ctx *ctx = mdev->ctx;
	struct kunit *test = ctx->test;

	KUNIT_ASSERT_EQ(test, 0, pci_dev_reset_iommu_prepare(&mdev->pci));
	mdev->fail_paging = true;
	mdev->fail_ret = -ENOMEM;
	kunit_warning_suppress(test) {
		pci_dev_reset_iommu_done(&mdev->pci);
		KUNIT_EXPECT_SUPPRESSED_WARNING_COUNT(test, 1);
	}
	mdev->fail_paging = false;
	return mdev->hw;
}

/* Rule: a device that does not come back is blocked, as after any error. */
static void reset_done_fails_plain(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_ats(ctx, false);

	KUNIT_EXPECT_PTR_EQ(test, reset_fails(mdev), &ctx->blocked);
	mock_as_pci(mdev, false);
}

/* Rule, end goal 4: unless firmware needs it. */
static void reset_done_fails_direct(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_ats(ctx, true);

	KUNIT_EXPECT_PTR_EQ(test, reset_fails(mdev), &ctx->identity);
	mock_as_pci(mdev, false);
}

/* Rule: as long as the region alone can be mapped, no other memory is open. */
static void reset_done_fails_default(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_ats(ctx, true);

	KUNIT_ASSERT_EQ(test, 0, pci_dev_reset_iommu_prepare(&mdev->pci));
	mdev->fail_domain = mock_default(ctx);
	mdev->fail_ret = -ENOMEM;
	mock_warns(test, 1, pci_dev_reset_iommu_done(&mdev->pci));
	mdev->fail_domain = NULL;
	KUNIT_EXPECT_TRUE(test, mdev->hw->type & __IOMMU_DOMAIN_PAGING);
	KUNIT_EXPECT_TRUE(test, mock_reaches(mdev, 0));
	mock_as_pci(mdev, false);
}

/* Rule: where identity fails as well it stays blocked, and is not asked twice. */
static void reset_done_fails_for_good(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_ats(ctx, true);

	mdev->fail_too = &ctx->identity;
	mock_reset_log(ctx);
	KUNIT_EXPECT_PTR_EQ(test, reset_fails(mdev), &ctx->blocked);
	KUNIT_EXPECT_EQ(test, 1, mock_attaches(mdev, mock_default(ctx)));
	KUNIT_EXPECT_EQ(test, 1, mock_attaches(mdev, &ctx->identity));
	mock_as_pci(mdev, false);
}

/* Rule: the owner of the device does not get all memory by resetting it. */
static void reset_done_fails_owned(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_ats(ctx, true);

	/* No device that firmware needs gets here, so pretend */
	ctx->group->owner = ctx;
	KUNIT_EXPECT_PTR_EQ(test, reset_fails(mdev), &ctx->blocked);
	ctx->group->owner = NULL;
	mock_as_pci(mdev, false);
}

/* Rule: functions that share a requester ID are unblocked one by one all the same. */
static void reset_shared_rid(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *first = mock_ats(ctx, false);
	struct mock_dev *second = mock_ats(ctx, false);

	mock_behind_bridge(first);
	mock_behind_bridge(second);
	KUNIT_ASSERT_EQ(test, 0, pci_dev_reset_iommu_prepare(&first->pci));
	KUNIT_ASSERT_EQ(test, 0, pci_dev_reset_iommu_prepare(&second->pci));
	pci_dev_reset_iommu_done(&first->pci);
	KUNIT_EXPECT_PTR_EQ(test, first->hw, ctx->group->default_domain);
	KUNIT_EXPECT_PTR_EQ(test, second->hw, &ctx->blocked);
	pci_dev_reset_iommu_done(&second->pci);
	KUNIT_EXPECT_PTR_EQ(test, second->hw, ctx->group->default_domain);
	mock_as_pci(second, false);
	mock_as_pci(first, false);
}

/* Rule: nor is a PASID given to a device that is being reset, or to its group. */
static void reset_keeps_pasids_out(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_ats(ctx, false);
	struct iommu_domain *user = mock_user_domain(mdev);
	struct mock_dev *other = mock_plain(ctx);

	other->pci.dev.iommu->max_pasids = MOCK_MAX_PASIDS;
	KUNIT_ASSERT_EQ(test, 0, pci_dev_reset_iommu_prepare(&mdev->pci));
	KUNIT_EXPECT_EQ(test, -EBUSY,
			iommu_attach_device_pasid(user, &other->pci.dev, 7, NULL));
	KUNIT_EXPECT_NULL(test, other->pasid_hw[7]);
	pci_dev_reset_iommu_done(&mdev->pci);
	KUNIT_EXPECT_EQ(test, 0, iommu_attach_device_pasid(user, &other->pci.dev, 7, NULL));
	KUNIT_EXPECT_PTR_EQ(test, other->pasid_hw[7], user);
	iommu_detach_device_pasid(user, &other->pci.dev, 7);
	iommu_domain_free(user);
	mock_as_pci(mdev, false);
}

/* Rule: its PASIDs are blocked as long as the device is, and then come back. */
static void reset_blocks_pasids(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_ats(ctx, false);
	struct iommu_domain *user = mock_user_domain(mdev);

	mdev->pci.dev.iommu->max_pasids = MOCK_MAX_PASIDS;
	KUNIT_ASSERT_EQ(test, 0, iommu_attach_device_pasid(user, &mdev->pci.dev, 7, NULL));
	KUNIT_EXPECT_PTR_EQ(test, mdev->pasid_hw[7], user);
	KUNIT_ASSERT_EQ(test, 0, pci_dev_reset_iommu_prepare(&mdev->pci));
	KUNIT_EXPECT_PTR_EQ(test, mdev->pasid_hw[7], &ctx->blocked);
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, &ctx->blocked);
	pci_dev_reset_iommu_done(&mdev->pci);
	KUNIT_EXPECT_PTR_EQ(test, mdev->pasid_hw[7], user);
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, ctx->group->default_domain);
	iommu_detach_device_pasid(user, &mdev->pci.dev, 7);
	KUNIT_EXPECT_PTR_EQ(test, mdev->pasid_hw[7], &ctx->blocked);
	mdev->pci.dev.iommu->max_pasids = 0;
	iommu_domain_free(user);
	mock_as_pci(mdev, false);
}

static struct kunit_case iommu_reset_cases[] = {
	KUNIT_CASE(reset_blocks_plain),
	KUNIT_CASE(reset_blocks_direct),
	KUNIT_CASE(reset_without_ats),
	KUNIT_CASE(reset_nested),
	KUNIT_CASE(reset_keeps_others_out),
	KUNIT_CASE(reset_blocked_already),
	KUNIT_CASE(reset_blocking_fails),
	KUNIT_CASE(reset_leaves_the_handle),
	KUNIT_CASE(reset_follows_group),
	KUNIT_CASE(reset_shared_rid),
	KUNIT_CASE(reset_keeps_pasids_out),
	KUNIT_CASE(reset_blocks_pasids),
	KUNIT_CASE(reset_done_fails_plain),
	KUNIT_CASE(reset_done_fails_direct),
	KUNIT_CASE(reset_done_fails_default),
	KUNIT_CASE(reset_done_fails_for_good),
	KUNIT_CASE(reset_done_fails_owned),
	{}
};

static struct kunit_suite iommu_reset_suite = {
	.name = "iommu_reset",
	.suite_init = mock_suite_init,
	.suite_exit = mock_suite_exit,
	.init = mock_init,
	.exit = mock_exit,
	.test_cases = iommu_reset_cases,
};
