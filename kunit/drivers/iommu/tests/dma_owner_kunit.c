// SPDX-License-Identifier: GPL-2.0-only
/*
 * Ownership of a group's DMA, as VFIO and iommufd take it, and devices that
 * join a group which has an owner.
 */

static int owner_a, owner_b;

/* Rule: a claimed group is in the blocking domain until it is released. */
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

/* Rule: the owner's domain comes after blocking and goes before it. */
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
}

/* Rule: no ownership of a device that firmware needs, DMA default domain. */
static void claim_direct_refused(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_direct(ctx);

	KUNIT_EXPECT_EQ(test, IOMMU_KUNIT_REFUSED,
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
	KUNIT_EXPECT_EQ(test, IOMMU_KUNIT_REFUSED,
			iommu_device_claim_dma_owner(&mdev->pci.dev, &owner_a));
	KUNIT_EXPECT_FALSE(test, iommu_group_dma_owner_claimed(ctx->group));
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, &ctx->identity);
}

/* Rule: the same for drivers without a blocked domain. */
static void claim_direct_refused_no_blocked_domain(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev;

	mock_no_blocked(ctx);
	mdev = mock_direct(ctx);
	KUNIT_EXPECT_EQ(test, IOMMU_KUNIT_REFUSED,
			iommu_group_claim_dma_owner(ctx->group, &owner_a));
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, ctx->group->default_domain);
	KUNIT_EXPECT_TRUE(test, mock_reaches(mdev, 0));
}

/* Rule: asking again changes neither the answer nor the device. */
static void claim_direct_refused_again(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_direct(ctx);

	KUNIT_EXPECT_EQ(test, IOMMU_KUNIT_REFUSED,
			iommu_group_claim_dma_owner(ctx->group, &owner_a));
	KUNIT_EXPECT_EQ(test, IOMMU_KUNIT_REFUSED,
			iommu_group_claim_dma_owner(ctx->group, &owner_a));
	KUNIT_EXPECT_EQ(test, IOMMU_KUNIT_REFUSED,
			iommu_device_claim_dma_owner(&mdev->pci.dev, &owner_b));
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, ctx->group->default_domain);
	KUNIT_EXPECT_EQ(test, 0, mock_attaches(mdev, &ctx->blocked));
}

/* Rule: a refused device still works: its region, its driver, its group. */
static void claim_refused_device_usable(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_direct(ctx);

	KUNIT_ASSERT_EQ(test, IOMMU_KUNIT_REFUSED,
			iommu_group_claim_dma_owner(ctx->group, &owner_a));
	KUNIT_EXPECT_TRUE(test, mock_reaches(mdev, 0));
	KUNIT_EXPECT_PTR_EQ(test, iommu_get_domain_for_dev(&mdev->pci.dev),
			    ctx->group->default_domain);
	KUNIT_EXPECT_EQ(test, 0, iommu_device_use_default_domain(&mdev->pci.dev));
	iommu_device_unuse_default_domain(&mdev->pci.dev);
}

/* Rule: a plain device shares the fate of its group. */
static void claim_mixed_group_refused(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *plain = mock_plain(ctx);
	struct mock_dev *direct = mock_direct(ctx);

	KUNIT_EXPECT_EQ(test, IOMMU_KUNIT_REFUSED,
			iommu_device_claim_dma_owner(&plain->pci.dev, &owner_a));
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
	KUNIT_ASSERT_EQ(test, 0, iommu_group_claim_dma_owner(ctx->group, &owner_a));
	KUNIT_EXPECT_PTR_EQ(test, plain->hw, &ctx->blocked);
	iommu_group_release_dma_owner(ctx->group);
}

/* Rule: a relaxable region does not keep a device from userspace. */
static void claim_relaxable(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_dev_with(ctx, IOMMU_RESV_DIRECT_RELAXABLE);

	KUNIT_ASSERT_EQ(test, 0, iommu_group_claim_dma_owner(ctx->group, &owner_a));
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
			iommu_device_claim_dma_owner(&mdev->pci.dev, &owner_b));
	KUNIT_EXPECT_EQ(test, -EBUSY, iommu_device_use_default_domain(&mdev->pci.dev));
	iommu_group_release_dma_owner(ctx->group);
}

