// SPDX-License-Identifier: GPL-2.0-only
/*
 * How a device, and a group of them, goes from one domain to another:
 * __iommu_device_set_domain() and __iommu_group_set_domain_internal().
 */

/* Which devices are refused */

/* Rule: no blocking domain for a device that firmware needs; do not even ask. */
static void blocked_refused(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_direct(ctx);

	mock_reset_log(ctx);
	KUNIT_EXPECT_EQ(test, -EINVAL, mock_set_device(mdev, &ctx->blocked, 0));
	KUNIT_EXPECT_EQ(test, 0, mock_attaches(mdev, NULL));
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, ctx->group->default_domain);
	KUNIT_EXPECT_TRUE(test, mock_reaches(mdev, 0));
}

/* Rule: the empty paging domain of drivers without a blocked one blocks too. */
static void empty_blocking_domain_refused(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct iommu_domain *blocking;
	struct mock_dev *mdev;

	mock_no_blocked(ctx);
	mdev = mock_direct(ctx);
	blocking = mock_blocking_domain(ctx);
	KUNIT_ASSERT_EQ(test, blocking->type, IOMMU_DOMAIN_UNMANAGED);
	KUNIT_EXPECT_EQ(test, -EINVAL, mock_set_device(mdev, blocking, 0));
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, ctx->group->default_domain);
}

/* Rule: the regions count although an identity domain has nothing to map. */
static void blocked_refused_from_identity(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev;

	ctx->def_type = IOMMU_DOMAIN_IDENTITY;
	mdev = mock_direct(ctx);
	KUNIT_ASSERT_PTR_EQ(test, mdev->hw, &ctx->identity);
	KUNIT_EXPECT_EQ(test, -EINVAL, mock_set_device(mdev, &ctx->blocked, 0));
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, &ctx->identity);
}

/* Rule: one region that firmware needs is enough, wherever it is listed. */
static void blocked_refused_direct_last(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_dev_with(ctx, IOMMU_RESV_MSI,
					      IOMMU_RESV_RESERVED,
					      IOMMU_RESV_DIRECT_RELAXABLE,
					      IOMMU_RESV_DIRECT);

	KUNIT_EXPECT_EQ(test, -EINVAL, mock_set_device(mdev, &ctx->blocked, 0));
	KUNIT_EXPECT_TRUE(test, mock_reaches(mdev, 3));
}

/* Rule: a later region of another kind does not undo the first. */
static void blocked_refused_direct_first(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_dev_with(ctx, IOMMU_RESV_DIRECT,
					      IOMMU_RESV_DIRECT_RELAXABLE,
					      IOMMU_RESV_MSI);

	KUNIT_EXPECT_EQ(test, -EINVAL, mock_set_device(mdev, &ctx->blocked, 0));
	KUNIT_EXPECT_TRUE(test, mock_reaches(mdev, 0));
	KUNIT_EXPECT_TRUE(test, mock_reaches(mdev, 1));
}

/* Rule: the regions go with the device, not with its default domain. */
static void blocked_refused_after_type_change(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_direct(ctx);

	KUNIT_ASSERT_EQ(test, 0,
			mock_set_default_type(ctx, IOMMU_DOMAIN_IDENTITY));
	KUNIT_ASSERT_PTR_EQ(test, mdev->hw, &ctx->identity);
	KUNIT_EXPECT_EQ(test, -EINVAL, mock_set_device(mdev, &ctx->blocked, 0));
}

/* Which devices are not */

static void expect_blocking_allowed(struct kunit *test, struct mock_dev *mdev)
{
	struct mock_ctx *ctx = test->priv;

	KUNIT_EXPECT_EQ(test, 0, mock_set_device(mdev, &ctx->blocked, 0));
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, &ctx->blocked);
	/* Back to where the group says it is */
	KUNIT_EXPECT_EQ(test, 0,
			mock_set_device(mdev, ctx->group->default_domain, 0));
}

/* Rule: nothing changes for a device without reserved regions. */
static void blocked_allowed_plain(struct kunit *test)
{
	expect_blocking_allowed(test, mock_plain(test->priv));
}

/* Rule: the driver says that firmware can do without; USB and graphics. */
static void blocked_allowed_relaxable(struct kunit *test)
{
	struct mock_dev *mdev = mock_dev_with(test->priv,
					      IOMMU_RESV_DIRECT_RELAXABLE);

	/* It is mapped as long as the kernel drives the device, though */
	KUNIT_EXPECT_TRUE(test, mock_reaches(mdev, 0));
	expect_blocking_allowed(test, mdev);
}

