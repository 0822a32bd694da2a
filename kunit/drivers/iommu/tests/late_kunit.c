// SPDX-License-Identifier: GPL-2.0-only
/*
 * A device that needs direct mappings, and joins a group that userspace has: it
 * waits in the group until that is free.
 */

/* The group that one device is in, claimed and attached to @user if there is one */
static void late_claim(struct mock_ctx *ctx, struct iommu_domain *user)
{
	KUNIT_ASSERT_EQ(ctx->test, 0, iommu_group_claim_dma_owner(ctx->group, ctx));
	if (user)
		KUNIT_ASSERT_EQ(ctx->test, 0, iommu_attach_group(user, ctx->group));
}

static void late_leave(struct mock_ctx *ctx, struct iommu_domain *user)
{
	if (user)
		iommu_detach_group(user, ctx->group);
	if (user)
		iommu_domain_free(user);
	iommu_group_release_dma_owner(ctx->group);
	KUNIT_EXPECT_EQ(ctx->test, 0, ctx->freed_in_use);
}

/* A late device; with the ID of the first one if @shared */
static struct mock_dev *late_direct(struct mock_ctx *ctx, bool shared)
{
	struct mock_dev *late = mock_new(ctx);

	mock_region(late, IOMMU_RESV_DIRECT);
	if (shared)
		late->stream = ctx->devs[0]->stream;
	mock_reset_log(ctx);
	KUNIT_ASSERT_TRUE(ctx->test, mock_add(late));
	return late;
}

static void late_expect_joined(struct mock_dev *late)
{
	struct mock_ctx *ctx = late->ctx;

	KUNIT_EXPECT_PTR_EQ(ctx->test, late->hw, mock_default(ctx));
	KUNIT_EXPECT_TRUE(ctx->test, mock_reaches(late, 0));
	KUNIT_EXPECT_EQ(ctx->test, 0, iommu_device_use_default_domain(&late->pci.dev));
	iommu_device_unuse_default_domain(&late->pci.dev);
}

static const struct late_row {
	const char *name;
	/* The user has attached a domain; it has claimed the group */
	bool attached;
	bool claimed;
	/* The device has the requester or stream ID of another one */
	bool shared;
} late_rows[] = {
	{ "claimed", .claimed = true },
	{ "claimed_shared", .claimed = true, .shared = true },
	{ "attached", .claimed = true, .attached = true },
	{ "attached_shared", .claimed = true, .attached = true, .shared = true },
	{ "unclaimed", .attached = true },
	{ "unclaimed_shared", .attached = true, .shared = true },
};

static void late_get_desc(const struct late_row *row, char *desc)
{
	strscpy(desc, row->name, KUNIT_PARAM_DESC_SIZE);
}

KUNIT_ARRAY_PARAM(late, late_rows, late_get_desc);

/* Rule: no driver is bound to it, and it is attached when the user has left. */
static void late_waits(struct kunit *test)
{
	const struct late_row *row = test->param_value;
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *first = mock_plain(ctx);
	struct iommu_domain *user = NULL;
	struct mock_dev *late;

	if (row->attached)
		user = mock_user_domain(first);
	if (row->claimed)
		late_claim(ctx, user);
	else
		KUNIT_ASSERT_EQ(test, 0, iommu_attach_group(user, ctx->group));
	late = late_direct(ctx, row->shared);
	KUNIT_EXPECT_EQ(test, -EBUSY, iommu_device_use_default_domain(&late->pci.dev));
	KUNIT_EXPECT_EQ(test, 0, mock_attaches(first, NULL));
	if (user)
		KUNIT_EXPECT_EQ(test, 0, mock_attaches(late, user));
	if (row->shared)
		KUNIT_EXPECT_EQ(test, 0, mock_attaches(late, NULL));
	if (row->claimed) {
		late_leave(ctx, user);
	} else {
		iommu_detach_group(user, ctx->group);
		iommu_domain_free(user);
		KUNIT_EXPECT_EQ(test, 0, ctx->freed_in_use);
	}
	KUNIT_EXPECT_PTR_EQ(test, first->hw, mock_default(ctx));
	late_expect_joined(late);
}

