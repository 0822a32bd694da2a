// SPDX-License-Identifier: GPL-2.0-only
/*
 * Measure what an emulated IOMMU does, with the DMA engine of edu as the witness.
 *
 *   calibrate DMAR|IVRS|none POOL DEVICE [BRIDGED BRIDGE]
 *   calibrate kernel [ENDPOINT]
 *
 * The first form drives the IOMMU itself, with tables of its own in memory that starts at
 * POOL (hexadecimal) and that the kernel does not use: the kernel's driver must be off. So
 * nothing that is measured depends on a driver, and what only a wrong driver would do (not
 * to invalidate, to leave an entry) can be done. The second form reads what a kernel with
 * its driver makes of the same machine.
 *
 * For each row one line is written: "row NAME ANSWER [MORE]", and "end" if nothing is left.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "calibrate.h"

uint64_t pool_address;
static volatile uint8_t *pool;
static uint64_t pool_used;

struct device plain, bridged;
unsigned int bridge_id;

void row(const char *name, const char *answer, const char *format, ...)
{
	va_list args;

	printf("row %s %s ", name, answer);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
	fflush(stdout);
}

void give_up(const char *format, ...)
{
	va_list args;

	printf("broken ");
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
	exit(1);
}

static volatile uint8_t *map_physical(uint64_t address, size_t size)
{
	int fd = open(MEMORY, O_RDWR | O_SYNC | O_CLOEXEC);
	void *where;

	if (fd == -1)
		give_up("/dev/mem: %s", strerror(errno));
	where = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, address);
	if (where == MAP_FAILED)
		give_up("/dev/mem at 0x%llx: %s", (unsigned long long)address, strerror(errno));
	close(fd);
	return where;
}

volatile uint8_t *registers_open(uint64_t address, size_t size)
{
	return map_physical(address, size);
}

uint32_t read32(volatile uint8_t *registers, unsigned int offset)
{
	return *(volatile uint32_t *)(registers + offset);
}

uint64_t read64(volatile uint8_t *registers, unsigned int offset)
{
	return *(volatile uint64_t *)(registers + offset);
}

void write32(volatile uint8_t *registers, unsigned int offset, uint32_t value)
{
	*(volatile uint32_t *)(registers + offset) = value;
}

void write64(volatile uint8_t *registers, unsigned int offset, uint64_t value)
{
	*(volatile uint64_t *)(registers + offset) = value;
}

size_t table_read(const char *signature, unsigned char *data, size_t size)
{
	char path[PATH_MAX];
	ssize_t length;
	int fd;

	snprintf(path, sizeof(path), "/sys/firmware/acpi/tables/%s", signature);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd == -1)
		give_up("%s: %s", path, strerror(errno));
	length = read(fd, data, size);
	close(fd);
	return length < 0 ? 0 : length;
}

uint64_t pool_page(void)
{
	uint64_t address = pool_address + pool_used;

	if (pool_used + PAGE > POOL_SIZE - TARGETS * PAGE)
		give_up("there is no page left for tables");
	pool_used += PAGE;
	memset((void *)pool_at(address), 0, PAGE);
	return address;
}

volatile uint64_t *pool_at(uint64_t address)
{
	return (volatile uint64_t *)(pool + (address - pool_address));
}

uint64_t target(int which)
{
	return pool_address + POOL_SIZE - (which + 1) * PAGE;
}

volatile uint32_t *target_word(int which)
{
	return (volatile uint32_t *)pool_at(target(which));
}

int open_device(struct device *device, const char *name)
{
	unsigned int bus, slot, function;

	if (sscanf(name, "%*x:%x:%x.%x", &bus, &slot, &function) != 3)
		return -EINVAL;
	device->name = name;
	device->id = bus << 8 | slot << 3 | function;
	device->bar = dma_open(name);
	return device->bar ? 0 : -errno;
}

int writes(struct device *device, uint64_t iova, int which)
{
	char why[300];
	int ret;

	ret = dma_reaches(device->bar, iova, target_word(which));
	if (ret < 0)
		give_up("the DMA engine of %s: %s", device->name, strerror(-ret));
	/* A write of a device that is off is lost, and looks like one that is blocked. */
	if (!ret && !dma_alive(device->name, why, sizeof(why)))
		give_up("%s", why);
	return ret;
}

static void must_open(struct device *device, const char *name)
{
	int ret = open_device(device, name);

	if (ret)
		give_up("%s: %s", name, strerror(-ret));
}

static void off(void)
{
	int reached = writes(&plain, target(TARGET_TEST), TARGET_TEST);

	row("off", reached ? "reached" : "blocked", "0x%llx",
	    (unsigned long long)target(TARGET_TEST));
	/* Its engine works: where it reaches nothing, that is the IOMMU's doing. */
	if (bridged.name && !writes(&bridged, target(TARGET_TEST), TARGET_TEST))
		give_up("%s reaches nothing while translation is off", bridged.name);
}

int main(int argc, char **argv)
{
	struct device bridge;

	if (argc > 1 && !strcmp(argv[1], "kernel")) {
		kernel(argv[2]);
		puts("end");
		return 0;
	}
	if (argc != 4 && argc != 6) {
		fprintf(stderr, "usage: calibrate DMAR|IVRS|none POOL DEVICE [BRIDGED BRIDGE]\n");
		return 2;
	}
	pool_address = strtoull(argv[2], NULL, 16);
	pool = map_physical(pool_address, POOL_SIZE);
	must_open(&plain, argv[3]);
	if (argc == 6) {
		must_open(&bridged, argv[4]);
		/* It has no engine: only its place is asked for. */
		open_device(&bridge, argv[5]);
		bridge_id = bridge.id;
	}
	off();
	if (!strcmp(argv[1], "DMAR"))
		vtd();
	else if (!strcmp(argv[1], "IVRS"))
		amd();
	puts("end");
	return 0;
}
