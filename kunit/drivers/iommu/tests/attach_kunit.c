// SPDX-License-Identifier: GPL-2.0-only
/*
 * What drivers and owners attach: iommu_attach_group(), iommu_attach_device()
 * and what takes it back. A group has three devices where it matters which of
 * them fails, and what becomes of those before and after it.
 */

#define MOCK_THREE	3

struct attach_row {
	const char *name;
	unsigned int nr;
};

/* Which device of three it is about */
static const struct attach_row attach_which[] = {
	{ "first", 0 },
	{ "middle", 1 },
	{ "last", 2 },
};

static void attach_get_desc(const struct attach_row *row, char *desc)
{
	strscpy(desc, row->name, KUNIT_PARAM_DESC_SIZE);
}

KUNIT_ARRAY_PARAM(attach_which, attach_which, attach_get_desc);

static void mock_three(struct mock_ctx *ctx)
{
	unsigned int i;

	for (i = 0; i < MOCK_THREE; i++)
		mock_plain(ctx);
}

static void expect_all_in(struct mock_ctx *ctx, struct iommu_domain *domain)
{
	unsigned int i;

	for (i = 0; i < ctx->nr_devs; i++)
		KUNIT_EXPECT_PTR_EQ_MSG(ctx->test, ctx->devs[i]->hw, domain,
					"device %u", i);
}

static void mock_fail(struct mock_dev *mdev, struct iommu_domain *domain)
{
	mdev->fail_domain = domain;
	mdev->fail_ret = -ENOSPC;
}

/* Rule: if one cannot be moved, all that were moved go back. */
static void attach_one_fails(struct kunit *test)
{
	const struct attach_row *row = test->param_value;
	struct mock_ctx *ctx = test->priv;
	struct iommu_domain *user;
	unsigned int i;

	mock_three(ctx);
	user = mock_user_domain(ctx->devs[0]);
	mock_fail(ctx->devs[row->nr], user);
	mock_reset_log(ctx);
	KUNIT_EXPECT_EQ(test, -ENOSPC, iommu_attach_group(user, ctx->group));
	expect_all_in(ctx, mock_default(ctx));
	KUNIT_EXPECT_PTR_EQ(test, ctx->group->domain, mock_default(ctx));
	for (i = 0; i < MOCK_THREE; i++) {
		KUNIT_EXPECT_EQ(test, i <= row->nr, mock_attaches(ctx->devs[i], user));
		if (i < row->nr)
			KUNIT_EXPECT_EQ(test, 1, mock_attaches(ctx->devs[i],
							       mock_default(ctx)));
	}
	iommu_domain_free(user);
}

/* Rule: a claim that fails leaves a group as it was. */
static void claim_one_fails(struct kunit *test)
{
	const struct attach_row *row = test->param_value;
	struct mock_ctx *ctx = test->priv;

	mock_three(ctx);
	mock_fail(ctx->devs[row->nr], &ctx->blocked);
	KUNIT_EXPECT_EQ(test, -ENOSPC, iommu_group_claim_dma_owner(ctx->group, ctx));
	KUNIT_EXPECT_FALSE(test, iommu_group_dma_owner_claimed(ctx->group));
	expect_all_in(ctx, mock_default(ctx));
	KUNIT_EXPECT_PTR_EQ(test, ctx->group->domain, mock_default(ctx));
	/* Nothing is left behind that would be in the way of the next one */
	ctx->devs[row->nr]->fail_domain = NULL;
	KUNIT_EXPECT_EQ(test, 0, iommu_group_claim_dma_owner(ctx->group, ctx));
	expect_all_in(ctx, &ctx->blocked);
	iommu_group_release_dma_owner(ctx->group);
}

/* Rule: one domain after the other, unless it is the core's own. */
static void attach_over_attach(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_plain(ctx);
	struct iommu_domain *first = mock_user_domain(mdev);
	struct iommu_domain *second = mock_user_domain(mdev);

	KUNIT_ASSERT_EQ(test, 0, iommu_attach_group(first, ctx->group));
	mock_reset_log(ctx);
	KUNIT_EXPECT_EQ(test, -EBUSY, iommu_attach_group(second, ctx->group));
	KUNIT_EXPECT_EQ(test, -EBUSY, iommu_attach_device(second, &mdev->pci.dev));
	KUNIT_EXPECT_EQ(test, -EBUSY, iommu_attach_group(first, ctx->group));
	KUNIT_EXPECT_EQ(test, 0, mock_attaches(mdev, NULL));
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, first);
	iommu_detach_group(first, ctx->group);
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, mock_default(ctx));
	KUNIT_EXPECT_EQ(test, 0, iommu_attach_group(second, ctx->group));
	iommu_detach_group(second, ctx->group);
	iommu_domain_free(first);
	iommu_domain_free(second);
}

