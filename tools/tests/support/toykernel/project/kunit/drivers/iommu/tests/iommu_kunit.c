// SPDX-License-Identifier: GPL-2.0-only

/* A device that must stay mapped is not blocked. */
static void block_refused(struct kunit *test)
{
	KUNIT_EXPECT_EQ(test, toy_block(), -22);
}

/* Any other device is as it was. */
static void plain_kept(struct kunit *test)
{
	KUNIT_EXPECT_EQ(test, toy_plain(), 2);
}

static void needs_pci(struct kunit *test)
{
	test->skip = "needs CONFIG_PCI";
}

/* Nobody has mended this yet. */
static void late_device(struct kunit *test)
{
	KUNIT_EXPECT_EQ(test, toy_driver(), 4);
}

static void claim(struct kunit *test)
{
	(void)test;
}

static struct kunit_case toy_domain_cases[] = {
	KUNIT_CASE(block_refused),
	KUNIT_CASE(plain_kept),
	KUNIT_CASE(needs_pci),
	{}
};

static struct kunit_suite toy_domain_suite = {
	.name = "toy_domain",
	.test_cases = toy_domain_cases,
};

static struct kunit_case toy_owner_cases[] = {
	KUNIT_CASE(late_device),
	KUNIT_CASE(claim),
	{}
};

static struct kunit_suite toy_owner_suite = {
	.name = "toy_owner",
	.test_cases = toy_owner_cases,
};

kunit_test_suites(&toy_domain_suite, &toy_owner_suite);