/* Rule: where it has an ID of its own, firmware does not lose the region meanwhile. */
static void late_reaches_region_meanwhile(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct iommu_domain *user;
	struct mock_dev *late;

	user = mock_user_domain(mock_plain(ctx));
	late_claim(ctx, user);
	late = late_direct(ctx, false);
	KUNIT_EXPECT_TRUE(test, mock_reaches(late, 0));
	KUNIT_EXPECT_NOT_NULL(test, late->hw);
	if (late->hw)
		KUNIT_EXPECT_FALSE(test, mock_domain_reaches(late->hw, 0, SZ_4K, IOMMU_READ));
	late_leave(ctx, user);
	late_expect_joined(late);
	KUNIT_EXPECT_EQ(test, 0, mock_attaches(late, &ctx->blocked));
}

/* Rule: nor is it left in what its release may have left, identity, say. */
static void late_is_not_left_alone(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *deferred, *failing;

	mock_plain(ctx);
	late_claim(ctx, NULL);
	deferred = mock_new(ctx);
	mock_region(deferred, IOMMU_RESV_DIRECT);
	deferred->defer = true;
	KUNIT_ASSERT_TRUE(test, mock_add(deferred));
	KUNIT_EXPECT_TRUE(test, mock_reaches(deferred, 0));
	KUNIT_EXPECT_PTR_NE(test, deferred->hw, &ctx->identity);

	failing = mock_new(ctx);
	mock_region(failing, IOMMU_RESV_DIRECT);
	failing->fail_paging = true;
	failing->fail_ret = -ENOMEM;
	KUNIT_ASSERT_TRUE(test, mock_add(failing));
	KUNIT_EXPECT_PTR_EQ(test, failing->hw, &ctx->blocked);
	failing->fail_paging = false;
	late_leave(ctx, NULL);
}

/* Rule: however many have waited, all of them are attached. */
static void late_several(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *late[3];
	unsigned int i;

	mock_plain(ctx);
	late_claim(ctx, NULL);
	for (i = 0; i < ARRAY_SIZE(late); i++)
		late[i] = late_direct(ctx, false);
	late_leave(ctx, NULL);
	for (i = 0; i < ARRAY_SIZE(late); i++)
		KUNIT_EXPECT_PTR_EQ_MSG(test, late[i]->hw, mock_default(ctx), "%u", i);
	for (i = 0; i < ARRAY_SIZE(late); i++)
		late_expect_joined(late[i]);
}

/* Rule: its owner does not get it by claiming it, too, as iommufd does. */
static void late_is_not_claimed(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *first = mock_plain(ctx);
	struct mock_dev *late;

	KUNIT_ASSERT_EQ(test, 0, iommu_device_claim_dma_owner(&first->pci.dev, ctx));
	late = late_direct(ctx, true);
	KUNIT_EXPECT_EQ(test, -EINVAL, iommu_device_claim_dma_owner(&late->pci.dev, ctx));
	KUNIT_EXPECT_EQ(test, 1, ctx->group->owner_cnt);
	iommu_device_release_dma_owner(&first->pci.dev);
	late_expect_joined(late);
	KUNIT_EXPECT_EQ(test, -EINVAL, iommu_device_claim_dma_owner(&late->pci.dev, ctx));
	KUNIT_EXPECT_EQ(test, -EINVAL, iommu_device_claim_dma_owner(&first->pci.dev, ctx));
}

/* Rule: what the user attaches and detaches next is not its concern. */
static void late_takes_no_part(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *first = mock_plain(ctx);
	struct iommu_domain *user = mock_user_domain(first);
	struct iommu_domain *next = mock_user_domain(first);
	struct mock_dev *late;

	late_claim(ctx, user);
	late = late_direct(ctx, true);
	iommu_detach_group(user, ctx->group);
	KUNIT_EXPECT_PTR_EQ(test, first->hw, &ctx->blocked);
	KUNIT_EXPECT_EQ(test, 0, iommu_attach_group(next, ctx->group));
	KUNIT_EXPECT_PTR_EQ(test, first->hw, next);
	/* One that fails is put back without it */
	mock_fail(first, user);
	iommu_detach_group(next, ctx->group);
	KUNIT_EXPECT_EQ(test, -ENOSPC, iommu_attach_group(user, ctx->group));
	first->fail_domain = NULL;
	KUNIT_EXPECT_EQ(test, 0, mock_attaches(late, NULL));
	iommu_domain_free(next);
	iommu_group_release_dma_owner(ctx->group);
	iommu_domain_free(user);
	late_expect_joined(late);
}

