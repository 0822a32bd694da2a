// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of how the IOMMU core moves devices and groups between domains.
 *
 * Included at the end of drivers/iommu/iommu.c, because struct iommu_group and
 * the functions under test are private to it.
 *
 * The rules that the cases stand for are those of the discussion of 2023 on
 * IOMMU_RESV_DIRECT: a device that firmware needs is never put into a blocking
 * domain nor handed to userspace, drivers never fail identity or blocking
 * attaches, and recovery ends in blocking or, where regions must stay mapped,
 * in identity.
 */
#include "iommu_kunit_mock.h"

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

	ctx->ops.blocked_domain = NULL;
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
	int ret;

	ctx->def_type = 0;
	mutex_lock(&ctx->group->mutex);
	ret = iommu_setup_default_domain(ctx->group, IOMMU_DOMAIN_IDENTITY);
	mutex_unlock(&ctx->group->mutex);
	KUNIT_ASSERT_EQ(test, 0, ret);
	KUNIT_ASSERT_PTR_EQ(test, mdev->hw, &ctx->identity);
	KUNIT_EXPECT_EQ(test, -EINVAL, mock_set_device(mdev, &ctx->blocked, 0));
	KUNIT_EXPECT_EQ(test, 0, ctx->freed_in_use);
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

/* Rule: the empty blocking domain is fine for whom firmware does not need. */
static void empty_blocking_domain_allowed_plain(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct iommu_domain *blocking;
	struct mock_dev *mdev;

	ctx->ops.blocked_domain = NULL;
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
	ctx->def_type = 0;
	mutex_lock(&ctx->group->mutex);
	KUNIT_EXPECT_EQ(test, 0, iommu_setup_default_domain(ctx->group,
							    IOMMU_DOMAIN_DMA));
	mutex_unlock(&ctx->group->mutex);
	KUNIT_EXPECT_EQ(test, mdev->hw->type, IOMMU_DOMAIN_DMA);
	KUNIT_EXPECT_TRUE(test, mock_reaches(mdev, 0));
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
	KUNIT_EXPECT_EQ(test, 0, ctx->freed_in_use);
}

/* Deferred attach, for the crash kernel */

/* Rule: DMA in flight goes on until a driver asks for the default domain. */
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
	KUNIT_EXPECT_TRUE(test, mdev->dev.iommu->attach_deferred);
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
	KUNIT_EXPECT_FALSE(test, mdev->dev.iommu->attach_deferred);
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
	KUNIT_EXPECT_TRUE(test, mdev->dev.iommu->attach_deferred);
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
	KUNIT_EXPECT_EQ(test, 1, mock_attaches(first, &ctx->blocked));
	KUNIT_EXPECT_EQ(test, 1, mock_attaches(first, ctx->group->default_domain));
	KUNIT_EXPECT_EQ(test, 0, mock_attaches(second, &ctx->blocked));
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
	KUNIT_EXPECT_EQ(test, 0, ctx->freed_in_use);
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

/* Rule, end goal 4: an attach that must succeed ends in blocking, if it can. */
static void must_succeed_error_goes_to_blocking(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *first = mock_plain(ctx);
	struct mock_dev *second = mock_plain(ctx);

	mock_blocking_domain(ctx);
	first->fail_domain = &ctx->identity;
	first->fail_ret = -EIO;
	KUNIT_EXPECT_EQ(test, -EIO,
			mock_set_group(ctx, &ctx->identity,
				       IOMMU_SET_DOMAIN_MUST_SUCCEED));
	KUNIT_EXPECT_PTR_EQ(test, first->hw, &ctx->blocked);
	/* The others are moved all the same, and so is the group */
	KUNIT_EXPECT_PTR_EQ(test, second->hw, &ctx->identity);
	KUNIT_EXPECT_PTR_EQ(test, ctx->group->domain, &ctx->identity);
}