/* Rule: a driver must not move devices that it does not drive. */
static void attach_device_in_shared_group(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_plain(ctx);
	struct iommu_domain *user = mock_user_domain(mdev);

	mock_plain(ctx);
	mock_reset_log(ctx);
	KUNIT_EXPECT_EQ(test, -EINVAL, iommu_attach_device(user, &mdev->pci.dev));
	KUNIT_EXPECT_EQ(test, 0, ctx->nr_log);
	/* Nor take away what the group has */
	KUNIT_ASSERT_EQ(test, 0, iommu_attach_group(user, ctx->group));
	mock_warns(test, 1, iommu_detach_device(user, &mdev->pci.dev));
	expect_all_in(ctx, user);
	iommu_detach_group(user, ctx->group);
	iommu_domain_free(user);
}

/* Rule: the DMA API asks at every mapping, mostly for nothing. */
static void deferred_attach_of_attached(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_plain(ctx);

	mock_reset_log(ctx);
	KUNIT_EXPECT_EQ(test, 0, iommu_deferred_attach(&mdev->pci.dev,
						       mock_default(ctx)));
	KUNIT_EXPECT_EQ(test, 0, ctx->nr_log);
}

/* Rule: who is released is not in the hands of its owner any more. */
static void release_default_fails(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_plain(ctx);

	KUNIT_ASSERT_EQ(test, 0, iommu_group_claim_dma_owner(ctx->group, ctx));
	mock_fail(mdev, mock_default(ctx));
	mock_warns(test, 1, iommu_group_release_dma_owner(ctx->group));
	KUNIT_EXPECT_FALSE(test, iommu_group_dma_owner_claimed(ctx->group));
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, &ctx->blocked);
	mdev->fail_domain = NULL;
}

/* Rule: what cannot be blocked stays where it is, and the kernel says so. */
static void detach_blocking_fails(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_plain(ctx);
	struct iommu_domain *user = mock_user_domain(mdev);

	KUNIT_ASSERT_EQ(test, 0, iommu_group_claim_dma_owner(ctx->group, ctx));
	KUNIT_ASSERT_EQ(test, 0, iommu_attach_group(user, ctx->group));
	mock_fail(mdev, &ctx->blocked);
	mock_reset_log(ctx);
	mock_warns(test, 1, iommu_detach_group(user, ctx->group));
	mdev->stuck = true;
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, user);
	KUNIT_EXPECT_EQ(test, 1, ctx->nr_log);
	iommu_group_release_dma_owner(ctx->group);
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, mock_default(ctx));
	iommu_domain_free(user);
}

#ifdef IOMMU_KUNIT_STATIC_DOMAINS
/* Rule: a domain is for the hardware of the driver that made it. */
static void attach_domain_of_other_driver(struct kunit *test)
{
	static const struct iommu_ops other_ops;
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_plain(ctx);
	struct iommu_domain *user = mock_user_domain(mdev);

	user->owner = &other_ops;
	mock_reset_log(ctx);
	KUNIT_EXPECT_EQ(test, -EINVAL, iommu_attach_group(user, ctx->group));
	KUNIT_EXPECT_EQ(test, -EINVAL, iommu_attach_device(user, &mdev->pci.dev));
	KUNIT_EXPECT_EQ(test, 0, ctx->nr_log);
	KUNIT_EXPECT_PTR_EQ(test, ctx->group->domain, mock_default(ctx));
	iommu_domain_free(user);
}

/*
 * Let the last of three fail to attach a user's domain, and another one to go
 * back, which no driver should do. The one that is stuck is returned.
 */
static struct mock_dev *put_back_fails(struct kunit *test, struct iommu_domain *user)
{
	const struct attach_row *row = test->param_value;
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *stuck = ctx->devs[row->nr];

	mock_blocking_domain(ctx);
	mock_fail(ctx->devs[MOCK_THREE - 1], user);
	mock_fail(stuck, mock_default(ctx));
	mock_reset_log(ctx);
	mock_warns(test, 1,
		   KUNIT_EXPECT_EQ(test, -ENOSPC, iommu_attach_group(user, ctx->group)));
	KUNIT_EXPECT_PTR_EQ(test, ctx->group->domain, mock_default(ctx));
	/* None of the others is left behind */
	KUNIT_EXPECT_PTR_EQ(test, ctx->devs[!row->nr]->hw, mock_default(ctx));
	KUNIT_EXPECT_PTR_EQ(test, ctx->devs[MOCK_THREE - 1]->hw, mock_default(ctx));
	return stuck;
}

static const struct attach_row put_back_which[] = {
	{ "first", 0 },
	{ "middle", 1 },
};