#ifdef IOMMU_KUNIT_STATIC_DOMAINS
/* Rule: iommufd claims device by device; the last to leave releases. */
static void claim_device_repeated(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *first = mock_plain(ctx);
	struct mock_dev *second = mock_plain(ctx);

	KUNIT_ASSERT_EQ(test, 0, iommu_device_claim_dma_owner(&first->pci.dev, &owner_a));
	KUNIT_EXPECT_EQ(test, 0, iommu_device_claim_dma_owner(&second->pci.dev, &owner_a));
	KUNIT_EXPECT_EQ(test, -EPERM,
			iommu_device_claim_dma_owner(&second->pci.dev, &owner_b));
	iommu_device_release_dma_owner(&first->pci.dev);
	KUNIT_EXPECT_TRUE(test, iommu_group_dma_owner_claimed(ctx->group));
	KUNIT_EXPECT_PTR_EQ(test, first->hw, &ctx->blocked);
	iommu_device_release_dma_owner(&second->pci.dev);
	KUNIT_EXPECT_FALSE(test, iommu_group_dma_owner_claimed(ctx->group));
	KUNIT_EXPECT_PTR_EQ(test, first->hw, ctx->group->default_domain);
	KUNIT_EXPECT_PTR_EQ(test, second->hw, ctx->group->default_domain);
}
#endif

/* Rule: not while a kernel driver does DMA with the default domain. */
static void claim_refused_while_driver_bound(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_plain(ctx);

	KUNIT_ASSERT_EQ(test, 0, iommu_device_use_default_domain(&mdev->pci.dev));
	KUNIT_EXPECT_EQ(test, -EPERM,
			iommu_group_claim_dma_owner(ctx->group, &owner_a));
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, ctx->group->default_domain);
	iommu_device_unuse_default_domain(&mdev->pci.dev);
	KUNIT_EXPECT_FALSE(test, iommu_group_dma_owner_claimed(ctx->group));
}

/* Rule: nor while a driver has a domain of its own attached. */
static void claim_refused_while_domain_attached(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_plain(ctx);
	struct iommu_domain *user = mock_user_domain(mdev);

	KUNIT_ASSERT_EQ(test, 0, iommu_attach_device(user, &mdev->pci.dev));
	KUNIT_EXPECT_EQ(test, -EBUSY,
			iommu_group_claim_dma_owner(ctx->group, &owner_a));
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, user);
	iommu_detach_device(user, &mdev->pci.dev);
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, ctx->group->default_domain);
	iommu_domain_free(user);
}

/* Rule: a driver is in the way of one device, too, as iommufd claims them. */
static void claim_device_refused_beside_driver(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *driven = mock_plain(ctx);
	struct mock_dev *mdev = mock_plain(ctx);

	KUNIT_ASSERT_EQ(test, 0, iommu_device_use_default_domain(&driven->pci.dev));
	KUNIT_EXPECT_EQ(test, -EPERM,
			iommu_device_claim_dma_owner(&mdev->pci.dev, &owner_a));
	KUNIT_EXPECT_EQ(test, -EPERM,
			iommu_device_claim_dma_owner(&driven->pci.dev, &owner_a));
	KUNIT_EXPECT_PTR_EQ(test, driven->hw, ctx->group->default_domain);
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, ctx->group->default_domain);
	/* As soon as the driver has gone, and not before */
	iommu_device_unuse_default_domain(&driven->pci.dev);
	KUNIT_EXPECT_EQ(test, 0, iommu_device_claim_dma_owner(&mdev->pci.dev, &owner_a));
	iommu_group_release_dma_owner(ctx->group);
}