/* Rule, end goal 4: identity, where blocking would cut the region. */
static void must_succeed_error_direct_goes_to_identity(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_direct(ctx);
	struct iommu_domain *user = mock_user_domain(mdev);

	mock_blocking_domain(ctx);
	mdev->fail_domain = user;
	mdev->fail_ret = -ENOMEM;
	mock_set_group(ctx, user, IOMMU_SET_DOMAIN_MUST_SUCCEED);
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, &ctx->identity);
	KUNIT_EXPECT_TRUE(test, mock_reaches(mdev, 0));
}

/* Rule, end goals 1 and 4: what must succeed is not refused, nor left behind. */
static void must_succeed_blocking_direct_goes_to_identity(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_direct(ctx);
	struct iommu_domain *user = mock_user_domain(mdev);

	/* As if its owner had attached a domain, and now goes away */
	KUNIT_ASSERT_EQ(test, 0, mock_set_group(ctx, user, 0));
	mock_set_group(ctx, mock_blocking_domain(ctx),
		       IOMMU_SET_DOMAIN_MUST_SUCCEED);
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, &ctx->identity);
	iommu_domain_free(user);
	KUNIT_EXPECT_EQ(test, 0, ctx->freed_in_use);
}

/* Rule: a good domain is attached to whoever firmware needs, without detours. */
static void must_succeed_default_direct(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_direct(ctx);

	KUNIT_ASSERT_EQ(test, 0, mock_set_group(ctx, &ctx->identity, 0));
	mock_reset_log(ctx);
	KUNIT_EXPECT_EQ(test, 0,
			mock_set_group(ctx, ctx->group->default_domain,
				       IOMMU_SET_DOMAIN_MUST_SUCCEED));
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, ctx->group->default_domain);
	KUNIT_EXPECT_EQ(test, 1, mock_attaches(mdev, NULL));
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
	KUNIT_CASE(paging_allowed_direct),
	KUNIT_CASE(deferred_default_domain_not_attached),
	KUNIT_CASE(deferred_ends_with_other_domain),
	KUNIT_CASE(deferred_direct_refused),
	KUNIT_CASE(group_moves_every_device),
	KUNIT_CASE(group_same_domain_is_no_attach),
	KUNIT_CASE(group_second_refused),
	KUNIT_CASE(group_first_refused),
	KUNIT_CASE(group_driver_error_reverts),
	KUNIT_CASE(device_driver_error_keeps_domain),
	KUNIT_CASE(must_succeed_error_goes_to_blocking),
	KUNIT_CASE(must_succeed_error_direct_goes_to_identity),
	KUNIT_CASE(must_succeed_blocking_direct_goes_to_identity),
	KUNIT_CASE(must_succeed_default_direct),
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

/* Ownership, as VFIO and iommufd take it */

static int owner_a, owner_b;

/* Rule: who claims gets silence first, and the way back is clean. */
static void claim_plain(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_plain(ctx);

	KUNIT_ASSERT_EQ(test, 0, iommu_group_claim_dma_owner(ctx->group, &owner_a));
	KUNIT_EXPECT_TRUE(test, iommu_group_dma_owner_claimed(ctx->group));
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, &ctx->blocked);
	iommu_group_release_dma_owner(ctx->group);
	KUNIT_EXPECT_FALSE(test, iommu_group_dma_owner_claimed(ctx->group));
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, ctx->group->default_domain);
}

/* Rule: the owner's domain replaces the silence, and leaves no trace. */
static void claim_attach_release(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_plain(ctx);
	struct iommu_domain *user = mock_user_domain(mdev);

	KUNIT_ASSERT_EQ(test, 0, iommu_group_claim_dma_owner(ctx->group, &owner_a));
	KUNIT_EXPECT_EQ(test, 0, iommu_attach_group(user, ctx->group));
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, user);
	iommu_detach_group(user, ctx->group);
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, &ctx->blocked);
	iommu_domain_free(user);
	iommu_group_release_dma_owner(ctx->group);
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, ctx->group->default_domain);
	KUNIT_EXPECT_EQ(test, 0, ctx->freed_in_use);
}

