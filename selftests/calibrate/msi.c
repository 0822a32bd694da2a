// SPDX-License-Identifier: GPL-2.0-only
/*
 * An interrupt of edu as a message, to a vector that nothing handles: that the kernel
 * complains of it is how its arrival is seen.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include <linux/pci_regs.h>

#include "calibrate.h"

#define EDU_RAISE 0x60
#define EDU_ACKNOWLEDGE 0x64
#define COMPLAINT "No irq handler for "
/* From the interrupt to the message */
#define WAIT_US 200000

static int config = -1, log_fd = -1;
static unsigned int capability;

static uint16_t read_word(unsigned int at)
{
	uint16_t value = 0;

	if (pread(config, &value, sizeof(value), at) != sizeof(value))
		give_up("the configuration space: %s", strerror(errno));
	return value;
}

static void write_config(unsigned int at, const void *value, size_t size)
{
	if (pwrite(config, value, size, at) != (ssize_t)size)
		give_up("the configuration space: %s", strerror(errno));
}

static void set_control(int on)
{
	uint16_t value = read_word(capability + PCI_MSI_FLAGS) & ~PCI_MSI_FLAGS_ENABLE;

	value |= on ? PCI_MSI_FLAGS_ENABLE : 0;
	write_config(capability + PCI_MSI_FLAGS, &value, sizeof(value));
}

void msi_open(struct device *device)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), DEVICES "/%s/config", device->name);
	config = open(path, O_RDWR | O_CLOEXEC);
	log_fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (config == -1 || log_fd == -1)
		give_up("%s or /dev/kmsg: %s", path, strerror(errno));
	capability = read_word(PCI_CAPABILITY_LIST) & 0xff;
	while (capability && (read_word(capability) & 0xff) != PCI_CAP_ID_MSI)
		capability = read_word(capability) >> 8;
	if (!capability)
		give_up("%s has no MSI", device->name);
}

void msi_close(struct device *device)
{
	(void)device;
	close(config);
	close(log_fd);
}

static int complained(void)
{
	char record[8192];
	ssize_t length;
	int found = 0;

	for (;;) {
		length = read(log_fd, record, sizeof(record) - 1);
		if (length < 0 && errno == EPIPE)
			continue;
		if (length <= 0)
			return found;
		record[length] = 0;
		found |= !!strstr(record, COMPLAINT);
	}
}

int msi_arrives(struct device *device, uint32_t address, uint32_t data)
{
	const uint32_t high = 0;
	int wide;

	lseek(log_fd, 0, SEEK_END);
	set_control(0);
	wide = read_word(capability + PCI_MSI_FLAGS) & PCI_MSI_FLAGS_64BIT;
	write_config(capability + PCI_MSI_ADDRESS_LO, &address, sizeof(address));
	if (wide)
		write_config(capability + PCI_MSI_ADDRESS_HI, &high, sizeof(high));
	write_config(capability + (wide ? PCI_MSI_DATA_64 : PCI_MSI_DATA_32), &data, 2);
	set_control(1);
	write32(device->bar, EDU_RAISE, 1);
	usleep(WAIT_US);
	write32(device->bar, EDU_ACKNOWLEDGE, 1);
	set_control(0);
	return complained();
}
