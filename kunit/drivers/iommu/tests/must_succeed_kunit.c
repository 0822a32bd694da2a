// SPDX-License-Identifier: GPL-2.0-only
/*
 * Where a device ends up that cannot have the domain it should have, in a call
 * that must not fail: IOMMU_SET_DOMAIN_MUST_SUCCEED.
 */

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

/* Rule: the blocked domain of the driver will do before the first claim. */
static void must_succeed_error_goes_to_blocked_unclaimed(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_plain(ctx);

	KUNIT_ASSERT_NULL(test, ctx->group->blocking_domain);
	mdev->fail_domain = &ctx->identity;
	mdev->fail_ret = -EIO;
	KUNIT_EXPECT_EQ(test, -EIO,
			mock_set_group(ctx, &ctx->identity,
				       IOMMU_SET_DOMAIN_MUST_SUCCEED));
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, &ctx->blocked);
}

/* Rule: and so will the empty domain where the driver has none. */
static void must_succeed_error_goes_to_empty_blocking(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct iommu_domain *blocking;
	struct mock_dev *mdev;

	mock_no_blocked(ctx);
	mdev = mock_plain(ctx);
	blocking = mock_blocking_domain(ctx);
	mdev->fail_domain = &ctx->identity;
	mdev->fail_ret = -EIO;
	KUNIT_EXPECT_EQ(test, -EIO,
			mock_set_device(mdev, &ctx->identity,
					IOMMU_SET_DOMAIN_MUST_SUCCEED));
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, blocking);
	KUNIT_EXPECT_EQ(test, 0,
			mock_set_device(mdev, ctx->group->default_domain, 0));
}

/* Rule: a driver without any blocking domain keeps its device where it is. */
static void must_succeed_error_without_blocking(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev;

	mock_no_blocked(ctx);
	mdev = mock_plain(ctx);
	KUNIT_ASSERT_NULL(test, ctx->group->blocking_domain);
	mdev->fail_domain = &ctx->identity;
	mdev->fail_ret = -EIO;
	KUNIT_EXPECT_EQ(test, -EIO,
			mock_set_device(mdev, &ctx->identity,
					IOMMU_SET_DOMAIN_MUST_SUCCEED));
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, ctx->group->default_domain);
}

/* Rule: blocking that failed is no way out of blocking that failed. */
static void must_succeed_blocking_itself_fails(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_plain(ctx);
	struct iommu_domain *blocking = mock_blocking_domain(ctx);

	mock_reset_log(ctx);
	mdev->fail_domain = blocking;
	mdev->fail_ret = -EIO;
	KUNIT_EXPECT_EQ(test, -EIO,
			mock_set_device(mdev, blocking,
					IOMMU_SET_DOMAIN_MUST_SUCCEED));
	KUNIT_EXPECT_EQ(test, 1, mock_attaches(mdev, blocking));
}

/* Rule, end goal 4: identity, where blocking would cut the region. */
static void must_succeed_error_direct_goes_to_identity(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_direct(ctx);
	struct iommu_domain *user = mock_user_domain(mdev);

	mock_blocking_domain(ctx);
	mdev->fail_paging = true;
	mdev->fail_ret = -ENOMEM;
	mock_set_group(ctx, user, IOMMU_SET_DOMAIN_MUST_SUCCEED);
	mdev->fail_paging = false;
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, &ctx->identity);
	KUNIT_EXPECT_TRUE(test, mock_reaches(mdev, 0));
	iommu_domain_free(user);
}

/* Rule, end goals 1 and 4: what must succeed is not refused, nor left behind. */
static void must_succeed_blocking_direct_goes_to_identity(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_direct(ctx);
	struct iommu_domain *user = mock_user_domain(mdev);

	/* As if its owner had attached a domain, and now goes away */
	KUNIT_ASSERT_EQ(test, 0, mock_set_group(ctx, user, 0));
	mdev->fail_paging = true;
	mdev->fail_ret = -ENOMEM;
	KUNIT_EXPECT_EQ(test, 0,
			mock_set_group(ctx, mock_blocking_domain(ctx),
				       IOMMU_SET_DOMAIN_MUST_SUCCEED));
	mdev->fail_paging = false;
	/* The domain of the group does not tell */
	mdev->stuck = true;
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, &ctx->identity);
	iommu_domain_free(user);
}

