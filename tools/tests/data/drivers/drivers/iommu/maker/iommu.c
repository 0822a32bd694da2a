// SPDX-License-Identifier: GPL-2.0-only
/* As drivers were before there were static domains: all are allocated. */
#include "maker.h"

static struct iommu_domain *maker_domain_alloc(unsigned type)
{
	struct maker *maker;

	if (type != IOMMU_DOMAIN_UNMANAGED && type != IOMMU_DOMAIN_IDENTITY)
		return NULL;
	maker = kzalloc(sizeof(*maker), GFP_KERNEL);
	if (!maker)
		return NULL;
	return &maker->domain;
}

static int maker_attach_dev(struct iommu_domain *domain, struct device *dev)
{
	struct maker *maker = to_maker(domain);

	if (maker->domain.type == IOMMU_DOMAIN_IDENTITY)
		return 0;
	return maker_map(maker);
}

static struct iommu_ops maker_ops = {
	.domain_alloc = maker_domain_alloc,
	.default_domain_ops = &(const struct iommu_domain_ops) {
		.attach_dev = maker_attach_dev,
	}
};
