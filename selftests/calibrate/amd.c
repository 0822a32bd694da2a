// SPDX-License-Identifier: GPL-2.0-only
/*
 * AMD's IOMMU, driven by this program. Registers, tables and commands are those of the
 * AMD I/O Virtualization Technology (IOMMU) Specification, chapters 2 and 3; the table of
 * the firmware is in 5.2.
 */
#include <string.h>
#include <unistd.h>

#include "calibrate.h"

#define IVRS_BLOCK 48
#define IVHD_BASE 8
#define IVHD_TYPES "\x10\x11\x40"

#define DEVICE_TABLE 0x00
#define COMMANDS 0x08
#define EVENTS 0x10
#define CONTROL 0x18
#define CONTROL_ENABLE (1ULL << 0)
#define CONTROL_EVENTS (1ULL << 2)
#define CONTROL_COMMANDS (1ULL << 12)
#define EXCLUSION_BASE 0x20
#define EXCLUSION_ENABLE 1ULL
#define EXCLUSION_ALLOW_ALL 2ULL
#define EXCLUSION_LIMIT 0x28
#define FEATURES 0x30
#define COMMAND_HEAD 0x2000
#define COMMAND_TAIL 0x2008
#define EVENT_HEAD 0x2010
#define EVENT_TAIL 0x2018
#define STATUS 0x2020
/* 256 entries of 16 bytes: the smallest */
#define ENTRIES (8ULL << 56)

#define DTE_VALID 1ULL
#define DTE_TRANSLATION 2ULL
#define MODE(levels) ((uint64_t)(levels) << 9)
#define PRESENT 1ULL
#define MAY_READ (1ULL << 61)
#define MAY_WRITE (1ULL << 62)
#define MAY_BOTH (MAY_READ | MAY_WRITE)
#define ADDRESS_MASK 0x000ffffffffff000ULL

/* Entries for the buses 0 to 2, and for none further */
#define TABLE_PAGES 8
#define DTE_WORDS 4
#define DTES (TABLE_PAGES * PAGE / 8 / DTE_WORDS)

static volatile uint8_t *registers;
static uint64_t devices, commands, events, status, table, other_table;
static unsigned int tail;

static uint64_t unit_address(void)
{
	unsigned char data[IVRS_BLOCK + IVHD_BASE + 8];
	uint64_t address;

	if (table_read("IVRS", data, sizeof(data)) != sizeof(data) ||
	    !memchr(IVHD_TYPES, data[IVRS_BLOCK], sizeof(IVHD_TYPES) - 1))
		give_up("the IVRS table does not begin with an IOMMU");
	memcpy(&address, data + IVRS_BLOCK + IVHD_BASE, sizeof(address));
	return address;
}

static void put(uint64_t low, uint64_t high)
{
	pool_at(commands + tail)[0] = low;
	pool_at(commands + tail)[1] = high;
	tail = (tail + 16) % PAGE;
}

/* A command, and a wait for it */
static void submit(unsigned int code, uint64_t low, uint64_t high)
{
	*pool_at(status) = 0;
	put(low | (uint64_t)code << 60, high);
	put(status | 1 | 1ULL << 60, 1);
	write64(registers, COMMAND_TAIL, tail);
	for (int i = 0; i < 1000; i++) {
		if (*pool_at(status) == 1)
			return;
		usleep(1000);
	}
	give_up("command %u is not executed, status 0x%08x", code, read32(registers, STATUS));
}

static void flush_device(unsigned int id)
{
	submit(2, id, 0);
}

static void flush_page(int domain, uint64_t iova)
{
	submit(3, (uint64_t)domain << 32, iova);
}

/* All pages of a domain: the largest size, and the tables as well */
static void flush_domain(int domain)
{
	submit(3, (uint64_t)domain << 32, 0x7ffffffffffff000ULL | 3);
}

static volatile uint64_t *entry_at(uint64_t from, uint64_t iova, int leaf)
{
	uint64_t at = from;

	for (int level = 3;; level--) {
		volatile uint64_t *entry = pool_at(at) + (iova >> (3 + level * 9) & 0x1ff);

		if (level == leaf)
			return entry;
		if (!*entry)
			*entry = pool_page() | MAY_BOTH | MODE(level - 1) | PRESENT;
		at = *entry & ADDRESS_MASK;
	}
}

