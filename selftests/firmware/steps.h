/* SPDX-License-Identifier: GPL-2.0-only */
/* What the parts of the program share; steps.c says what it does. */
#ifndef STEPS_H
#define STEPS_H

#include <stdint.h>
#include <stdio.h>

#define DEVICES "/sys/bus/pci/devices"

/*
 * How a step ends: with one word, and perhaps more for people. Negative error
 * numbers become the word EINVAL and the like, 0 becomes ok.
 */
void say(const char *word, const char *format, ...) __attribute__((format(printf, 2, 3)));
void say_word(const char *word);
void say_error(int error, const char *where);

/* A file of sysfs: 0 or a negative error number; the text has no newline. */
int read_text(const char *path, char *text, size_t size);
int write_text(const char *path, const char *text);

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

/* edu.c: whether the device's DMA engine can write to memory */
void dma(const char *device, uint64_t address, volatile uint32_t *memory);
void dma_remember(const char *device);

/*
 * The same in parts: registers, NULL and errno if they cannot be reached; a write of
 * four zeros; whether it is still to come. Memory by its physical address.
 */
volatile uint8_t *dma_open(const char *device);
void dma_close(volatile uint8_t *bar);
/* 1 if a write would get as far as the IOMMU; 0 and why if not. Nothing is changed. */
int dma_alive(const char *device, char *why, size_t size);
void dma_start(volatile uint8_t *bar, uint64_t address);
int dma_busy(volatile uint8_t *bar);
int dma_reaches(volatile uint8_t *bar, uint64_t address, volatile uint32_t *memory);
/* Whether the device, and all above it, can write: 1, or 0 and why not */
int dma_alive(const char *device, char *why, size_t size);
volatile uint32_t *memory_open(uint64_t address);
void memory_close(volatile uint32_t *memory);

/* config.c: the command registers of a device and of the bridges above it */
int config_command(const char *device, uint16_t *command);
int config_ready(const char *device, char *why, size_t size);
void config_remember(const char *device);

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
/* Have the device write to what is mapped for another one that is claimed, or for itself */
void dma_mapped(const char *device, const char *owned, uint64_t iova);

#endif
