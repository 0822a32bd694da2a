// SPDX-License-Identifier: GPL-2.0-only
/*
 * Domains of PASIDs: iommu_attach_device_pasid() and what follows it. Devices of
 * a group have PASIDs or have none, and all that have them have the same domains.
 */

#define MOCK_PASID	5

/* Three devices of which the middle one has no PASIDs */
static struct iommu_domain *mock_three_pasid(struct mock_ctx *ctx)
{
	unsigned int i;

	for (i = 0; i < MOCK_THREE; i++) {
		struct mock_dev *mdev = mock_new(ctx);

		mdev->max_pasids = i == 1 ? 0 : MOCK_MAX_PASIDS;
		KUNIT_ASSERT_TRUE(ctx->test, mock_add(mdev));
	}
	return mock_user_domain(ctx->devs[0]);
}

static int mock_attach_pasid(struct mock_ctx *ctx, struct iommu_domain *domain,
			     struct iommu_attach_handle *handle)
{
	return iommu_attach_device_pasid(domain, &ctx->devs[0]->pci.dev, MOCK_PASID,
					 handle);
}

static void mock_detach_pasid(struct mock_ctx *ctx, struct iommu_domain *domain)
{
	iommu_detach_device_pasid(domain, &ctx->devs[0]->pci.dev, MOCK_PASID);
}

static void expect_pasid_in(struct mock_ctx *ctx, struct iommu_domain *domain)
{
	KUNIT_EXPECT_PTR_EQ(ctx->test, ctx->devs[0]->pasid_hw[MOCK_PASID], domain);
	KUNIT_EXPECT_NULL(ctx->test, ctx->devs[1]->pasid_hw[MOCK_PASID]);
	KUNIT_EXPECT_PTR_EQ(ctx->test, ctx->devs[2]->pasid_hw[MOCK_PASID], domain);
}

/* Whether a PASID is noted is to be seen from whether the group can be claimed */
static void expect_pasid_noted(struct mock_ctx *ctx, bool noted)
{
	KUNIT_EXPECT_EQ(ctx->test, noted ? -EBUSY : 0,
			iommu_group_claim_dma_owner(ctx->group, ctx));
	if (iommu_group_dma_owner_claimed(ctx->group))
		iommu_group_release_dma_owner(ctx->group);
}

/* Rule: a PASID is the same for all devices of the group, from attach to detach. */
static void pasid_attach_detach(struct kunit *test)
{
	struct iommu_attach_handle handle = {};
	struct mock_ctx *ctx = test->priv;
	struct iommu_domain *user = mock_three_pasid(ctx);

	KUNIT_ASSERT_EQ(test, 0, mock_attach_pasid(ctx, user, &handle));
	expect_pasid_in(ctx, user);
	expect_all_in(ctx, mock_default(ctx));
	expect_pasid_noted(ctx, true);
	KUNIT_EXPECT_PTR_EQ(test, &handle,
			    iommu_attach_handle_get(ctx->group, MOCK_PASID, 0));
	KUNIT_EXPECT_PTR_EQ(test, handle.domain, user);
	mock_detach_pasid(ctx, user);
	expect_pasid_in(ctx, &ctx->blocked);
	KUNIT_EXPECT_EQ(test, -ENOENT,
			PTR_ERR(iommu_attach_handle_get(ctx->group, MOCK_PASID, 0)));
	expect_pasid_noted(ctx, false);
	iommu_domain_free(user);
}

/* Rule: one that is taken is not given again. */
static void pasid_is_exclusive(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct iommu_domain *user = mock_three_pasid(ctx);
	struct iommu_domain *other = mock_user_domain(ctx->devs[0]);

	KUNIT_ASSERT_EQ(test, 0, mock_attach_pasid(ctx, user, NULL));
	KUNIT_EXPECT_EQ(test, -EBUSY, mock_attach_pasid(ctx, other, NULL));
	expect_pasid_in(ctx, user);
	expect_pasid_noted(ctx, true);
	/* Another driver has none of the DMA that it knows nothing of */
	mock_detach_pasid(ctx, user);
	KUNIT_EXPECT_EQ(test, 0, mock_attach_pasid(ctx, other, NULL));
	mock_detach_pasid(ctx, other);
	iommu_domain_free(user);
	iommu_domain_free(other);
}

/* Rule: a PASID that one device of the group cannot have is for none of them. */
static void pasid_beyond_one(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct iommu_domain *user = mock_three_pasid(ctx);

	ctx->devs[2]->pci.dev.iommu->max_pasids = MOCK_PASID;
	KUNIT_EXPECT_EQ(test, -EINVAL, mock_attach_pasid(ctx, user, NULL));
	expect_pasid_in(ctx, NULL);
	expect_pasid_noted(ctx, false);
	iommu_domain_free(user);
}

