// SPDX-License-Identifier: GPL-2.0-only
/*
 * Configuration space: the command registers of a device and of the bridges above it,
 * and the bus number of the port above. A device writes to memory only if each of them
 * decodes memory and masters the bus. A write that one of them stops looks like one that
 * the IOMMU stops. They are read in sysfs, or through the ECAM window of the firmware's
 * MCFG if the kernel has let go of the device: the ports 0xcf8 and 0xcfc do the same, but
 * the kernel uses them at the same time.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <linux/pci_regs.h>

#include "steps.h"

#define MAX_DEVICES 16
/* A device, and bridges above it */
#define MAX_PATH 5

#define COMMAND_BOTH (PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER)

#define MCFG ROOT "/sys/firmware/acpi/tables/MCFG"
#define MCFG_FIRST 44
#define MCFG_MAX 1024

struct place {
	/* From the bridge on the root bus down to the device */
	char path[MAX_PATH][16];
	int count;
};

static struct place places[MAX_DEVICES];
static int place_count;

static const char *own_name(const struct place *place)
{
	return place->path[place->count - 1];
}

/* The bridges above a device, from the way of its folder in sysfs */
static int look_up(const char *device, struct place *place)
{
	char link[PATH_MAX], way[PATH_MAX];
	unsigned int part;
	ssize_t length;
	char *rest;

	snprintf(link, sizeof(link), DEVICES "/%s", device);
	length = readlink(link, way, sizeof(way) - 1);
	if (length < 0)
		return -errno;
	way[length] = 0;
	place->count = 0;
	for (char *word = strtok_r(way, "/", &rest); word; word = strtok_r(NULL, "/", &rest)) {
		if (strlen(word) != 12 || sscanf(word, "%4x:%2x:%2x.%1x", &part, &part, &part,
						 &part) != 4)
			continue;
		if (place->count == MAX_PATH)
			return -E2BIG;
		snprintf(place->path[place->count++], sizeof(place->path[0]), "%s", word);
	}
	return place->count && !strcmp(own_name(place), device) ? 0 : -ENODEV;
}

static struct place *remembered(const char *device)
{
	for (int i = 0; i < place_count; i++)
		if (!strcmp(own_name(&places[i]), device))
			return &places[i];
	return NULL;
}

void config_remember(const char *device)
{
	struct place place, *known = remembered(device);

	if (look_up(device, &place))
		return;
	if (known)
		*known = place;
	else if (place_count < MAX_DEVICES)
		places[place_count++] = place;
}

/* Where it is; where it was, if the kernel has let go of it */
static int find_place(const char *device, struct place *place)
{
	struct place *known = remembered(device);
	int ret = look_up(device, place);

	if (!ret || !known)
		return ret;
	*place = *known;
	return 0;
}

/* The physical address of a device's configuration space */
static int find_window(const char *device, uint64_t *address)
{
	unsigned int segment, bus, slot, function;
	unsigned char table[MCFG_MAX];
	uint16_t its_segment;
	uint64_t base;
	ssize_t length;
	int fd;

	if (sscanf(device, "%x:%x:%x.%x", &segment, &bus, &slot, &function) != 4)
		return -EINVAL;
	fd = open(MCFG, O_RDONLY | O_CLOEXEC);
	if (fd == -1)
		return -errno;
	length = read(fd, table, sizeof(table));
	close(fd);
	for (ssize_t at = MCFG_FIRST; at + 16 <= length; at += 16) {
		memcpy(&base, table + at, sizeof(base));
		memcpy(&its_segment, table + at + 8, sizeof(its_segment));
		if (its_segment != segment || bus < table[at + 10] || bus > table[at + 11])
			continue;
		*address = base + ((uint64_t)bus << 20 | slot << 15 | function << 12);
		return 0;
	}
	return -ENODEV;
}

static int read_window(const char *device, uint32_t words[2])
{
	volatile uint32_t *window;
	uint64_t address;
	int ret;

	ret = find_window(device, &address);
	if (ret)
		return ret;
	window = memory_open(address);
	if (!window)
		return -errno;
	words[0] = window[0];
	words[1] = window[1];
	memory_close(window);
	return 0;
}

/* Its first two words: vendor and device, command and status */
static int read_config(const char *device, uint32_t words[2])
{
	int fd = device_open(device, "config", O_RDONLY);
	ssize_t length;

	if (fd == -1)
		return errno == ENOENT ? read_window(device, words) : -errno;
	length = pread(fd, words, 2 * sizeof(*words), PCI_VENDOR_ID);
	close(fd);
	return length == 2 * sizeof(*words) ? 0 : -EIO;
}