KUNIT_ARRAY_PARAM(put_back_which, put_back_which, attach_get_desc);

/* Rule: who cannot go back is blocked, and does not stay in a user's domain. */
static void put_back_fails_blocked(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct iommu_domain *user;
	struct mock_dev *stuck;

	mock_three(ctx);
	user = mock_user_domain(ctx->devs[0]);
	stuck = put_back_fails(test, user);
	KUNIT_EXPECT_PTR_EQ(test, stuck->hw, &ctx->blocked);
	iommu_domain_free(user);
}

/* Rule, end goal 4: or where its region is, if firmware needs that. */
static void put_back_fails_direct(struct kunit *test)
{
	const struct attach_row *row = test->param_value;
	struct mock_ctx *ctx = test->priv;
	struct iommu_domain *user;
	struct mock_dev *stuck;
	unsigned int i;

	for (i = 0; i < MOCK_THREE; i++)
		(void)(i == row->nr ? mock_direct(ctx) : mock_plain(ctx));
	user = mock_user_domain(ctx->devs[0]);
	stuck = put_back_fails(test, user);
	KUNIT_EXPECT_PTR_NE(test, stuck->hw, user);
	KUNIT_EXPECT_TRUE(test, mock_reaches(stuck, 0));
	iommu_domain_free(user);
}

/* Rule: if that fails as well there is nothing left, and the others go back. */
static void put_back_fails_for_good(struct kunit *test)
{
	const struct attach_row *row = test->param_value;
	struct mock_ctx *ctx = test->priv;
	struct iommu_domain *user;
	struct mock_dev *stuck;

	mock_three(ctx);
	user = mock_user_domain(ctx->devs[0]);
	ctx->devs[row->nr]->fail_too = &ctx->blocked;
	stuck = put_back_fails(test, user);
	KUNIT_EXPECT_PTR_EQ(test, stuck->hw, user);
	KUNIT_EXPECT_EQ(test, 1, mock_attaches(stuck, mock_default(ctx)));
	KUNIT_EXPECT_EQ(test, 1, mock_attaches(stuck, &ctx->blocked));
	stuck->fail_domain = NULL;
	stuck->fail_too = NULL;
	KUNIT_EXPECT_EQ(test, 0, mock_set_device(stuck, mock_default(ctx), 0));
	iommu_domain_free(user);
}

/* Rule: one that cannot have the default domain does not hold the others. */
static void release_default_fails_for_one(struct kunit *test)
{
	const struct attach_row *row = test->param_value;
	struct mock_ctx *ctx = test->priv;
	unsigned int i;

	mock_three(ctx);
	KUNIT_ASSERT_EQ(test, 0, iommu_group_claim_dma_owner(ctx->group, ctx));
	mock_fail(ctx->devs[row->nr], mock_default(ctx));
	mock_warns(test, 1, iommu_group_release_dma_owner(ctx->group));
	for (i = 0; i < MOCK_THREE; i++)
		KUNIT_EXPECT_PTR_EQ(test, ctx->devs[i]->hw,
				    i == row->nr ? &ctx->blocked : mock_default(ctx));
	KUNIT_EXPECT_PTR_EQ(test, ctx->group->domain, mock_default(ctx));
}

/* Rule: an owner that goes without a word leaves no device in its domain. */
static void release_default_fails_attached(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_plain(ctx);
	struct iommu_domain *user = mock_user_domain(mdev);

	KUNIT_ASSERT_EQ(test, 0, iommu_group_claim_dma_owner(ctx->group, ctx));
	KUNIT_ASSERT_EQ(test, 0, iommu_attach_group(user, ctx->group));
	mock_fail(mdev, mock_default(ctx));
	mock_warns(test, 1, iommu_group_release_dma_owner(ctx->group));
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, &ctx->blocked);
	iommu_domain_free(user);
}

/* Rule: the same for drivers that have an empty domain to block with. */
static void release_default_fails_no_blocked(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct iommu_domain *user;
	struct mock_dev *mdev;

	mock_no_blocked(ctx);
	mdev = mock_plain(ctx);
	user = mock_user_domain(mdev);
	KUNIT_ASSERT_EQ(test, 0, iommu_group_claim_dma_owner(ctx->group, ctx));
	KUNIT_ASSERT_EQ(test, 0, iommu_attach_group(user, ctx->group));
	mock_fail(mdev, mock_default(ctx));
	mock_warns(test, 1, iommu_group_release_dma_owner(ctx->group));
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, ctx->group->blocking_domain);
	mdev->fail_domain = NULL;
	KUNIT_EXPECT_EQ(test, 0, mock_set_device(mdev, mock_default(ctx), 0));
	iommu_domain_free(user);
}