/* Rule: if the last device fails, the first has no PASID either. */
static void pasid_attach_one_fails(struct kunit *test)
{
	struct iommu_attach_handle handle = {};
	struct mock_ctx *ctx = test->priv;
	struct iommu_domain *user = mock_three_pasid(ctx);

	ctx->devs[2]->fail_pasid = user;
	ctx->devs[2]->fail_ret = -ENOSPC;
	KUNIT_EXPECT_EQ(test, -ENOSPC, mock_attach_pasid(ctx, user, &handle));
	KUNIT_EXPECT_PTR_EQ(test, ctx->devs[0]->pasid_hw[MOCK_PASID], &ctx->blocked);
	KUNIT_EXPECT_NULL(test, ctx->devs[1]->pasid_hw[MOCK_PASID]);
	KUNIT_EXPECT_NULL(test, ctx->devs[2]->pasid_hw[MOCK_PASID]);
	KUNIT_EXPECT_EQ(test, -ENOENT,
			PTR_ERR(iommu_attach_handle_get(ctx->group, MOCK_PASID, 0)));
	expect_pasid_noted(ctx, false);
	iommu_domain_free(user);
}

struct pasid_refused_row {
	const char *name;
	ioasid_t pasid;
	bool other_driver;
	bool no_callback;
	int ret;
};

static const struct pasid_refused_row pasid_refused_rows[] = {
	{ "last_one", MOCK_MAX_PASIDS - 1, .ret = 0 },
	{ "too_high", MOCK_MAX_PASIDS, .ret = -EINVAL },
	{ "no_pasid", IOMMU_NO_PASID, .ret = -EINVAL },
	{ "other_driver", MOCK_PASID, .other_driver = true, .ret = -EINVAL },
	{ "no_callback", MOCK_PASID, .no_callback = true, .ret = -EOPNOTSUPP },
};

static void pasid_refused_get_desc(const struct pasid_refused_row *row, char *desc)
{
	strscpy(desc, row->name, KUNIT_PARAM_DESC_SIZE);
}

KUNIT_ARRAY_PARAM(pasid_refused, pasid_refused_rows, pasid_refused_get_desc);

/* Rule: only what the devices and the driver of the domain can do. */
static void pasid_attach_refused(struct kunit *test)
{
	const struct pasid_refused_row *row = test->param_value;
	static const struct iommu_ops other_ops;
	/* Not on the stack: a test that is aborted leaves them to mock_exit() */
	static struct iommu_domain_ops no_callback;
	struct mock_ctx *ctx = test->priv;
	struct iommu_domain *user = mock_three_pasid(ctx);
	struct device *dev = &ctx->devs[0]->pci.dev;
	ioasid_t pasid;
	unsigned int i;

	if (row->other_driver)
		user->owner = &other_ops;
	if (row->no_callback) {
		no_callback = *user->ops;
		no_callback.set_dev_pasid = NULL;
		user->ops = &no_callback;
	}
	KUNIT_EXPECT_EQ(test, row->ret,
			iommu_attach_device_pasid(user, dev, row->pasid, NULL));
	for (i = 0; i < MOCK_THREE; i++)
		for (pasid = 0; pasid < MOCK_MAX_PASIDS; pasid++)
			KUNIT_EXPECT_PTR_EQ(test, ctx->devs[i]->pasid_hw[pasid],
					    !row->ret && pasid == row->pasid && i != 1 ?
					    user : NULL);
	if (!row->ret)
		iommu_detach_device_pasid(user, dev, row->pasid);
	expect_pasid_noted(ctx, false);
	iommu_domain_free(user);
}

#ifdef IOMMU_KUNIT_REPLACE_PASID
static int mock_replace_pasid(struct mock_ctx *ctx, struct iommu_domain *domain,
			      struct iommu_attach_handle *handle)
{
	return iommu_replace_device_pasid(domain, &ctx->devs[0]->pci.dev, MOCK_PASID,
					  handle);
}

/* Rule: the new domain and its handle take the place of the old, for all. */
static void pasid_replace(struct kunit *test)
{
	struct iommu_attach_handle handle[2] = {};
	struct mock_ctx *ctx = test->priv;
	struct iommu_domain *user = mock_three_pasid(ctx);
	struct iommu_domain *other = mock_user_domain(ctx->devs[0]);

	KUNIT_ASSERT_EQ(test, 0, mock_attach_pasid(ctx, user, &handle[0]));
	KUNIT_EXPECT_EQ(test, 0, mock_replace_pasid(ctx, other, &handle[1]));
	expect_pasid_in(ctx, other);
	KUNIT_EXPECT_PTR_EQ(test, &handle[1],
			    iommu_attach_handle_get(ctx->group, MOCK_PASID, 0));
	mock_detach_pasid(ctx, other);
	expect_pasid_in(ctx, &ctx->blocked);
	iommu_domain_free(user);
	iommu_domain_free(other);
}