/* Rule: a driver is kept from any device of a group that iommufd has a part of. */
static void claim_device_keeps_driver_out(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_plain(ctx);
	struct mock_dev *other = mock_plain(ctx);

	KUNIT_ASSERT_EQ(test, 0, iommu_device_claim_dma_owner(&mdev->pci.dev, &owner_a));
	KUNIT_EXPECT_EQ(test, -EBUSY, iommu_device_use_default_domain(&mdev->pci.dev));
	KUNIT_EXPECT_EQ(test, -EBUSY, iommu_device_use_default_domain(&other->pci.dev));
	KUNIT_EXPECT_EQ(test, -EPERM, iommu_group_claim_dma_owner(ctx->group, &owner_a));
	KUNIT_EXPECT_PTR_EQ(test, other->hw, &ctx->blocked);
	iommu_group_release_dma_owner(ctx->group);
	KUNIT_EXPECT_EQ(test, 0, iommu_device_use_default_domain(&other->pci.dev));
	iommu_device_unuse_default_domain(&other->pci.dev);
}

/* Rule: drivers share the default domain, until the last of them has gone. */
static void second_driver_beside_first(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *first = mock_plain(ctx);
	struct mock_dev *second = mock_plain(ctx);

	KUNIT_ASSERT_EQ(test, 0, iommu_device_use_default_domain(&first->pci.dev));
	KUNIT_EXPECT_EQ(test, 0, iommu_device_use_default_domain(&second->pci.dev));
	iommu_device_unuse_default_domain(&first->pci.dev);
	KUNIT_EXPECT_EQ(test, -EPERM, iommu_group_claim_dma_owner(ctx->group, &owner_a));
	iommu_device_unuse_default_domain(&second->pci.dev);
	KUNIT_EXPECT_EQ(test, 0, iommu_group_claim_dma_owner(ctx->group, &owner_a));
	iommu_group_release_dma_owner(ctx->group);
}

/* Rule: there is no DMA API beside a driver with a domain of its own. */
static void second_driver_beside_domain(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *first = mock_plain(ctx);
	struct mock_dev *second = mock_plain(ctx);
	struct iommu_domain *user = mock_user_domain(first);

	KUNIT_ASSERT_EQ(test, 0, iommu_device_use_default_domain(&first->pci.dev));
	KUNIT_ASSERT_EQ(test, 0, iommu_attach_group(user, ctx->group));
	KUNIT_EXPECT_EQ(test, -EBUSY, iommu_device_use_default_domain(&second->pci.dev));
	KUNIT_EXPECT_PTR_EQ(test, second->hw, user);
	iommu_detach_group(user, ctx->group);
	KUNIT_EXPECT_EQ(test, 0, iommu_device_use_default_domain(&second->pci.dev));
	iommu_device_unuse_default_domain(&second->pci.dev);
	iommu_device_unuse_default_domain(&first->pci.dev);
	iommu_domain_free(user);
}

/* Rule: what was not taken is not given back. */
static void release_unclaimed(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_plain(ctx);

	KUNIT_ASSERT_EQ(test, 0, iommu_device_use_default_domain(&mdev->pci.dev));
	mock_reset_log(ctx);
	/* The driver of the device is no owner */
	mock_warns(test, 1, iommu_group_release_dma_owner(ctx->group));
	KUNIT_EXPECT_EQ(test, 0, ctx->nr_log);
	KUNIT_EXPECT_EQ(test, -EPERM, iommu_group_claim_dma_owner(ctx->group, &owner_a));
	iommu_device_unuse_default_domain(&mdev->pci.dev);
	mock_warns(test, 1, iommu_group_release_dma_owner(ctx->group));
	/* One time too many does not count */
	mock_warns(test, 1, iommu_device_unuse_default_domain(&mdev->pci.dev));
	KUNIT_EXPECT_EQ(test, 0, iommu_group_claim_dma_owner(ctx->group, &owner_a));
	iommu_group_release_dma_owner(ctx->group);
}

#ifdef IOMMU_KUNIT_STATIC_DOMAINS
/* Rule: an owner is told from another by what it calls itself. */
static void claim_without_owner(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_plain(ctx);

	mock_warns(test, 1,
		   KUNIT_EXPECT_EQ(test, -EINVAL,
				   iommu_group_claim_dma_owner(ctx->group, NULL)));
	mock_warns(test, 1,
		   KUNIT_EXPECT_EQ(test, -EINVAL,
				   iommu_device_claim_dma_owner(&mdev->pci.dev, NULL)));
	KUNIT_EXPECT_FALSE(test, iommu_group_dma_owner_claimed(ctx->group));
	KUNIT_EXPECT_PTR_EQ(test, mdev->hw, ctx->group->default_domain);
}
#endif

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
}

