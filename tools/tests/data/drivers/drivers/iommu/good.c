// SPDX-License-Identifier: GPL-2.0-only
/* Has all, and none of it fails: the operations stand behind macros and an #ifdef. */
#include <linux/iommu.h>

struct good_domain {
	struct iommu_domain domain;
	int users;
};

static int good_enable(struct good *good, bool *changed)
{
	int ret = -EINVAL;

	if (good->on) {
		ret = 0;
		goto out;
	}
	/* -EINVAL never leaves this function. */
	if (ret)
		ret = 0;
out:
	*changed = !ret;
	return ret;
}

static int good_identity_attach(struct iommu_domain *domain, struct device *dev)
{
	struct good_domain *good = container_of(domain, struct good_domain, domain);
	bool changed;

	if (domain->type != IOMMU_DOMAIN_IDENTITY)
		return -EINVAL;
	if (good->domain.type & __IOMMU_DOMAIN_PAGING)
		return -EBUSY;
	for_each_stream(stream, dev) {
		if (stream->id)
			continue;
		good_write(stream);
	}
	if (dev->aliased) {
		int ret = -ENODEV;

		good_write(ret);
	}
	return good_enable(dev->good, &changed);
}

static int good_blocked_attach(struct iommu_domain *domain, struct device *dev)
{
	switch (domain->type) {
	case IOMMU_DOMAIN_IDENTITY:
		return -EINVAL;
	case IOMMU_DOMAIN_BLOCKED:
		good_off(dev);
		break;
	default:
		return -EOPNOTSUPP;
	}
	return 0;
}

static const struct iommu_domain_ops good_identity_ops = {
	.attach_dev = good_identity_attach,
};

static struct good_domain good_identity = {
	.users = 1,
	.domain = {
		.type = IOMMU_DOMAIN_IDENTITY,
		.ops = &good_identity_ops,
	},
};

static struct iommu_domain good_blocked = {
	.type = IOMMU_DOMAIN_BLOCKED,
	.ops = &(const struct iommu_domain_ops) {
		.attach_dev = good_blocked_attach,
	}
};

#define GOOD_OPS() \
	.blocked_domain = &good_blocked, \
	.release_domain = &good_blocked, \
	.get_resv_regions = good_get_resv_regions

static void good_get_resv_regions(struct device *dev, struct list_head *list)
{
	int type = dev->relaxed ? IOMMU_RESV_DIRECT_RELAXABLE : IOMMU_RESV_DIRECT;

	region_add(list, iommu_alloc_resv_region(dev->start, dev->size, 0, type, GFP_KERNEL));
}

static int good_def_domain_type(struct device *dev)
{
	if (dev->untrusted)
		return IOMMU_DOMAIN_DMA;
	return dev->wide ? IOMMU_DOMAIN_IDENTITY : 0;
}

static const struct iommu_ops good_ops = {
	.identity_domain = &good_identity.domain,
	GOOD_OPS(),
#ifdef CONFIG_GOOD_CHOICE
	.def_domain_type = good_def_domain_type,
#endif
};
