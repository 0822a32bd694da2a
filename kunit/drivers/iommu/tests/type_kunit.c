// SPDX-License-Identifier: GPL-2.0-only
/*
 * What writing to the type file of a group does: iommu_group_store_type().
 */

static ssize_t mock_store_type(struct mock_ctx *ctx, const char *type)
{
	/* The driver must not insist on another type */
	ctx->def_type = 0;
	return iommu_group_store_type(ctx->group, type, strlen(type));
}

/* Rule: a flush queue is brought up under a driver that is bound. */
static void fq_in_place(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_plain(ctx);
	struct iommu_domain *domain = ctx->group->default_domain;

	KUNIT_ASSERT_EQ(test, 0, iommu_device_use_default_domain(&mdev->pci.dev));
	mock_as_pci(mdev, true);
	mock_reset_log(ctx);
	KUNIT_EXPECT_EQ(test, 7, mock_store_type(ctx, "DMA-FQ\n"));
	KUNIT_EXPECT_PTR_EQ(test, ctx->group->default_domain, domain);
	KUNIT_EXPECT_EQ(test, domain->type, IOMMU_DOMAIN_DMA_FQ);
	KUNIT_EXPECT_EQ(test, 0, mock_attaches(mdev, NULL));
	mock_as_pci(mdev, false);
	iommu_device_unuse_default_domain(&mdev->pci.dev);
}

/* Rule: an untrusted device must not reach memory that was taken from it. */
static void fq_refused_untrusted(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_plain(ctx);

	mdev->pci.untrusted = true;
	mock_as_pci(mdev, true);
	KUNIT_EXPECT_EQ(test, -EINVAL, mock_store_type(ctx, "DMA-FQ\n"));
	KUNIT_EXPECT_EQ(test, ctx->group->default_domain->type, IOMMU_DOMAIN_DMA);
	mock_as_pci(mdev, false);
}

/* Rule: any of them in the group counts. */
static void fq_refused_beside_untrusted(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev;

	mock_plain(ctx);
	mdev = mock_plain(ctx);
	mdev->pci.untrusted = true;
	mock_as_pci(mdev, true);
	KUNIT_EXPECT_EQ(test, -EINVAL, mock_store_type(ctx, "DMA-FQ\n"));
	KUNIT_EXPECT_EQ(test, ctx->group->default_domain->type, IOMMU_DOMAIN_DMA);
	mock_as_pci(mdev, false);
}

/* Rule: nor does the way round through identity lead there. */
static void identity_refused_untrusted(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_plain(ctx);

	mdev->pci.untrusted = true;
	mock_as_pci(mdev, true);
	KUNIT_EXPECT_EQ(test, -EINVAL, mock_store_type(ctx, "identity\n"));
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, ctx->group->default_domain);
	KUNIT_EXPECT_EQ(test, ctx->group->default_domain->type, IOMMU_DOMAIN_DMA);
	mock_as_pci(mdev, false);
}

/* Rule: a driver that insists on identity gets no such device. */
static void auto_refused_untrusted(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_plain(ctx);

	mdev->pci.untrusted = true;
	mock_as_pci(mdev, true);
	ctx->def_type = IOMMU_DOMAIN_IDENTITY;
	KUNIT_EXPECT_EQ(test, -EINVAL, iommu_group_store_type(ctx->group, "auto\n", 5));
	ctx->def_type = IOMMU_DOMAIN_DMA;
	KUNIT_EXPECT_EQ(test, 5, iommu_group_store_type(ctx->group, "auto\n", 5));
	KUNIT_EXPECT_EQ(test, ctx->group->default_domain->type, IOMMU_DOMAIN_DMA);
	mock_as_pci(mdev, false);
}

/* Rule: out of identity there is a new domain, strict if the driver knows no other. */
static void fq_from_identity(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev;

	ctx->def_type = IOMMU_DOMAIN_IDENTITY;
	mdev = mock_direct(ctx);
	KUNIT_EXPECT_EQ(test, 7, mock_store_type(ctx, "DMA-FQ\n"));
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, ctx->group->default_domain);
	KUNIT_EXPECT_EQ(test, mdev->hw->type, IOMMU_DOMAIN_DMA);
	KUNIT_EXPECT_TRUE(test, mock_mapped_at_attach(mdev, mdev->hw));
}

