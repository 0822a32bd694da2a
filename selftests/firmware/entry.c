// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the IOMMU is told to do with a requester ID: the device table of AMD's, read
 * through /dev/mem. For devices of which the DMA engine is no oracle. The registers
 * and the entries are those of the AMD I/O Virtualization Technology (IOMMU)
 * Specification, sections 2.2.2 and 3.4, the table is in 5.2.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "steps.h"

#define IVRS ROOT "/sys/firmware/acpi/tables/IVRS"
/* The first block of the table, if it describes an IOMMU, and in it the registers' place */
#define IVRS_BLOCK 48
#define IVHD_BASE 8
#define IVHD_TYPES "\x10\x11\x40"

#define PAGE 0x1000ULL
#define ADDRESS_MASK 0x000ffffffffff000ULL
/* Register 0: where the device table is, and how many pages it has but one */
#define TABLE_PAGES(value) (((value) & 0x1ff) + 1)

#define DTE_SIZE 32
#define DTE_V (1ULL << 0)
#define DTE_TV (1ULL << 1)
#define DTE_MODE(value) ((value) >> 9 & 7)
#define DTE_GV (1ULL << 55)
/* Permit reads and writes, also without page tables (mode 0) */
#define DTE_IR (1ULL << 61)
#define DTE_IW (1ULL << 62)

/* Read 8 bytes of memory; -EPERM where the kernel lets nobody look at its own. */
static int read_memory(uint64_t address, uint64_t *value)
{
	int fd = open(MEMORY, O_RDONLY | O_SYNC | O_CLOEXEC);
	void *page;

	if (fd == -1)
		return -errno;
	page = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, address & ~(PAGE - 1));
	close(fd);
	if (page == MAP_FAILED)
		return -errno;
	*value = *(volatile uint64_t *)((char *)page + (address & (PAGE - 1)));
	munmap(page, PAGE);
	return 0;
}

/* Where the registers of the only IOMMU are */
static int find_registers(uint64_t *address)
{
	unsigned char block[IVHD_BASE + 8];
	int fd = open(IVRS, O_RDONLY | O_CLOEXEC);
	ssize_t length;

	if (fd == -1)
		return -errno;
	length = pread(fd, block, sizeof(block), IVRS_BLOCK);
	close(fd);
	if (length != sizeof(block) || !memchr(IVHD_TYPES, block[0], sizeof(IVHD_TYPES) - 1))
		return -ENODEV;
	memcpy(address, block + IVHD_BASE, sizeof(*address));
	return 0;
}

static const char *meaning(uint64_t dte)
{
	if (!(dte & DTE_V))
		return "IDENTITY";
	if (!(dte & DTE_TV))
		return "BLOCKED";
	if (DTE_MODE(dte) || dte & DTE_GV)
		return "PAGES";
	return dte & (DTE_IR | DTE_IW) ? "IDENTITY" : "BLOCKED";
}

/* What the entry of a device says, or that of the bus that a bridge makes it look like */
void entry(const char *device, int alias)
{
	unsigned int bus, slot, function, id;
	uint64_t registers = 0, table = 0, dte = 0;
	int ret;

	if (sscanf(device, "%*x:%x:%x.%x", &bus, &slot, &function) != 3) {
		say_error(-EINVAL, device);
		return;
	}
	id = alias ? bus << 8 : bus << 8 | slot << 3 | function;
	ret = find_registers(&registers);
	if (!ret)
		ret = read_memory(registers, &table);
	if (!ret && (id + 1) * DTE_SIZE > TABLE_PAGES(table) * PAGE)
		ret = -ERANGE;
	if (!ret)
		ret = read_memory((table & ADDRESS_MASK) + id * DTE_SIZE, &dte);
	if (ret == -EPERM || ret == -EACCES)
		say("UNSEEN", "this kernel lets nobody look at its memory through /dev/mem");
	else if (ret)
		say_error(ret, "the device table");
	else
		say(meaning(dte), "0x%04x: 0x%016llx", id, (unsigned long long)dte);
}
