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

#define EDU_VENDOR "0x1234"
#define EDU_DEVICE "0x11e8"
#define EDU_SIZE 0x100000
#define EDU_ID 0x00
#define EDU_DMA_SOURCE 0x80
#define EDU_DMA_TARGET 0x88
#define EDU_DMA_COUNT 0x90
#define EDU_DMA_COMMAND 0x98
#define EDU_DMA_START 0x1
#define EDU_DMA_TO_MEMORY 0x2
#define EDU_BUFFER 0x40000

/* The engine takes a tenth of a second; a busy host may take longer. */
#ifndef TRIES
#define TRIES 2000
#endif
#define WAIT_US 5000
/* A host may stop the guest for longer than that, and then a write is not seen under way. */
#define STARTS 5
#define EDU 0xed

/* For a device that no driver has; others are not the DMA engine of this program. */
int dma_prepare(const char *device)
{
	char text[32];

	if (!device_read(device, "vendor", text, sizeof(text)) && strcmp(text, EDU_VENDOR))
		return 0;
	if (!device_read(device, "device", text, sizeof(text)) && strcmp(text, EDU_DEVICE))
		return 0;
	return config_prepare(device);
}

/* Where BAR 0 of each device is, for when the kernel has let go of the device. */
static struct {
	char device[32];
	uint64_t address;
} bars[MAX_BARS];
static int bar_count;

static uint64_t address_of(const char *device)
{
	unsigned long long start;
	char text[1024];

	if (device_read(device, "resource", text, sizeof(text)) || sscanf(text, "%llx", &start) != 1)
		return 0;
	return start;
}

void dma_remember(const char *device)
{
	uint64_t start;

	config_remember(device);
	start = address_of(device);
	if (!start)
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

/* Those that the kernel has found again may be somewhere else. */
void dma_found_again(void)
{
	uint64_t start;

	for (int i = 0; i < bar_count; i++) {
		start = is_there(bars[i].device) ? address_of(bars[i].device) : 0;
		if (start)
			bars[i].address = start;
	}
}

/*
 * The kernel gives the address of a device that it has let go of to another one.  Both
 * answer to it then, and what either of them does tells nothing.
 */
static int is_shared(const char *device)
{
	uint64_t address = 0;

	for (int i = 0; i < bar_count; i++)
		if (!strcmp(bars[i].device, device))
			address = bars[i].address;
	for (int i = 0; address && i < bar_count; i++)
		if (strcmp(bars[i].device, device) && bars[i].address == address)
			return 1;
	return 0;
}

static volatile uint8_t *map_fd(int fd, uint64_t offset, size_t size)
{
	void *where = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, offset);

	return where == MAP_FAILED ? NULL : where;
}

/* Memory by its physical address */
static volatile uint8_t *map_memory(uint64_t address, size_t size)
{
	static int fd = -1;

	if (fd == -1)
		fd = open(MEMORY, O_RDWR | O_SYNC | O_CLOEXEC);
	return fd == -1 ? NULL : map_fd(fd, address, size);
}

/* Removed from the kernel's view only, the device still does what it is told. */
static volatile uint8_t *map_registers(const char *device)
{
	volatile uint8_t *bar;
	int fd;

	if (is_shared(device)) {
		errno = EADDRINUSE;
		return NULL;
	}
	fd = device_open(device, "resource0", O_RDWR | O_SYNC);
	if (fd != -1) {
		bar = map_fd(fd, 0, EDU_SIZE);
		close(fd);
		return bar;
	}
	if (errno != ENOENT)
		return NULL;
	for (int i = 0; i < bar_count; i++)
		if (!strcmp(bars[i].device, device) && bars[i].address)
			return map_memory(bars[i].address, EDU_SIZE);
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
	volatile uint8_t *page = map_memory(address & ~0xfffULL, 0x1000);

	return page ? (volatile uint32_t *)(page + (address & 0xffc)) : NULL;
}

void memory_close(volatile uint32_t *memory)
{
	munmap((void *)((uintptr_t)memory & ~0xfffUL), 0x1000);
}

static uint32_t first_register(volatile uint8_t *bar)
{
	return *(volatile uint32_t *)(bar + EDU_ID);
}

volatile uint8_t *dma_open(const char *device)
{
	volatile uint8_t *bar;
	int ret = dma_prepare(device);

	if (ret) {
		errno = -ret;
		return NULL;
	}
	bar = map_registers(device);
	if (!bar || (first_register(bar) & 0xff) == EDU)
		return bar;
	dma_close(bar);
	errno = ENOTTY;
	return NULL;
}

void dma_close(volatile uint8_t *bar)
{
	munmap((void *)bar, EDU_SIZE);
}

int dma_ready(const char *device, volatile uint8_t *bar, char *why, size_t size)
{
	if (!config_ready(device, why, size))
		return 0;
	if ((first_register(bar) & 0xff) == EDU)
		return 1;
	snprintf(why, size, "the first register of %s holds 0x%08x", device, first_register(bar));
	return 0;
}