/* Rule: a group without devices has no domain to change. */
static void type_refused_empty(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;

	mock_del(mock_plain(ctx));
	KUNIT_EXPECT_NULL(test, ctx->group->default_domain);
	KUNIT_EXPECT_EQ(test, -EINVAL, mock_store_type(ctx, "DMA\n"));
}

/* Rule: any other change needs the drivers to be unbound. */
static void identity_refused_while_bound(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_plain(ctx);

	KUNIT_ASSERT_EQ(test, 0, iommu_device_use_default_domain(&mdev->pci.dev));
	KUNIT_EXPECT_EQ(test, -EPERM, mock_store_type(ctx, "identity\n"));
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, ctx->group->default_domain);
	iommu_device_unuse_default_domain(&mdev->pci.dev);
}

/* Rule: a device that firmware needs has its region whatever the type. */
static void type_direct(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_direct(ctx);

	KUNIT_EXPECT_EQ(test, 9, mock_store_type(ctx, "identity\n"));
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, &ctx->identity);
	KUNIT_EXPECT_EQ(test, 4, mock_store_type(ctx, "DMA\n"));
	KUNIT_EXPECT_EQ(test, mdev->hw->type, IOMMU_DOMAIN_DMA);
	KUNIT_EXPECT_TRUE(test, mock_mapped_at_attach(mdev, mdev->hw));
	KUNIT_EXPECT_EQ(test, -EINVAL, mock_store_type(ctx, "blocked\n"));
}

/* Rule: no default domain does without a region, though others can be mapped. */
static void type_refused_without_region(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_new(ctx);

	mock_region(mdev, IOMMU_RESV_DIRECT);
	mock_region(mdev, IOMMU_RESV_DIRECT);
	ctx->fail_map = mdev->region[0].start;
	ctx->def_type = IOMMU_DOMAIN_IDENTITY;
	KUNIT_ASSERT_TRUE(test, mock_add(mdev));
	KUNIT_EXPECT_EQ(test, -ENOMEM, mock_store_type(ctx, "DMA\n"));
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, &ctx->identity);
	KUNIT_EXPECT_PTR_EQ(test, ctx->group->default_domain, &ctx->identity);
}

/* Rule: nor does the first one, and then the device has no IOMMU at all. */
static void probe_refused_without_region(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_new(ctx);

	mock_region(mdev, IOMMU_RESV_DIRECT);
	mock_region(mdev, IOMMU_RESV_DIRECT);
	ctx->fail_map = mdev->region[0].start;
	KUNIT_EXPECT_FALSE(test, mock_add(mdev));
	/* The driver was told, once, and the domain went with the device */
	KUNIT_EXPECT_EQ(test, 1, mdev->nr_released);
	KUNIT_EXPECT_NULL(test, mdev->pci.dev.iommu);
	KUNIT_EXPECT_NULL(test, ctx->group->domain);
	KUNIT_EXPECT_NULL(test, ctx->group->default_domain);
	/* Nothing of it is left for the next one */
	KUNIT_EXPECT_FALSE(test, mock_domain_reaches(mock_plain(ctx)->hw,
						     mdev->region[1].start, SZ_4K, 0));
}

/* Rule: a type that one device cannot have is had by none; the new domain goes. */
static void type_change_one_fails(struct kunit *test)
{
	const struct attach_row *row = test->param_value;
	struct mock_ctx *ctx = test->priv;
	struct iommu_domain *old;

	mock_three(ctx);
	old = mock_default(ctx);
	mock_fail(ctx->devs[row->nr], &ctx->identity);
	KUNIT_EXPECT_EQ(test, -ENOSPC, mock_store_type(ctx, "identity\n"));
	expect_all_in(ctx, old);
	KUNIT_EXPECT_PTR_EQ(test, mock_default(ctx), old);
	KUNIT_EXPECT_PTR_EQ(test, ctx->group->domain, old);
	/* Nothing was kept of it, so that the next try is a real one */
	ctx->devs[row->nr]->fail_domain = NULL;
	KUNIT_EXPECT_EQ(test, 9, mock_store_type(ctx, "identity\n"));
	expect_all_in(ctx, &ctx->identity);
}

