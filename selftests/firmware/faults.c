// SPDX-License-Identifier: GPL-2.0-only
/*
 * Have the kernel run out of memory at one place: at the nth allocation below one
 * of its functions, in the step that follows. Documentation/fault-injection in the
 * kernel's sources has the files; fail-nth counts what the stack filter lets pass.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "steps.h"

#define DEBUGFS "/sys/kernel/debug"

static const char *const kinds[] = { "failslab", "fail_page_alloc" };

/* Those that do not exist for one of the kinds are no loss. */
static const struct {
	const char *name;
	const char *value;
} knobs[] = {
	{ "ignore-gfp-wait", "N" },
	{ "ignore-gfp-highmem", "N" },
	{ "min-order", "0" },
	{ "stacktrace-depth", "32" },
	{ "verbose", "1" },
};

static int armed = -1;

/* Where a function of the kernel begins, and where the one behind it does */
static int find_function(const char *name, unsigned long long *start, unsigned long long *end)
{
	unsigned long long address, first = 0, next = 0;
	char line[512], symbol[256], type;
	FILE *all;

	/* The file is sorted neither by address nor by name: look twice. */
	for (int round = 0; round < 2; round++) {
		all = fopen("/proc/kallsyms", "re");
		if (!all)
			return -errno;
		while (fgets(line, sizeof(line), all)) {
			if (sscanf(line, "%llx %c %255s", &address, &type, symbol) != 3)
				continue;
			if (!round && !strcmp(symbol, name))
				first = address;
			if (round && address > first && (!next || address < next))
				next = address;
		}
		fclose(all);
		if (!first)
			return -ENOENT;
	}
	*start = first;
	*end = next;
	return next ? 0 : -ENOENT;
}

static int set_knob(const char *kind, const char *name, const char *value)
{
	char path[200];

	snprintf(path, sizeof(path), "%s/%s/%s", DEBUGFS, kind, name);
	return write_text(path, value);
}

static int filter(unsigned long long start, unsigned long long end)
{
	char from[32], to[32];
	int ret;

	snprintf(from, sizeof(from), "0x%llx", start);
	snprintf(to, sizeof(to), "0x%llx", end);
	for (unsigned int i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		for (unsigned int j = 0; j < sizeof(knobs) / sizeof(knobs[0]); j++)
			set_knob(kinds[i], knobs[j].name, knobs[j].value);
		ret = set_knob(kinds[i], "require-start", from);
		if (!ret)
			ret = set_knob(kinds[i], "require-end", to);
		if (ret)
			return ret;
	}
	return 0;
}

/* Fail the nth allocation below a function, from here on, in this process. */
void fail(const char *function, const char *nth)
{
	unsigned long long start, end;
	int ret = find_function(function, &start, &end);

	if (ret) {
		say(ret == -ENOENT ? "UNKNOWN" : "NOFAULTS", "%s", function);
		return;
	}
	ret = filter(start, end);
	if (ret) {
		say("NOFAULTS", "%s", strerror(-ret));
		return;
	}
	if (armed == -1)
		armed = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
	if (armed == -1 || pwrite(armed, nth, strlen(nth), 0) < 0) {
		say("NOFAULTS", "fail-nth: %s", strerror(errno));
		return;
	}
	say("ok", "0x%llx to 0x%llx", start, end);
}

/* Whether it came to that allocation; whatever is left is called off. */
void failed(void)
{
	char text[32] = "";
	ssize_t length = armed == -1 ? -1 : pread(armed, text, sizeof(text) - 1, 0);

	if (length < 0 || pwrite(armed, "0", 1, 0) < 0) {
		say("NOFAULTS", "fail-nth: %s", strerror(errno));
		return;
	}
	say(atoi(text) ? "no" : "yes", "%d to go", atoi(text));
}