/* Devices that firmware needs, and that must not end in identity all the same */

/*
 * Let the attach of a user's domain, which must succeed, fail, as does that of any
 * other one with page tables, and tell where the device ended up. What the test holds against identity is set up already.
 */
static struct iommu_domain *last_resort(struct mock_dev *mdev)
{
	struct mock_ctx *ctx = mdev->ctx;
	struct iommu_domain *user = mock_user_domain(mdev);
	struct iommu_domain *hw;

	mdev->fail_paging = true;
	mdev->fail_ret = -ENOMEM;
	mock_reset_log(ctx);
	KUNIT_EXPECT_EQ(ctx->test, -ENOMEM,
			mock_set_device(mdev, user, IOMMU_SET_DOMAIN_MUST_SUCCEED));
	hw = mdev->hw;
	/* Nothing that has its requester ID was opened along with it, not even before */
	KUNIT_EXPECT_EQ(ctx->test, hw == &ctx->identity || mdev->fail_too == &ctx->identity,
			mock_attaches(mdev, &ctx->identity));
	mdev->fail_paging = false;
	mdev->fail_too = NULL;
	KUNIT_EXPECT_EQ(ctx->test, 0,
			mock_set_device(mdev, ctx->group->default_domain, 0));
	iommu_domain_free(user);
	return hw;
}

struct last_resort_row {
	const char *name;
	/* Of the device: its region, and what there is about it */
	enum iommu_resv_type type;
	bool pci;
	bool untrusted;
	bool no_identity;
	bool owned;
	/* Its driver uses the DMA API */
	bool bound;
	/* Of another one in the group */
	enum { ALONE, OTHER, OTHER_PCI, OTHER_UNTRUSTED, OTHER_BRIDGE } other;
	/* Both have the requester ID of the bridge that they are behind */
	bool behind_bridge;
	/* The device uses the requester ID of the other one as well as its own */
	bool alias;
	/* The other one has the same stream ID; or none, so it may be the same */
	bool same_stream;
	bool no_stream;
	/* Both have one more ID, which is the same */
	bool same_second;
	/* One more device is in the group before them */
	bool third;
	/* Where it must be in the end, if not in identity */
	bool blocked;
};

