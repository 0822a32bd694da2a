// SPDX-License-Identifier: GPL-2.0-only
/* What drivers share: a region whose type another function chooses. */
static enum iommu_resv_type region_type(struct node *node)
{
	if (node->flags == IOMMU_RESV_SW_MSI)
		return IOMMU_RESV_RESERVED;
	return node->remap ? IOMMU_RESV_DIRECT_RELAXABLE : IOMMU_RESV_DIRECT;
}

void shared_get_resv_regions(struct device *dev, struct list_head *list)
{
	struct node *node = dev->node;

	region_add(list, iommu_alloc_resv_region(node->start, node->size, 0,
						 region_type(node), GFP_KERNEL));
}