/* Rule: nor is what is put back after a replace that failed. */
static void late_is_not_put_back(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *first = mock_plain(ctx);
	struct iommu_domain *user = mock_user_domain(first);
	struct iommu_domain *next = mock_user_domain(first);
	struct iommu_attach_handle handles[2] = {};
	struct mock_dev *late, *last;

	KUNIT_ASSERT_EQ(test, 0, iommu_group_claim_dma_owner(ctx->group, ctx));
	KUNIT_ASSERT_EQ(test, 0, iommu_attach_group_handle(user, ctx->group, &handles[0]));
	late = late_direct(ctx, true);
	/* The one that fails is behind the one that waits */
	last = mock_plain(ctx);
	mock_fail(last, next);
	mock_reset_log(ctx);
	KUNIT_EXPECT_EQ(test, -ENOSPC,
			iommu_replace_group_handle(ctx->group, next, &handles[1]));
	KUNIT_EXPECT_EQ(test, 1, mock_attaches(first, user));
	KUNIT_EXPECT_EQ(test, 0, mock_attaches(late, NULL));
	iommu_detach_group_handle(user, ctx->group);
	iommu_domain_free(user);
	iommu_domain_free(next);
	iommu_group_release_dma_owner(ctx->group);
	late_expect_joined(late);
}

/* Rule: nor are the PASIDs. */
static void late_has_no_pasid(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct iommu_domain *user;
	struct mock_dev *first = mock_new(ctx);
	struct mock_dev *late;

	first->max_pasids = MOCK_MAX_PASIDS;
	KUNIT_ASSERT_TRUE(test, mock_add(first));
	user = mock_user_domain(first);
	late_claim(ctx, NULL);
	late = late_direct(ctx, true);
	late->pci.dev.iommu->max_pasids = 1;
	KUNIT_EXPECT_EQ(test, 0, iommu_attach_device_pasid(user, &first->pci.dev, 1, NULL));
	KUNIT_EXPECT_PTR_EQ(test, first->pasid_hw[1], user);
	KUNIT_EXPECT_NULL(test, late->pasid_hw[1]);
	iommu_detach_device_pasid(user, &first->pci.dev, 1);
	KUNIT_EXPECT_NULL(test, late->pasid_hw[1]);
	iommu_domain_free(user);
	late_leave(ctx, NULL);
	late_expect_joined(late);
}

/* Rule: a device that goes before its user does leaves no trace on hardware. */
static void late_leaves_before(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *first = mock_plain(ctx);
	struct iommu_domain *user = mock_user_domain(first);
	struct mock_dev *late;

	late_claim(ctx, user);
	late = late_direct(ctx, true);
	mock_del(late);
	KUNIT_EXPECT_EQ(test, 0, mock_attaches(late, NULL));
	KUNIT_EXPECT_PTR_EQ(test, first->hw, user);
	late_leave(ctx, user);
	KUNIT_EXPECT_PTR_EQ(test, first->hw, mock_default(ctx));
}

/* Rule: one that cannot be attached when its time has come waits for the next one. */
static void late_attach_fails_in_the_end(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *first = mock_plain(ctx);
	struct mock_dev *late;

	late_claim(ctx, NULL);
	late = late_direct(ctx, true);
	late->fail_paging = true;
	late->fail_ret = -ENOMEM;
	iommu_group_release_dma_owner(ctx->group);
	/* Nothing is opened or blocked instead, for the first one has the same ID */
	KUNIT_EXPECT_PTR_EQ(test, first->hw, mock_default(ctx));
	KUNIT_EXPECT_EQ(test, mock_attaches(late, NULL), mock_attaches(late, mock_default(ctx)));
	KUNIT_EXPECT_EQ(test, -ENOMEM, iommu_device_use_default_domain(&late->pci.dev));
	KUNIT_EXPECT_EQ(test, 0, ctx->group->owner_cnt);
	late->fail_paging = false;
	KUNIT_EXPECT_EQ(test, 0, iommu_device_use_default_domain(&late->pci.dev));
	iommu_device_unuse_default_domain(&late->pci.dev);
	late_expect_joined(late);
}

