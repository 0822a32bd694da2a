// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the simulated IOMMU needs of iommu.c, and is private there.
 *
 * Included at the end of drivers/iommu/iommu.c.
 */
#include "iommu_sim.h"

struct notifier_block iommu_sim_nb = {
	.notifier_call = iommu_bus_notifier,
};

void iommu_sim_group_state(struct iommu_group *group, struct iommu_sim_core *core)
{
	struct group_device *gdev;

	memset(core, 0, sizeof(*core));
	if (!group)
		return;
	mutex_lock(&group->mutex);
	core->domain = group->domain;
	core->default_domain = group->default_domain;
	core->blocking_domain = group->blocking_domain;
	core->owner = group->owner;
	core->owner_cnt = group->owner_cnt;
	for_each_group_device(group, gdev)
		core->nr_devs++;
#ifdef IOMMU_SIM_RESET
	core->recovery_cnt = group->recovery_cnt;
#endif
	mutex_unlock(&group->mutex);
}

int iommu_sim_store_type(struct iommu_group *group, const char *type)
{
	ssize_t ret = iommu_group_store_type(group, type, strlen(type));

	return ret < 0 ? ret : 0;
}

bool iommu_sim_no_groups(void)
{
	return ida_is_empty(&iommu_group_ida);
}
