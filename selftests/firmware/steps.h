/* SPDX-License-Identifier: GPL-2.0-only */
/* What the parts of the program share; steps.c says what it does. */
#ifndef STEPS_H
#define STEPS_H

#include <stdint.h>
#include <stdio.h>

/* Tests of the program have a machine of files somewhere else. */
#ifndef ROOT
#define ROOT ""
#endif

#define DEVICES ROOT "/sys/bus/pci/devices"
#define GROUPS ROOT "/sys/kernel/iommu_groups"
#define RESCAN ROOT "/sys/bus/pci/rescan"
#define MEMORY ROOT "/dev/mem"

/*
 * How a step ends: with one word, and perhaps more for people. Negative error
 * numbers become the word EINVAL and the like, 0 becomes ok.
 */
void say(const char *word, const char *format, ...) __attribute__((format(printf, 2, 3)));
void say_word(const char *word);
void say_error(int error, const char *where);
/* The word of a negative error number */
const char *word_of(int error);

/* A file of sysfs (text.c): 0 or a negative error number; the text has no newline. */
int read_text(const char *path, char *text, size_t size);
int write_text(const char *path, const char *text);
int read_and_close(int fd, char *text, size_t size);
int write_and_close(int fd, const char *text);

/*
 * folder.c: the same for a file of a device; a descriptor, or -1 and errno; whether the
 * kernel sees it, and whether it has such a file. Have the kernel look for devices, and
 * say that others may be there.
 */
int device_read(const char *device, const char *name, char *text, size_t size);
int device_write(const char *device, const char *name, const char *text);
int device_open(const char *device, const char *name, int flags);
int device_has(const char *device, const char *name);
int is_there(const char *device);
int find_all(void);
void folders_changed(void);

/* The last part of what a symbolic link of the device points to: 0 or a negative error number */
int read_link(const char *device, const char *name, char *target, size_t size);

/* The number of the step, and how a line of a script is done */
extern int number;
void do_line(char *line);

/* serve.c: the lines come over a port */
int serve(const char *name);
void watch(const char *device);

/* look.c: several devices write at once */
void look(char **words, int count);

/* The number of a device's IOMMU group, or a negative error number */
int group_of(const char *device);

/* Have the kernel forget a device; 0 or a negative error number */
int remove_device(const char *device);

/* fail.c: find a device again while memory runs out in a function */
void rescan_with_faults(const char *device, uint64_t address, const char *function);
/* ... or have its nth allocation fail in what follows, and ask whether it did */
void fail(const char *function, const char *nth);
void failed(void);

/* What memory holds before a write of zeros */
#define PATTERN 0xa5a5a5a5

/*
 * edu.c: whether the device's DMA engine can write to memory, of which memory is our
 * view, NULL for /dev/mem. Before that it is remembered while the kernel has it.
 */
struct outcome {
	const char *word;
	char more[300];
};

void dma(const char *device, uint64_t address, volatile uint32_t *memory);
void dma_try(const char *device, uint64_t address, volatile uint32_t *memory, struct outcome *out);
void dma_remember(const char *device);
void dma_found_again(void);
/* Switch it on, with the bridges above it, if no driver has it */
int dma_prepare(const char *device);

/*
 * The same in parts: registers, NULL and errno if they cannot be reached; a write of
 * four zeros; whether it is still to come. Memory by its physical address.
 */
volatile uint8_t *dma_open(const char *device);
void say_unopened(const char *device, int error);
void dma_close(volatile uint8_t *bar);
/* 1 if a write would get as far as the IOMMU; 0 and why if not. Nothing is changed. */
int dma_alive(const char *device, char *why, size_t size);
int dma_ready(const char *device, volatile uint8_t *bar, char *why, size_t size);
void dma_start(volatile uint8_t *bar, uint64_t address);
int dma_busy(volatile uint8_t *bar);
int dma_reaches(volatile uint8_t *bar, uint64_t address, volatile uint32_t *memory);
volatile uint32_t *memory_open(uint64_t address);
void memory_close(volatile uint32_t *memory);

/*
 * config.c: the command registers of a device and of the bridges above it. To switch
 * them on: if no driver is bound, and at the step enable. Else they are only read.
 */
int config_command(const char *device, uint16_t *command);
int config_ready(const char *device, char *why, size_t size);
void config_remember(const char *device);
int config_prepare(const char *device);
void enable(const char *device);
/* Find a device again on another bus */
void renumber(const char *device, unsigned char bus);

/* known.c: the kind of the reserved region that begins at an address, or none */
int read_group_file(int group, const char *name, char *text, size_t size);
int read_group(const char *device, const char *name, char *text, size_t size);
int region_kind(const char *device, uint64_t address, char *kind, size_t size);

/* ... and a word that the device reaches in its state; no memory if there is none */
struct known {
	const char *what;
	uint64_t address;
	volatile uint32_t *memory;
	uint32_t value;
	int physical;
};

void known_open(const char *device, uint64_t address, struct known *known);
void known_close(struct known *known);

/* log.c: say whether the kernel's log has a text: since log_listen(), or since the boot */
int log_listen(void);
void log_message(const char *text);
void log_boot_message(const char *text);

/* switch.c: change the type of its group while it writes */
void switch_type(const char *device, const char *type, uint64_t address, const char *back);

/* pages.c: remove a device and find it again so often, and count the pages that it costs */
void removals(const char *device, int rounds);

/* entry.c: what the IOMMU's table has for the device, or for its alias */
void entry(const char *device, int alias);

/* claim.c: devices as userspace owns them */
void claim(const char *how, const char *device, int whole);
void release(const char *device);
void map(const char *device, uint64_t iova, uint64_t size);
int is_claimed(const char *device);
/* Our view of what is mapped there for a device that is claimed, or NULL */
volatile uint32_t *mapped(const char *device, uint64_t iova);
/* What this program has: a device's file, a group, memory that is mapped for a device */
int is_open(const char *device);
int is_group_owned(int group);
volatile uint32_t *mapped_word(const char *device, uint64_t *iova, uint64_t *begin);
/* Have the device write to what is mapped for another one that is claimed, or for itself */
void dma_mapped(const char *device, const char *owned, uint64_t iova);

#endif
