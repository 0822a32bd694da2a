// SPDX-License-Identifier: GPL-2.0-only
/*
 * Intel's VT-d, driven by this program: legacy and scalable mode. Registers, tables and
 * descriptors are those of the Intel Virtualization Technology for Directed I/O
 * Architecture Specification, chapters 6, 9 and 11.
 */
#include <string.h>
#include <unistd.h>

#include "calibrate.h"

/* The first structure of the table is the only remapping unit. */
#define DMAR_FIRST 48
#define DRHD_BASE 8

#define CAP 0x08
#define CAP_LARGE(cap) ((cap) >> 34 & 1)
#define CAP_FAULTS(cap) (((cap) >> 24 & 0x3ff) * 16)
#define ECAP 0x10
#define ECAP_IR (1ULL << 3)
#define ECAP_SMTS (1ULL << 43)
#define GCMD 0x18
#define GSTS 0x1c
#define GSTS_LASTING 0x96ffffff
#define GCMD_TE (1U << 31)
#define GCMD_SRTP (1U << 30)
#define GCMD_QIE (1U << 26)
#define GCMD_IRE (1U << 25)
#define GCMD_SIRTP (1U << 24)
#define RTADDR 0x20
#define RTADDR_SCALABLE (1ULL << 10)
#define FSTS 0x34
#define FSTS_PPF (1U << 1)
#define FSTS_INDEX(value) ((value) >> 8 & 0xff)
#define IQT 0x88
#define IQA 0x90
#define IQA_WIDE (1ULL << 11)
#define IRTA 0xb8

#define PRESENT 1ULL
#define TT_PASSTHROUGH (2ULL << 2)
/* 39 bits: three levels */
#define WIDTH 1ULL
#define SNOOP (1ULL << 11)
#define LARGE (1ULL << 7)
/* In the first stage, whose two other rights are presence and writing */
#define USER (1ULL << 2)

/* The PASID that requests without one have */
#define RID_PASID 1
#define PGTT(type) ((uint64_t)(type) << 6)
#define FIRST_STAGE 1
#define SECOND_STAGE 2
#define PASSTHROUGH 4

static volatile uint8_t *registers;
static int scalable;
static uint64_t cap, ecap, root, contexts[2], queue, status;
/* The page table, and another one that only maps the control page elsewhere */
static uint64_t table, other_table, pasids;
static unsigned int tail;

static uint64_t unit_address(void)
{
	unsigned char data[DMAR_FIRST + 16];
	uint64_t address;

	if (table_read("DMAR", data, sizeof(data)) != sizeof(data) || data[DMAR_FIRST])
		give_up("the DMAR table does not begin with a remapping unit");
	memcpy(&address, data + DMAR_FIRST + DRHD_BASE, sizeof(address));
	return address;
}

static void command(uint32_t bit, uint32_t want)
{
	uint32_t now = read32(registers, GSTS) & GSTS_LASTING;

	write32(registers, GCMD, want ? now | bit : now & ~bit);
	for (int i = 0; i < 1000; i++) {
		if (!!(read32(registers, GSTS) & bit) == !!want)
			return;
		usleep(1000);
	}
	give_up("bit 0x%08x of the command register is not taken", bit);
}

/* One descriptor, and a wait for it: the queue has 256 bits for each in scalable mode. */
static void submit(uint64_t low, uint64_t high)
{
	const uint64_t wait[2] = { 5 | 1 << 5 | 1ULL << 32, status };
	unsigned int size = scalable ? 32 : 16;
	volatile uint64_t *words;

	*pool_at(status) = 0;
	for (int i = 0; i < 2; i++) {
		words = pool_at(queue + tail);
		words[0] = i ? wait[0] : low;
		words[1] = i ? wait[1] : high;
		if (scalable)
			words[2] = words[3] = 0;
		tail = (tail + size) % PAGE;
	}
	write64(registers, IQT, tail);
	for (int i = 0; i < 1000; i++) {
		if (*(volatile uint32_t *)pool_at(status) == 1)
			return;
		usleep(1000);
	}
	give_up("descriptor 0x%llx is not executed, fault status 0x%08x",
		(unsigned long long)low, read32(registers, FSTS));
}

