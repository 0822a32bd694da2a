// SPDX-License-Identifier: GPL-2.0-only
/*
 * Domains that iommufd exchanges without blocking in between, and the handles
 * by which it finds out what is attached when a device faults.
 */
#include "../iommu-priv.h"

/* One domain for another; before 7.0 also without a handle */
static int mock_replace(struct mock_ctx *ctx, struct iommu_domain *domain,
			struct iommu_attach_handle *handle)
{
#ifdef IOMMU_KUNIT_REPLACE_DOMAIN
	if (!handle)
		return iommu_group_replace_domain(ctx->group, domain);
#endif
	return iommu_replace_group_handle(ctx->group, domain, handle);
}

static struct iommu_attach_handle *mock_handle_of(struct mock_ctx *ctx)
{
	return iommu_attach_handle_get(ctx->group, IOMMU_NO_PASID, 0);
}

/* Rule: from one domain into the other, and never through blocking. */
static void replace_moves_directly(struct kunit *test)
{
	struct iommu_attach_handle handle[2] = {};
	struct mock_ctx *ctx = test->priv;
	struct iommu_domain *from, *to;

	mock_three(ctx);
	from = mock_user_domain(ctx->devs[0]);
	to = mock_user_domain(ctx->devs[0]);
	KUNIT_ASSERT_EQ(test, 0, iommu_group_claim_dma_owner(ctx->group, ctx));
	KUNIT_ASSERT_EQ(test, 0, mock_replace(ctx, from, &handle[0]));
	expect_all_in(ctx, from);
	mock_reset_log(ctx);
	KUNIT_EXPECT_EQ(test, 0, mock_replace(ctx, to, &handle[1]));
	expect_all_in(ctx, to);
	KUNIT_EXPECT_EQ(test, MOCK_THREE, ctx->nr_log);
	KUNIT_EXPECT_PTR_EQ(test, ctx->group->domain, to);
	KUNIT_EXPECT_PTR_EQ(test, mock_handle_of(ctx), &handle[1]);
	KUNIT_EXPECT_PTR_EQ(test, handle[1].domain, to);
	iommu_detach_group_handle(to, ctx->group);
	iommu_group_release_dma_owner(ctx->group);
	iommu_domain_free(from);
	iommu_domain_free(to);
}

/* Rule: what cannot be replaced stays, for every device, with its handle. */
static void replace_one_fails(struct kunit *test)
{
	const struct attach_row *row = test->param_value;
	struct iommu_attach_handle handle[2] = {};
	struct mock_ctx *ctx = test->priv;
	struct iommu_domain *from, *to;

	mock_three(ctx);
	from = mock_user_domain(ctx->devs[0]);
	to = mock_user_domain(ctx->devs[0]);
	KUNIT_ASSERT_EQ(test, 0, iommu_group_claim_dma_owner(ctx->group, ctx));
	KUNIT_ASSERT_EQ(test, 0, iommu_attach_group_handle(from, ctx->group, &handle[0]));
	mock_fail(ctx->devs[row->nr], to);
	KUNIT_EXPECT_EQ(test, -ENOSPC, mock_replace(ctx, to, &handle[1]));
	expect_all_in(ctx, from);
	KUNIT_EXPECT_PTR_EQ(test, ctx->group->domain, from);
	KUNIT_EXPECT_PTR_EQ(test, mock_handle_of(ctx), &handle[0]);
	iommu_domain_free(to);
	iommu_detach_group_handle(from, ctx->group);
	iommu_domain_free(from);
	iommu_group_release_dma_owner(ctx->group);
}

/* Rule: there is nothing to attach without a domain. */
static void replace_by_nothing(struct kunit *test)
{
	struct iommu_attach_handle handle = {};
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_plain(ctx);

	mock_reset_log(ctx);
	KUNIT_EXPECT_EQ(test, -EINVAL, mock_replace(ctx, NULL, &handle));
#ifdef IOMMU_KUNIT_REPLACE_DOMAIN
	KUNIT_EXPECT_EQ(test, -EINVAL, mock_replace(ctx, NULL, NULL));
#endif
	KUNIT_EXPECT_EQ(test, 0, mock_attaches(mdev, NULL));
	KUNIT_EXPECT_PTR_EQ(test, ctx->group->domain, mock_default(ctx));
}

#ifdef IOMMU_KUNIT_REPLACE_DOMAIN
/* Rule: the same without a handle. */
static void replace_without_handle(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct iommu_domain *from, *to;

	mock_three(ctx);
	from = mock_user_domain(ctx->devs[0]);
	to = mock_user_domain(ctx->devs[0]);
	KUNIT_ASSERT_EQ(test, 0, mock_replace(ctx, from, NULL));
	mock_reset_log(ctx);
	KUNIT_EXPECT_EQ(test, 0, mock_replace(ctx, to, NULL));
	expect_all_in(ctx, to);
	KUNIT_EXPECT_EQ(test, MOCK_THREE, ctx->nr_log);
	mock_fail(ctx->devs[2], from);
	KUNIT_EXPECT_EQ(test, -ENOSPC, mock_replace(ctx, from, NULL));
	expect_all_in(ctx, to);
	KUNIT_EXPECT_PTR_EQ(test, ctx->group->domain, to);
	iommu_detach_group(to, ctx->group);
	iommu_domain_free(from);
	iommu_domain_free(to);
}
#endif

