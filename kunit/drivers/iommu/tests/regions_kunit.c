// SPDX-License-Identifier: GPL-2.0-only
/*
 * What becomes of reserved regions in the domain of the DMA API: which pages are
 * mapped and how, and which addresses drivers never get.
 */

/* A region that differs from mock_region()'s: so many pages, from that one on */
static void mock_region_at(struct mock_dev *mdev, enum iommu_resv_type type,
			   unsigned int page, unsigned int pages, int prot)
{
	unsigned int i = mdev->nr_regions;

	mock_region(mdev, type);
	mdev->region[i].start = MOCK_REGION + page * SZ_4K;
	mdev->region[i].size = pages * SZ_4K;
	mdev->region[i].prot = prot;
}

static bool mock_page_reached(struct mock_ctx *ctx, unsigned int page, int prot)
{
	return mock_domain_reaches(mock_default(ctx), MOCK_REGION + page * SZ_4K,
				   SZ_4K, prot);
}

#define MOCK_RW		(IOMMU_READ | IOMMU_WRITE)

/* Rule: all of a region is mapped, and nothing around it. */
static void region_every_page(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_new(ctx);
	unsigned int page;

	mock_region_at(mdev, IOMMU_RESV_DIRECT, 1, 4, MOCK_RW);
	KUNIT_ASSERT_TRUE(test, mock_add(mdev));
	for (page = 0; page < 6; page++)
		KUNIT_EXPECT_EQ_MSG(test, page >= 1 && page < 5,
				    mock_page_reached(ctx, page, MOCK_RW), "page %u", page);
}

/* Rule: as firmware says that it is used, and no further. */
static void region_read_only(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_new(ctx);

	mock_region_at(mdev, IOMMU_RESV_DIRECT, 0, 2, IOMMU_READ);
	KUNIT_ASSERT_TRUE(test, mock_add(mdev));
	KUNIT_EXPECT_TRUE(test, mock_page_reached(ctx, 0, IOMMU_READ));
	KUNIT_EXPECT_TRUE(test, mock_page_reached(ctx, 1, IOMMU_READ));
	KUNIT_EXPECT_FALSE(test, mock_page_reached(ctx, 0, IOMMU_WRITE));
	KUNIT_EXPECT_FALSE(test, mock_page_reached(ctx, 1, IOMMU_WRITE));
}

/* Rule: what one device has is not mapped again for the next; what lacks, is. */
static void regions_overlap(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *first = mock_new(ctx);
	struct mock_dev *second = mock_new(ctx);

	mock_region_at(first, IOMMU_RESV_DIRECT, 2, 2, MOCK_RW);
	/* Pages before, between and behind those of the first */
	mock_region_at(second, IOMMU_RESV_DIRECT, 0, 7, MOCK_RW);
	mock_region_at(first, IOMMU_RESV_DIRECT, 5, 1, MOCK_RW);
	KUNIT_ASSERT_TRUE(test, mock_add(first));
	KUNIT_ASSERT_TRUE(test, mock_add(second));
	KUNIT_EXPECT_TRUE(test, mock_reaches(first, 0));
	KUNIT_EXPECT_TRUE(test, mock_reaches(first, 1));
	KUNIT_EXPECT_TRUE(test, mock_reaches(second, 0));
}

/* Rule: a region that cannot be mapped whole leaves no part of it mapped. */
static void region_failed_is_undone(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *late = mock_new(ctx);
	unsigned int page;

	mock_plain(ctx);
	mock_region_at(late, IOMMU_RESV_DIRECT_RELAXABLE, 0, 4, MOCK_RW);
	ctx->fail_map = late->region[0].start + 2 * SZ_4K;
	mock_add(late);
	for (page = 0; page < 4; page++)
		KUNIT_EXPECT_FALSE(test, mock_page_reached(ctx, page, 0));
}

#ifdef IOMMU_KUNIT_STATIC_DOMAINS
/*
 * The DMA API gives the highest address that is free and that the device can
 * reach. These are the last pages below it.
 */
#define MOCK_DMA_BITS	30
#define MOCK_TOP_PAGE	((BIT(MOCK_DMA_BITS) - MOCK_REGION) / SZ_4K - 1)