/* Rule: no ownership of a device that firmware needs, DMA default domain. */
static void claim_direct_refused(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_direct(ctx);

	KUNIT_EXPECT_EQ(test, -EINVAL,
			iommu_group_claim_dma_owner(ctx->group, &owner_a));
	KUNIT_EXPECT_FALSE(test, iommu_group_dma_owner_claimed(ctx->group));
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, ctx->group->default_domain);
}

/* Rule: the same with iommu=pt. */
static void claim_direct_refused_identity(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev;

	ctx->def_type = IOMMU_DOMAIN_IDENTITY;
	mdev = mock_direct(ctx);
	KUNIT_EXPECT_EQ(test, -EINVAL,
			iommu_device_claim_dma_owner(&mdev->dev, &owner_a));
	KUNIT_EXPECT_FALSE(test, iommu_group_dma_owner_claimed(ctx->group));
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, &ctx->identity);
}

/* Rule: the same for drivers without a blocked domain. */
static void claim_direct_refused_no_blocked_domain(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev;

	ctx->ops.blocked_domain = NULL;
	mdev = mock_direct(ctx);
	KUNIT_EXPECT_EQ(test, -EINVAL,
			iommu_group_claim_dma_owner(ctx->group, &owner_a));
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, ctx->group->default_domain);
	KUNIT_EXPECT_TRUE(test, mock_reaches(mdev, 0));
}

/* Rule: asking again changes neither the answer nor the device. */
static void claim_direct_refused_again(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_direct(ctx);

	KUNIT_EXPECT_EQ(test, -EINVAL,
			iommu_group_claim_dma_owner(ctx->group, &owner_a));
	KUNIT_EXPECT_EQ(test, -EINVAL,
			iommu_group_claim_dma_owner(ctx->group, &owner_a));
	KUNIT_EXPECT_EQ(test, -EINVAL,
			iommu_device_claim_dma_owner(&mdev->dev, &owner_b));
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, ctx->group->default_domain);
	KUNIT_EXPECT_EQ(test, 0, mock_attaches(mdev, &ctx->blocked));
}

/* Rule: a refused device still works: its region, its driver, its group. */
static void claim_refused_device_usable(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_direct(ctx);

	KUNIT_EXPECT_EQ(test, -EINVAL,
			iommu_group_claim_dma_owner(ctx->group, &owner_a));
	KUNIT_EXPECT_TRUE(test, mock_reaches(mdev, 0));
	KUNIT_EXPECT_PTR_EQ(test, iommu_get_domain_for_dev(&mdev->dev),
			    ctx->group->default_domain);
	KUNIT_EXPECT_EQ(test, 0, iommu_device_use_default_domain(&mdev->dev));
	iommu_device_unuse_default_domain(&mdev->dev);
}

/* Rule: a plain device shares the fate of its group. */
static void claim_mixed_group_refused(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *plain = mock_plain(ctx);
	struct mock_dev *direct = mock_direct(ctx);

	KUNIT_EXPECT_EQ(test, -EINVAL,
			iommu_device_claim_dma_owner(&plain->dev, &owner_a));
	KUNIT_EXPECT_FALSE(test, iommu_group_dma_owner_claimed(ctx->group));
	KUNIT_EXPECT_PTR_EQ(test, plain->hw, ctx->group->default_domain);
	KUNIT_EXPECT_PTR_EQ(test, direct->hw, ctx->group->default_domain);
	KUNIT_EXPECT_TRUE(test, mock_reaches(direct, 0));
}

/* Rule: the group is free again once the device that firmware needs is gone. */
static void claim_after_direct_left(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *plain = mock_plain(ctx);
	struct mock_dev *direct = mock_direct(ctx);

	mock_del(direct);
	KUNIT_EXPECT_EQ(test, 0, iommu_group_claim_dma_owner(ctx->group, &owner_a));
	KUNIT_EXPECT_PTR_EQ(test, plain->hw, &ctx->blocked);
	iommu_group_release_dma_owner(ctx->group);
}

