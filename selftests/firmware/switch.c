// SPDX-License-Identifier: GPL-2.0-only
/*
 * Switch the type of a device's group while the device writes to memory, again and
 * again, and count the writes that are lost.
 *
 * The edu device needs 100 ms for a write of any size, and all of it happens at the
 * end of them. A switch takes far less. So a write is started first, and the switch
 * so much later that it is under way when the write happens; from round to round at
 * another place in it. When a write happens is measured before, and which of them came
 * during a switch is seen: the engine is busy right before it, and not right after it.
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
/* Longer than a step has, but a step that says something from time to time has more */
#ifndef LIMIT_NS
#define LIMIT_NS 40000000000ULL
#endif
/* One lost write is a gap; a few more tell how wide it is */
#define ENOUGH 3
#define TELL_ROUNDS 10
/*
 * So many writes must fall into switches before all is said to be kept. Kernels with a
 * gap lost one in fourteen of them: with 30 that is missed in 11 of 100 runs, with the 80
 * of a host that is not busy in one of 300. A switch that is longer than a write catches
 * each of them, but there is no time for many.
 */
#define NEEDED 30
#define NEEDED_LONG 10
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

	return ret ? ret : find_all();
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
		if (ended(bar, memory) < 0)
			return -ETIME;
	}
	return 0;
}

struct work {
	const char *device;
	const char *type;
	int again;
	uint64_t address;
	volatile uint32_t *memory;
	/* In ns: from the start of a write to its moment, and from end to end of a switch */
	uint64_t delay;
	uint64_t duration;
	int rounds;
	int inside;
	int lost;
};

/* What becomes of a write that is under way while the type is written; 1 to go on */
static int one_switch(struct work *work, volatile uint8_t *bar, double place)
{
	int started, before, during, ret;
	uint64_t start, begin, end;
	struct outcome out;

	*work->memory = PATTERN;
	start = now();
	dma_start(bar, work->address);
	started = dma_busy(bar);
	/* The later it begins, the earlier in the switch does the write come */
	wait_until(start + work->delay + MARGIN_NS -
		   (uint64_t)(place * (EARLY * (double)work->duration + MARGIN_NS)));
	before = !dma_busy(bar);
	begin = now();
	ret = set_type(work->device, work->type);
	end = now();
	during = !before && !dma_busy(bar);
	if (ret) {
		say_error(ret, "type");
		return 0;
	}
	ret = ended(bar, work->memory);
	if (ret < 0) {
		say("STUCK", "the DMA engine does not end");
		return 0;
	}
	if (ret && started) {
		if (!dma_alive(work->device, out.more, sizeof(out.more))) {
			say("OFF", "%s", out.more);
			return 0;
		}
		work->lost++;
		dprintf(STDOUT_FILENO, "round: the write %lld us after the begin is lost%s\n",
			(long long)(start + work->delay - begin) / 1000,
			during ? "" : ", not during the switch");
	}
	/* What was not seen to start tells nothing. */
	work->inside += started && during;
	/* A busy host had the measuring come late; what is over already took less. */
	if (started && before && begin - start < work->delay)
		work->delay = begin - start;
	/* Follow slowly: some take long for reasons of the host's */
	work->duration = work->duration ? (7 * work->duration + (end - begin)) / 8 : end - begin;
	return 1;
}

static int one_round(struct work *work, double place)
{
	volatile uint8_t *bar;
	int ret;

	ret = work->again ? find_again(work->device) : set_type(work->device, "DMA");
	if (ret) {
		say_error(ret, "the way back");
		return 0;
	}
	bar = dma_open(work->device);
	if (!bar) {
		say_unopened(work->device, errno);
		return 0;
	}
	ret = one_switch(work, bar, place);
	dma_close(bar);
	return ret;
}

/* A write outside of any switch: the engine that was switched under must reach memory */
static int reaches_it(const struct work *work, const char *when)
{
	struct outcome out;

	dma_try(work->device, work->address, work->memory, &out);
	if (!strcmp(out.word, "REACHED"))
		return 1;
	say(out.word, "%s: %s", when, out.more);
	return 0;
}

static int measure(struct work *work)
{
	volatile uint8_t *bar = dma_open(work->device);
	int ret;

	if (!bar) {
		say_unopened(work->device, errno);
		return 0;
	}
	ret = calibrate(bar, work->address, work->memory, &work->delay);
	dma_close(bar);
	if (ret)
		say("STUCK", "the DMA engine takes more than two seconds");
	return !ret;
}

static int has_enough(const struct work *work)
{
	return work->inside >= (work->duration > work->delay ? NEEDED_LONG : NEEDED);
}

static void conclude(const struct work *work)
{
	const char *word = work->lost ? "lost" : has_enough(work) ? "kept" : "UNSEEN";

	say(word,
	    "%d of %d writes lost, %d came during a switch%s; one takes %llu us, a write %llu us",
	    work->lost, work->rounds, work->inside,
	    strcmp(word, "UNSEEN") ? "" : ", which are too few",
	    (unsigned long long)work->duration / 1000, (unsigned long long)work->delay / 1000);
}

void switch_type(const char *device, const char *type, uint64_t address, const char *back)
{
	struct work work = {
		.device = device, .type = type, .address = address,
		.again = !strcmp(back, "rescan"),
	};
	uint64_t begin = now();
	double place = 0.5;

	work.memory = memory_open(address);
	if (!work.memory) {
		say_error(-errno, "/dev/mem");
		return;
	}
	if (!reaches_it(&work, "before the first switch") || !measure(&work))
		goto out;
	while ((work.rounds < ROUNDS || !has_enough(&work)) && work.lost < ENOUGH &&
	       now() - begin < LIMIT_NS) {
		if (!one_round(&work, place))
			goto out;
		/* The golden ratio spreads any number of places evenly */
		place += 0.6180339887;
		place -= (int)place;
		if (!(++work.rounds % TELL_ROUNDS))
			dprintf(STDOUT_FILENO, "round: %d lost of %d, %d during a switch\n",
				work.lost, work.rounds, work.inside);
	}
	if (work.lost || reaches_it(&work, "after the last switch"))
		conclude(&work);
out:
	memory_close(work.memory);
}