/* Rule: nor if its region cannot be mapped by then. */
static void late_map_fails_in_the_end(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *late;

	mock_plain(ctx);
	late_claim(ctx, NULL);
	late = mock_new(ctx);
	mock_region(late, IOMMU_RESV_DIRECT);
	late->stream = ctx->devs[0]->stream;
	ctx->fail_map = late->region[0].start;
	KUNIT_ASSERT_TRUE(test, mock_add(late));
	iommu_group_release_dma_owner(ctx->group);
	KUNIT_EXPECT_EQ(test, 0, mock_attaches(late, mock_default(ctx)));
	ctx->fail_map = 0;
	KUNIT_EXPECT_EQ(test, 0, iommu_device_use_default_domain(&late->pci.dev));
	iommu_device_unuse_default_domain(&late->pci.dev);
	late_expect_joined(late);
}

/* Rule: where a driver has a buffer, firmware has no region; see the buffer off. */
static void late_meets_a_buffer(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *first = mock_plain(ctx);
	struct iommu_domain *domain = mock_default(ctx);
	struct mock_dev *late;

	KUNIT_ASSERT_EQ(test, 0, iommu_device_use_default_domain(&first->pci.dev));
	KUNIT_ASSERT_EQ(test, 0, iommu_map(domain, MOCK_REGION, SZ_1M, SZ_4K,
					   IOMMU_READ | IOMMU_WRITE, GFP_KERNEL));
	late = late_direct(ctx, false);
	KUNIT_EXPECT_EQ(test, 0, mock_attaches(late, domain));
	/* It is the buffer of the first one still */
	KUNIT_EXPECT_EQ(test, iommu_iova_to_phys(domain, MOCK_REGION), SZ_1M);
	KUNIT_EXPECT_EQ(test, -EBUSY, iommu_device_use_default_domain(&late->pci.dev));
	KUNIT_EXPECT_EQ(test, SZ_4K, iommu_unmap(domain, MOCK_REGION, SZ_4K));
	ctx->nr_flush_all = 0;
	/* It is asked for again when a driver is to be bound */
	KUNIT_EXPECT_EQ(test, 0, iommu_device_use_default_domain(&late->pci.dev));
	/* When it is attached, no IOTLB has the buffer any more */
	KUNIT_EXPECT_PTR_EQ(test, ctx->log[ctx->nr_log - 1].mdev, late);
	KUNIT_EXPECT_GE(test, ctx->log[ctx->nr_log - 1].nr_flush_all, 1);
	iommu_device_unuse_default_domain(&late->pci.dev);
	late_expect_joined(late);
	KUNIT_EXPECT_EQ(test, iommu_iova_to_phys(domain, MOCK_REGION), MOCK_REGION);
	iommu_device_unuse_default_domain(&first->pci.dev);
}

/* A device that waits for a buffer at its region, of the driver of the first one */
static struct mock_dev *late_behind_buffer(struct mock_ctx *ctx, struct mock_dev *first)
{
	KUNIT_ASSERT_EQ(ctx->test, 0, iommu_device_use_default_domain(&first->pci.dev));
	KUNIT_ASSERT_EQ(ctx->test, 0,
			iommu_map(mock_default(ctx), MOCK_REGION, SZ_1M, SZ_4K,
				  IOMMU_READ | IOMMU_WRITE, GFP_KERNEL));
	return late_direct(ctx, false);
}

/* Rule: it does not have to be bound to join, once the driver has gone. */
static void late_joins_after_the_driver(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *first = mock_plain(ctx);
	struct mock_dev *late = late_behind_buffer(ctx, first);

	iommu_unmap(mock_default(ctx), MOCK_REGION, SZ_4K);
	iommu_device_unuse_default_domain(&first->pci.dev);
	late_expect_joined(late);
}