/* Rule: a relaxable region does not keep a device from userspace. */
static void claim_relaxable(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_dev_with(ctx, IOMMU_RESV_DIRECT_RELAXABLE);

	KUNIT_EXPECT_EQ(test, 0, iommu_group_claim_dma_owner(ctx->group, &owner_a));
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, &ctx->blocked);
	iommu_group_release_dma_owner(ctx->group);
	KUNIT_EXPECT_TRUE(test, mock_reaches(mdev, 0));
}

/* Rule: a group has one owner; VFIO's claim is not shared. */
static void claim_group_is_exclusive(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_plain(ctx);

	KUNIT_ASSERT_EQ(test, 0, iommu_group_claim_dma_owner(ctx->group, &owner_a));
	KUNIT_EXPECT_EQ(test, -EPERM,
			iommu_group_claim_dma_owner(ctx->group, &owner_a));
	KUNIT_EXPECT_EQ(test, -EPERM,
			iommu_device_claim_dma_owner(&mdev->dev, &owner_b));
	KUNIT_EXPECT_EQ(test, -EBUSY, iommu_device_use_default_domain(&mdev->dev));
	iommu_group_release_dma_owner(ctx->group);
}

/* Rule: iommufd claims device by device; the last to leave releases. */
static void claim_device_repeated(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *first = mock_plain(ctx);
	struct mock_dev *second = mock_plain(ctx);

	KUNIT_ASSERT_EQ(test, 0, iommu_device_claim_dma_owner(&first->dev, &owner_a));
	KUNIT_EXPECT_EQ(test, 0, iommu_device_claim_dma_owner(&second->dev, &owner_a));
	KUNIT_EXPECT_EQ(test, -EPERM,
			iommu_device_claim_dma_owner(&second->dev, &owner_b));
	iommu_device_release_dma_owner(&first->dev);
	KUNIT_EXPECT_TRUE(test, iommu_group_dma_owner_claimed(ctx->group));
	KUNIT_EXPECT_PTR_EQ(test, first->hw, &ctx->blocked);
	iommu_device_release_dma_owner(&second->dev);
	KUNIT_EXPECT_FALSE(test, iommu_group_dma_owner_claimed(ctx->group));
	KUNIT_EXPECT_PTR_EQ(test, first->hw, ctx->group->default_domain);
	KUNIT_EXPECT_PTR_EQ(test, second->hw, ctx->group->default_domain);
}

/* Rule: not while a kernel driver does DMA with the default domain. */
static void claim_refused_while_driver_bound(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_plain(ctx);

	KUNIT_ASSERT_EQ(test, 0, iommu_device_use_default_domain(&mdev->dev));
	KUNIT_EXPECT_EQ(test, -EPERM,
			iommu_group_claim_dma_owner(ctx->group, &owner_a));
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, ctx->group->default_domain);
	iommu_device_unuse_default_domain(&mdev->dev);
}

/* Rule: an ordinary device may join a group that is owned. */
static void late_plain_joins_owner(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *first = mock_plain(ctx);
	struct iommu_domain *user = mock_user_domain(first);
	struct mock_dev *late = mock_new(ctx);

	KUNIT_ASSERT_EQ(test, 0, iommu_group_claim_dma_owner(ctx->group, &owner_a));
	KUNIT_ASSERT_EQ(test, 0, iommu_attach_group(user, ctx->group));
	KUNIT_EXPECT_TRUE(test, mock_add(late));
	KUNIT_EXPECT_PTR_EQ(test, late->hw, user);
	iommu_detach_group(user, ctx->group);
	iommu_domain_free(user);
	iommu_group_release_dma_owner(ctx->group);
	KUNIT_EXPECT_PTR_EQ(test, late->hw, ctx->group->default_domain);
	KUNIT_EXPECT_EQ(test, 0, ctx->freed_in_use);
}