/* Rule: a handle is found from the attach to the detach, by the right type. */
static void handle_found_while_attached(struct kunit *test)
{
	struct iommu_attach_handle handle = {};
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_plain(ctx);
	struct iommu_domain *user = mock_user_domain(mdev);

	KUNIT_EXPECT_EQ(test, -ENOENT, PTR_ERR(mock_handle_of(ctx)));
	KUNIT_ASSERT_EQ(test, 0, iommu_attach_group_handle(user, ctx->group, &handle));
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, user);
	KUNIT_EXPECT_PTR_EQ(test, mock_handle_of(ctx), &handle);
	KUNIT_EXPECT_PTR_EQ(test, handle.domain, user);
	KUNIT_EXPECT_PTR_EQ(test, &handle,
			    iommu_attach_handle_get(ctx->group, IOMMU_NO_PASID,
						    IOMMU_DOMAIN_UNMANAGED));
	KUNIT_EXPECT_EQ(test, -EBUSY,
			PTR_ERR(iommu_attach_handle_get(ctx->group, IOMMU_NO_PASID,
							IOMMU_DOMAIN_SVA)));
	KUNIT_EXPECT_EQ(test, -ENOENT,
			PTR_ERR(iommu_attach_handle_get(ctx->group, 1, 0)));
	iommu_detach_group_handle(user, ctx->group);
	KUNIT_EXPECT_EQ(test, -ENOENT, PTR_ERR(mock_handle_of(ctx)));
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, mock_default(ctx));
	iommu_domain_free(user);
}

/* Rule: there is one at a time, and the second does not cost the first its own. */
static void handle_is_exclusive(struct kunit *test)
{
	struct iommu_attach_handle handle[2] = {};
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_plain(ctx);
	struct iommu_domain *user = mock_user_domain(mdev);
	struct iommu_domain *other = mock_user_domain(mdev);

	KUNIT_ASSERT_EQ(test, 0, iommu_attach_group_handle(user, ctx->group, &handle[0]));
	KUNIT_EXPECT_EQ(test, -EBUSY,
			iommu_attach_group_handle(other, ctx->group, &handle[1]));
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, user);
	KUNIT_EXPECT_PTR_EQ(test, mock_handle_of(ctx), &handle[0]);
	/* Nor is the group claimed */
	KUNIT_EXPECT_EQ(test, -EBUSY, iommu_group_claim_dma_owner(ctx->group, ctx));
	iommu_detach_group_handle(user, ctx->group);
	iommu_domain_free(user);
	iommu_domain_free(other);
}

/* Nothing of an attach that failed is left, which would keep others out */
static void expect_not_attached(struct mock_ctx *ctx)
{
	KUNIT_EXPECT_EQ(ctx->test, -ENOENT, PTR_ERR(mock_handle_of(ctx)));
	expect_all_in(ctx, mock_default(ctx));
	KUNIT_EXPECT_EQ(ctx->test, 0, iommu_group_claim_dma_owner(ctx->group, ctx));
	if (iommu_group_dma_owner_claimed(ctx->group))
		iommu_group_release_dma_owner(ctx->group);
}

/* Rule: what is not attached has no handle. */
static void handle_gone_after_failed_attach(struct kunit *test)
{
	struct iommu_attach_handle handle = {};
	struct mock_ctx *ctx = test->priv;
	struct iommu_domain *user;

	mock_three(ctx);
	user = mock_user_domain(ctx->devs[0]);
	mock_fail(ctx->devs[1], user);
	KUNIT_EXPECT_EQ(test, -ENOSPC, iommu_attach_group_handle(user, ctx->group, &handle));
	expect_not_attached(ctx);
	/* Nor what was to replace the core's own domain */
	KUNIT_EXPECT_EQ(test, -ENOSPC, mock_replace(ctx, user, &handle));
	expect_not_attached(ctx);
	ctx->devs[1]->fail_domain = NULL;
	KUNIT_EXPECT_EQ(test, 0, iommu_attach_group_handle(user, ctx->group, &handle));
	expect_all_in(ctx, user);
	iommu_detach_group_handle(user, ctx->group);
	iommu_domain_free(user);
}

/* Rule: a domain that is being detached has no handle any more, come what may. */
static void handle_gone_though_detach_fails(struct kunit *test)
{
	struct iommu_attach_handle handle = {};
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_plain(ctx);
	struct iommu_domain *user = mock_user_domain(mdev);

	KUNIT_ASSERT_EQ(test, 0, iommu_group_claim_dma_owner(ctx->group, ctx));
	KUNIT_ASSERT_EQ(test, 0, iommu_attach_group_handle(user, ctx->group, &handle));
	mock_fail(mdev, &ctx->blocked);
	mock_warns(test, 1, iommu_detach_group_handle(user, ctx->group));
	mdev->stuck = true;
	KUNIT_EXPECT_EQ(test, -ENOENT, PTR_ERR(mock_handle_of(ctx)));
	KUNIT_EXPECT_PTR_EQ(test, ctx->group->domain, &ctx->blocked);
	iommu_group_release_dma_owner(ctx->group);
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, mock_default(ctx));
	iommu_domain_free(user);
}

static struct kunit_case iommu_handle_cases[] = {
	KUNIT_CASE(replace_moves_directly),
	KUNIT_CASE_PARAM(replace_one_fails, attach_which_gen_params),
	KUNIT_CASE(replace_by_nothing),
#ifdef IOMMU_KUNIT_REPLACE_DOMAIN
	KUNIT_CASE(replace_without_handle),
#endif
	KUNIT_CASE(handle_found_while_attached),
	KUNIT_CASE(handle_is_exclusive),
	KUNIT_CASE(handle_gone_after_failed_attach),
	KUNIT_CASE(handle_gone_though_detach_fails),
	{}
};

static struct kunit_suite iommu_handle_suite = {
	.name = "iommu_handle",
	.suite_init = mock_suite_init,
	.suite_exit = mock_suite_exit,
	.init = mock_init,
	.exit = mock_exit,
	.test_cases = iommu_handle_cases,
};