int config_command(const char *device, uint16_t *command)
{
	uint32_t words[2] = {};
	int ret;

	ret = read_config(device, words);
	if (!ret && words[0] == 0xffffffff)
		ret = -ENODEV;
	*command = words[1];
	return ret;
}

static int is_ready(const char *device, char *why, size_t size)
{
	uint16_t command;
	int ret = config_command(device, &command);

	if (ret)
		snprintf(why, size, "the command register of %s cannot be read: %s", device,
			 strerror(-ret));
	else if ((command & COMMAND_BOTH) != COMMAND_BOTH)
		snprintf(why, size, "%s: command 0x%04x, no %s", device, command,
			 !(command & COMMAND_BOTH) ? "memory decoding and no bus mastering" :
			 command & PCI_COMMAND_MEMORY ? "bus mastering" : "memory decoding");
	else
		return 1;
	return 0;
}

/* Whether it and all bridges above it let its writes through; nothing is changed. */
int config_ready(const char *device, char *why, size_t size)
{
	struct place place;
	int ret = find_place(device, &place);

	if (ret) {
		snprintf(why, size, "the place of %s is unknown: %s", device, strerror(-ret));
		return 0;
	}
	for (int i = 0; i < place.count; i++)
		if (!is_ready(place.path[i], why, size))
			return 0;
	return 1;
}

/* Whether this program has a device open that is at a place or below it */
static int is_open_below(const char *bridge)
{
	for (int i = 0; i < place_count; i++)
		for (int j = 0; j < places[i].count; j++)
			if (!strcmp(places[i].path[j], bridge) && is_open(own_name(&places[i])))
				return 1;
	return 0;
}

/* Like setpci; what is on already is not written. */
static int switch_on(const char *device)
{
	uint16_t command;
	int fd, ret;

	device_write(device, "power/control", "on");
	ret = config_command(device, &command);
	if (ret || (command & COMMAND_BOTH) == COMMAND_BOTH)
		return ret;
	command |= COMMAND_BOTH;
	fd = device_open(device, "config", O_RDWR);
	if (fd == -1)
		return -errno;
	ret = pwrite(fd, &command, sizeof(command), PCI_COMMAND) != sizeof(command) ? -EIO : 0;
	close(fd);
	return ret;
}

static int switch_on_path(const char *device)
{
	struct place place;
	int ret = look_up(device, &place);

	for (int i = 0; !ret && i < place.count; i++)
		if (!is_open_below(place.path[i]))
			ret = switch_on(place.path[i]);
	return ret;
}

/* Nothing else switches on a device without a driver: its DMA engine is this program's. */
int config_prepare(const char *device)
{
	if (!is_there(device))
		return 0;
	return device_has(device, "driver") ? 0 : switch_on_path(device);
}

/* As firmware that keeps its device going, whatever driver is bound and does not use it */
void enable(const char *device)
{
	char why[200];
	int ret;

	if (is_open(device)) {
		say("BUSY", "it is open: VFIO has its command register");
		return;
	}
	ret = switch_on_path(device);
	if (ret)
		say_error(ret, "the command registers");
	else if (!config_ready(device, why, sizeof(why)))
		say("OFF", "%s", why);
	else
		say_word("ok");
}

/*
 * Find a device again at the first place of another bus: the port above it is given
 * that bus number. The word is the type of its group there.
 */
void renumber(const char *device, unsigned char bus)
{
	unsigned char buses[2] = { bus, bus };
	char place[32], type[64];
	int fd, ret;

	fd = device_open(device, "../config", O_RDWR);
	/* Secondary and subordinate */
	ret = fd == -1 || pwrite(fd, buses, 2, PCI_SECONDARY_BUS) != 2 ? -errno : 0;
	if (fd != -1)
		close(fd);
	if (!ret)
		ret = device_write(device, "../remove", "1");
	if (!ret)
		ret = find_all();
	if (ret) {
		say_error(ret, "the port above it");
		return;
	}
	snprintf(place, sizeof(place), "%.4s:%02x:00.0", device, bus);
	if (!is_there(place)) {
		say("MISSING", "there is nothing at %s", place);
		return;
	}
	ret = read_group(place, "type", type, sizeof(type));
	if (ret < 0)
		say("none", "%s has no group", place);
	else
		say(type, "at %s", place);
}