/* Rule: the same out of identity, where the new domain is freed again. */
static void type_change_from_identity_fails(struct kunit *test)
{
	const struct attach_row *row = test->param_value;
	struct mock_ctx *ctx = test->priv;

	ctx->def_type = IOMMU_DOMAIN_IDENTITY;
	mock_three(ctx);
	ctx->devs[row->nr]->fail_next = 1;
	ctx->devs[row->nr]->fail_ret = -ENOSPC;
	KUNIT_EXPECT_EQ(test, -ENOSPC, mock_store_type(ctx, "DMA\n"));
	expect_all_in(ctx, &ctx->identity);
	KUNIT_EXPECT_PTR_EQ(test, mock_default(ctx), &ctx->identity);
	KUNIT_EXPECT_EQ(test, 1, ctx->nr_freed);
	KUNIT_EXPECT_FALSE(test, use_dma_iommu(&ctx->devs[0]->pci.dev));
	/* None of the three is in the way of the next try */
	KUNIT_EXPECT_EQ(test, 4, mock_store_type(ctx, "DMA\n"));
	KUNIT_EXPECT_PTR_NE(test, mock_default(ctx), &ctx->identity);
	expect_all_in(ctx, mock_default(ctx));
	KUNIT_EXPECT_TRUE(test, use_dma_iommu(&ctx->devs[0]->pci.dev));
}

/* Rule: one that cannot go back is blocked, and is not in what is freed next. */
static void type_change_put_back_fails(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct iommu_domain *old;

	ctx->def_type = IOMMU_DOMAIN_IDENTITY;
	mock_three(ctx);
	old = mock_default(ctx);
	mock_blocking_domain(ctx);
	mock_fail(ctx->devs[0], old);
	ctx->devs[2]->fail_next = 1;
	ctx->devs[2]->fail_ret = -EIO;
	mock_warns(test, 1,
		   KUNIT_EXPECT_EQ(test, -EIO, mock_store_type(ctx, "DMA\n")));
	KUNIT_EXPECT_PTR_EQ(test, ctx->devs[0]->hw, &ctx->blocked);
	KUNIT_EXPECT_PTR_EQ(test, ctx->devs[1]->hw, old);
	KUNIT_EXPECT_PTR_EQ(test, ctx->devs[2]->hw, old);
	KUNIT_EXPECT_PTR_EQ(test, mock_default(ctx), old);
	KUNIT_EXPECT_EQ(test, 1, ctx->nr_freed);
}

/* Rule: devices that were there before their IOMMU are mapped, and then attached. */
static void probe_of_bus_maps_first(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *plain = mock_new(ctx);
	struct mock_dev *direct = mock_new(ctx);
	unsigned int i;

	mock_region(direct, IOMMU_RESV_DIRECT);
	for (i = 0; i < ctx->nr_devs; i++) {
		mock_add_early(ctx->devs[i]);
		mock_find_iommu(ctx->devs[i]);
	}
	KUNIT_EXPECT_EQ(test, 0, bus_iommu_probe(&mock_bus));
	KUNIT_ASSERT_NOT_NULL(test, ctx->group);
	KUNIT_EXPECT_EQ(test, ctx->group->default_domain->type, IOMMU_DOMAIN_DMA);
	KUNIT_EXPECT_PTR_EQ(test, plain->hw, ctx->group->default_domain);
	KUNIT_EXPECT_PTR_EQ(test, direct->hw, ctx->group->default_domain);
	KUNIT_EXPECT_TRUE(test, mock_mapped_at_attach(direct, direct->hw));
	KUNIT_EXPECT_EQ(test, IOMMU_KUNIT_REFUSED,
			iommu_group_claim_dma_owner(ctx->group, ctx));
}