/* Whether a write of its engine gets as far as the IOMMU, and if not why; it only looks. */
int dma_alive(const char *device, char *why, size_t size)
{
	volatile uint8_t *bar;
	int alive;

	if (!config_ready(device, why, size))
		return 0;
	bar = map_registers(device);
	if (!bar) {
		snprintf(why, size, "BAR 0 of %s: %s", device, strerror(errno));
		return 0;
	}
	alive = dma_ready(device, bar, why, size);
	dma_close(bar);
	return alive;
}

static int wait_for_end(volatile uint8_t *bar)
{
	for (int i = 0; i < TRIES; i++) {
		if (!dma_busy(bar))
			return 0;
		usleep(WAIT_US);
	}
	return -EBUSY;
}

/*
 * Have it write: 1 if it gets there, 0 if not, -EIO if it is no memory, -EBUSY if it never
 * ends, -EAGAIN if it is never seen to begin.
 */
int dma_reaches(volatile uint8_t *bar, uint64_t address, volatile uint32_t *memory)
{
	int busy;

	/* It ignores what is written to it while it is under way. */
	if (wait_for_end(bar))
		return -EBUSY;
	/* The engine's own buffer holds zeros: nothing was ever read into it. */
	*memory = PATTERN;
	if (*memory != PATTERN)
		return -EIO;
	for (int i = 0; i < STARTS; i++) {
		dma_start(bar, address);
		busy = dma_busy(bar);
		if (wait_for_end(bar))
			return -EBUSY;
		if (*memory != PATTERN)
			return 1;
		if (busy)
			return 0;
	}
	return -EAGAIN;
}

/*
 * Blocked is a write of an engine that could write at that time: of a device that is
 * alive before and after, and that reaches what it must reach if there is such a thing.
 */
static void judge(const char *device, volatile uint8_t *bar, uint64_t address,
		  volatile uint32_t *memory, struct outcome *out)
{
	unsigned long long where = address;
	struct known known;
	int alive, before = 1, after = 1, ret;

	alive = dma_ready(device, bar, out->more, sizeof(out->more));
	known_open(device, address, &known);
	if (known.memory)
		before = dma_reaches(bar, known.address, known.memory);
	if (before == -EIO) {
		/* It is no memory, so nothing is known by it. */
		known_close(&known);
		memset(&known, 0, sizeof(known));
		before = 1;
	}
	/* Each wait for the end of an engine that is stuck takes half of a step's time. */
	ret = before < 0 ? before : dma_reaches(bar, address, memory);
	if (!ret && known.memory)
		after = dma_reaches(bar, known.address, known.memory);
	if (after < 0)
		ret = after;
	if (alive && ret <= 0)
		alive = dma_ready(device, bar, out->more, sizeof(out->more));

	if (ret == 1) {
		out->word = "REACHED";
		snprintf(out->more, sizeof(out->more), "0x%llx", where);
	} else if (ret == -EIO) {
		out->word = "NOMEMORY";
		snprintf(out->more, sizeof(out->more), "0x%llx holds 0x%08x whatever is written",
			 where, *memory);
	} else if (!alive) {
		out->word = "OFF";
	} else if (ret) {
		out->word = "STUCK";
		snprintf(out->more, sizeof(out->more), "the DMA engine does not %s",
			 ret == -EBUSY ? "end" : "begin");
	} else if (before != 1 || after != 1) {
		out->word = "UNSEEN";
		snprintf(out->more, sizeof(out->more),
			 "0x%llx is not reached, and %s at 0x%llx is not either, %s", where,
			 known.what, (unsigned long long)known.address,
			 before != 1 ? "before it" : "after it");
	} else {
		out->word = "BLOCKED";
		snprintf(out->more, sizeof(out->more), "0x%llx", where);
		if (known.memory)
			snprintf(out->more, sizeof(out->more),
				 "0x%llx, while %s at 0x%llx is reached", where, known.what,
				 (unsigned long long)known.address);
	}
	known_close(&known);
}

/* Why dma_open() failed: so it looks without memory decoding, too. */
static void unopened(const char *device, int error, struct outcome *out)
{
	out->word = word_of(-error);
	snprintf(out->more, sizeof(out->more), "BAR 0");
	if (error != ENOTTY)
		return;
	out->word = "OFF";
	if (!config_ready(device, out->more, sizeof(out->more)))
		return;
	out->word = "NOEDU";
	snprintf(out->more, sizeof(out->more), "its first register is another one's");
}

void say_unopened(const char *device, int error)
{
	struct outcome out;

	unopened(device, error, &out);
	say(out.word, "%s", out.more);
}

void dma_try(const char *device, uint64_t address, volatile uint32_t *memory, struct outcome *out)
{
	volatile uint32_t *own = NULL;
	volatile uint8_t *bar = dma_open(device);

	if (!bar) {
		unopened(device, errno, out);
		return;
	}
	if (!memory)
		memory = own = memory_open(address);
	if (memory) {
		judge(device, bar, address, memory, out);
	} else {
		out->word = word_of(-errno);
		snprintf(out->more, sizeof(out->more), "/dev/mem");
	}
	if (own)
		memory_close(own);
	dma_close(bar);
}

void dma(const char *device, uint64_t address, volatile uint32_t *memory)
{
	struct outcome out;

	dma_try(device, address, memory, &out);
	say(out.word, "%s", out.more);
}