static const struct last_resort_row last_resort_rows[] = {
	/* Identity does not depend on a claim */
	{ "direct_unclaimed", IOMMU_RESV_DIRECT },
	/* A relaxable region is not worth opening all memory for */
	{ "relaxable", IOMMU_RESV_DIRECT_RELAXABLE, .blocked = true },
	/* A driver without a static identity domain has the device blocked */
	{ "direct_no_identity", IOMMU_RESV_DIRECT, .no_identity = true, .blocked = true },
	/* End goal 3: an untrusted device never ends in identity */
	{ "direct_untrusted", IOMMU_RESV_DIRECT, .pci = true, .untrusted = true,
	  .blocked = true },
	/* Nor does one that could open all memory to one in its group */
	{ "direct_beside_untrusted", IOMMU_RESV_DIRECT, .other = OTHER_UNTRUSTED,
	  .blocked = true },
	/* Nor one in a group that has an owner */
	{ "direct_owned", IOMMU_RESV_DIRECT, .owned = true, .blocked = true },
	/* Nor one with IOVAs in flight, which would be taken for physical addresses */
	{ "direct_bound", IOMMU_RESV_DIRECT, .bound = true, .blocked = true },
	/* Another PCI device in the group is no reason against identity */
	{ "direct_own_rid", IOMMU_RESV_DIRECT, .pci = true, .other = OTHER_PCI },
	/* Nor is one on another bus, which has another stream ID */
	{ "direct_beside_other_bus", IOMMU_RESV_DIRECT, .pci = true, .other = OTHER,
	  .behind_bridge = true },
	{ "direct_on_other_bus", IOMMU_RESV_DIRECT, .other = OTHER_PCI,
	  .behind_bridge = true },
	/* One with the same requester ID would lose its translation */
	{ "direct_shared_rid", IOMMU_RESV_DIRECT, .pci = true, .other = OTHER_PCI,
	  .behind_bridge = true, .blocked = true },
	{ "direct_alias", IOMMU_RESV_DIRECT, .pci = true, .other = OTHER_PCI,
	  .alias = true, .blocked = true },
	/* Or with the same stream ID, which firmware gives to several requester IDs */
	{ "direct_pci_shared_stream", IOMMU_RESV_DIRECT, .pci = true, .other = OTHER_PCI,
	  .same_stream = true, .blocked = true },
	/* That is so for stream IDs */
	{ "direct_own_stream", IOMMU_RESV_DIRECT, .other = OTHER },
	{ "direct_shared_stream", IOMMU_RESV_DIRECT, .other = OTHER,
	  .same_stream = true, .blocked = true },
	{ "direct_no_stream", IOMMU_RESV_DIRECT, .other = OTHER,
	  .no_stream = true, .blocked = true },
	/* Each ID of each device of the group counts */
	{ "direct_shared_second_stream", IOMMU_RESV_DIRECT, .other = OTHER,
	  .same_second = true, .blocked = true },
	{ "direct_shared_stream_of_three", IOMMU_RESV_DIRECT, .other = OTHER,
	  .same_stream = true, .third = true, .blocked = true },
	/* A bridge has none to lose */
	{ "direct_behind_bridge", IOMMU_RESV_DIRECT, .pci = true, .other = OTHER_BRIDGE,
	  .behind_bridge = true },
};

static void last_resort_get_desc(const struct last_resort_row *row, char *desc)
{
	strscpy(desc, row->name, KUNIT_PARAM_DESC_SIZE);
}

KUNIT_ARRAY_PARAM(last_resort, last_resort_rows, last_resort_get_desc);

/* Rule: see the rows. */
static void last_resort_is(struct kunit *test)
{
	const struct last_resort_row *row = test->param_value;
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *other = NULL;
	struct mock_dev *mdev;

	if (row->no_identity)
		ctx->ops.identity_domain = NULL;
	if (row->third)
		mock_plain(ctx);
	if (row->other != ALONE) {
		other = mock_new(ctx);
		if (row->same_second)
			other->second_stream = 0xff;
		if (row->no_stream)
			other->stream = 0;
		else if (row->same_stream)
			other->stream++;
		KUNIT_ASSERT_TRUE(test, mock_add(other));
	}
	mdev = mock_new(ctx);
	mock_region(mdev, row->type);
	if (row->same_second)
		mdev->second_stream = 0xff;
	KUNIT_ASSERT_TRUE(test, mock_add(mdev));
	KUNIT_ASSERT_NULL(test, ctx->group->blocking_domain);

	mdev->pci.untrusted = row->untrusted;
	if (row->behind_bridge) {
		mock_behind_bridge(mdev);
		mock_behind_bridge(other);
	}
	if (row->other == OTHER_UNTRUSTED)
		other->pci.untrusted = true;
	if (row->other == OTHER_BRIDGE)
		other->pci.hdr_type = PCI_HEADER_TYPE_BRIDGE;
	if (row->alias)
		mock_alias(mdev, other);
	/* No device that firmware needs gets here, so pretend */
	if (row->owned)
		ctx->group->owner = ctx;
	if (row->bound)
		KUNIT_ASSERT_EQ(test, 0, iommu_device_use_default_domain(&mdev->pci.dev));
	mock_as_pci(mdev, row->pci);
	if (row->other > OTHER)
		mock_as_pci(other, true);

	KUNIT_EXPECT_PTR_EQ(test, last_resort(mdev),
			    row->blocked ? &ctx->blocked : &ctx->identity);

	mock_as_pci(mdev, false);
	if (other)
		mock_as_pci(other, false);
	if (row->bound)
		iommu_device_unuse_default_domain(&mdev->pci.dev);
	ctx->group->owner = NULL;
}