static void flush_contexts(void)
{
	submit(1 | 1 << 4, 0);
}

static void flush_context(unsigned int id)
{
	submit(1 | 3 << 4 | DOMAIN << 16 | (uint64_t)id << 32, 0);
}

static void flush_all(void)
{
	submit(2 | 1 << 4, 0);
}

static void flush_domain(int domain)
{
	submit(2 | 2 << 4 | (uint64_t)domain << 16, 0);
}

static void flush_page(int domain, uint64_t iova)
{
	submit(2 | 3 << 4 | (uint64_t)domain << 16, iova);
}

static void flush_pasid_cache(void)
{
	submit(7 | 3 << 4, 0);
	submit(7 | 1 << 4 | DOMAIN << 16 | (uint64_t)RID_PASID << 32, 0);
	submit(6 | 2 << 4 | DOMAIN << 16 | (uint64_t)RID_PASID << 32, 0);
}

/* The entry for an address, at a level: the leaf of pages is at level 1. */
static volatile uint64_t *entry_at(uint64_t from, uint64_t iova, int leaf)
{
	uint64_t at = from;

	for (int level = 3;; level--) {
		volatile uint64_t *entry = pool_at(at) + (iova >> (3 + level * 9) & 0x1ff);

		if (level == leaf)
			return entry;
		if (!*entry)
			*entry = pool_page() | READ_WRITE;
		at = *entry & ~(PAGE - 1);
	}
}

static void set_page(uint64_t iova, uint64_t address, int access)
{
	*entry_at(table, iova, 1) = address | access;
}

static void map_large(uint64_t iova, uint64_t address)
{
	*entry_at(table, iova, 2) = address | LARGE | READ_WRITE;
}

/* The context entry of a requester, which is in one of two tables: of bus 0, and of any other */
static volatile uint64_t *context(unsigned int id)
{
	volatile uint64_t *roots = pool_at(root) + (id >> 8) * 2;
	uint64_t *page = &contexts[!!(id >> 8)];

	if (!*page)
		*page = pool_page();
	if (!scalable) {
		roots[0] = *page | PRESENT;
		return pool_at(*page) + (id & 0xff) * 2;
	}
	if (id & 0x80)
		give_up("the requester 0x%04x needs the upper table", id);
	roots[0] = *page | PRESENT;
	return pool_at(*page) + (id & 0x7f) * 4;
}

static volatile uint64_t *pasid_entry(void)
{
	return pool_at(*pool_at(pasids) & ~(PAGE - 1)) + RID_PASID * 8;
}

static void set_context(unsigned int id, uint64_t tables, uint64_t type)
{
	volatile uint64_t *words = context(id);

	if (scalable) {
		words[1] = RID_PASID;
		words[0] = pasids | PRESENT;
	} else {
		words[1] = WIDTH | DOMAIN << 8;
		words[0] = tables | type | PRESENT;
	}
}

static void set_pasid(unsigned int type, uint64_t tables)
{
	volatile uint64_t *words = pasid_entry();

	words[1] = DOMAIN;
	words[2] = type == FIRST_STAGE ? tables : 0;
	words[0] = (type == SECOND_STAGE ? tables | WIDTH << 2 : WIDTH << 2) | PGTT(type) | PRESENT;
}

static void only(unsigned int id)
{
	for (int i = 0; i < 2; i++)
		if (contexts[i])
			memset((void *)pool_at(contexts[i]), 0, PAGE);
	set_context(id, table, 0);
	flush_contexts();
	flush_all();
}

