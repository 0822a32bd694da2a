/* SPDX-License-Identifier: GPL-2.0-only */
/* What the parts of the program share; main.c says what it does. */
#ifndef CALIBRATE_H
#define CALIBRATE_H

#include <stdint.h>

#include "../firmware/steps.h"

#define PAGE 0x1000ULL

/*
 * Memory that the kernel is told to leave alone: the IOMMU's tables at its begin, what
 * devices write to at its end. Aligned to 2 MiB, so that one large entry maps all of it.
 */
#define POOL_SIZE 0x200000ULL
extern uint64_t pool_address;
/* A page of zeros, and its physical address; a pointer to what is at an address of the pool */
uint64_t pool_page(void);
volatile uint64_t *pool_at(uint64_t address);
/* Pages that devices write to */
enum { TARGET_CONTROL, TARGET_TEST, TARGET_OTHER, TARGETS };
uint64_t target(int which);
volatile uint32_t *target_word(int which);

/* The devices, as sysfs names them; bridged is behind a PCIe-to-PCI bridge. */
struct device {
	const char *name;
	unsigned int id;
	volatile uint8_t *bar;
};
extern struct device plain, bridged;
extern unsigned int bridge_id;
int open_device(struct device *device, const char *name);

/*
 * Whether a device's write to an address gets to a page: 1 or 0. The program ends if its
 * engine does not work.
 */
int writes(struct device *device, uint64_t iova, int which);

/* One measured row: its name, the answer in one word, and what was seen */
void row(const char *name, const char *answer, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* The program cannot go on */
void give_up(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* Registers of an IOMMU */
volatile uint8_t *registers_open(uint64_t address, size_t size);
uint32_t read32(volatile uint8_t *registers, unsigned int offset);
uint64_t read64(volatile uint8_t *registers, unsigned int offset);
void write32(volatile uint8_t *registers, unsigned int offset, uint32_t value);
void write64(volatile uint8_t *registers, unsigned int offset, uint64_t value);
/* The first bytes of a firmware table, as many as there are */
size_t table_read(const char *signature, unsigned char *data, size_t size);

/*
 * What all IOMMUs are asked, in terms that both have; vtd.c and amd.c know how. Mappings
 * are in one table, which each of our devices uses; an entry of 0 maps nothing.
 */
#define DOMAIN 1
#define OTHER_DOMAIN 2
enum { READ_WRITE = 3, READ_ONLY = 1 };
/* Where pages and the large page are mapped; CONTROL always is. */
#define IOVA_CONTROL 0x80000000ULL
#define IOVA_TEST 0x80001000ULL
#define IOVA_LATE 0x80002000ULL
#define IOVA_READ_ONLY 0x80003000ULL
#define IOVA_NOTHING 0x80004000ULL
#define IOVA_SNOOP 0x80005000ULL
#define IOVA_SWITCH 0x80006000ULL
#define IOVA_LARGE 0xc0000000ULL

struct iommu {
	void (*map)(uint64_t iova, uint64_t address, int access);
	void (*map_large)(uint64_t iova, uint64_t address);
	void (*flush_page)(int domain, uint64_t iova);
	void (*flush_domain)(int domain);
	/* The only requester that has the table; the others have nothing. Flushed. */
	void (*only)(unsigned int id);
};

void ask_common(const struct iommu *iommu);
void ask_alias(const struct iommu *iommu);

void vtd(void);
void amd(void);
void kernel(const char *endpoint);

/* msi.c: VT-d with its interrupt remapping on, and a table of it that is empty so far */
void msi_open(struct device *device);
/* Raise one: whether a processor gets it. It is for a vector that nothing handles. */
int msi_arrives(struct device *device, uint32_t address, uint32_t data);
void msi_close(struct device *device);
#define MSI_VECTOR 0x99

#endif