/* Rule: what an owner has attached is not for a device that firmware needs. */
static void late_direct_refused_by_owner(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *first = mock_plain(ctx);
	struct iommu_domain *user = mock_user_domain(first);
	struct mock_dev *late = mock_new(ctx);

	mock_region(late, IOMMU_RESV_DIRECT);
	KUNIT_ASSERT_EQ(test, 0, iommu_group_claim_dma_owner(ctx->group, &owner_a));
	KUNIT_ASSERT_EQ(test, 0, iommu_attach_group(user, ctx->group));
	/* Whether it joins is another matter, so look at the attaches only */
	mock_add(late);
	KUNIT_EXPECT_EQ(test, 0, mock_attaches(late, user));
	mock_del(late);
	iommu_detach_group(user, ctx->group);
	iommu_domain_free(user);
	iommu_group_release_dma_owner(ctx->group);
}

#ifndef IOMMU_KUNIT_WAITS
/* Rule: a DIRECT device does not join a group that is claimed and idle. */
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

/* Rule: refused is refused; what the hardware has for the device stays. */
static void late_direct_refused_untouched(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *first = mock_plain(ctx);
	struct mock_dev *late = mock_new(ctx);

#ifdef IOMMU_KUNIT_STATIC_DOMAINS
	ctx->ops.release_domain = &ctx->blocked;
#endif
	mock_region(late, IOMMU_RESV_DIRECT);
	KUNIT_ASSERT_EQ(test, 0, iommu_group_claim_dma_owner(ctx->group, &owner_a));
	KUNIT_EXPECT_FALSE(test, mock_add(late));
	/* The owner may be using the same requester ID */
	KUNIT_EXPECT_EQ(test, 0, mock_attaches(late, NULL));
	KUNIT_EXPECT_PTR_EQ(test, first->hw, &ctx->blocked);
	iommu_group_release_dma_owner(ctx->group);
}

/* Rule: the owner is not disturbed, nor is what comes after it. */
static void late_direct_refused_owner_unaware(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *first = mock_plain(ctx);
	struct iommu_domain *user = mock_user_domain(first);
	struct mock_dev *late = mock_new(ctx);
	struct mock_dev *again = mock_new(ctx);

	mock_region(late, IOMMU_RESV_DIRECT);
	mock_region(again, IOMMU_RESV_DIRECT);
	KUNIT_ASSERT_EQ(test, 0, iommu_group_claim_dma_owner(ctx->group, &owner_a));
	KUNIT_ASSERT_EQ(test, 0, iommu_attach_group(user, ctx->group));
	KUNIT_EXPECT_FALSE(test, mock_add(late));
	KUNIT_EXPECT_PTR_EQ(test, first->hw, user);
	KUNIT_EXPECT_EQ(test, 1, mock_attaches(first, user));
	iommu_detach_group(user, ctx->group);
	KUNIT_EXPECT_PTR_EQ(test, first->hw, &ctx->blocked);
	iommu_domain_free(user);
	iommu_group_release_dma_owner(ctx->group);
	KUNIT_EXPECT_PTR_EQ(test, first->hw, ctx->group->default_domain);
	/* Found again once the owner has left */
	mock_del(late);
	KUNIT_EXPECT_TRUE(test, mock_add(again));
	KUNIT_EXPECT_PTR_EQ(test, again->hw, ctx->group->default_domain);
	KUNIT_EXPECT_TRUE(test, mock_reaches(again, 0));
}

/* Rule: a bus that is probed for another IOMMU does not stop at the refused. */
static void late_direct_refused_by_errno(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *late = mock_new(ctx);

	mock_plain(ctx);
	mock_region(late, IOMMU_RESV_DIRECT);
	KUNIT_ASSERT_EQ(test, 0, iommu_group_claim_dma_owner(ctx->group, &owner_a));
	KUNIT_EXPECT_FALSE(test, mock_add(late));
	/* What was found of it went with the refusal */
	mock_find_iommu(late);
	KUNIT_EXPECT_EQ(test, -ENODEV, iommu_probe_device(&late->pci.dev));
	iommu_group_release_dma_owner(ctx->group);
}
#endif

