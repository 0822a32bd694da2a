// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of how the IOMMU core moves devices and groups between domains.
 *
 * Included at the end of drivers/iommu/iommu.c, because struct iommu_group and
 * the functions under test are private to it.
 *
 * Each case names the rule that it stands for. Those about IOMMU_RESV_DIRECT
 * are from the discussion of 2023 (20230607035145.343698-1-baolu.lu@linux.intel.com):
 * a device that firmware needs is never put into a blocking domain nor handed
 * to userspace, and recovery ends in blocking or, where regions must stay
 * mapped, in identity. The others are what iommu.c promises its callers.
 */
#include "iommu_kunit_mock.c"
#include "iommu_kunit_devs.c"
#include "attach_kunit.c"
#include "dma_owner_kunit.c"
#include "regions_kunit.c"

#ifdef IOMMU_KUNIT_STATIC_DOMAINS
#include "set_domain_kunit.c"
#include "must_succeed_kunit.c"
#include "type_kunit.c"
#include "handle_kunit.c"
#include "pasid_kunit.c"
#include "race_kunit.c"
#include "release_kunit.c"

kunit_test_suites(&iommu_set_domain_suite, &iommu_must_succeed_suite,
		  &iommu_attach_suite,
		  &iommu_dma_owner_suite, &iommu_regions_suite,
		  &iommu_group_type_suite, &iommu_handle_suite,
		  &iommu_pasid_suite, &iommu_release_suite, &iommu_race_suite);
#else
#include "group_claim_kunit.c"

kunit_test_suites(&iommu_attach_suite, &iommu_dma_owner_suite,
		  &iommu_regions_suite, &iommu_group_claim_suite);
#endif

#ifdef IOMMU_KUNIT_WAITS
#include "late_kunit.c"

kunit_test_suite(iommu_late_suite);
#endif

/* A reset is no concern of the IOMMU if there is no ATS */
#if defined(IOMMU_KUNIT_PCI_RESET) && defined(CONFIG_PCI_ATS)
#include "reset_kunit.c"

kunit_test_suite(iommu_reset_suite);
#endif
