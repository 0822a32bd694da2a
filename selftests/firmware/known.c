// SPDX-License-Identifier: GPL-2.0-only
/*
 * The regions of a device, and memory that it must reach in its state: that shows its
 * engine to work at the time of a write which does not land. There is no such memory in
 * a blocking domain, in an empty one, or for a device without a region. Two states have
 * their own checks instead: in identity a write that does not land is a finding wherever
 * it goes, and of what the kernel has let go of a kernel may well stop every write.
 */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "steps.h"

#define REGIONS_SIZE 4096

int read_group_file(int group, const char *name, char *text, size_t size)
{
	char path[PATH_MAX];

	if (group < 0)
		return group;
	snprintf(path, sizeof(path), GROUPS "/%d/%s", group, name);
	return read_text(path, text, size);
}

/* A file of its group */
int read_group(const char *device, const char *name, char *text, size_t size)
{
	return read_group_file(group_of(device), name, text, size);
}

/* The kind of the reserved region of a device that begins at an address, or none */
int region_kind(const char *device, uint64_t address, char *kind, size_t size)
{
	unsigned long long start, end;
	char text[REGIONS_SIZE], name[64], *line, *rest;
	int ret;

	snprintf(kind, size, "none");
	ret = read_group(device, "reserved_regions", text, sizeof(text));
	if (ret)
		return ret;
	for (line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
		if (sscanf(line, "%llx %llx %63s", &start, &end, name) == 3 && start == address)
			snprintf(kind, size, "%s", name);
	return 0;
}

/* The kernel must not lose a word of its own, not even for a moment. */
static int is_ram(uint64_t address)
{
	unsigned long long start, end;
	char line[200];
	FILE *map = fopen(ROOT "/proc/iomem", "re");
	int found = 0;

	if (!map)
		return 1;
	while (fgets(line, sizeof(line), map) && !found)
		found = strstr(line, "System RAM") &&
			sscanf(line, "%llx-%llx", &start, &end) == 2 &&
			start <= address && address <= end;
	fclose(map);
	return found;
}

/* The last word of a direct region, unless the address is in one itself */
static int find_region(char *text, uint64_t address, uint64_t *word)
{
	unsigned long long start, end;
	char *line, *rest, kind[64];
	int found = 0;

	for (line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
		if (sscanf(line, "%llx %llx %63s", &start, &end, kind) != 3 ||
		    strncmp(kind, "direct", 6))
			continue;
		if (start <= address && address <= end)
			return 0;
		end -= sizeof(uint32_t) - 1;
		if (is_ram(end))
			continue;
		*word = end;
		found = 1;
	}
	return found;
}

static void open_region(const char *device, uint64_t address, struct known *known)
{
	char text[REGIONS_SIZE], type[32];
	int group = group_of(device);

	if (group < 0 || is_group_owned(group) ||
	    read_group(device, "type", type, sizeof(type)) || !strcmp(type, "identity") ||
	    read_group(device, "reserved_regions", text, sizeof(text)) ||
	    !find_region(text, address, &known->address))
		return;
	known->what = "its region";
	known->memory = memory_open(known->address);
	known->physical = 1;
}

static void open_buffer(const char *device, uint64_t address, struct known *known)
{
	volatile uint32_t *word;
	uint64_t begin;

	word = mapped_word(device, &known->address, &begin);
	if (!word || (begin <= address && address <= known->address))
		return;
	known->what = "its buffer";
	known->memory = word;
}

void known_open(const char *device, uint64_t address, struct known *known)
{
	memset(known, 0, sizeof(*known));
	open_buffer(device, address, known);
	if (!known->memory)
		open_region(device, address, known);
	if (known->memory)
		known->value = *known->memory;
}

void known_close(struct known *known)
{
	if (!known->memory)
		return;
	*known->memory = known->value;
	if (known->physical)
		memory_close(known->memory);
}
