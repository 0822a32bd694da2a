// SPDX-License-Identifier: GPL-2.0-only
/*
 * Find a device again while memory runs out in one function of a driver: each of its
 * allocations fails once. Documentation/fault-injection/fault-injection.rst has the
 * files; the stack is looked at, so that nothing else of the rescan fails.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "steps.h"

#define FAILSLAB "/sys/kernel/debug/failslab/"
/* More allocations than any such function has */
#define MAX_FAULTS 64

/* The addresses of a function: from its own to that of whatever comes next */
static int find_function(const char *name, uint64_t *start, uint64_t *end)
{
	unsigned long long address;
	char line[512], symbol[256];
	FILE *symbols = fopen("/proc/kallsyms", "re");

	*start = 0;
	*end = 0;
	if (!symbols)
		return -errno;
	while (fgets(line, sizeof(line), symbols))
		if (sscanf(line, "%llx %*c %255s", &address, symbol) == 2 && !strcmp(symbol, name))
			*start = address;
	rewind(symbols);
	while (*start && fgets(line, sizeof(line), symbols))
		if (sscanf(line, "%llx", &address) == 1 && address > *start &&
		    (!*end || address < *end))
			*end = address;
	fclose(symbols);
	return *end ? 0 : -ENOENT;
}

static int filter(const char *function)
{
	static const char *const plain[][2] = {
		{ FAILSLAB "ignore-gfp-wait", "N" },
		{ FAILSLAB "verbose", "0" },
		{ FAILSLAB "stacktrace-depth", "32" },
	};
	uint64_t start, end;
	char text[32];
	int ret;

	ret = find_function(function, &start, &end);
	for (size_t i = 0; !ret && i < sizeof(plain) / sizeof(plain[0]); i++)
		ret = write_text(plain[i][0], plain[i][1]);
	if (ret)
		return ret;
	snprintf(text, sizeof(text), "0x%llx", (unsigned long long)start);
	ret = write_text(FAILSLAB "require-start", text);
	snprintf(text, sizeof(text), "0x%llx", (unsigned long long)end);
	return ret ? ret : write_text(FAILSLAB "require-end", text);
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
		ret = write_text("/sys/bus/pci/rescan", "1");
	memset(text, 0, sizeof(text));
	if (!ret && pread(fd, text, sizeof(text) - 1, 0) <= 0)
		ret = -EIO;
	pwrite(fd, "0", 1, 0);
	close(fd);
	return ret ? ret : !atoi(text);
}

/*
 * LOST: the device is in a group, and the kernel does not know of its region. A device
 * that is kept out is all right, and so is one that has everything.
 */
void rescan_with_faults(const char *device, uint64_t address, const char *function)
{
	char kind[64];
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
		ret = region_kind(device, address, kind, sizeof(kind));
		if (ret || strcmp(kind, "direct")) {
			say("LOST", "after fault %d it is %s", nth, ret ? "unknown" : kind);
			return;
		}
	}
	say("ok", "%d faults", faults);
}