/* Rule: nor does it join while a driver has PASIDs, which it would not have. */
static void late_waits_for_pasids(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *first = mock_new(ctx);
	struct iommu_domain *user;
	struct mock_dev *late;

	first->max_pasids = MOCK_MAX_PASIDS;
	KUNIT_ASSERT_TRUE(test, mock_add(first));
	user = mock_user_domain(first);
	late = late_behind_buffer(ctx, first);
	KUNIT_ASSERT_EQ(test, 0, iommu_attach_device_pasid(user, &first->pci.dev, 1, NULL));
	iommu_unmap(mock_default(ctx), MOCK_REGION, SZ_4K);
	KUNIT_EXPECT_EQ(test, -EBUSY, iommu_device_use_default_domain(&late->pci.dev));
	KUNIT_EXPECT_EQ(test, 0, mock_attaches(late, mock_default(ctx)));
	iommu_detach_device_pasid(user, &first->pci.dev, 1);
	KUNIT_EXPECT_EQ(test, 0, iommu_device_use_default_domain(&late->pci.dev));
	iommu_device_unuse_default_domain(&late->pci.dev);
	iommu_device_unuse_default_domain(&first->pci.dev);
	late_expect_joined(late);
	iommu_domain_free(user);
}

/* A late device that can be reset */
static struct mock_dev *late_ats(struct mock_ctx *ctx)
{
	struct mock_dev *late = late_direct(ctx, false);

	late->pci.ats_cap = 1;
	return late;
}

static void late_reset(struct mock_dev *late, bool done)
{
	mock_as_pci(late, true);
	if (done)
		pci_dev_reset_iommu_done(&late->pci);
	else
		KUNIT_EXPECT_EQ(late->ctx->test, 0,
				pci_dev_reset_iommu_prepare(&late->pci));
	mock_as_pci(late, false);
}

/* Rule: it can be reset while it waits, and the group is not held up by that. */
static void late_is_reset(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *first = mock_plain(ctx);
	struct iommu_domain *user = mock_user_domain(first);
	struct mock_dev *late;

	late_claim(ctx, NULL);
	late = late_ats(ctx);
	late_reset(late, false);
	KUNIT_EXPECT_PTR_EQ(test, late->hw, &ctx->blocked);
	late_reset(late, true);
	KUNIT_EXPECT_TRUE(test, mock_reaches(late, 0));
	KUNIT_EXPECT_PTR_NE(test, late->hw, mock_default(ctx));
	KUNIT_EXPECT_EQ(test, 0, iommu_attach_group(user, ctx->group));
	late_leave(ctx, user);
	late_expect_joined(late);
}

/* Rule: a group that is free when the reset ends has it at once. */
static void late_joins_after_reset(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *late;

	mock_plain(ctx);
	late_claim(ctx, NULL);
	late = late_ats(ctx);
	late_reset(late, false);
	late_leave(ctx, NULL);
	KUNIT_EXPECT_PTR_EQ(test, late->hw, &ctx->blocked);
	late_reset(late, true);
	KUNIT_EXPECT_PTR_EQ(test, late->hw, mock_default(ctx));
	late_expect_joined(late);
}

/* Rule: a group with one that waits is not for userspace. */
static void late_keeps_its_group(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *first = mock_plain(ctx);
	struct mock_dev *late = late_behind_buffer(ctx, first);

	/* A driver that leaves its buffer */
	iommu_device_unuse_default_domain(&first->pci.dev);
	mock_reset_log(ctx);
	KUNIT_EXPECT_EQ(test, -EINVAL, iommu_group_claim_dma_owner(ctx->group, ctx));
	KUNIT_EXPECT_EQ(test, -EINVAL, iommu_device_claim_dma_owner(&first->pci.dev, ctx));
	KUNIT_EXPECT_EQ(test, -EINVAL, iommu_device_claim_dma_owner(&late->pci.dev, ctx));
	KUNIT_EXPECT_EQ(test, 0, ctx->nr_log);
	iommu_unmap(mock_default(ctx), MOCK_REGION, SZ_4K);
}

/* Rule: that it cannot be attached then is no reason to take the new type back. */
static void late_does_not_undo_a_type(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *first = mock_plain(ctx);
	struct mock_dev *late = late_behind_buffer(ctx, first);

	iommu_device_unuse_default_domain(&first->pci.dev);
	late->fail_next = 1;
	late->fail_ret = -ENOMEM;
	KUNIT_EXPECT_EQ(test, 8, mock_store_type(ctx, "identity"));
	KUNIT_EXPECT_EQ(test, 0, ctx->freed_in_use);
	KUNIT_EXPECT_PTR_EQ(test, mock_default(ctx), &ctx->identity);
	KUNIT_EXPECT_PTR_EQ(test, first->hw, mock_default(ctx));
	KUNIT_EXPECT_TRUE(test, mock_reaches(late, 0));
}

