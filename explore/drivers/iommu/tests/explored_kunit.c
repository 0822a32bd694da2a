// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit cases that `iommuq explore` has found: sequences of operations on the
 * simulated IOMMU after which a rule did not hold. `--write` adds one.
 */
#include <kunit/test.h>

#include "iommu_sim.h"

static void explored_run(struct kunit *test, const struct iommu_sim_op *ops,
			 unsigned int count, struct iommu_sim_state *state)
{
	unsigned int i;

	for (i = 0; i < count; i++) {
		iommu_sim_do(&ops[i], state);
		KUNIT_ASSERT_NE_MSG(test, IOMMU_SIM_NOT_NOW, state->ret,
				    "operation %u cannot be carried out", i + 1);
	}
}

static int explored_suite_init(struct kunit_suite *suite)
{
	return iommu_sim_init();
}

static void explored_exit(struct kunit *test)
{
	static const struct iommu_sim_op end = { .kind = SIM_END };
	struct iommu_sim_state state;

	iommu_sim_do(&end, &state);
	KUNIT_EXPECT_EQ(test, 0, state.leaks);
}

/*
 * Device 1 does not reach its direct region. Rule regions.lost: A device in a
 * group reaches its direct regions.
 * Source: 20230607035145.343698-1-baolu.lu@linux.intel.com; ACPI IVRS, VT-d
 * 8.4, IORT E.d.
 * Found by `iommuq explore 7.3`, on what is late-joiner/0004 now.
 */
static void explored_late_joiner(struct kunit *test)
{
	static const struct iommu_sim_op ops[] = {
		/* add device 0 to group 0: not PCI */
		{ .kind = SIM_ADD },
		/* allocate domain 0 for device 0 */
		{ .kind = SIM_ALLOC },
		/* user 1 claims group 0 */
		{ .kind = SIM_CLAIM_GROUP },
		/* attach group 0 to domain 0 */
		{ .kind = SIM_ATTACH_GROUP },
		/* add device 1 to group 0: not PCI, regions: direct of one page */
		{ .kind = SIM_ADD, .dev = 1, .b = 0x4 },
	};
	struct iommu_sim_state state = {};

	explored_run(test, ops, ARRAY_SIZE(ops), &state);
	KUNIT_EXPECT_TRUE(test, !(state.dev[1].flags & SIM_S_GROUPED) ||
			  (state.dev[1].regions & ~state.dev[1].reach) == 0);
}

/*
 * Device 0 does not reach its direct region. Rule regions.lost: A device in a
 * group reaches its direct regions.
 * Source: 20230607035145.343698-1-baolu.lu@linux.intel.com; ACPI IVRS, VT-d
 * 8.4, IORT E.d.
 * Found by `iommuq explore 7.3`, on what is last-resort/0001 now.
 */
static void explored_last_resort(struct kunit *test)
{
	static const struct iommu_sim_op ops[] = {
		/* add device 0 to group 0: not PCI, regions: direct of one page */
		{ .kind = SIM_ADD, .b = 0x4 },
		/* allocate domain 0 for device 0 */
		{ .kind = SIM_ALLOC },
		/* attach group 0 to domain 0 */
		{ .kind = SIM_ATTACH_GROUP },
		/* detach group 0 (attach 1 to a domain of type paging fails with ENOMEM) */
		{ .kind = SIM_DETACH_GROUP, .fail_kind = 3, .fail_at = 1,
		  .fail_errno = ENOMEM },
	};
	struct iommu_sim_state state = {};

	kunit_info(test, "expects splat: WARNING\n");
	explored_run(test, ops, ARRAY_SIZE(ops), &state);
	KUNIT_EXPECT_TRUE(test, !(state.dev[0].flags & SIM_S_GROUPED) ||
			  (state.dev[0].regions & ~state.dev[0].reach) == 0);
}

/*
 * Device 0 is untrusted, and group 0 unmaps lazily. Rule isolation.lazy: The
 * mappings of an untrusted device end when they are unmapped.
 * Source: iommu.c, iommu_get_default_domain_type();
 * Documentation/ABI/testing/sysfs-kernel-iommu_groups.
 * Found by `iommuq explore 7.3`, on what is fixes/0001 now.
 */
static void explored_lazy_untrusted(struct kunit *test)
{
	static const struct iommu_sim_op ops[] = {
		/* add device 0 to group 0: PCI, untrusted */
		{ .kind = SIM_ADD, .a = 0x3 },
		/* write DMA-FQ to the type of group 0 */
		{ .kind = SIM_SET_TYPE, .a = 1 },
	};
	struct iommu_sim_state state = {};

	explored_run(test, ops, ARRAY_SIZE(ops), &state);
	KUNIT_EXPECT_TRUE(test, state.group[0].default_type != IOMMU_DOMAIN_DMA_FQ);
}

/*
 * Device 1, which is in no group, does not reach its direct region. Rule
 * regions.refused: A device that was not taken into its group reaches its
 * direct regions.
 * Source: 20230607035145.343698-1-baolu.lu@linux.intel.com; ACPI IVRS, VT-d
 * 8.4, IORT E.d.
 * Found by `iommuq explore 7.3 --at static-attach/0015 --seed 21`.
 */
static void explored_refused_region_is_cut(struct kunit *test)
{
	static const struct iommu_sim_op ops[] = {
		/* add device 0 to group 0: not PCI */
		{ .kind = SIM_ADD },
		/* add device 1 to group 0: PCI, behind a bridge, regions: direct of one page (attach 2 to a domain of type paging fails with ENOMEM) */
		{ .kind = SIM_ADD, .dev = 1, .a = 0x5, .b = 1,
		  .fail_kind = 3, .fail_at = 2, .fail_errno = ENOMEM },
		/* allocate domain 0 for device 0 */
		{ .kind = SIM_ALLOC },
		/* add device 2 to group 0: PCI, behind a bridge */
		{ .kind = SIM_ADD, .dev = 2, .a = 0x5 },
		/* attach group 0 to domain 0 */
		{ .kind = SIM_ATTACH_GROUP },
	};
	struct iommu_sim_state state = {};

	explored_run(test, ops, ARRAY_SIZE(ops), &state);
	KUNIT_EXPECT_TRUE(test, (state.dev[1].regions & ~state.dev[1].reach) == 0);
}

static struct kunit_case explored_cases[] = {
	KUNIT_CASE(explored_refused_region_is_cut),
	KUNIT_CASE(explored_lazy_untrusted),
	KUNIT_CASE(explored_last_resort),
	KUNIT_CASE(explored_late_joiner),
	{}
};

static struct kunit_suite explored_suite = {
	.name = "iommu_explored",
	.suite_init = explored_suite_init,
	.exit = explored_exit,
	.test_cases = explored_cases,
};

kunit_test_suite(explored_suite);