/* Rule: a driver that cannot attach identity has the device blocked. */
static void last_resort_direct_identity_fails(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_direct(ctx);

	mdev->fail_too = &ctx->identity;
	KUNIT_EXPECT_PTR_EQ(test, last_resort(mdev), &ctx->blocked);
	KUNIT_EXPECT_EQ(test, 1, mock_attaches(mdev, &ctx->identity));
}

/* Rule: identity that failed is not asked for again. */
static void last_resort_direct_from_identity(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_direct(ctx);

	mdev->fail_domain = &ctx->identity;
	mdev->fail_ret = -EINVAL;
	mdev->fail_paging = true;
	mock_reset_log(ctx);
	KUNIT_EXPECT_EQ(test, -EINVAL,
			mock_set_device(mdev, &ctx->identity,
					IOMMU_SET_DOMAIN_MUST_SUCCEED));
	mdev->fail_paging = false;
	KUNIT_EXPECT_EQ(test, 1, mock_attaches(mdev, &ctx->identity));
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, &ctx->blocked);
	KUNIT_EXPECT_EQ(test, 0,
			mock_set_device(mdev, ctx->group->default_domain, 0));
}

#ifdef IOMMU_KUNIT_OLD_DOMAIN
/* Let a user's domain be left for the default domain, which the driver fails */
static void quarantine_detach(struct mock_dev *mdev)
{
	struct iommu_domain *user = mock_user_domain(mdev);
	struct mock_ctx *ctx = mdev->ctx;

	KUNIT_ASSERT_EQ(ctx->test, 0, iommu_attach_group(user, ctx->group));
	mdev->fail_domain = mock_default(ctx);
	mdev->fail_ret = -ENOMEM;
	mock_warns(ctx->test, 1, iommu_detach_group(user, ctx->group));
	iommu_domain_free(user);
	KUNIT_EXPECT_EQ(ctx->test, 0, ctx->freed_in_use);
}

/* Rule: what is left of the mappings is the region, whoever else is there. */
static void quarantine_maps_the_region_alone(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_direct(ctx);

	/* Identity is out of the question */
	KUNIT_ASSERT_EQ(test, 0, iommu_device_use_default_domain(&mdev->pci.dev));
	quarantine_detach(mdev);
	KUNIT_ASSERT_TRUE(test, mdev->hw->type & __IOMMU_DOMAIN_PAGING);
	KUNIT_EXPECT_PTR_NE(test, mdev->hw, mock_default(ctx));
	KUNIT_EXPECT_TRUE(test, mock_reaches(mdev, 0));
	KUNIT_EXPECT_FALSE(test, mock_domain_reaches(mdev->hw, MOCK_REGION + SZ_4K, SZ_4K,
						     IOMMU_READ));
	KUNIT_EXPECT_FALSE(test, mock_domain_reaches(mdev->hw, MOCK_REGION - SZ_4K, SZ_4K,
						     IOMMU_READ));
	mdev->fail_domain = NULL;
	iommu_device_unuse_default_domain(&mdev->pci.dev);
}

/* Rule: want of memory is what it is for. */
static void quarantine_needs_no_memory(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_direct(ctx);
	struct iommu_domain *user = mock_user_domain(mdev);

	KUNIT_ASSERT_EQ(test, 0, iommu_attach_group(user, ctx->group));
	ctx->fail_alloc = true;
	mdev->fail_domain = mock_default(ctx);
	mdev->fail_ret = -ENOMEM;
	mock_warns(test, 1, iommu_detach_group(user, ctx->group));
	ctx->fail_alloc = false;
	mdev->fail_domain = NULL;
	KUNIT_EXPECT_PTR_NE(test, mdev->hw, &ctx->identity);
	KUNIT_EXPECT_TRUE(test, mock_reaches(mdev, 0));
	iommu_domain_free(user);
}

