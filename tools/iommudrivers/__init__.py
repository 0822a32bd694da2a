# SPDX-License-Identifier: GPL-2.0-only
"""What the IOMMU drivers of a kernel can do, read from their source."""
