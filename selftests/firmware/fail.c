// SPDX-License-Identifier: GPL-2.0-only
/*
 * Memory that runs out in one function of a driver, and nowhere else: the kernel looks
 * at the stack. Documentation/fault-injection/fault-injection.rst has the files. Find a
 * device again while each allocation of the function fails once, or have the nth fail
 * in whatever step comes next.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "steps.h"

#define DEBUGFS "/sys/kernel/debug/"
/* More allocations than any such function has */
#define MAX_FAULTS 64
/* Functions whose place is kept: to go through all symbols takes 50 ms */
#define MAX_KNOWN 32

struct symbol {
	uint64_t address;
	const char *name;
};

static struct symbol *symbols;
static size_t symbol_count;

static int by_address(const void *one, const void *other)
{
	uint64_t a = ((const struct symbol *)one)->address;
	uint64_t b = ((const struct symbol *)other)->address;

	return a < b ? -1 : a > b;
}

/* All symbols, in the order of their addresses. An emulated machine takes seconds to read them. */
static int read_symbols(void)
{
	FILE *file = fopen("/proc/kallsyms", "re");
	size_t room = 0, size = 0;
	struct symbol *more;
	char *line = NULL, *end;

	if (!file)
		return -errno;
	while (getline(&line, &size, file) > 0) {
		/* ADDRESS TYPE NAME, and perhaps a tab and a module */
		uint64_t address = strtoull(line, &end, 16);

		if (strlen(end) < 4)
			continue;
		if (symbol_count == room) {
			room = room ? 2 * room : 1 << 16;
			more = realloc(symbols, room * sizeof(*symbols));
			if (!more)
				break;
			symbols = more;
		}
		symbols[symbol_count].address = address;
		symbols[symbol_count++].name = strndup(end + 3, strcspn(end + 3, "\t\n"));
	}
	free(line);
	fclose(file);
	if (!symbols)
		return -ENOMEM;
	qsort(symbols, symbol_count, sizeof(*symbols), by_address);
	return 0;
}

/* The place of a function among the symbols; their number if there is none */
static size_t find_symbol(const char *name)
{
	static size_t known[MAX_KNOWN], count;

	for (size_t i = 0; i < count && i < MAX_KNOWN; i++)
		if (!strcmp(symbols[known[i]].name, name))
			return known[i];
	for (size_t i = 0; i < symbol_count; i++) {
		if (symbols[i].name && !strcmp(symbols[i].name, name)) {
			known[count++ % MAX_KNOWN] = i;
			return i;
		}
	}
	return symbol_count;
}

/* The addresses of a function: from its own to that of whatever comes next */
static int find_function(const char *name, uint64_t *start, uint64_t *end)
{
	int ret = symbols ? 0 : read_symbols();
	size_t at;

	if (ret)
		return ret;
	at = find_symbol(name);
	*start = *end = at < symbol_count ? symbols[at].address : 0;
	while (++at < symbol_count && *end == *start)
		*end = symbols[at].address;
	return *start && *end > *start ? 0 : -ENOENT;
}

/* What is the same for each function */
static int prepare(const char *kind)
{
	static const char *const plain[][2] = {
		{ "ignore-gfp-wait", "N" },
		{ "verbose", "0" },
		{ "stacktrace-depth", "32" },
		/* Of pages alone */
		{ "ignore-gfp-highmem", "N" },
		{ "min-order", "0" },
	};
	char path[128];
	int ret;

	for (size_t i = 0; i < sizeof(plain) / sizeof(plain[0]); i++) {
		snprintf(path, sizeof(path), DEBUGFS "%s/%s", kind, plain[i][0]);
		ret = write_text(path, plain[i][1]);
		if (ret && i < 3)
			return ret;
	}
	return 0;
}