/* Rule: the device passes through it before it is attached to anything else. */
static void quarantine_is_tried(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_direct(ctx);

	KUNIT_EXPECT_EQ(test, 2, mock_attaches(mdev, NULL));
	KUNIT_EXPECT_EQ(test, 1, mock_attaches(mdev, mock_default(ctx)));
	KUNIT_EXPECT_PTR_EQ(test, ctx->log[1].domain, mock_default(ctx));
	KUNIT_EXPECT_TRUE(test, ctx->log[0].mapped);
}

/* Rule: not where the device has all memory from the beginning. */
static void quarantine_is_not_tried_before_identity(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev;

	ctx->def_type = IOMMU_DOMAIN_IDENTITY;
	mdev = mock_direct(ctx);
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, &ctx->identity);
	KUNIT_EXPECT_EQ(test, 1, mock_attaches(mdev, NULL));
}

/* Rule: one that the driver cannot attach is not relied on. */
static void quarantine_that_failed(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_new(ctx);

	mock_region(mdev, IOMMU_RESV_DIRECT);
	mdev->fail_next = 1;
	mdev->fail_ret = -ENOMEM;
	KUNIT_ASSERT_TRUE(test, mock_add(mdev));
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, mock_default(ctx));
	KUNIT_EXPECT_EQ(test, 1, ctx->nr_freed);
	mock_reset_log(ctx);
	quarantine_detach(mdev);
	mdev->fail_domain = NULL;
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, &ctx->identity);
}

/* Rule: nor one that lacks the region. */
static void quarantine_without_the_region(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_new(ctx);

	mock_plain(ctx);
	mock_region(mdev, IOMMU_RESV_DIRECT);
	ctx->fail_map = mdev->region[0].start;
	KUNIT_ASSERT_TRUE(test, mock_add(mdev));
	ctx->fail_map = 0;
	KUNIT_EXPECT_EQ(test, 1, mock_attaches(mdev, NULL));
	quarantine_detach(mdev);
	mdev->fail_domain = NULL;
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, &ctx->identity);
}

/* Rule: it is not tried where a neighbour has the same requester ID. */
static void quarantine_is_not_tried_on_others(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev;

	mock_plain(ctx);
	mdev = mock_new(ctx);
	mdev->stream = ctx->devs[0]->stream;
	mock_region(mdev, IOMMU_RESV_DIRECT);
	KUNIT_ASSERT_TRUE(test, mock_add(mdev));
	KUNIT_EXPECT_EQ(test, 1, mock_attaches(mdev, NULL));
	/* It is there, however */
	quarantine_detach(mdev);
	mdev->fail_domain = NULL;
	KUNIT_EXPECT_TRUE(test, mock_reaches(mdev, 0));
}

/* Rule: only who needs it has it, and it goes with its device. */
static void quarantine_goes_with_its_device(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev;

	mock_plain(ctx);
	mock_dev_with(ctx, IOMMU_RESV_DIRECT_RELAXABLE);
	KUNIT_EXPECT_TRUE(test, list_is_singular(&ctx->domains));
	mdev = mock_direct(ctx);
	mock_del(mdev);
	KUNIT_EXPECT_EQ(test, 1, ctx->nr_freed);
	KUNIT_EXPECT_EQ(test, 0, ctx->freed_in_use);
}

/*
 * Rule: a driver is bound to a device only where its IOVAs are translated. The
 * last resort may be over by then; if not, the driver is told.
 */
static void last_resort_ends_before_bind(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_direct(ctx);

	quarantine_detach(mdev);
	KUNIT_EXPECT_PTR_NE(test, mdev->hw, mock_default(ctx));
	KUNIT_EXPECT_EQ(test, -ENOMEM, iommu_device_use_default_domain(&mdev->pci.dev));
	KUNIT_EXPECT_EQ(test, 0, ctx->group->owner_cnt);
	mdev->fail_domain = NULL;
	KUNIT_EXPECT_EQ(test, 0, iommu_device_use_default_domain(&mdev->pci.dev));
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, mock_default(ctx));
	iommu_device_unuse_default_domain(&mdev->pci.dev);
}

