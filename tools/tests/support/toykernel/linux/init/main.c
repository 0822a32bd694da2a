// SPDX-License-Identifier: GPL-2.0-only
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <kunit/test.h>

/* The suites of the overlay; without it there are none. */
__attribute__((weak)) struct kunit_suite *kunit_suites[] = { NULL };

static int matches(const char *glob, struct kunit_suite *suite, struct kunit_case *test)
{
	char name[200];

	snprintf(name, sizeof(name), strchr(glob, '.') ? "%s.%s" : "%s", suite->name, test->name);
	return !*glob || !fnmatch(glob, name, 0);
}

static int count(const char *glob, struct kunit_suite *suite)
{
	struct kunit_case *test;
	int found = 0;

	for (test = suite->test_cases; test->name; test++)
		found += matches(glob, suite, test);
	return found;
}

static int run_suite(const char *glob, struct kunit_suite *suite)
{
	int number = 0, failed = 0;
	struct kunit_case *test;

	printf("    KTAP version 1\n    # Subtest: %s\n", suite->name);
	printf("    1..%d\n", count(glob, suite));
	for (test = suite->test_cases; test->name; test++) {
		struct kunit state = { test->name, 0, NULL };

		if (!matches(glob, suite, test))
			continue;
		test->run(&state);
		printf("    %sok %d %s", state.failed ? "not " : "", ++number, test->name);
		printf(state.skip ? " # SKIP %s\n" : "\n", state.skip);
		failed += state.failed;
	}
	return failed;
}

int main(int argc, char **argv)
{
	const char *glob = "", *stall = getenv("TOY_STALL");
	struct kunit_suite **suite;
	int i, number = 0;

	setlinebuf(stdout);
	puts("Linux version 6.12.117 (toy)");
	for (i = 1; i < argc; i++)
		if (!strncmp(argv[i], "kunit.filter_glob=", 18))
			glob = argv[i] + 18;
	if (stall && !strcmp(stall, "boot")) {
		fclose(fopen(getenv("TOY_STALLED"), "w"));
		sleep(600);
	}
	for (suite = kunit_suites; *suite; suite++)
		number += count(glob, *suite) > 0;
	printf("KTAP version 1\n1..%d\n", number);
	number = 0;
	for (suite = kunit_suites; *suite; suite++)
		if (count(glob, *suite) > 0) {
			int failed = run_suite(glob, *suite);

			printf("%sok %d %s\n", failed ? "not " : "", ++number, (*suite)->name);
		}
	puts("reboot: System halted");
	return 0;
}
