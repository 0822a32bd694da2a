// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a kernel with its driver sees: the registers as it shows them, and the extended
 * capabilities of devices. Those are read in sysfs.
 */
#include <fcntl.h>
#include <glob.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include <linux/pci_regs.h>

#include "calibrate.h"

#define MOST 64

static void show(const char *name, const char *pattern)
{
	char text[300];
	glob_t found;

	if (glob(pattern, 0, NULL, &found))
		return;
	if (!read_text(found.gl_pathv[0], text, sizeof(text)))
		row(name, "read", "%s%s", strspn(text, "01") == strlen(text) ? "" : "0x", text);
	globfree(&found);
}

/* The place of an extended capability in configuration space; 0 without it */
static unsigned int find(int fd, unsigned int wanted)
{
	unsigned int at = PCI_CFG_SPACE_SIZE;
	uint32_t header;

	for (int i = 0; i < MOST && at >= PCI_CFG_SPACE_SIZE; i++) {
		if (pread(fd, &header, sizeof(header), at) != sizeof(header) || !header)
			return 0;
		if (PCI_EXT_CAP_ID(header) == wanted)
			return at;
		at = PCI_EXT_CAP_NEXT(header);
	}
	return 0;
}

static void show_capability(int fd, const char *name, unsigned int id, unsigned int control,
			    uint16_t enable)
{
	unsigned int at = find(fd, id);
	uint16_t value = 0;

	if (!at) {
		row(name, "absent", "%s", "");
		return;
	}
	if (pread(fd, &value, sizeof(value), at + control) != sizeof(value))
		give_up("the capability at 0x%x cannot be read", at);
	row(name, value & enable ? "enabled" : "disabled", "the capability is at 0x%x", at);
}

/* Whether a kernel has an interrupt go through a table: it says so with each. */
static void show_interrupts(void)
{
	FILE *file = fopen(ROOT "/proc/interrupts", "re");
	char line[1000];
	int found = 0;

	while (file && !found && fgets(line, sizeof(line), file))
		found = !!strstr(line, " IR-");
	if (file)
		fclose(file);
	row("kernel-interrupts", found ? "remapped" : "direct", "in /proc/interrupts");
}

void kernel(const char *endpoint)
{
	char path[PATH_MAX];
	int fd;

	show("kernel-cap", "/sys/class/iommu/dmar0/intel-iommu/cap");
	show("kernel-ecap", "/sys/class/iommu/dmar0/intel-iommu/ecap");
	show("kernel-efr", "/sys/class/iommu/ivhd0/amd-iommu/features");
	show_interrupts();
	if (!endpoint)
		return;
	snprintf(path, sizeof(path), DEVICES "/%s/config", endpoint);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd == -1)
		give_up("there is nothing at %s", endpoint);
	show_capability(fd, "ats", PCI_EXT_CAP_ID_ATS, PCI_ATS_CTRL, PCI_ATS_CTRL_ENABLE);
	show_capability(fd, "pri", PCI_EXT_CAP_ID_PRI, PCI_PRI_CTRL, PCI_PRI_CTRL_ENABLE);
	show_capability(fd, "pasid", PCI_EXT_CAP_ID_PASID, PCI_PASID_CTRL, PCI_PASID_CTRL_ENABLE);
	close(fd);
}