static void begin(void)
{
	registers = registers_open(unit_address(), PAGE);
	cap = read64(registers, CAP);
	ecap = read64(registers, ECAP);
	scalable = !!(ecap & ECAP_SMTS);
	row("cap", "read", "0x%016llx", (unsigned long long)cap);
	row("ecap", "read", "0x%016llx", (unsigned long long)ecap);
	if (read32(registers, GSTS) & (GCMD_TE | GCMD_QIE | GCMD_IRE))
		give_up("the kernel uses the IOMMU, its status is 0x%08x", read32(registers, GSTS));
	root = pool_page();
	table = pool_page();
	other_table = pool_page();
	queue = pool_page();
	status = pool_page();
	if (scalable) {
		pasids = pool_page();
		*pool_at(pasids) = pool_page() | PRESENT;
		set_pasid(SECOND_STAGE, table);
	}
	set_context(plain.id, table, 0);
	write64(registers, IQT, 0);
	write64(registers, IQA, queue | (scalable ? IQA_WIDE : 0));
	command(GCMD_QIE, 1);
	write64(registers, RTADDR, root | (scalable ? RTADDR_SCALABLE : 0));
	command(GCMD_SRTP, 1);
	flush_contexts();
	flush_all();
	command(GCMD_TE, 1);
}

/* The record of the last fault: what is wrong, and with whom. None: 0. */
static int last_fault(unsigned int *reason, unsigned int *requester)
{
	uint32_t now = read32(registers, FSTS);
	unsigned int offset = CAP_FAULTS(cap) + FSTS_INDEX(now) * 16;
	uint64_t high;

	if (!(now & FSTS_PPF))
		return 0;
	high = read64(registers, offset + 8);
	*reason = high >> 32 & 0xff;
	*requester = high & 0xffff;
	return 1;
}

static void clear_faults(void)
{
	unsigned int count = (cap >> 40 & 0xff) + 1;

	for (unsigned int i = 0; i < count; i++)
		write32(registers, CAP_FAULTS(cap) + i * 16 + 12, 1U << 31);
	write32(registers, FSTS, 0x7d);
}

/* Of a write to an address that leads to a page once it is let through */
static void fault(const char *name, uint64_t iova, int which)
{
	unsigned int reason = 0, requester = 0;
	int recorded;

	clear_faults();
	if (writes(&plain, iova, which))
		give_up("0x%llx is reached, and is no fault", (unsigned long long)iova);
	recorded = last_fault(&reason, &requester);
	if (recorded)
		row(name, requester == plain.id ? "recorded" : "other-requester",
		    "reason 0x%02x, requester 0x%04x", reason, requester);
	else
		row(name, "silent", "no record");
	clear_faults();
}

/* The fault of a requester that has nothing at all: no context entry */
static void blocked(void)
{
	volatile uint64_t *words = context(plain.id);

	words[0] = 0;
	flush_context(plain.id);
	flush_all();
	fault("fault-blocked", IOVA_CONTROL, TARGET_CONTROL);
	set_context(plain.id, table, 0);
	flush_context(plain.id);
	flush_all();
	if (!writes(&plain, IOVA_CONTROL, TARGET_CONTROL))
		give_up("the table is not in force again");
}

/* A bit that is reserved where the unit does not control snooping */
static void snoop(void)
{
	int reached;

	set_page(IOVA_SNOOP, target(TARGET_TEST) | SNOOP, READ_WRITE);
	reached = writes(&plain, IOVA_SNOOP, TARGET_TEST);
	row("snoop", reached ? "accepted" : "reserved",
	    "a page with the snoop bit is %s, the unit %s snoop control",
	    reached ? "reached" : "not reached", ecap >> 7 & 1 ? "has" : "does not have");
	set_page(IOVA_SNOOP, 0, 0);
	flush_page(DOMAIN, IOVA_SNOOP);
}