static int filter_kind(const char *kind, uint64_t start, uint64_t end)
{
	char path[128], text[32];
	int ret;

	snprintf(path, sizeof(path), DEBUGFS "%s/require-start", kind);
	snprintf(text, sizeof(text), "0x%llx", (unsigned long long)start);
	ret = write_text(path, text);
	snprintf(path, sizeof(path), DEBUGFS "%s/require-end", kind);
	snprintf(text, sizeof(text), "0x%llx", (unsigned long long)end);
	return ret ? ret : write_text(path, text);
}

static int filter(const char *function)
{
	static int prepared;
	uint64_t start, end;
	int ret;

	ret = find_function(function, &start, &end);
	if (!ret && !prepared)
		ret = prepare("failslab");
	if (!ret && !prepared) {
		prepare("fail_page_alloc");
		/* The kernel of the iommufd selftests fails other things, too: nowhere */
		prepare("fail_iommufd");
		filter_kind("fail_iommufd", 1, 2);
	}
	if (!ret) {
		prepared = 1;
		ret = filter_kind("failslab", start, end);
	}
	if (ret)
		return ret;
	ret = filter_kind("fail_page_alloc", start, end);
	return ret == -ENOENT ? 0 : ret;
}

static int armed = -1;

/* Fail the nth allocation below a function from here on, but for what other steps do. */
void fail(const char *function, const char *nth)
{
	int ret = filter(function);

	if (!ret && armed == -1) {
		armed = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
		ret = armed == -1 ? -errno : 0;
	}
	if (!ret && pwrite(armed, nth, strlen(nth), 0) < 0)
		ret = -errno;
	if (ret)
		say("UNSEEN", "this kernel cannot fail the allocations of %s: %s", function,
		    strerror(-ret));
	else
		say("ok", "%s of %s", nth, function);
}

/* Whether it came to that; if not it is called off. */
void failed(void)
{
	char text[16] = "";

	if (armed == -1 || pread(armed, text, sizeof(text) - 1, 0) <= 0 ||
	    pwrite(armed, "0", 1, 0) < 0) {
		say("UNSEEN", "fail-nth: %s", armed == -1 ? "never set" : strerror(errno));
		return;
	}
	say_word(atoi(text) ? "no" : "yes");
}

/* Rescan with one failing allocation: 1 if it came to that, 0 if there are not so many. */
static int rescan_failing(int nth)
{
	int fd = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
	char text[16] = "";
	int ret;

	if (fd == -1)
		return -errno;
	snprintf(text, sizeof(text), "%d", nth);
	ret = write(fd, text, strlen(text)) < 0 ? -errno : 0;
	if (!ret)
		ret = find_all();
	memset(text, 0, sizeof(text));
	if (!ret && pread(fd, text, sizeof(text) - 1, 0) <= 0)
		ret = -EIO;
	pwrite(fd, "0", 1, 0);
	close(fd);
	return ret ? ret : !atoi(text);
}

/*
 * LOST: the device is in a group, and its region is not mapped. What sysfs has for its
 * regions is asked of the driver anew, so that is no evidence. A device that is kept out
 * is all right, and so is one that has everything.
 */
void rescan_with_faults(const char *device, uint64_t address, const char *function)
{
	struct outcome out;
	int faults = 0, ret;

	ret = filter(function);
	if (ret) {
		say("UNSEEN", "this kernel cannot fail the allocations of %s: %s", function,
		    strerror(-ret));
		return;
	}
	for (int nth = 1; nth <= MAX_FAULTS; nth++) {
		ret = remove_device(device);
		if (!ret)
			ret = rescan_failing(nth);
		if (ret < 0) {
			say_error(ret, "remove, or rescan");
			return;
		}
		if (!ret)
			break;
		faults++;
		if (group_of(device) < 0)
			continue;
		dma_try(device, address, NULL, &out);
		if (!strcmp(out.word, "BLOCKED"))
			out.word = "LOST";
		if (strcmp(out.word, "REACHED")) {
			say(out.word, "after fault %d: %s", nth, out.more);
			return;
		}
	}
	/* Without a fault nothing was tried, and with so many not all were. */
	say(faults && faults < MAX_FAULTS ? "ok" : "UNSEEN", "%d faults", faults);
}