/* Rule: a page that cannot be mapped does not hide a buffer behind it. */
static void late_meets_a_buffer_behind_a_failed_map(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *first = mock_plain(ctx);
	struct mock_dev *late = mock_new(ctx);

	KUNIT_ASSERT_EQ(test, 0, iommu_device_use_default_domain(&first->pci.dev));
	mock_region(late, IOMMU_RESV_DIRECT);
	mock_region(late, IOMMU_RESV_DIRECT);
	KUNIT_ASSERT_EQ(test, 0, iommu_map(mock_default(ctx), MOCK_REGION, SZ_1M, SZ_4K,
					   IOMMU_READ | IOMMU_WRITE, GFP_KERNEL));
	ctx->fail_map = late->region[1].start;
	KUNIT_ASSERT_TRUE(test, mock_add(late));
	ctx->fail_map = 0;
	KUNIT_EXPECT_EQ(test, 0, mock_attaches(late, mock_default(ctx)));
	iommu_unmap(mock_default(ctx), MOCK_REGION, SZ_4K);
	iommu_device_unuse_default_domain(&first->pci.dev);
	KUNIT_EXPECT_PTR_EQ(test, late->hw, mock_default(ctx));
	KUNIT_EXPECT_TRUE(test, mock_reaches(late, 0));
}

/* Rule: what was mapped 1:1 for another device will do. */
static void late_shares_a_region(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *late;

	mock_direct(ctx);
	late = late_direct(ctx, false);
	KUNIT_EXPECT_PTR_EQ(test, late->hw, mock_default(ctx));
	late_expect_joined(late);
}

/* Rule: a device is not taken for one without regions if they cannot be listed. */
static void late_with_regions_unknown(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *late;

	mock_plain(ctx);
	late = mock_new(ctx);
	mock_region(late, IOMMU_RESV_DIRECT);
	late->regions_fail = true;
	KUNIT_EXPECT_FALSE(test, mock_add(late));
	/* The driver has probed it, and lets go of it again */
	KUNIT_EXPECT_EQ(test, 1, late->nr_released);
	/* What is not in the group is not claimed with it */
	KUNIT_EXPECT_EQ(test, 0, iommu_group_claim_dma_owner(ctx->group, ctx));
	KUNIT_EXPECT_NULL(test, late->hw);
	iommu_group_release_dma_owner(ctx->group);

	late->regions_fail = false;
	mock_find_iommu(late);
	KUNIT_EXPECT_EQ(test, 0, iommu_probe_device(&late->pci.dev));
	KUNIT_EXPECT_EQ(test, -EINVAL, iommu_group_claim_dma_owner(ctx->group, ctx));
	KUNIT_EXPECT_TRUE(test, mock_reaches(late, 0));
}

static struct kunit_case iommu_late_cases[] = {
	KUNIT_CASE_PARAM(late_waits, late_gen_params),
	KUNIT_CASE(late_reaches_region_meanwhile),
	KUNIT_CASE(late_is_not_left_alone),
	KUNIT_CASE(late_several),
	KUNIT_CASE(late_is_not_claimed),
	KUNIT_CASE(late_takes_no_part),
	KUNIT_CASE(late_is_not_put_back),
	KUNIT_CASE(late_has_no_pasid),
	KUNIT_CASE(late_leaves_before),
	KUNIT_CASE(late_attach_fails_in_the_end),
	KUNIT_CASE(late_map_fails_in_the_end),
	KUNIT_CASE(late_meets_a_buffer),
	KUNIT_CASE(late_joins_after_the_driver),
	KUNIT_CASE(late_waits_for_pasids),
	KUNIT_CASE(late_is_reset),
	KUNIT_CASE(late_joins_after_reset),
	KUNIT_CASE(late_keeps_its_group),
	KUNIT_CASE(late_does_not_undo_a_type),
	KUNIT_CASE(late_meets_a_buffer_behind_a_failed_map),
	KUNIT_CASE(late_shares_a_region),
	KUNIT_CASE(late_with_regions_unknown),
	{}
};

static struct kunit_suite iommu_late_suite = {
	.name = "iommu_late",
	.suite_init = mock_suite_init,
	.suite_exit = mock_suite_exit,
	.init = release_init,
	.exit = mock_exit,
	.test_cases = iommu_late_cases,
};
