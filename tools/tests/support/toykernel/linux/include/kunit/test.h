/* SPDX-License-Identifier: GPL-2.0-only */
struct kunit { const char *name; int failed; const char *skip; };
struct kunit_case { const char *name; void (*run)(struct kunit *test); };
struct kunit_suite { const char *name; struct kunit_case *test_cases; };

#define KUNIT_CASE(test_name) { .name = #test_name, .run = test_name }
#define kunit_test_suites(...)	struct kunit_suite *kunit_suites[] = { __VA_ARGS__, NULL }

#define KUNIT_EXPECT_EQ(test, left, right) do {						\
	int __left = (left), __right = (right);						\
	if (__left == __right)								\
		break;									\
	(test)->failed = 1;								\
	printf("    # %s: EXPECTATION FAILED at %s:%d\n", (test)->name, __FILE__, __LINE__);	\
	printf("    Expected " #left " == " #right ", but\n");				\
	printf("        " #left " == %d (0x%x)\n", __left, __left);			\
} while (0)
