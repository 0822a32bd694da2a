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

/* Rule: a page that only a part of a region is in is mapped, too. */
static void region_ends_in_a_page(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_new(ctx);

	mock_region_at(mdev, IOMMU_RESV_DIRECT, 0, 2, MOCK_RW);
	mdev->region[0].size -= SZ_1K;
	KUNIT_ASSERT_TRUE(test, mock_add(mdev));
	KUNIT_EXPECT_TRUE(test, mock_page_reached(ctx, 0, MOCK_RW));
	KUNIT_EXPECT_TRUE(test, mock_page_reached(ctx, 1, MOCK_RW));
	KUNIT_EXPECT_FALSE(test, mock_page_reached(ctx, 2, 0));
}

/* Rule: what is mapped 1:1 will do for the next device, at address 0, too. */
static void region_at_zero_is_shared(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev;
	unsigned int i;

	/* 0 is an address here */
	ctx->fail_map = ULONG_MAX;
	for (i = 0; i < 2; i++) {
		mdev = mock_new(ctx);
		mock_region(mdev, IOMMU_RESV_DIRECT);
		mdev->region[0].start = 0;
		KUNIT_ASSERT_TRUE(test, mock_add(mdev));
		KUNIT_EXPECT_PTR_EQ(test, mdev->hw, mock_default(ctx));
		KUNIT_EXPECT_TRUE(test, mock_reaches(mdev, 0));
	}
}

/* Rule: the reserved regions of a group are those of each of its devices. */
static void regions_of_a_group(struct kunit *test)
{
	struct iommu_resv_region *region, *next;
	struct mock_ctx *ctx = test->priv;
	unsigned int found = 0;
	LIST_HEAD(regions);
	unsigned int i;

	for (i = 0; i < 3; i++) {
		struct mock_dev *mdev = mock_new(ctx);

		mock_region_at(mdev, IOMMU_RESV_RESERVED, 2 * i, 1, MOCK_RW);
		KUNIT_ASSERT_TRUE(test, mock_add(mdev));
	}
	KUNIT_EXPECT_EQ(test, 0, iommu_get_group_resv_regions(ctx->group, &regions));
	list_for_each_entry_safe(region, next, &regions, list) {
		found |= BIT((region->start - MOCK_REGION) / SZ_4K);
		list_del(&region->list);
		kfree(region);
	}
	KUNIT_EXPECT_EQ(test, BIT(0) | BIT(2) | BIT(4), found);
}

#ifdef IOMMU_KUNIT_STATIC_DOMAINS
/*
 * The DMA API gives the highest address that is free and that the device can
 * reach. These are the last pages below it.
 */
#define MOCK_DMA_BITS	30
/* A buffer so large that no CPU keeps its address when it is unmapped */
#define MOCK_LARGE	64
#define MOCK_TOP_PAGE	((BIT(MOCK_DMA_BITS) - MOCK_REGION) / SZ_4K - 1)

/* Let a driver map a buffer; it is freed with the test */
static dma_addr_t mock_dma_map(struct mock_dev *driven, unsigned int pages)
{
	struct device *dev = &driven->pci.dev;
	struct kunit *test = driven->ctx->test;
	void *buffer = kunit_kzalloc(test, pages * SZ_4K, GFP_KERNEL);
	dma_addr_t addr;

	KUNIT_ASSERT_NOT_NULL(test, buffer);
	driven->pci.dma_mask = DMA_BIT_MASK(MOCK_DMA_BITS);
	dev->dma_mask = &driven->pci.dma_mask;
	addr = dma_map_single(dev, buffer, pages * SZ_4K, DMA_BIDIRECTIONAL);
	KUNIT_ASSERT_EQ(test, 0, dma_mapping_error(dev, addr));
	KUNIT_EXPECT_EQ(test, virt_to_phys(buffer),
			iommu_iova_to_phys(mock_default(driven->ctx), addr));
	return addr;
}

static void mock_dma_unmap(struct mock_dev *driven, dma_addr_t addr, unsigned int pages)
{
	dma_unmap_single(&driven->pci.dev, addr, pages * SZ_4K, DMA_BIDIRECTIONAL);
}