static void set_page(uint64_t iova, uint64_t address, int access)
{
	uint64_t rights = access == READ_WRITE ? MAY_BOTH : MAY_READ;

	*entry_at(table, iova, 1) = access ? address | rights | PRESENT : 0;
}

static void map_large(uint64_t iova, uint64_t address)
{
	*entry_at(table, iova, 2) = address | MAY_BOTH | PRESENT;
}

/* An entry that translates by a table; mode 0 if it has none. */
static void set_device(unsigned int id, uint64_t tables, int levels)
{
	volatile uint64_t *words = pool_at(devices) + id * DTE_WORDS;

	words[1] = DOMAIN;
	words[0] = tables | MODE(levels) | MAY_BOTH | DTE_TRANSLATION | DTE_VALID;
}

static void flush_both(unsigned int id)
{
	flush_device(id);
	flush_domain(DOMAIN);
}

/* All others are valid, and have nothing: no translation, no rights. */
static void block_all(void)
{
	for (unsigned int id = 0; id < DTES; id++) {
		volatile uint64_t *words = pool_at(devices) + id * DTE_WORDS;

		words[0] = DTE_TRANSLATION | DTE_VALID;
		words[1] = OTHER_DOMAIN;
		words[2] = words[3] = 0;
	}
}

static void only(unsigned int id)
{
	block_all();
	set_device(id, table, 3);
	flush_both(id);
	flush_both(bridged.id);
	flush_both(plain.id);
	flush_domain(OTHER_DOMAIN);
}

static void begin(void)
{
	uint64_t features;

	registers = registers_open(unit_address(), 4 * PAGE);
	features = read64(registers, FEATURES);
	row("efr", "read", "0x%016llx", (unsigned long long)features);
	if (read64(registers, CONTROL) & CONTROL_ENABLE)
		give_up("the kernel uses the IOMMU");
	devices = pool_page();
	for (int i = 1; i < TABLE_PAGES; i++)
		pool_page();
	table = pool_page();
	other_table = pool_page();
	commands = pool_page();
	events = pool_page();
	status = pool_page();
	block_all();
	set_device(plain.id, table, 3);
	write64(registers, DEVICE_TABLE, devices | (TABLE_PAGES - 1));
	write64(registers, COMMANDS, commands | ENTRIES);
	write64(registers, EVENTS, events | ENTRIES);
	write64(registers, COMMAND_HEAD, 0);
	write64(registers, COMMAND_TAIL, 0);
	write64(registers, EVENT_HEAD, 0);
	write64(registers, EVENT_TAIL, 0);
	write64(registers, CONTROL, CONTROL_ENABLE | CONTROL_EVENTS | CONTROL_COMMANDS);
	flush_both(plain.id);
}

/*
 * What the log got since the last time, and how it is announced: events are written in
 * order, and the buffer was zeros.
 */
static void row_of_event(const char *name, int has_requester)
{
	static uint64_t known, known_tail;
	volatile uint64_t *event = pool_at(events + known);
	uint64_t now = read64(registers, EVENT_TAIL);
	const char *word = "recorded";

	if (!event[0] && !event[1]) {
		row(name, "silent", "no event, status 0x%08x", read32(registers, STATUS));
		return;
	}
	if (now == known_tail)
		word = "not-announced";
	else if (has_requester && (event[0] & 0xffff) != plain.id)
		word = "other-requester";
	row(name, word, "event 0x%016llx 0x%016llx, tail 0x%llx", (unsigned long long)event[0],
	    (unsigned long long)event[1], (unsigned long long)now);
	known_tail = now;
	while (known < PAGE && (pool_at(events + known)[0] || pool_at(events + known)[1]))
		known += 16;
}

/* Of a write to an address that leads to a page once it is let through */
static void fault(const char *name, uint64_t iova, int which)
{
	if (writes(&plain, iova, which))
		give_up("0x%llx is reached, and is no fault", (unsigned long long)iova);
	row_of_event(name, 1);
}

