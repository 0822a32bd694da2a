/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What differs between the kernels that the suites are laid over.
 *
 * The suites are written for the newest one. Each symbol stands for one
 * interface that older ones have or lack, and is all that the rest of the code
 * looks at, so that unifdef can resolve it where a kernel gets its own copy.
 * The kernels are 6.1, 6.12 and 7.3; nothing in between has been tried.
 */
#ifndef __IOMMU_KUNIT_COMPAT_H
#define __IOMMU_KUNIT_COMPAT_H

#include <linux/iommu.h>
#include <linux/version.h>

/* What get_resv_regions() returns: an error, or nothing */
typedef typeof(((struct iommu_ops *)NULL)->get_resv_regions(NULL, NULL))
	iommu_kunit_resv_t;

#if LINUX_VERSION_CODE >= KERNEL_VERSION(7, 0, 0)
/* A driver is told which domain a device leaves, and may then not be ready */
#define IOMMU_KUNIT_OLD_DOMAIN
/* pci_dev_reset_iommu_prepare() and pci_dev_reset_iommu_done() */
#define IOMMU_KUNIT_PCI_RESET
/* The core takes part in where a released device goes */
#define IOMMU_KUNIT_RELEASE
/* iommu_deferred_attach() takes the lock of the group */
#define IOMMU_KUNIT_DEFERRED_LOCKED
/* kunit_warning_suppress() */
#define IOMMU_KUNIT_SUPPRESS
/* What needs direct mappings and joins a group in use waits; older queues refuse it */
#define IOMMU_KUNIT_WAITS
/* A PASID is replaced by iommu_replace_device_pasid(), and removed by blocking it */
#define IOMMU_KUNIT_REPLACE_PASID
#elif LINUX_VERSION_CODE >= KERNEL_VERSION(6, 12, 0)
/* A driver has a callback to remove a PASID */
#define IOMMU_KUNIT_REMOVE_PASID
/* iommu_group_replace_domain() */
#define IOMMU_KUNIT_REPLACE_DOMAIN
#endif

#if LINUX_VERSION_CODE >= KERNEL_VERSION(7, 0, 0)
/* There is kzalloc_obj() */
#else
#define kzalloc_obj(obj)	kzalloc(sizeof(obj), GFP_KERNEL)
#endif

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 12, 0)
/* Identity and blocked domains are static and named in struct iommu_ops */
#define IOMMU_KUNIT_STATIC_DOMAINS
/* What a claim of a device that firmware needs is answered with */
#define IOMMU_KUNIT_REFUSED	(-EINVAL)
#else
/* Here it is what VT-d has always said */
#define IOMMU_KUNIT_REFUSED	(-EPERM)
/* VFIO claimed whole groups, and iommufd was not there yet */
#define iommu_device_claim_dma_owner(dev, owner) \
	iommu_group_claim_dma_owner((dev)->iommu_group, owner)
#define iommu_paging_domain_alloc(dev)	iommu_domain_alloc((dev)->bus)
#endif

#endif /* __IOMMU_KUNIT_COMPAT_H */