/* Let a driver map a page, and tell whether that is where a region lies */
static bool mock_maps_over_region(struct mock_dev *driven, struct mock_dev *mdev)
{
	unsigned long start = mdev->region[0].start;
	dma_addr_t addr = mock_dma_map(driven, 1);

	mock_dma_unmap(driven, addr, 1);
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

/* Rule: nor in a page that only a part of it is in. */
static void region_end_is_no_dma_address(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_new(ctx);

	mock_region_at(mdev, IOMMU_RESV_RESERVED, MOCK_TOP_PAGE - 1, 2, MOCK_RW);
	mdev->region[0].size -= SZ_1K;
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

/* Rule: a region counts as far as it goes, also beyond one that it overlaps. */
static void region_overlapping_is_no_dma_address(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_new(ctx);
	dma_addr_t addr;

	mock_region_at(mdev, IOMMU_RESV_RESERVED, MOCK_TOP_PAGE - 2, 2, MOCK_RW);
	mock_region_at(mdev, IOMMU_RESV_RESERVED, MOCK_TOP_PAGE - 1, 2, MOCK_RW);
	KUNIT_ASSERT_TRUE(test, mock_add(mdev));
	addr = mock_dma_map(mdev, 1);
	KUNIT_EXPECT_LT(test, addr, mdev->region[0].start);
	mock_dma_unmap(mdev, addr, 1);
}

/* Rule: a driver's addresses are those that the IOMMU translates. */
static void dma_stays_in_the_aperture(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev;
	dma_addr_t addr[3];
	unsigned int i;

	/* Two pages that the device can reach, too */
	ctx->aperture_start = BIT(MOCK_DMA_BITS) - 2 * SZ_4K;
	mdev = mock_plain(ctx);
	for (i = 0; i < 2; i++) {
		addr[i] = mock_dma_map(mdev, 1);
		KUNIT_EXPECT_GE(test, addr[i], ctx->aperture_start);
	}
	addr[2] = dma_map_single(&mdev->pci.dev, ctx, 1, DMA_BIDIRECTIONAL);
	KUNIT_EXPECT_NE(test, 0, dma_mapping_error(&mdev->pci.dev, addr[2]));
	for (i = 0; i < 2; i++)
		mock_dma_unmap(mdev, addr[i], 1);
}

/* Rule: and those that get through the buses on the way there. */
static void dma_stays_below_the_bus_limit(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_plain(ctx);
	dma_addr_t addr;

	mdev->pci.dev.bus_dma_limit = DMA_BIT_MASK(MOCK_DMA_BITS - 1);
	addr = mock_dma_map(mdev, 1);
	KUNIT_EXPECT_LE(test, addr, mdev->pci.dev.bus_dma_limit);
	mock_dma_unmap(mdev, addr, 1);
}

/* Rule: an address that another device of the group could reach need not be one. */
static void dma_of_two_masks(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *first = mock_plain(ctx);
	struct mock_dev *second = mock_plain(ctx);
	dma_addr_t limit, addr;

	/* A CPU keeps the address of the first one, whose second page is too high */
	addr = mock_dma_map(first, 2);
	mock_dma_unmap(first, addr, 2);
	limit = addr + SZ_4K - 1;
	second->pci.dev.bus_dma_limit = limit;
	addr = mock_dma_map(second, 2);
	KUNIT_EXPECT_LE(test, addr + 2 * SZ_4K - 1, limit);
	mock_dma_unmap(second, addr, 2);
}

/* Rule: what has been used up can be used again. */
static void dma_space_is_used_again(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct device *dev;
	struct mock_dev *mdev;
	dma_addr_t addr;
	unsigned int i;

	ctx->aperture_start = BIT(MOCK_DMA_BITS) - MOCK_LARGE * SZ_4K;
	mdev = mock_plain(ctx);
	dev = &mdev->pci.dev;
	for (i = 0; i < 2; i++) {
		addr = mock_dma_map(mdev, MOCK_LARGE);
		KUNIT_EXPECT_NE(test, 0, dma_mapping_error(dev,
			dma_map_single(dev, ctx, 1, DMA_BIDIRECTIONAL)));
		mock_dma_unmap(mdev, addr, MOCK_LARGE);
	}
}

/* Rule: all of a buffer is unmapped, wherever in a page it begins. */
static void dma_unmaps_the_last_page(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_plain(ctx);
	dma_addr_t addr = mock_dma_map(mdev, 2);
	void *buffer = phys_to_virt(iommu_iova_to_phys(mock_default(ctx), addr));
	dma_addr_t start;

	/* A page, from the middle of the first one to the middle of the second */
	start = dma_map_single(&mdev->pci.dev, buffer + SZ_2K, SZ_4K, DMA_TO_DEVICE);
	KUNIT_ASSERT_EQ(test, 0, dma_mapping_error(&mdev->pci.dev, start));
	KUNIT_EXPECT_NE(test, 0, iommu_iova_to_phys(mock_default(ctx), start + SZ_4K - 1));
	dma_unmap_single(&mdev->pci.dev, start, SZ_4K, DMA_TO_DEVICE);
	KUNIT_EXPECT_EQ(test, 0, iommu_iova_to_phys(mock_default(ctx), start));
	KUNIT_EXPECT_EQ(test, 0, iommu_iova_to_phys(mock_default(ctx), start + SZ_4K - 1));
	mock_dma_unmap(mdev, addr, 2);
}

/* Rule: memory is mapped as cacheable for a device that snoops, and registers are not. */
static void dma_of_registers_is_not_cached(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *mdev = mock_plain(ctx);
	dma_addr_t addr;

	if (!dev_is_dma_coherent(&mdev->pci.dev))
		kunit_skip(test, "no device of this bus snoops");
	addr = mock_dma_map(mdev, 1);
	KUNIT_EXPECT_EQ(test, IOMMU_CACHE, ctx->last_prot & (IOMMU_CACHE | IOMMU_MMIO));
	mock_dma_unmap(mdev, addr, 1);
	/* There is no memory at that address */
	addr = dma_map_resource(&mdev->pci.dev, BIT_ULL(40), SZ_4K, DMA_BIDIRECTIONAL, 0);
	KUNIT_ASSERT_EQ(test, 0, dma_mapping_error(&mdev->pci.dev, addr));
	KUNIT_EXPECT_EQ(test, IOMMU_MMIO, ctx->last_prot & (IOMMU_CACHE | IOMMU_MMIO));
	dma_unmap_resource(&mdev->pci.dev, addr, SZ_4K, DMA_BIDIRECTIONAL, 0);
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

/* Rule: nor does it forget that for want of memory, in a domain that has addresses. */
static void dma_api_of_second_without_memory(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *late;

	mock_plain(ctx);
	late = mock_new(ctx);
	late->regions_fail_later = true;
	KUNIT_ASSERT_TRUE(test, mock_add(late));
	KUNIT_EXPECT_TRUE(test, use_dma_iommu(&late->pci.dev));
	late->regions_fail_later = false;
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

#ifdef IOMMU_KUNIT_WAITS
/* Rule: nor where a region is whose device waits for a buffer there to go. */
static void region_of_waiting_is_no_dma_address(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *first = mock_plain(ctx);
	struct mock_dev *late = mock_new(ctx);
	unsigned long buffer;

	KUNIT_ASSERT_EQ(test, 0, iommu_device_use_default_domain(&first->pci.dev));
	/* The buffer is in the first page, and the second one is free */
	mock_region_at(late, IOMMU_RESV_DIRECT, MOCK_TOP_PAGE - 1, 2, MOCK_RW);
	buffer = late->region[0].start;
	KUNIT_ASSERT_EQ(test, 0, iommu_map(mock_default(ctx), buffer, SZ_1M, SZ_4K,
					   MOCK_RW, GFP_KERNEL));
	KUNIT_ASSERT_TRUE(test, mock_add(late));
	KUNIT_EXPECT_EQ(test, 0, mock_attaches(late, mock_default(ctx)));
	KUNIT_EXPECT_FALSE(test, mock_maps_over_region(first, late));
	iommu_unmap(mock_default(ctx), buffer, SZ_4K);
	iommu_device_unuse_default_domain(&first->pci.dev);
}

/*
 * Rule: nor where the bridges to memory forward what a PCI device sends to others,
 * also if there was no memory to keep that free when the first device came.
 */
static void window_is_no_dma_address(struct kunit *test)
{
	unsigned long start = BIT(MOCK_DMA_BITS) - 16 * SZ_4K;
	struct mock_ctx *ctx = test->priv;
	struct pci_host_bridge *bridge;
	struct resource window = {
		/* As the processor sees it; the bus has other addresses */
		.start = BIT_ULL(40),
		.end = BIT_ULL(40) + 16 * SZ_4K - 1,
		.flags = IORESOURCE_MEM,
	};
	struct mock_dev *mdev[2];
	dma_addr_t addr;
	unsigned int i;

	bridge = kunit_kzalloc(test, sizeof(*bridge), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, bridge);
	INIT_LIST_HEAD(&bridge->windows);
	INIT_LIST_HEAD(&bridge->dma_ranges);
	pci_add_resource_offset(&bridge->windows, &window, window.start - start);
	ctx->pci_bus.bridge = &bridge->dev;

	for (i = 0; i < 2; i++) {
		mdev[i] = mock_new(ctx);
		mdev[i]->regions_fail_later = true;
		KUNIT_ASSERT_TRUE(test, mock_add(mdev[i]));
		mdev[i]->regions_fail_later = false;
	}
	mock_as_pci(mdev[1], true);
	iommu_setup_dma_ops(&mdev[1]->pci.dev, mock_default(ctx));
	mock_as_pci(mdev[1], false);
	KUNIT_ASSERT_TRUE(test, use_dma_iommu(&mdev[1]->pci.dev));
	addr = mock_dma_map(mdev[1], 1);
	KUNIT_EXPECT_LT(test, addr, start);
	mock_dma_unmap(mdev[1], addr, 1);
	ctx->pci_bus.bridge = NULL;
	pci_free_resource_list(&bridge->windows);
}

/* Rule: nor when the buffer has gone, and the device is attached. */
static void region_that_waited_is_no_dma_address(struct kunit *test)
{
	struct mock_ctx *ctx = test->priv;
	struct mock_dev *first = mock_plain(ctx);
	struct mock_dev *late = mock_new(ctx);
	dma_addr_t addr, next;

	KUNIT_ASSERT_EQ(test, 0, iommu_device_use_default_domain(&first->pci.dev));
	addr = mock_dma_map(first, MOCK_LARGE);
	mock_region(late, IOMMU_RESV_DIRECT);
	late->region[0].start = addr + SZ_4K;
	KUNIT_ASSERT_TRUE(test, mock_add(late));
	KUNIT_EXPECT_EQ(test, 0, mock_attaches(late, mock_default(ctx)));
	mock_dma_unmap(first, addr, MOCK_LARGE);
	KUNIT_EXPECT_EQ(test, 0, iommu_device_use_default_domain(&late->pci.dev));
	KUNIT_EXPECT_TRUE(test, mock_reaches(late, 0));
	next = mock_dma_map(first, MOCK_LARGE);
	KUNIT_EXPECT_NE(test, addr, next);
	mock_dma_unmap(first, next, MOCK_LARGE);
	iommu_device_unuse_default_domain(&late->pci.dev);
	iommu_device_unuse_default_domain(&first->pci.dev);
}
#endif

static struct kunit_case iommu_regions_cases[] = {
	KUNIT_CASE(region_every_page),
	KUNIT_CASE(region_read_only),
	KUNIT_CASE(regions_overlap),
	KUNIT_CASE(region_failed_is_undone),
	KUNIT_CASE(region_ends_in_a_page),
	KUNIT_CASE(region_at_zero_is_shared),
	KUNIT_CASE(regions_of_a_group),
#ifdef IOMMU_KUNIT_STATIC_DOMAINS
	KUNIT_CASE(region_is_no_dma_address),
	KUNIT_CASE(region_end_is_no_dma_address),
	KUNIT_CASE(region_overlapping_is_no_dma_address),
	KUNIT_CASE(region_is_no_dma_address_for_others),
	KUNIT_CASE(region_of_second_is_no_dma_address),
	KUNIT_CASE(dma_stays_in_the_aperture),
	KUNIT_CASE(dma_stays_below_the_bus_limit),
	KUNIT_CASE(dma_of_two_masks),
	KUNIT_CASE(dma_space_is_used_again),
	KUNIT_CASE(dma_unmaps_the_last_page),
	KUNIT_CASE(dma_of_registers_is_not_cached),
	KUNIT_CASE(dma_api_uses_iommu),
	KUNIT_CASE(dma_api_of_second_without_memory),
	KUNIT_CASE(dma_api_direct_in_identity),
	KUNIT_CASE(dma_api_of_late_joiner),
#endif
#ifdef IOMMU_KUNIT_WAITS
	KUNIT_CASE(region_of_waiting_is_no_dma_address),
	KUNIT_CASE(region_that_waited_is_no_dma_address),
	KUNIT_CASE(window_is_no_dma_address),
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
