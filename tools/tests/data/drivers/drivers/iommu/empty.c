// SPDX-License-Identifier: GPL-2.0-only
/* Has nothing; a pointer to operations is no driver. */
static const struct iommu_ops *empty_found;
static const struct iommu_ops empty_ops = {
};