/* Whether the log works at all. The IOMMU takes no command any more after that. */
static void unknown_command(void)
{
	put(0xfULL << 60, 0);
	write64(registers, COMMAND_TAIL, tail);
	usleep(100000);
	row_of_event("event-log", 0);
}

/* The fault of a requester that has nothing at all: an entry without a table and rights */
static void blocked(void)
{
	pool_at(devices)[plain.id * DTE_WORDS] = DTE_TRANSLATION | DTE_VALID;
	flush_both(plain.id);
	fault("fault-blocked", IOVA_CONTROL, TARGET_CONTROL);
	set_device(plain.id, table, 3);
	flush_both(plain.id);
	if (!writes(&plain, IOVA_CONTROL, TARGET_CONTROL))
		give_up("the table is not in force again");
}

/* Does a device table entry have an effect before it is invalidated? */
static void device_table(void)
{
	int before, after, back;

	*entry_at(other_table, IOVA_SWITCH, 1) = target(TARGET_OTHER) | MAY_BOTH | PRESENT;
	set_page(IOVA_SWITCH, target(TARGET_TEST), READ_WRITE);
	if (!writes(&plain, IOVA_SWITCH, TARGET_TEST))
		give_up("the page for the switch is not reached");
	set_device(plain.id, other_table, 3);
	flush_domain(DOMAIN);
	before = writes(&plain, IOVA_SWITCH, TARGET_TEST);
	row("context-cache", before ? "cached" : "not-cached",
	    "with another table in the device table entry, the old one is %s",
	    before ? "in force" : "not in force");
	flush_both(plain.id);
	after = writes(&plain, IOVA_SWITCH, TARGET_OTHER);
	set_device(plain.id, table, 3);
	flush_both(plain.id);
	back = writes(&plain, IOVA_SWITCH, TARGET_TEST);
	row("context-flush", after && back ? "yes" : "no",
	    "after invalidation of this device's entry the new table is %s",
	    after && back ? "in force" : "not in force");
}

static void passthrough(void)
{
	int reached, still;

	set_device(plain.id, 0, 0);
	flush_both(plain.id);
	reached = writes(&plain, target(TARGET_OTHER), TARGET_OTHER);
	row("passthrough", reached ? "yes" : "no", "memory at its own address is %s",
	    reached ? "reached" : "not reached");
	set_device(plain.id, table, 3);
	flush_domain(DOMAIN);
	still = writes(&plain, target(TARGET_OTHER), TARGET_OTHER);
	if (!still) {
		row("passthrough-end", "iotlb", "the first invalidation after which it is blocked");
		return;
	}
	flush_both(plain.id);
	still = writes(&plain, target(TARGET_OTHER), TARGET_OTHER);
	row("passthrough-end", still ? "none" : "context", "%s",
	    still ? "it reaches everything whatever is invalidated" :
	    "the first invalidation after which it is blocked");
}

/* The range that devices reach whatever their table says, if the unit has it */
static void exclusion(void)
{
	uint64_t address = target(TARGET_OTHER);
	int before, after;

	before = writes(&plain, address, TARGET_OTHER);
	write64(registers, EXCLUSION_LIMIT, address);
	write64(registers, EXCLUSION_BASE, address | EXCLUSION_ALLOW_ALL | EXCLUSION_ENABLE);
	flush_both(plain.id);
	after = writes(&plain, address, TARGET_OTHER);
	write64(registers, EXCLUSION_BASE, 0);
	if (before)
		give_up("memory that is not mapped is reached before the exclusion range");
	row("exclusion", after ? "yes" : "ignored", "memory in the range is %s",
	    after ? "reached" : "not reached");
}

void amd(void)
{
	static const struct iommu iommu = {
		set_page, map_large, flush_page, flush_domain, only,
	};

	begin();
	ask_common(&iommu);
	fault("fault-nothing", IOVA_NOTHING, TARGET_TEST);
	fault("fault-read-only", IOVA_READ_ONLY, TARGET_TEST);
	blocked();
	device_table();
	passthrough();
	exclusion();
	ask_alias(&iommu);
	unknown_command();
	write64(registers, CONTROL, 0);
}