/* Let a driver map a page, and tell whether that is where a region lies */
static bool mock_maps_over_region(struct mock_dev *driven, struct mock_dev *mdev)
{
	struct device *dev = &driven->pci.dev;
	struct kunit *test = driven->ctx->test;
	unsigned long start = mdev->region[0].start;
	struct page *page = alloc_page(GFP_KERNEL);
	dma_addr_t addr;

	KUNIT_ASSERT_NOT_NULL(test, page);
	driven->pci.dma_mask = DMA_BIT_MASK(MOCK_DMA_BITS);
	dev->dma_mask = &driven->pci.dma_mask;
	addr = dma_map_page(dev, page, 0, PAGE_SIZE, DMA_BIDIRECTIONAL);
	KUNIT_EXPECT_EQ(test, 0, dma_mapping_error(dev, addr));
	KUNIT_EXPECT_EQ(test, page_to_phys(page),
			iommu_iova_to_phys(mock_default(driven->ctx), addr));
	if (!dma_mapping_error(dev, addr))
		dma_unmap_page(dev, addr, PAGE_SIZE, DMA_BIDIRECTIONAL);
	__free_page(page);
	return addr >= start && addr < start + mdev->region[0].size;
}

/* Rule: no driver's buffer is where firmware has its own. */
static void region_is_no_dma_address(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_new(ctx);

	mock_region_at(mdev, IOMMU_RESV_RESERVED, MOCK_TOP_PAGE, 1, MOCK_RW);
	KUNIT_ASSERT_TRUE(test, mock_add(mdev));
	KUNIT_EXPECT_FALSE(test, mock_maps_over_region(mdev, mdev));
}

/* Rule: nor another device of the group, which has the same addresses. */
static void region_is_no_dma_address_for_others(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_new(ctx);

	mock_region_at(mdev, IOMMU_RESV_RESERVED, MOCK_TOP_PAGE, 1, MOCK_RW);
	KUNIT_ASSERT_TRUE(test, mock_add(mdev));
	KUNIT_EXPECT_FALSE(test, mock_maps_over_region(mock_plain(ctx), mdev));
}

/* Rule: it does not matter which of them comes first. */
static void region_of_second_is_no_dma_address(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *first = mock_plain(ctx);
	struct mock_dev *second = mock_new(ctx);

	/* As if nothing were mapped there: the mock would refuse a page twice */
	mock_region_at(second, IOMMU_RESV_RESERVED, MOCK_TOP_PAGE, 1, MOCK_RW);
	KUNIT_ASSERT_TRUE(test, mock_add(second));
	KUNIT_EXPECT_FALSE(test, mock_maps_over_region(first, second));
	KUNIT_EXPECT_FALSE(test, mock_maps_over_region(second, second));
}

/* Rule: the DMA API knows that a device has an IOMMU, whenever it came. */
static void dma_api_uses_iommu(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *first = mock_plain(ctx);
	struct mock_dev *late = mock_plain(ctx);

	KUNIT_EXPECT_TRUE(test, use_dma_iommu(&first->pci.dev));
	KUNIT_EXPECT_TRUE(test, use_dma_iommu(&late->pci.dev));
	mock_del(late);
	KUNIT_EXPECT_FALSE(test, use_dma_iommu(&late->pci.dev));
}

/* Rule: not where DMA addresses are those of memory. */
static void dma_api_direct_in_identity(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *first, *late;

	ctx->def_type = IOMMU_DOMAIN_IDENTITY;
	first = mock_plain(ctx);
	late = mock_plain(ctx);
	KUNIT_EXPECT_FALSE(test, use_dma_iommu(&first->pci.dev));
	KUNIT_EXPECT_FALSE(test, use_dma_iommu(&late->pci.dev));
}

/* Rule: who comes while the group is owned has the DMA API after that. */
static void dma_api_of_late_joiner(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *late;

	mock_plain(ctx);
	KUNIT_ASSERT_EQ(test, 0, iommu_group_claim_dma_owner(ctx->group, ctx));
	late = mock_plain(ctx);
	iommu_group_release_dma_owner(ctx->group);
	KUNIT_ASSERT_PTR_EQ(test, late->hw, mock_default(ctx));
	KUNIT_EXPECT_TRUE(test, use_dma_iommu(&late->pci.dev));
}
#endif

static struct kunit_case iommu_regions_cases[] = {
	KUNIT_CASE(region_every_page),
	KUNIT_CASE(region_read_only),
	KUNIT_CASE(regions_overlap),
	KUNIT_CASE(region_failed_is_undone),
#ifdef IOMMU_KUNIT_STATIC_DOMAINS
	KUNIT_CASE(region_is_no_dma_address),
	KUNIT_CASE(region_is_no_dma_address_for_others),
	KUNIT_CASE(region_of_second_is_no_dma_address),
	KUNIT_CASE(dma_api_uses_iommu),
	KUNIT_CASE(dma_api_direct_in_identity),
	KUNIT_CASE(dma_api_of_late_joiner),
#endif
	{}
};

static struct kunit_suite iommu_regions_suite = {
	.name = "iommu_regions",
	.suite_init = mock_suite_init,
	.suite_exit = mock_suite_exit,
	.init = mock_init,
	.exit = mock_exit,
	.test_cases = iommu_regions_cases,
};
