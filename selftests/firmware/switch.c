// SPDX-License-Identifier: GPL-2.0-only
/*
 * Switch the type of a device's group while the device writes to memory, again and
 * again, and count the writes that are lost.
 *
 * The edu device needs 100 ms for a write of any size, and all of it happens at the
 * end of them. A switch takes far less. So a write is started first, and the switch
 * so much later that it is under way when the write happens; from round to round at
 * another place in it. When a write happens is measured before.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "steps.h"

#define CALIBRATE 6
#define ROUNDS 300
/* Longer than a step has, but whoever says something from time to time has more */
#define LIMIT_NS 40000000000ULL
/* One lost write is a gap; a few more tell how wide it is */
#define ENOUGH 3
#define TELL_ROUNDS 10
#define PATTERN 0xa5a5a5a5
#define STUCK_NS 2000000000ULL
/* Sleep up to here before a moment, and then wait for it awake */
#define AWAKE_NS 2000000ULL
/* A write happens when QEMU comes to it: look a little before, too */
#define MARGIN_NS 500000ULL
/* The devices change early in a switch; what follows is the end of the old domain. */
#define EARLY 0.6

static uint64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000ULL + time.tv_nsec;
}

static void wait_until(uint64_t moment)
{
	struct timespec time;
	uint64_t left;

	left = moment > now() ? moment - now() : 0;
	if (left > AWAKE_NS) {
		left -= AWAKE_NS;
		time.tv_sec = left / 1000000000;
		time.tv_nsec = left % 1000000000;
		nanosleep(&time, NULL);
	}
	while (now() < moment)
		;
}

static int set_type(const char *device, const char *type)
{
	char path[200];
	int group = group_of(device);

	if (group < 0)
		return group;
	snprintf(path, sizeof(path), GROUPS "/%d/type", group);
	return write_text(path, type);
}

/* Out of the kernel's sight and back: whatever it was attached to is torn down. */
static int find_again(const char *device)
{
	int ret = remove_device(device);

	return ret ? ret : write_text(RESCAN, "1");
}

/* Wait for the end of a write: whether it is lost, or a negative error number */
static int ended(volatile uint8_t *bar, volatile uint32_t *memory)
{
	uint64_t since = now();

	while (dma_busy(bar)) {
		if (now() - since > STUCK_NS)
			return -ETIME;
		usleep(1000);
	}
	return *memory == PATTERN;
}

/* How long after its start a write happens, in ns. A host that is busy only makes it later. */
static int calibrate(volatile uint8_t *bar, uint64_t address, volatile uint32_t *memory,
		     uint64_t *delay)
{
	uint64_t start, took;

	*delay = UINT64_MAX;
	for (int i = 0; i < CALIBRATE; i++) {
		*memory = PATTERN;
		start = now();
		dma_start(bar, address);
		wait_until(start + 90000000ULL);
		while (*memory == PATTERN)
			if (now() - start > STUCK_NS)
				return -ETIME;
		took = now() - start;
		if (took < *delay)
			*delay = took;
		while (dma_busy(bar))
			;
	}
	return 0;
}

/* 0, or a negative error number and where */
static int one_round(const char *device, const char *type, int again, uint64_t address,
		     volatile uint32_t *memory, uint64_t delay, double place,
		     uint64_t *duration, int *lost, const char **where)
{
	volatile uint8_t *bar;
	uint64_t start, begin, end;
	int ret;

	*where = "the way back";
	ret = again ? find_again(device) : set_type(device, "DMA");
	if (ret)
		return ret;
	*where = "BAR 0";
	bar = dma_open(device);
	if (!bar)
		return -errno;
	*memory = PATTERN;
	start = now();
	dma_start(bar, address);
	/* The later it begins, the earlier in the switch does the write come */
	wait_until(start + delay + MARGIN_NS -
		   (uint64_t)(place * (EARLY * (double)*duration + MARGIN_NS)));
	begin = now();
	ret = set_type(device, type);
	end = now();
	*where = "type";
	if (!ret) {
		*where = "the DMA engine";
		ret = ended(bar, memory);
	}
	dma_close(bar);
	if (ret < 0)
		return ret;
	if (ret) {
		++*lost;
		dprintf(STDOUT_FILENO, "round: the write %lld us after the begin is lost\n",
			(long long)(start + delay - begin) / 1000);
	}
	/* Follow slowly: some take long for reasons of the host's */
	*duration = *duration ? (7 * *duration + (end - begin)) / 8 : end - begin;
	return 0;
}

void switch_type(const char *device, const char *type, uint64_t address, const char *back)
{
	uint64_t begin = now(), delay, duration = 0;
	volatile uint32_t *memory;
	volatile uint8_t *bar;
	double place = 0.5;
	const char *where;
	int lost = 0, round, ret;

	memory = memory_open(address);
	if (!memory) {
		say_error(-errno, "/dev/mem");
		return;
	}
	bar = dma_open(device);
	if (!bar) {
		say_error(-errno, "BAR 0");
		goto out;
	}
	ret = calibrate(bar, address, memory, &delay);
	dma_close(bar);
	if (ret) {
		say("BLOCKED", "before the first switch");
		goto out;
	}
	for (round = 0; round < ROUNDS && lost < ENOUGH && now() - begin < LIMIT_NS; round++) {
		ret = one_round(device, type, !strcmp(back, "rescan"), address, memory, delay,
				place, &duration, &lost, &where);
		if (ret) {
			say_error(ret, where);
			goto out;
		}
		/* The golden ratio spreads any number of places evenly */
		place += 0.6180339887;
		place -= (int)place;
		if (!((round + 1) % TELL_ROUNDS))
			dprintf(STDOUT_FILENO, "round: %d lost of %d\n", lost, round + 1);
	}
	say(lost ? "lost" : "kept", "%d of %d writes lost; a switch takes %llu us, a write %llu us",
	    lost, round, (unsigned long long)duration / 1000, (unsigned long long)delay / 1000);
out:
	memory_close(memory);
}
