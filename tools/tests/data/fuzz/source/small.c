// SPDX-License-Identifier: GPL-2.0
#include <linux/iommu.h>
#define each(a) for_each_a(a)

static int a(struct group *group)
{
	struct dev *dev;

	for_each_group_device(group, dev) {
		if (!dev->ops)
			return -EINVAL;
	}
	list_for_each_entry(dev, &group->devices, list)
		b(dev);
#ifdef CONFIG_A
	switch (c) {
	case 1:
		goto out;
	}
#endif
out:
	return 0;
}

int (*d(void))(int) { return 0; }