/* Rule: firmware's device does not join a group that is claimed and idle. */
static void late_direct_refused_by_claim(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *first = mock_plain(ctx);
	struct mock_dev *late = mock_new(ctx);

	mock_region(late, IOMMU_RESV_DIRECT);
	KUNIT_ASSERT_EQ(test, 0, iommu_group_claim_dma_owner(ctx->group, &owner_a));
	KUNIT_EXPECT_FALSE(test, mock_add(late));
	KUNIT_EXPECT_EQ(test, 0, mock_attaches(late, NULL));
	KUNIT_EXPECT_PTR_EQ(test, first->hw, &ctx->blocked);
	iommu_group_release_dma_owner(ctx->group);
	KUNIT_EXPECT_PTR_EQ(test, first->hw, ctx->group->default_domain);
}

/* Rule: nor one whose owner has a domain of his own attached, least of all. */
static void late_direct_refused_by_owner(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *first = mock_plain(ctx);
	struct iommu_domain *user = mock_user_domain(first);
	struct mock_dev *late = mock_new(ctx);

	mock_region(late, IOMMU_RESV_DIRECT);
	KUNIT_ASSERT_EQ(test, 0, iommu_group_claim_dma_owner(ctx->group, &owner_a));
	KUNIT_ASSERT_EQ(test, 0, iommu_attach_group(user, ctx->group));
	mock_add(late);
	KUNIT_EXPECT_EQ(test, 0, mock_attaches(late, user));
	mock_del(late);
	iommu_detach_group(user, ctx->group);
	iommu_domain_free(user);
	iommu_group_release_dma_owner(ctx->group);
}

/* Rule: a region that cannot be mapped must not hide one that firmware needs. */
static void late_direct_behind_failed_map(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *first = mock_plain(ctx);
	struct mock_dev *late = mock_new(ctx);

	mock_region(late, IOMMU_RESV_DIRECT_RELAXABLE);
	mock_region(late, IOMMU_RESV_DIRECT);
	ctx->fail_map = late->region[0].start;
	/* Whether it may join at all is another matter; if so, it is noted */
	mock_add(late);
	KUNIT_EXPECT_NE(test, 0, late->dev.iommu_group ?
			iommu_group_claim_dma_owner(ctx->group, &owner_a) : -EINVAL);
	KUNIT_EXPECT_PTR_EQ(test, first->hw, ctx->group->default_domain);
}

static struct kunit_case iommu_dma_owner_cases[] = {
	KUNIT_CASE(claim_plain),
	KUNIT_CASE(claim_attach_release),
	KUNIT_CASE(claim_direct_refused),
	KUNIT_CASE(claim_direct_refused_identity),
	KUNIT_CASE(claim_direct_refused_no_blocked_domain),
	KUNIT_CASE(claim_direct_refused_again),
	KUNIT_CASE(claim_refused_device_usable),
	KUNIT_CASE(claim_mixed_group_refused),
	KUNIT_CASE(claim_after_direct_left),
	KUNIT_CASE(claim_relaxable),
	KUNIT_CASE(claim_group_is_exclusive),
	KUNIT_CASE(claim_device_repeated),
	KUNIT_CASE(claim_refused_while_driver_bound),
	KUNIT_CASE(late_plain_joins_owner),
	KUNIT_CASE(late_direct_refused_by_claim),
	KUNIT_CASE(late_direct_refused_by_owner),
	KUNIT_CASE(late_direct_behind_failed_map),
	{}
};

static struct kunit_suite iommu_dma_owner_suite = {
	.name = "iommu_dma_owner",
	.suite_init = mock_suite_init,
	.suite_exit = mock_suite_exit,
	.init = mock_init,
	.exit = mock_exit,
	.test_cases = iommu_dma_owner_cases,
};

kunit_test_suites(&iommu_set_domain_suite, &iommu_dma_owner_suite);