/* Rule: the kernel's own groups take any device, mapped before it is attached. */
static void late_direct_joins_kernel(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *first = mock_plain(ctx);
	struct mock_dev *late;

	KUNIT_ASSERT_EQ(test, 0, iommu_device_use_default_domain(&first->pci.dev));
	late = mock_direct(ctx);
	KUNIT_EXPECT_PTR_EQ(test, late->hw, ctx->group->default_domain);
	KUNIT_EXPECT_TRUE(test, mock_reaches(late, 0));
	iommu_device_unuse_default_domain(&first->pci.dev);
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
	/* It joins, as firmware can do without the first */
	KUNIT_ASSERT_TRUE(test, mock_add(late));
	KUNIT_EXPECT_EQ(test, IOMMU_KUNIT_REFUSED,
			iommu_group_claim_dma_owner(ctx->group, &owner_a));
	KUNIT_EXPECT_PTR_EQ(test, first->hw, ctx->group->default_domain);
	KUNIT_EXPECT_PTR_EQ(test, late->hw, ctx->group->default_domain);
}

/* Rule: nor must it keep that one from being mapped. */
static void late_direct_mapped_behind_failed_map(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *late;

	mock_plain(ctx);
	late = mock_new(ctx);
	mock_region(late, IOMMU_RESV_DIRECT_RELAXABLE);
	mock_region(late, IOMMU_RESV_DIRECT);
	ctx->fail_map = late->region[0].start;
	KUNIT_EXPECT_TRUE(test, mock_add(late));
	KUNIT_EXPECT_FALSE(test, mock_reaches(late, 0));
	KUNIT_EXPECT_TRUE(test, mock_reaches(late, 1));
}

#ifdef IOMMU_KUNIT_STATIC_DOMAINS
/* Rule: who cannot be attached is no member, and no burden to those who are. */
static void late_attach_fails(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *first = mock_plain(ctx);
	struct mock_dev *late = mock_new(ctx);

	mock_region(late, IOMMU_RESV_DIRECT);
	late->fail_domain = ctx->group->default_domain;
	late->fail_ret = -EIO;
	KUNIT_EXPECT_FALSE(test, mock_add(late));
	KUNIT_EXPECT_PTR_EQ(test, first->hw, ctx->group->default_domain);
	KUNIT_ASSERT_EQ(test, 0, iommu_group_claim_dma_owner(ctx->group, &owner_a));
	KUNIT_EXPECT_PTR_EQ(test, first->hw, &ctx->blocked);
	iommu_group_release_dma_owner(ctx->group);
}
#endif

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
#ifdef IOMMU_KUNIT_STATIC_DOMAINS
	KUNIT_CASE(claim_device_repeated),
#endif
	KUNIT_CASE(claim_refused_while_driver_bound),
	KUNIT_CASE(claim_device_refused_beside_driver),
	KUNIT_CASE(claim_device_keeps_driver_out),
	KUNIT_CASE(second_driver_beside_first),
	KUNIT_CASE(second_driver_beside_domain),
	KUNIT_CASE(claim_refused_while_domain_attached),
	KUNIT_CASE(release_unclaimed),
#ifdef IOMMU_KUNIT_STATIC_DOMAINS
	KUNIT_CASE(claim_without_owner),
#endif
	KUNIT_CASE(late_plain_joins_owner),
	KUNIT_CASE(late_direct_refused_by_owner),
#ifndef IOMMU_KUNIT_WAITS
	KUNIT_CASE(late_direct_refused_by_claim),
	KUNIT_CASE(late_direct_refused_untouched),
	KUNIT_CASE(late_direct_refused_owner_unaware),
	KUNIT_CASE(late_direct_refused_by_errno),
#endif
	KUNIT_CASE(late_direct_joins_kernel),
	KUNIT_CASE(late_direct_behind_failed_map),
	KUNIT_CASE(late_direct_mapped_behind_failed_map),
#ifdef IOMMU_KUNIT_STATIC_DOMAINS
	KUNIT_CASE(late_attach_fails),
#endif
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
