// SPDX-License-Identifier: GPL-2.0-only
/*
 * Have several devices write at once, each to one place: a write takes a tenth of a second,
 * and so do many. The word has a letter for each, in order:
 *
 *   R  it reached the memory
 *   B  it did not, and its engine was able to write before and afterwards
 *   O  it did not, and its engine was off, so that nothing is known of the IOMMU
 *   N  there are no registers of such a device
 *   M  the place is no memory
 *   S  its engine does not end
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "steps.h"

#define MAX_LOOKS 16
#define TRIES 4000
#define WAIT_US 1000
/* How long a write takes: dma_rw() in QEMU's hw/misc/edu.c */
#define WRITE_US 100000

struct one {
	char device[32];
	uint64_t address;
	volatile uint8_t *bar;
	volatile uint32_t *memory;
	int own;
	int begun;
	char letter;
};

static void parse(struct one *it, const char *word)
{
	char owner[32];
	const char *equals = strchr(word, '='), *at;

	if (!equals)
		return;
	snprintf(it->device, sizeof(it->device), "%.*s", (int)(equals - word), word);
	at = strchr(equals, '@');
	if (at) {
		/* What is mapped at that IOVA for the owner */
		snprintf(owner, sizeof(owner), "%.*s", (int)(at - equals - 1), equals + 1);
		it->address = strtoull(at + 1, NULL, 16);
		it->memory = mapped(owner, it->address);
	} else {
		it->address = strtoull(equals + 1, NULL, 16);
		it->memory = memory_open(it->address);
		it->own = 1;
	}
}

static void begin(struct one *it)
{
	char why[200];

	it->letter = 'M';
	if (!it->memory)
		return;
	*it->memory = PATTERN;
	if (*it->memory != PATTERN)
		return;
	it->letter = 'N';
	it->bar = dma_open(it->device);
	if (!it->bar)
		return;
	/* It ignores what it is told while it is under way. */
	it->letter = 'S';
	if (dma_busy(it->bar))
		return;
	it->letter = dma_ready(it->device, it->bar, why, sizeof(why)) ? 'B' : 'O';
	dma_start(it->bar, it->address);
	it->begun = 1;
	/* It has not begun, or a host that is busy has hidden it. */
	if (!dma_busy(it->bar))
		it->letter = 'O';
}

static void end(struct one *it, int *tries)
{
	char why[200];

	if (it->begun) {
		while (dma_busy(it->bar) && --*tries > 0)
			usleep(WAIT_US);
		if (dma_busy(it->bar))
			it->letter = 'S';
		else if (*it->memory != PATTERN)
			it->letter = 'R';
		else if (!dma_ready(it->device, it->bar, why, sizeof(why)))
			it->letter = 'O';
	}
	if (it->bar)
		dma_close(it->bar);
	if (it->memory && it->own)
		memory_close(it->memory);
}

/* Each word is DEVICE=ADDRESS, or DEVICE=OWNER@IOVA. */
void look(char **words, int count)
{
	struct one table[MAX_LOOKS] = {};
	char letters[MAX_LOOKS + 1] = "";
	int tries = TRIES;

	if (!count || count > MAX_LOOKS) {
		say("MALFORMED", "look takes 1 to %d words", MAX_LOOKS);
		return;
	}
	for (int i = 0; i < count; i++)
		parse(&table[i], words[i]);
	for (int i = 0; i < count; i++)
		begin(&table[i]);
	/* To look every millisecond costs more than the write. */
	usleep(WRITE_US);
	for (int i = 0; i < count; i++) {
		end(&table[i], &tries);
		letters[i] = table[i].letter;
	}
	say_word(letters);
}