/* In legacy mode: does a context entry have an effect before it is invalidated? */
static void context_cache(void)
{
	int before, after, back;

	*entry_at(other_table, IOVA_SWITCH, 1) = target(TARGET_OTHER) | READ_WRITE;
	set_page(IOVA_SWITCH, target(TARGET_TEST), READ_WRITE);
	if (!writes(&plain, IOVA_SWITCH, TARGET_TEST))
		give_up("the page for the switch is not reached");
	set_context(plain.id, other_table, 0);
	flush_all();
	before = writes(&plain, IOVA_SWITCH, TARGET_TEST);
	row("context-cache", before ? "cached" : "not-cached",
	    "with another table in the context entry, the old one is %s",
	    before ? "in force" : "not in force");
	flush_context(plain.id);
	flush_all();
	after = writes(&plain, IOVA_SWITCH, TARGET_OTHER);
	set_context(plain.id, table, 0);
	flush_context(plain.id);
	flush_all();
	back = writes(&plain, IOVA_SWITCH, TARGET_TEST);
	row("context-flush", after && back ? "yes" : "no",
	    "after invalidation of this device's context the new table is %s",
	    after && back ? "in force" : "not in force");
}

/* In scalable mode: the same of an entry of the PASID table */
static void pasid_cache(void)
{
	int before, after;

	*entry_at(other_table, IOVA_SWITCH, 1) = target(TARGET_OTHER) | READ_WRITE;
	set_page(IOVA_SWITCH, target(TARGET_TEST), READ_WRITE);
	if (!writes(&plain, IOVA_SWITCH, TARGET_TEST))
		give_up("the page for the switch is not reached");
	set_pasid(SECOND_STAGE, other_table);
	flush_all();
	before = writes(&plain, IOVA_SWITCH, TARGET_TEST);
	row("pasid-cache", before ? "cached" : "not-cached",
	    "with another table in the PASID entry, the old one is %s",
	    before ? "in force" : "not in force");
	flush_pasid_cache();
	flush_all();
	after = writes(&plain, IOVA_SWITCH, TARGET_OTHER);
	row("pasid-flush", after ? "yes" : "no",
	    "after invalidation of the PASID cache the new table is %s",
	    after ? "in force" : "not in force");
	set_pasid(SECOND_STAGE, table);
	flush_pasid_cache();
	flush_context(plain.id);
	flush_all();
	if (!writes(&plain, IOVA_SWITCH, TARGET_TEST))
		give_up("the first table is not in force again");
}

static void passthrough(void)
{
	int reached;

	if (scalable)
		set_pasid(PASSTHROUGH, 0);
	else
		set_context(plain.id, 0, TT_PASSTHROUGH);
	if (scalable)
		flush_pasid_cache();
	flush_context(plain.id);
	flush_all();
	reached = writes(&plain, target(TARGET_OTHER), TARGET_OTHER);
	row("passthrough", reached ? "yes" : "no", "memory at its own address is %s; ECAP.PT is %d",
	    reached ? "reached" : "not reached", (int)(ecap >> 6 & 1));
}

/* What has the unit see that a device does not pass through any more? It is at that. */
static void end_of_passthrough(void)
{
	const char *word = "none";

	if (scalable)
		set_pasid(SECOND_STAGE, table);
	else
		set_context(plain.id, table, 0);
	flush_all();
	if (!writes(&plain, target(TARGET_OTHER), TARGET_OTHER)) {
		word = "iotlb";
	} else if (scalable) {
		flush_pasid_cache();
		if (!writes(&plain, target(TARGET_OTHER), TARGET_OTHER))
			word = "pasid-cache";
	}
	if (!strcmp(word, "none")) {
		flush_context(plain.id);
		flush_all();
		if (!writes(&plain, target(TARGET_OTHER), TARGET_OTHER))
			word = "context";
	}
	if (!strcmp(word, "none")) {
		flush_contexts();
		flush_all();
		if (!writes(&plain, target(TARGET_OTHER), TARGET_OTHER))
			word = "all-contexts";
	}
	row("passthrough-end", word, "%s",
	    strcmp(word, "none") ? "the first invalidation after which it is blocked" :
	    "it reaches everything whatever is invalidated");
	if (!writes(&plain, IOVA_CONTROL, TARGET_CONTROL))
		give_up("the table is not in force again after passthrough");
}

