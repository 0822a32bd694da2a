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

static struct kunit_case explored_cases[] = {
	{}
};

static struct kunit_suite explored_suite = {
	.name = "iommu_explored",
	.suite_init = explored_suite_init,
	.exit = explored_exit,
	.test_cases = explored_cases,
};

kunit_test_suite(explored_suite);