/* Rule: also if a driver of another device is there already. */
static void last_resort_ends_beside_driver(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_direct(ctx);
	struct mock_dev *other = mock_plain(ctx);

	quarantine_detach(mdev);
	mdev->fail_domain = NULL;
	KUNIT_ASSERT_EQ(test, 0, iommu_device_use_default_domain(&other->pci.dev));
	KUNIT_EXPECT_PTR_NE(test, mdev->hw, mock_default(ctx));
	KUNIT_EXPECT_EQ(test, 0, iommu_device_use_default_domain(&mdev->pci.dev));
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, mock_default(ctx));
	iommu_device_unuse_default_domain(&mdev->pci.dev);
	iommu_device_unuse_default_domain(&other->pci.dev);
}
#endif

/* Rule: blocking that must succeed is not refused where identity is no choice. */
static void must_succeed_blocking_direct_untrusted(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_direct(ctx);
	struct iommu_domain *user = mock_user_domain(mdev);

	mdev->pci.untrusted = true;
	mock_as_pci(mdev, true);
	KUNIT_ASSERT_EQ(test, 0, mock_set_group(ctx, user, 0));
	mdev->fail_paging = true;
	mdev->fail_ret = -ENOMEM;
	KUNIT_EXPECT_EQ(test, 0,
			mock_set_group(ctx, mock_blocking_domain(ctx),
				       IOMMU_SET_DOMAIN_MUST_SUCCEED));
	mdev->fail_paging = false;
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, &ctx->blocked);
	mock_as_pci(mdev, false);
	iommu_domain_free(user);
}

/* Rule: a good domain is attached to a device that firmware needs, without detours. */
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

static struct kunit_case iommu_must_succeed_cases[] = {
	KUNIT_CASE(must_succeed_error_goes_to_blocking),
	KUNIT_CASE(must_succeed_error_goes_to_blocked_unclaimed),
	KUNIT_CASE(must_succeed_error_goes_to_empty_blocking),
	KUNIT_CASE(must_succeed_error_without_blocking),
	KUNIT_CASE(must_succeed_blocking_itself_fails),
	KUNIT_CASE(must_succeed_error_direct_goes_to_identity),
	KUNIT_CASE(must_succeed_blocking_direct_goes_to_identity),
	KUNIT_CASE(must_succeed_blocking_direct_untrusted),
	KUNIT_CASE(must_succeed_default_direct),
	KUNIT_CASE_PARAM(last_resort_is, last_resort_gen_params),
	KUNIT_CASE(last_resort_direct_identity_fails),
	KUNIT_CASE(last_resort_direct_from_identity),
#ifdef IOMMU_KUNIT_OLD_DOMAIN
	KUNIT_CASE(last_resort_ends_before_bind),
	KUNIT_CASE(last_resort_ends_beside_driver),
	KUNIT_CASE(quarantine_maps_the_region_alone),
	KUNIT_CASE(quarantine_needs_no_memory),
	KUNIT_CASE(quarantine_is_tried),
	KUNIT_CASE(quarantine_is_not_tried_before_identity),
	KUNIT_CASE(quarantine_that_failed),
	KUNIT_CASE(quarantine_without_the_region),
	KUNIT_CASE(quarantine_is_not_tried_on_others),
	KUNIT_CASE(quarantine_goes_with_its_device),
#endif
	{}
};

static struct kunit_suite iommu_must_succeed_suite = {
	.name = "iommu_must_succeed",
	.suite_init = mock_suite_init,
	.suite_exit = mock_suite_exit,
	.init = mock_init,
	.exit = mock_exit,
	.test_cases = iommu_must_succeed_cases,
};
