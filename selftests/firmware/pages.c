// SPDX-License-Identifier: GPL-2.0-only
/*
 * Remove a device and find it again, round by round, and see whether the pages of its
 * IOMMU's tables come back: the kernel counts them, and a leak shows as more each round.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "steps.h"

/* How long pages may still be on their way: 20 times 0.1 s */
#define SETTLE_TRIES 20

/* The number of such pages, or a negative error number */
static long long iommu_pages(void)
{
	long long pages = -ENOENT;
	char line[128];
	FILE *counters;
	int ret;

	/* Each processor has a part of the sum; have them add it up now. */
	ret = write_text("/proc/sys/vm/stat_refresh", "1");
	if (ret)
		return ret;
	counters = fopen("/proc/vmstat", "re");
	if (!counters)
		return -errno;
	while (fgets(line, sizeof(line), counters))
		if (sscanf(line, "nr_iommu_pages %lld", &pages) == 1)
			break;
	fclose(counters);
	return pages;
}

void removals(const char *device, int rounds)
{
	long long before = iommu_pages(), after;
	int ret = 0;

	if (before < 0) {
		say("UNSEEN", "this kernel does not count the pages: %s", strerror(-before));
		return;
	}
	for (int round = 0; round < rounds && !ret; round++) {
		ret = remove_device(device);
		if (!ret)
			ret = find_all();
	}
	if (ret) {
		say_error(ret, "remove, or rescan");
		return;
	}
	after = iommu_pages();
	for (int i = 0; i < SETTLE_TRIES && after > before; i++) {
		usleep(100 * 1000);
		after = iommu_pages();
	}
	if (after < 0)
		say_error(after, "/proc/vmstat");
	else
		say(after > before ? "LEAK" : "ok", "%lld pages before, %lld after", before, after);
}