/* Rule: with nothing left to attach it stays, and the kernel says so, once. */
static void release_default_fails_for_good(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_plain(ctx);
	struct iommu_domain *user = mock_user_domain(mdev);

	KUNIT_ASSERT_EQ(test, 0, iommu_group_claim_dma_owner(ctx->group, ctx));
	KUNIT_ASSERT_EQ(test, 0, iommu_attach_group(user, ctx->group));
	mock_fail(mdev, mock_default(ctx));
	mdev->fail_too = &ctx->blocked;
	mock_reset_log(ctx);
	mock_warns(test, 1, iommu_group_release_dma_owner(ctx->group));
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, user);
	KUNIT_EXPECT_EQ(test, 1, mock_attaches(mdev, mock_default(ctx)));
	KUNIT_EXPECT_EQ(test, 1, mock_attaches(mdev, &ctx->blocked));
	KUNIT_EXPECT_FALSE(test, iommu_group_dma_owner_claimed(ctx->group));
	mdev->fail_domain = NULL;
	mdev->fail_too = NULL;
	KUNIT_EXPECT_EQ(test, 0, mock_set_device(mdev, mock_default(ctx), 0));
	iommu_domain_free(user);
}

/* Rule: a driver's domain is left as well, though the group was never claimed. */
static void detach_default_fails(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_plain(ctx);
	struct iommu_domain *user = mock_user_domain(mdev);

	KUNIT_ASSERT_EQ(test, 0, iommu_attach_device(user, &mdev->pci.dev));
	mock_fail(mdev, mock_default(ctx));
	mock_warns(test, 1, iommu_detach_device(user, &mdev->pci.dev));
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, &ctx->blocked);
	mdev->fail_domain = NULL;
	KUNIT_EXPECT_EQ(test, 0, mock_set_device(mdev, mock_default(ctx), 0));
	iommu_domain_free(user);
}

/* Rule: a group whose first domain cannot be attached has no IOMMU. */
static void first_attach_fails(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_new(ctx);
	struct mock_dev *again;

	mdev->fail_next = 1;
	mdev->fail_ret = -EIO;
	mock_warns(test, 1, KUNIT_EXPECT_FALSE(test, mock_add(mdev)));
	KUNIT_ASSERT_NOT_NULL(test, ctx->group);
	KUNIT_EXPECT_NULL(test, ctx->group->domain);
	KUNIT_EXPECT_NULL(test, mock_default(ctx));
	/* It is no burden to the next one */
	again = mock_plain(ctx);
	KUNIT_EXPECT_PTR_EQ(test, again->hw, mock_default(ctx));
}
#endif

#ifdef IOMMU_KUNIT_OLD_DOMAIN
/* Rule: what a driver has but once belongs to it all the same. */
static void attach_static_domain(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_plain(ctx);

	KUNIT_ASSERT_NULL(test, ctx->identity.owner);
	KUNIT_EXPECT_EQ(test, 0, iommu_attach_group(&ctx->identity, ctx->group));
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, &ctx->identity);
	iommu_detach_group(&ctx->identity, ctx->group);
}
#endif

static struct kunit_case iommu_attach_cases[] = {
	KUNIT_CASE_PARAM(attach_one_fails, attach_which_gen_params),
	KUNIT_CASE_PARAM(claim_one_fails, attach_which_gen_params),
	KUNIT_CASE(attach_over_attach),
	KUNIT_CASE(attach_device_in_shared_group),
	KUNIT_CASE(deferred_attach_of_attached),
	KUNIT_CASE(release_default_fails),
	KUNIT_CASE(detach_blocking_fails),
#ifdef IOMMU_KUNIT_STATIC_DOMAINS
	KUNIT_CASE(attach_domain_of_other_driver),
	KUNIT_CASE_PARAM(put_back_fails_blocked, put_back_which_gen_params),
	KUNIT_CASE_PARAM(put_back_fails_direct, put_back_which_gen_params),
	KUNIT_CASE_PARAM(put_back_fails_for_good, put_back_which_gen_params),
	KUNIT_CASE_PARAM(release_default_fails_for_one, attach_which_gen_params),
	KUNIT_CASE(release_default_fails_attached),
	KUNIT_CASE(release_default_fails_no_blocked),
	KUNIT_CASE(release_default_fails_for_good),
	KUNIT_CASE(detach_default_fails),
	KUNIT_CASE(first_attach_fails),
#endif
#ifdef IOMMU_KUNIT_OLD_DOMAIN
	KUNIT_CASE(attach_static_domain),
#endif
	{}
};

static struct kunit_suite iommu_attach_suite = {
	.name = "iommu_attach",
	.suite_init = mock_suite_init,
	.suite_exit = mock_suite_exit,
	.init = mock_init,
	.exit = mock_exit,
	.test_cases = iommu_attach_cases,
};