/* A first-stage table of 4 levels, with the control page. Requests are those of a user. */
static uint64_t first_stage_table(void)
{
	uint64_t top = pool_page(), at = top, next;

	for (int level = 4; level; level--) {
		next = level > 1 ? pool_page() : target(TARGET_CONTROL);
		pool_at(at)[IOVA_CONTROL >> (3 + level * 9) & 0x1ff] = next | READ_WRITE | USER;
		at = next;
	}
	return top;
}

static void first_stage(void)
{
	int reached;

	if (!scalable)
		return;
	set_pasid(FIRST_STAGE, first_stage_table());
	flush_pasid_cache();
	flush_context(plain.id);
	flush_all();
	reached = writes(&plain, IOVA_CONTROL, TARGET_CONTROL);
	row("first-stage", reached ? "yes" : "no", "ECAP.FSTS is %d", (int)(ecap >> 47 & 1));
	set_pasid(SECOND_STAGE, table);
	flush_pasid_cache();
	flush_context(plain.id);
	flush_all();
	if (!writes(&plain, IOVA_CONTROL, TARGET_CONTROL))
		give_up("the second stage is not in force again");
}

/* An address in the format of remapping, with an index of 0; and one without */
#define MSI_REMAPPED 0xfee00010
#define MSI_DIRECT 0xfee00000
#define IRTE_VERIFY (1ULL << 18)

static void interrupts(void)
{
	int before, none, own, other = 0, direct = 0;
	uint64_t entries;

	if (!(ecap & ECAP_IR)) {
		row("interrupts", "no", "ECAP.IR is 0");
		return;
	}
	msi_open(&plain);
	before = msi_arrives(&plain, MSI_DIRECT, MSI_VECTOR);
	if (!before)
		give_up("an interrupt that is not remapped does not arrive");
	entries = pool_page();
	/* 256 entries */
	write64(registers, IRTA, entries | 7);
	command(GCMD_SIRTP, 1);
	submit(4, 0);
	command(GCMD_IRE, 1);
	none = msi_arrives(&plain, MSI_REMAPPED, 0);
	pool_at(entries)[1] = IRTE_VERIFY | plain.id;
	pool_at(entries)[0] = PRESENT | MSI_VECTOR << 16;
	submit(4, 0);
	own = msi_arrives(&plain, MSI_REMAPPED, 0);
	if (own) {
		pool_at(entries)[1] = IRTE_VERIFY | (plain.id ^ 0x100);
		submit(4, 0);
		other = msi_arrives(&plain, MSI_REMAPPED, 0);
		direct = msi_arrives(&plain, MSI_DIRECT, MSI_VECTOR);
		pool_at(entries)[1] = IRTE_VERIFY | plain.id;
		submit(4, 0);
		if (!msi_arrives(&plain, MSI_REMAPPED, 0))
			give_up("the interrupt of the right source does not arrive again");
	}
	command(GCMD_IRE, 0);
	msi_close(&plain);
	row("interrupts", !none && own ? "yes" : "no", "without an entry it %s, with one it %s",
	    none ? "arrives" : "does not arrive", own ? "arrives" : "does not arrive");
	/* What does not arrive is blocked only if the same interrupt can arrive. */
	if (!own)
		return;
	row("interrupts-source", other ? "ignored" : "verified",
	    "with an entry for another requester it %s", other ? "arrives" : "does not arrive");
	row("interrupts-direct", direct ? "delivered" : "blocked",
	    "in the format without remapping, which is not allowed, it %s",
	    direct ? "arrives" : "does not arrive");
}

void vtd(void)
{
	static const struct iommu iommu = {
		set_page, map_large, flush_page, flush_domain, only,
	};

	begin();
	ask_common(&iommu);
	fault("fault-nothing", IOVA_NOTHING, TARGET_TEST);
	fault("fault-read-only", IOVA_READ_ONLY, TARGET_TEST);
	blocked();
	snoop();
	if (scalable)
		pasid_cache();
	else
		context_cache();
	passthrough();
	end_of_passthrough();
	first_stage();
	ask_alias(&iommu);
	interrupts();
	command(GCMD_TE, 0);
}