/* Rule: an MSI window is no memory that firmware uses. */
static void blocked_allowed_msi(struct kunit *test)
{
	expect_blocking_allowed(test, mock_dev_with(test->priv, IOMMU_RESV_MSI,
						    IOMMU_RESV_SW_MSI));
}

/* Rule: a hole that is never mapped cannot be lost. */
static void blocked_allowed_reserved(struct kunit *test)
{
	struct mock_dev *mdev = mock_dev_with(test->priv, IOMMU_RESV_RESERVED);

	KUNIT_EXPECT_FALSE(test, mock_reaches(mdev, 0));
	expect_blocking_allowed(test, mdev);
}

/* Rule: the empty blocking domain is fine for a device without DIRECT regions. */
static void empty_blocking_domain_allowed_plain(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct iommu_domain *blocking;
	struct mock_dev *mdev;

	mock_no_blocked(ctx);
	mdev = mock_plain(ctx);
	blocking = mock_blocking_domain(ctx);
	KUNIT_EXPECT_EQ(test, 0, mock_set_device(mdev, blocking, 0));
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, blocking);
	KUNIT_EXPECT_EQ(test, 0,
			mock_set_device(mdev, ctx->group->default_domain, 0));
}

/* Rule: identity maps every region, so it suits every device. */
static void identity_allowed_direct(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_direct(ctx);

	KUNIT_EXPECT_EQ(test, 0, mock_set_device(mdev, &ctx->identity, 0));
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, &ctx->identity);
	KUNIT_EXPECT_TRUE(test, mock_reaches(mdev, 0));
	KUNIT_EXPECT_EQ(test, 0,
			mock_set_device(mdev, ctx->group->default_domain, 0));
}

/* Rule: the DMA domain of the kernel has the regions mapped before an attach. */
static void dma_allowed_direct(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev;

	ctx->def_type = IOMMU_DOMAIN_IDENTITY;
	mdev = mock_direct(ctx);
	KUNIT_ASSERT_EQ(test, 0, mock_set_default_type(ctx, IOMMU_DOMAIN_DMA));
	KUNIT_EXPECT_EQ(test, mdev->hw->type, IOMMU_DOMAIN_DMA);
	KUNIT_EXPECT_TRUE(test, mock_reaches(mdev, 0));
	KUNIT_EXPECT_TRUE(test, mock_mapped_at_attach(mdev, mdev->hw));
}

/* Rule: the same for a DMA domain with a flush queue. */
static void dma_fq_is_a_dma_domain(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev;

	ctx->def_type = IOMMU_DOMAIN_DMA_FQ;
	mdev = mock_direct(ctx);
	KUNIT_EXPECT_TRUE(test, iommu_is_dma_domain(mdev->hw));
	KUNIT_EXPECT_TRUE(test, mock_mapped_at_attach(mdev, mdev->hw));
	KUNIT_EXPECT_EQ(test, -EINVAL, mock_set_device(mdev, &ctx->blocked, 0));
}

/* Rule: what was mapped is flushed; see also the static domains of the mock. */
static void dma_flushed_after_mapping(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;

	mock_direct(ctx);
	KUNIT_EXPECT_GT(test, ctx->nr_flush, 0);
}

/* Rule: the check is for blocking; a paging domain's owner answers for it. */
static void paging_allowed_direct(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_direct(ctx);
	struct iommu_domain *user = mock_user_domain(mdev);

	KUNIT_EXPECT_EQ(test, 0, mock_set_device(mdev, user, 0));
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, user);
	KUNIT_EXPECT_EQ(test, 0,
			mock_set_device(mdev, ctx->group->default_domain, 0));
	iommu_domain_free(user);
}

/* Deferred attach, for the crash kernel */

/* Rule: DMA in flight goes on until a driver maps something for the device. */
static void deferred_default_domain_not_attached(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_new(ctx);

	mdev->defer = true;
	KUNIT_ASSERT_TRUE(test, mock_add(mdev));
	KUNIT_EXPECT_NOT_NULL(test, ctx->group->domain);
	KUNIT_EXPECT_EQ(test, 0, mock_attaches(mdev, NULL));
	KUNIT_EXPECT_EQ(test, 0,
			mock_set_device(mdev, ctx->group->default_domain, 0));
	KUNIT_EXPECT_EQ(test, 0, mock_attaches(mdev, NULL));
	KUNIT_EXPECT_TRUE(test, mdev->pci.dev.iommu->attach_deferred);
	/* As the DMA API does at the first mapping */
	KUNIT_EXPECT_EQ(test, 0,
			iommu_deferred_attach(&mdev->pci.dev,
					      ctx->group->default_domain));
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, ctx->group->default_domain);
	KUNIT_EXPECT_FALSE(test, mdev->pci.dev.iommu->attach_deferred);
}

