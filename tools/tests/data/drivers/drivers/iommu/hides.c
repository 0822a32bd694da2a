// SPDX-License-Identifier: GPL-2.0-only
/* What nobody can tell from these files alone. */
#include <linux/iommu.h>

#define HIDES_CHECK(dev) do { if (!(dev)->ready) return -EAGAIN; } while (0)

static int hides_identity_attach(struct iommu_domain *domain, struct device *dev)
{
	return dev->impl->attach(dev);
}

static int hides_blocked_attach(struct iommu_domain *domain, struct device *dev)
{
	int ret = 0;

	HIDES_CHECK(dev);
	hides_elsewhere(dev, &ret);
	return 0;
}

static int hides_release_attach(struct iommu_domain *domain, struct device *dev)
{
	int ret = 0;

	hides_elsewhere(dev, &ret);
	return ret;
}

static void hides_get_resv_regions(struct device *dev, struct list_head *list)
{
	struct region *region;

	list_for_each_entry(region, &dev->regions, list)
		region_add(list, kmemdup(region, sizeof(*region), GFP_KERNEL));
	dev->impl->regions(dev, list);
}

static void hides_probe_region(struct device *dev)
{
	region_add(&dev->regions, iommu_alloc_resv_region(0, 1, 0, IOMMU_RESV_MSI, GFP_KERNEL));
}

static struct iommu_domain hides_identity = {
	.type = IOMMU_DOMAIN_IDENTITY,
	.ops = &(const struct iommu_domain_ops) { .attach_dev = hides_identity_attach },
};

static struct iommu_domain hides_blocked = {
	.type = IOMMU_DOMAIN_BLOCKED,
	.ops = &(const struct iommu_domain_ops) { .attach_dev = hides_blocked_attach },
};

static struct iommu_domain hides_untyped = {
	.ops = &(const struct iommu_domain_ops) { .attach_dev = hides_release_attach },
};

static struct iommu_ops hides_ops = {
	.identity_domain = &hides_identity,
	.blocked_domain = &hides_blocked,
	.get_resv_regions = hides_get_resv_regions,
};

static struct iommu_ops hides_late_ops = {
	.blocked_domain = &hides_untyped,
	HIDES_UNKNOWN_MACRO(),
};

void hides_init(struct hides *hides)
{
	hides_late_ops.identity_domain = hides->bypass ? &hides_identity : NULL;
}
