// SPDX-License-Identifier: GPL-2.0-only
/* Both attaches can fail: by an allocation in a helper's helper, and by what is outside. */
#include <linux/iommu.h>

static struct table *fails_table(struct fails *fails, bool alloc)
{
	struct table *table = fails->table;

	if (!table) {
		if (!alloc)
			return NULL;
		table = kzalloc(sizeof(*table), GFP_KERNEL);
		if (!table)
			return NULL;
	}
	return table;
}

static int fails_setup(struct fails *fails, struct pci_dev *pdev)
{
	struct table *table;
	int ret = 0;

	table = fails_table(fails, true);
	if (!table) {
		ret = -ENOMEM;
		goto out_unlock;
	}
	table->used++;
out_unlock:
	spin_unlock(&fails->lock);
	return ret;
}

static int fails_setup_alias(struct pci_dev *pdev, u16 alias, void *data)
{
	return fails_setup(data, pdev);
}

static int fails_identity_attach(struct iommu_domain *domain, struct device *dev)
{
	return pci_for_each_dma_alias(to_pci_dev(dev), fails_setup_alias, dev->fails);
}

static int fails_blocked_attach(struct iommu_domain *domain, struct device *dev)
{
	struct token *token;
	int ret;

	ret = pm_runtime_resume_and_get(dev);
	if (ret < 0)
		return ret;
	do {
		ret = pm_runtime_get_if_in_use(dev);
	} while (ret == -EAGAIN);
	if (ret <= 0)
		return 0;
	token = fails_token(dev);
	if (IS_ERR(token))
		return PTR_ERR(token);
	return 0;
}

static struct token *fails_token(struct device *dev)
{
	if (!dev->token)
		return ERR_PTR(-ENXIO);
	return dev->token;
}

static struct iommu_domain fails_identity;

static const struct iommu_domain_ops fails_identity_ops = {
	.attach_dev = fails_identity_attach,
};

void fails_init(void)
{
	struct iommu_domain *domain = &fails_identity;

	domain->type = IOMMU_DOMAIN_IDENTITY;
	domain->ops = &fails_identity_ops;
}

static struct iommu_domain fails_blocked = {
	.type = IOMMU_DOMAIN_BLOCKED,
	.ops = &(const struct iommu_domain_ops) {
		.attach_dev = fails_blocked_attach,
	}
};

static const struct iommu_ops fails_ops = {
	.identity_domain = &fails_identity,
	.blocked_domain = &fails_blocked,
	.default_domain = &fails_blocked,
	.get_resv_regions = shared_get_resv_regions,
};
