// SPDX-License-Identifier: GPL-2.0-only
/*
 * QEMU's edu device as an oracle: can it write to an address, or does the IOMMU
 * stop it? Its registers are those of docs/specs/edu.rst in QEMU. They are reached
 * through BAR 0 in sysfs, whoever owns the device, with iomem=relaxed.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "steps.h"

#define MAX_BARS 16

#define EDU_SIZE 0x100000
#define EDU_ID 0x00
#define EDU_DMA_SOURCE 0x80
#define EDU_DMA_TARGET 0x88
#define EDU_DMA_COUNT 0x90
#define EDU_DMA_COMMAND 0x98
#define EDU_DMA_START 0x1
#define EDU_DMA_TO_MEMORY 0x2
#define EDU_BUFFER 0x40000

#define PCI_COMMAND_OFFSET 4
#define PCI_COMMAND_MEMORY_MASTER 0x6

/* The engine takes a tenth of a second; a busy host may take longer. */
#define TRIES 2000
#define WAIT_US 5000

static int enable(const char *folder)
{
	uint16_t command;
	char path[300];
	int fd, ret = 0;

	snprintf(path, sizeof(path), "%s/power/control", folder);
	write_text(path, "on");
	snprintf(path, sizeof(path), "%s/config", folder);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd == -1)
		return -errno;
	if (pread(fd, &command, 2, PCI_COMMAND_OFFSET) != 2) {
		ret = -EIO;
	} else {
		command |= PCI_COMMAND_MEMORY_MASTER;
		if (pwrite(fd, &command, 2, PCI_COMMAND_OFFSET) != 2)
			ret = -EIO;
	}
	close(fd);
	return ret;
}

/* Whoever had the device last may have switched it off, or the bridge above it. */
static int dma_prepare(const char *device)
{
	char above[200], folder[200];

	snprintf(folder, sizeof(folder), DEVICES "/%s", device);
	snprintf(above, sizeof(above), DEVICES "/%s/../config", device);
	if (access(above, F_OK) == 0) {
		*strrchr(above, '/') = 0;
		enable(above);
	}
	return enable(folder);
}

/* Where BAR 0 of each device is, for when the kernel has let go of the device. */
static struct {
	char device[32];
	uint64_t address;
} bars[MAX_BARS];
static int bar_count;

void dma_remember(const char *device)
{
	unsigned long long start;
	char path[200], text[1024];

	config_remember(device);
	snprintf(path, sizeof(path), DEVICES "/%s/resource", device);
	if (read_text(path, text, sizeof(text)) || sscanf(text, "%llx", &start) != 1)
		return;
	/* It may be another one after a rescan. */
	for (int i = 0; i < bar_count; i++) {
		if (!strcmp(bars[i].device, device)) {
			bars[i].address = start;
			return;
		}
	}
	if (bar_count == MAX_BARS)
		return;
	snprintf(bars[bar_count].device, sizeof(bars[0].device), "%.31s", device);
	bars[bar_count++].address = start;
}

static volatile uint8_t *map_file(const char *path, uint64_t offset, size_t size)
{
	int fd = open(path, O_RDWR | O_SYNC | O_CLOEXEC);
	void *where;

	if (fd == -1)
		return NULL;
	where = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, offset);
	close(fd);
	return where == MAP_FAILED ? NULL : where;
}

/* Removed from the kernel's view only, the device still does what it is told. */
static volatile uint8_t *map_registers(const char *device)
{
	char path[200];

	snprintf(path, sizeof(path), DEVICES "/%s/resource0", device);
	if (access(path, F_OK) == 0)
		return map_file(path, 0, EDU_SIZE);
	for (int i = 0; i < bar_count; i++)
		if (!strcmp(bars[i].device, device) && bars[i].address)
			return map_file("/dev/mem", bars[i].address, EDU_SIZE);
	errno = ENODEV;
	return NULL;
}

static void set(volatile uint8_t *bar, unsigned int offset, uint64_t value)
{
	*(volatile uint64_t *)(bar + offset) = value;
}