/* Rule: any other domain ends the deferral, once and for all. */
static void deferred_ends_with_other_domain(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_new(ctx);

	mdev->defer = true;
	KUNIT_ASSERT_TRUE(test, mock_add(mdev));
	KUNIT_EXPECT_EQ(test, 0, mock_set_device(mdev, &ctx->blocked, 0));
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, &ctx->blocked);
	KUNIT_EXPECT_FALSE(test, mdev->pci.dev.iommu->attach_deferred);
	KUNIT_EXPECT_EQ(test, 0,
			mock_set_device(mdev, ctx->group->default_domain, 0));
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, ctx->group->default_domain);
}

/* Rule: so does one that cannot be attached; the next attach is a real one. */
static void deferred_ends_though_attach_fails(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_new(ctx);

	mdev->defer = true;
	KUNIT_ASSERT_TRUE(test, mock_add(mdev));
	mdev->fail_domain = &ctx->blocked;
	mdev->fail_ret = -EIO;
	KUNIT_EXPECT_EQ(test, -EIO, mock_set_device(mdev, &ctx->blocked, 0));
	KUNIT_EXPECT_EQ(test, 0,
			mock_set_device(mdev, ctx->group->default_domain, 0));
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, ctx->group->default_domain);
}

/* Rule: a refusal leaves even the deferral as it was. */
static void deferred_direct_refused(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_new(ctx);

	mdev->defer = true;
	mock_region(mdev, IOMMU_RESV_DIRECT);
	KUNIT_ASSERT_TRUE(test, mock_add(mdev));
	KUNIT_EXPECT_EQ(test, -EINVAL, mock_set_device(mdev, &ctx->blocked, 0));
	KUNIT_EXPECT_EQ(test, 0, mock_attaches(mdev, NULL));
	KUNIT_EXPECT_TRUE(test, mdev->pci.dev.iommu->attach_deferred);
}

/* Groups */

/* Rule: all devices of a group are always in the same domain. */
static void group_moves_every_device(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *first = mock_plain(ctx);
	struct mock_dev *second = mock_plain(ctx);

	KUNIT_EXPECT_EQ(test, 0, mock_set_group(ctx, &ctx->blocked, 0));
	KUNIT_EXPECT_PTR_EQ(test, ctx->group->domain, &ctx->blocked);
	KUNIT_EXPECT_PTR_EQ(test, first->hw, &ctx->blocked);
	KUNIT_EXPECT_PTR_EQ(test, second->hw, &ctx->blocked);
	KUNIT_EXPECT_EQ(test, 0, mock_set_group(ctx, ctx->group->default_domain, 0));
	KUNIT_EXPECT_PTR_EQ(test, first->hw, ctx->group->default_domain);
	KUNIT_EXPECT_PTR_EQ(test, second->hw, ctx->group->default_domain);
}

/* Rule: nothing is asked of the driver if there is nothing to change. */
static void group_same_domain_is_no_attach(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_direct(ctx);

	mock_reset_log(ctx);
	KUNIT_EXPECT_EQ(test, 0, mock_set_group(ctx, ctx->group->domain, 0));
	KUNIT_EXPECT_EQ(test, 0, mock_attaches(mdev, NULL));
}

/* Rule: one device that firmware needs holds the group; the first goes back. */
static void group_second_refused(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *first = mock_plain(ctx);
	struct mock_dev *second = mock_direct(ctx);

	mock_reset_log(ctx);
	KUNIT_EXPECT_EQ(test, -EINVAL, mock_set_group(ctx, &ctx->blocked, 0));
	KUNIT_EXPECT_PTR_EQ(test, ctx->group->domain, ctx->group->default_domain);
	KUNIT_EXPECT_PTR_EQ(test, first->hw, ctx->group->default_domain);
	KUNIT_EXPECT_PTR_EQ(test, second->hw, ctx->group->default_domain);
	KUNIT_EXPECT_EQ(test, mock_attaches(first, &ctx->blocked),
			mock_attaches(first, ctx->group->default_domain));
	KUNIT_EXPECT_EQ(test, 0, mock_attaches(second, &ctx->blocked));
}