/* Rule: one that must not join an owner does not keep the bus from being probed. */
static void probe_of_bus_goes_on_after_refusal(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *first = mock_plain(ctx);
	struct mock_dev *direct = mock_new(ctx);
	struct mock_dev *plain = mock_new(ctx);
	unsigned int i;

	mock_region(direct, IOMMU_RESV_DIRECT);
	direct->stream = first->stream;
	KUNIT_ASSERT_EQ(test, 0, iommu_group_claim_dma_owner(ctx->group, ctx));
	for (i = 1; i < ctx->nr_devs; i++) {
		mock_add_early(ctx->devs[i]);
		mock_find_iommu(ctx->devs[i]);
	}
	KUNIT_EXPECT_EQ(test, 0, bus_iommu_probe(&mock_bus));
#ifndef IOMMU_KUNIT_WAITS
	KUNIT_EXPECT_NULL(test, direct->pci.dev.iommu_group);
#endif
	KUNIT_EXPECT_EQ(test, 0, mock_attaches(direct, NULL));
	KUNIT_EXPECT_PTR_EQ(test, plain->hw, &ctx->blocked);
	KUNIT_EXPECT_PTR_EQ(test, first->hw, &ctx->blocked);
	iommu_group_release_dma_owner(ctx->group);
	KUNIT_EXPECT_PTR_EQ(test, plain->hw, mock_default(ctx));
}

/* Rule, end goal 3: an untrusted device is not let into a group in identity. */
static void untrusted_joins_no_identity(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *late = mock_new(ctx);

	ctx->def_type = IOMMU_DOMAIN_IDENTITY;
	mock_plain(ctx);
	late->pci.untrusted = true;
	/* What it is must be known when it is probed, so probe it by hand */
	mock_add_early(late);
	mock_find_iommu(late);
	mock_as_pci(late, true);
	iommu_probe_device(&late->pci.dev);
	mock_as_pci(late, false);
	KUNIT_EXPECT_EQ(test, 0, mock_attaches(late, &ctx->identity));
}

/* Rule: a device that is in a group is not probed once more. */
static void probe_again_is_no_change(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_direct(ctx);

	mock_reset_log(ctx);
	KUNIT_EXPECT_EQ(test, 0, iommu_probe_device(&mdev->pci.dev));
	KUNIT_EXPECT_EQ(test, 0, mock_attaches(mdev, NULL));
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, ctx->group->default_domain);
}

static struct kunit_case iommu_group_type_cases[] = {
	KUNIT_CASE(fq_in_place),
	KUNIT_CASE(fq_refused_untrusted),
	KUNIT_CASE(fq_refused_beside_untrusted),
	KUNIT_CASE(identity_refused_untrusted),
	KUNIT_CASE(auto_refused_untrusted),
	KUNIT_CASE(fq_from_identity),
	KUNIT_CASE(type_refused_empty),
	KUNIT_CASE(identity_refused_while_bound),
	KUNIT_CASE(type_direct),
	KUNIT_CASE(type_refused_without_region),
	KUNIT_CASE_PARAM(type_change_one_fails, attach_which_gen_params),
	KUNIT_CASE_PARAM(type_change_from_identity_fails, attach_which_gen_params),
	KUNIT_CASE(type_change_put_back_fails),
	KUNIT_CASE(probe_refused_without_region),
	KUNIT_CASE(probe_of_bus_maps_first),
	KUNIT_CASE(probe_of_bus_goes_on_after_refusal),
	KUNIT_CASE(untrusted_joins_no_identity),
	KUNIT_CASE(probe_again_is_no_change),
	{}
};

static struct kunit_suite iommu_group_type_suite = {
	.name = "iommu_group_type",
	.suite_init = mock_suite_init,
	.suite_exit = mock_suite_exit,
	.init = mock_init,
	.exit = mock_exit,
	.test_cases = iommu_group_type_cases,
};