void dma_start(volatile uint8_t *bar, uint64_t address)
{
	set(bar, EDU_DMA_SOURCE, EDU_BUFFER);
	set(bar, EDU_DMA_TARGET, address);
	set(bar, EDU_DMA_COUNT, sizeof(uint32_t));
	set(bar, EDU_DMA_COMMAND, EDU_DMA_START | EDU_DMA_TO_MEMORY);
}

int dma_busy(volatile uint8_t *bar)
{
	return *(volatile uint32_t *)(bar + EDU_DMA_COMMAND) & EDU_DMA_START;
}

volatile uint32_t *memory_open(uint64_t address)
{
	volatile uint8_t *page = map_file("/dev/mem", address & ~0xfffULL, 0x1000);

	return page ? (volatile uint32_t *)(page + (address & 0xffc)) : NULL;
}

void memory_close(volatile uint32_t *memory)
{
	munmap((void *)((uintptr_t)memory & ~0xfffUL), 0x1000);
}

volatile uint8_t *dma_open(const char *device)
{
	volatile uint8_t *bar;
	char folder[200];
	uint32_t id;
	int ret;

	snprintf(folder, sizeof(folder), DEVICES "/%s", device);
	ret = access(folder, F_OK) ? 0 : dma_prepare(device);
	if (ret) {
		errno = -ret;
		return NULL;
	}
	bar = map_registers(device);
	if (!bar)
		return NULL;
	id = *(volatile uint32_t *)(bar + EDU_ID);
	if ((id & 0xff) == 0xed)
		return bar;
	dma_close(bar);
	errno = ENOTTY;
	return NULL;
}

void dma_close(volatile uint8_t *bar)
{
	munmap((void *)bar, EDU_SIZE);
}

/* Whether a write of its engine gets as far as the IOMMU, and if not why; it only looks. */
int dma_alive(const char *device, char *why, size_t size)
{
	volatile uint8_t *bar;
	uint32_t id;

	if (!config_ready(device, why, size))
		return 0;
	bar = map_registers(device);
	if (!bar) {
		snprintf(why, size, "BAR 0 of %s: %s", device, strerror(errno));
		return 0;
	}
	id = *(volatile uint32_t *)(bar + EDU_ID);
	dma_close(bar);
	if ((id & 0xff) == 0xed)
		return 1;
	snprintf(why, size, "the first register of %s holds 0x%08x", device, id);
	return 0;
}

/* Have it write: 1 if it gets there, 0 if not, -EIO if it is no memory, -EBUSY if it never ends. */
int dma_reaches(volatile uint8_t *bar, uint64_t address, volatile uint32_t *memory)
{
	/* The engine's own buffer holds zeros: nothing was ever read into it. */
	uint32_t before = 0xa5a5a5a5;

	*memory = before;
	if (*memory != before)
		return -EIO;
	dma_start(bar, address);
	for (int i = 0; i < TRIES; i++) {
		if (!dma_busy(bar))
			return *memory != before;
		usleep(WAIT_US);
	}
	return -EBUSY;
}

static void engine(volatile uint8_t *bar, uint64_t address, volatile uint32_t *memory)
{
	int ret = dma_reaches(bar, address, memory);

	if (ret == -EIO)
		say("NOMEMORY", "0x%llx holds 0x%08x whatever is written",
		    (unsigned long long)address, *memory);
	else if (ret == -EBUSY)
		say("STUCK", "the DMA engine does not end");
	else
		say(ret ? "REACHED" : "BLOCKED", "0x%llx", (unsigned long long)address);
}

/* Have the device write to an address, of which memory is our view; NULL for /dev/mem. */
void dma(const char *device, uint64_t address, volatile uint32_t *memory)
{
	volatile uint32_t *own = NULL;
	volatile uint8_t *bar;

	bar = dma_open(device);
	if (!bar) {
		if (errno == ENOTTY)
			say("NOEDU", "its first register is another one's");
		else
			say_error(-errno, "BAR 0");
		return;
	}
	if (!memory) {
		memory = own = memory_open(address);
		if (!memory) {
			say_error(-errno, "/dev/mem");
			goto out;
		}
	}
	engine(bar, address, memory);
	if (own)
		memory_close(own);
out:
	dma_close(bar);
}