/* Rule: what is refused changes nothing, not even for a moment. */
static void group_second_refused_untouched(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *first = mock_plain(ctx);
	struct mock_dev *second = mock_direct(ctx);

	mock_reset_log(ctx);
	KUNIT_EXPECT_EQ(test, -EINVAL, iommu_group_claim_dma_owner(ctx->group, ctx));
	KUNIT_EXPECT_EQ(test, 0, mock_attaches(first, NULL));
	KUNIT_EXPECT_EQ(test, 0, mock_attaches(second, NULL));
}

/* Rule: the same in the other order; the second is never touched. */
static void group_first_refused(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *first = mock_direct(ctx);
	struct mock_dev *second = mock_plain(ctx);

	mock_reset_log(ctx);
	KUNIT_EXPECT_EQ(test, -EINVAL, mock_set_group(ctx, &ctx->blocked, 0));
	KUNIT_EXPECT_PTR_EQ(test, ctx->group->domain, ctx->group->default_domain);
	KUNIT_EXPECT_PTR_EQ(test, first->hw, ctx->group->default_domain);
	KUNIT_EXPECT_PTR_EQ(test, second->hw, ctx->group->default_domain);
	KUNIT_EXPECT_EQ(test, 0, mock_attaches(first, &ctx->blocked));
	KUNIT_EXPECT_EQ(test, 0, mock_attaches(second, NULL));
}

/* Rule: a driver's error is passed on, and who had moved goes back. */
static void group_driver_error_reverts(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *first = mock_plain(ctx);
	struct mock_dev *second = mock_plain(ctx);
	struct iommu_domain *user = mock_user_domain(first);

	second->fail_domain = user;
	second->fail_ret = -ENOSPC;
	KUNIT_EXPECT_EQ(test, -ENOSPC, mock_set_group(ctx, user, 0));
	KUNIT_EXPECT_PTR_EQ(test, ctx->group->domain, ctx->group->default_domain);
	KUNIT_EXPECT_PTR_EQ(test, first->hw, ctx->group->default_domain);
	KUNIT_EXPECT_PTR_EQ(test, second->hw, ctx->group->default_domain);
	iommu_domain_free(user);
}

/* Rule: a driver's error without MUST_SUCCEED never ends in blocking. */
static void device_driver_error_keeps_domain(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_plain(ctx);

	mock_blocking_domain(ctx);
	mdev->fail_domain = &ctx->identity;
	mdev->fail_ret = -EIO;
	KUNIT_EXPECT_EQ(test, -EIO, mock_set_device(mdev, &ctx->identity, 0));
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, ctx->group->default_domain);
}

static struct kunit_case iommu_set_domain_cases[] = {
	KUNIT_CASE(blocked_refused),
	KUNIT_CASE(empty_blocking_domain_refused),
	KUNIT_CASE(blocked_refused_from_identity),
	KUNIT_CASE(blocked_refused_direct_last),
	KUNIT_CASE(blocked_refused_direct_first),
	KUNIT_CASE(blocked_refused_after_type_change),
	KUNIT_CASE(blocked_allowed_plain),
	KUNIT_CASE(blocked_allowed_relaxable),
	KUNIT_CASE(blocked_allowed_msi),
	KUNIT_CASE(blocked_allowed_reserved),
	KUNIT_CASE(empty_blocking_domain_allowed_plain),
	KUNIT_CASE(identity_allowed_direct),
	KUNIT_CASE(dma_allowed_direct),
	KUNIT_CASE(dma_fq_is_a_dma_domain),
	KUNIT_CASE(dma_flushed_after_mapping),
	KUNIT_CASE(paging_allowed_direct),
	KUNIT_CASE(deferred_default_domain_not_attached),
	KUNIT_CASE(deferred_ends_with_other_domain),
	KUNIT_CASE(deferred_ends_though_attach_fails),
	KUNIT_CASE(deferred_direct_refused),
	KUNIT_CASE(group_moves_every_device),
	KUNIT_CASE(group_same_domain_is_no_attach),
	KUNIT_CASE(group_second_refused),
	KUNIT_CASE(group_second_refused_untouched),
	KUNIT_CASE(group_first_refused),
	KUNIT_CASE(group_driver_error_reverts),
	KUNIT_CASE(device_driver_error_keeps_domain),
	{}
};

static struct kunit_suite iommu_set_domain_suite = {
	.name = "iommu_set_domain",
	.suite_init = mock_suite_init,
	.suite_exit = mock_suite_exit,
	.init = mock_init,
	.exit = mock_exit,
	.test_cases = iommu_set_domain_cases,
};