/* Rule: if one device fails, all have the old domain, and the old handle counts. */
static void pasid_replace_one_fails(struct kunit *test)
{
	struct iommu_attach_handle handle[2] = {};
	struct mock_ctx *ctx = test->priv;
	struct iommu_domain *user = mock_three_pasid(ctx);
	struct iommu_domain *other = mock_user_domain(ctx->devs[0]);

	KUNIT_ASSERT_EQ(test, 0, mock_attach_pasid(ctx, user, &handle[0]));
	ctx->devs[2]->fail_pasid = other;
	ctx->devs[2]->fail_ret = -ENOSPC;
	KUNIT_EXPECT_EQ(test, -ENOSPC, mock_replace_pasid(ctx, other, &handle[1]));
	expect_pasid_in(ctx, user);
	KUNIT_EXPECT_PTR_EQ(test, &handle[0],
			    iommu_attach_handle_get(ctx->group, MOCK_PASID, 0));
	mock_detach_pasid(ctx, user);
	iommu_domain_free(user);
	iommu_domain_free(other);
}

/* Rule: one that cannot have the old domain again has none, and none that is freed. */
static void pasid_put_back_fails(struct kunit *test)
{
	struct iommu_attach_handle handle[2] = {};
	struct mock_ctx *ctx = test->priv;
	struct iommu_domain *user = mock_three_pasid(ctx);
	struct iommu_domain *other = mock_user_domain(ctx->devs[0]);

	KUNIT_ASSERT_EQ(test, 0, mock_attach_pasid(ctx, user, &handle[0]));
	ctx->devs[2]->fail_pasid = other;
	ctx->devs[2]->fail_ret = -ENOSPC;
	ctx->devs[0]->fail_pasid = user;
	ctx->devs[0]->fail_ret = -EIO;
	mock_warns(test, 1,
		   KUNIT_EXPECT_EQ(test, -ENOSPC,
				   mock_replace_pasid(ctx, other, &handle[1])));
	KUNIT_EXPECT_PTR_EQ(test, ctx->devs[0]->pasid_hw[MOCK_PASID], &ctx->blocked);
	KUNIT_EXPECT_PTR_EQ(test, ctx->devs[2]->pasid_hw[MOCK_PASID], user);
	/* Removed already, for the mock's own check of what is removed */
	ctx->devs[0]->pasid_hw[MOCK_PASID] = user;
	mock_detach_pasid(ctx, user);
	iommu_domain_free(user);
	iommu_domain_free(other);
}

/* Rule: there must be something to replace, and something to replace it with. */
static void pasid_replace_refused(struct kunit *test)
{
	struct iommu_attach_handle handle = {};
	struct mock_ctx *ctx = test->priv;
	struct iommu_domain *user = mock_three_pasid(ctx);

	KUNIT_EXPECT_EQ(test, -EINVAL, mock_replace_pasid(ctx, user, &handle));
	expect_pasid_in(ctx, NULL);
	expect_pasid_noted(ctx, false);
	KUNIT_ASSERT_EQ(test, 0, mock_attach_pasid(ctx, user, &handle));
	KUNIT_EXPECT_EQ(test, -EINVAL, mock_replace_pasid(ctx, user, NULL));
	/* A fault may be on its way to this handle */
	mock_warns(test, 1,
		   KUNIT_EXPECT_EQ(test, -EINVAL, mock_replace_pasid(ctx, user, &handle)));
	expect_pasid_in(ctx, user);
	mock_detach_pasid(ctx, user);
	iommu_domain_free(user);
}
#endif

static struct kunit_case iommu_pasid_cases[] = {
	KUNIT_CASE(pasid_attach_detach),
	KUNIT_CASE(pasid_is_exclusive),
	KUNIT_CASE(pasid_beyond_one),
	KUNIT_CASE(pasid_attach_one_fails),
	KUNIT_CASE_PARAM(pasid_attach_refused, pasid_refused_gen_params),
#ifdef IOMMU_KUNIT_REPLACE_PASID
	KUNIT_CASE(pasid_replace),
	KUNIT_CASE(pasid_replace_one_fails),
	KUNIT_CASE(pasid_put_back_fails),
	KUNIT_CASE(pasid_replace_refused),
#endif
	{}
};

static struct kunit_suite iommu_pasid_suite = {
	.name = "iommu_pasid",
	.suite_init = mock_suite_init,
	.suite_exit = mock_suite_exit,
	.init = mock_init,
	.exit = mock_exit,
	.test_cases = iommu_pasid_cases,
};
