// SPDX-License-Identifier: GPL-2.0-only
/*
 * Claim devices as QEMU or DPDK do: through the VFIO group and a type 1 container,
 * or through the device's own file and iommufd.
 */
#include <errno.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/pci_regs.h>
#include <linux/vfio.h>

#include "steps.h"

/*
 * The headers of the host may be older than these: include/uapi/linux/vfio.h and
 * iommufd.h have them since Linux 6.2 and 6.6.
 */
struct bind_iommufd {
	uint32_t argsz;
	uint32_t flags;
	int32_t iommufd;
	uint32_t out_devid;
};

struct attach_pt {
	uint32_t argsz;
	uint32_t flags;
	uint32_t pt_id;
};

struct ioas_alloc {
	uint32_t size;
	uint32_t flags;
	uint32_t out_ioas_id;
};

struct ioas_map {
	uint32_t size;
	uint32_t flags;
	uint32_t ioas_id;
	uint32_t reserved;
	uint64_t user_va;
	uint64_t length;
	uint64_t iova;
};

#define BIND_IOMMUFD _IO(VFIO_TYPE, VFIO_BASE + 18)
#define ATTACH_PT _IO(VFIO_TYPE, VFIO_BASE + 19)
#define IOAS_ALLOC _IO(';', 0x81)
#define IOAS_MAP _IO(';', 0x85)
#define MAP_FIXED_WRITE_READ 0x7

struct claimed {
	char device[32];
	int group_number;
	int container;
	int group;
	int device_fd;
	int iommufd;
	uint32_t ioas;
	void *buffer;
	uint64_t iova;
	uint64_t size;
};

#define NONE { .container = -1, .group = -1, .device_fd = -1, .iommufd = -1 }
#define MAX 8
static struct claimed table[MAX];
static int count;

static struct claimed *find(const char *device)
{
	for (int i = 0; i < count; i++)
		if (!strcmp(table[i].device, device))
			return &table[i];
	return NULL;
}

int is_open(const char *device)
{
	struct claimed *it = find(device);

	return it && it->device_fd != -1;
}

/* Whether this program has taken a group out of its default domain */
int is_group_owned(int group)
{
	for (int i = 0; i < count; i++)
		if (table[i].group_number == group)
			return 1;
	return 0;
}

/* The last word of the buffer that is mapped for a device, NULL if there is none */
volatile uint32_t *mapped_word(const char *device, uint64_t *iova, uint64_t *begin)
{
	struct claimed *it = find(device);

	if (!it || !it->buffer)
		return NULL;
	*begin = it->iova;
	*iova = it->iova + it->size - sizeof(uint32_t);
	return (volatile uint32_t *)((char *)it->buffer + it->size) - 1;
}

static void put(struct claimed *it)
{
	int *fds[] = { &it->device_fd, &it->group, &it->container, &it->iommufd };

	for (unsigned int i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
		if (*fds[i] != -1)
			close(*fds[i]);
		*fds[i] = -1;
	}
	if (it->buffer)
		munmap(it->buffer, it->size);
	it->buffer = NULL;
}

/* Two devices of a group have the group's file in common: it opens only once. */
static const char *open_group(struct claimed *it, int whole)
{
	char path[64];

	for (int i = 0; i < count; i++) {
		if (table[i].group != -1 && table[i].group_number == it->group_number) {
			it->group = dup(table[i].group);
			it->container = dup(table[i].container);
			return NULL;
		}
	}
	it->container = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
	if (it->container == -1)
		return "/dev/vfio/vfio";
	snprintf(path, sizeof(path), "/dev/vfio/%d", it->group_number);
	it->group = open(path, O_RDWR | O_CLOEXEC);
	if (it->group == -1)
		return "the group's file";
	if (ioctl(it->group, VFIO_GROUP_SET_CONTAINER, &it->container))
		return "VFIO_GROUP_SET_CONTAINER";
	if (whole && ioctl(it->container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU))
		return "VFIO_SET_IOMMU";
	return NULL;
}

static const char *claim_group(struct claimed *it, int whole)
{
	const char *where = open_group(it, whole);

	if (where || !whole)
		return where;
	it->device_fd = ioctl(it->group, VFIO_GROUP_GET_DEVICE_FD, it->device);
	return it->device_fd == -1 ? "VFIO_GROUP_GET_DEVICE_FD" : NULL;
}

static int open_cdev(const char *device)
{
	char path[400];
	struct dirent *entry;
	DIR *folder;
	int fd = -1;

	snprintf(path, sizeof(path), DEVICES "/%s/vfio-dev", device);
	folder = opendir(path);
	if (!folder)
		return -1;
	errno = ENOENT;
	while (fd == -1 && (entry = readdir(folder))) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/dev/vfio/devices/%s", entry->d_name);
		fd = open(path, O_RDWR | O_CLOEXEC);
	}
	closedir(folder);
	return fd;
}

static const char *claim_cdev(struct claimed *it, int whole)
{
	struct bind_iommufd bind = { .argsz = sizeof(bind) };
	struct attach_pt attach = { .argsz = sizeof(attach) };
	struct ioas_alloc alloc = { .size = sizeof(alloc) };

	it->iommufd = open("/dev/iommu", O_RDWR | O_CLOEXEC);
	if (it->iommufd == -1)
		return "/dev/iommu";
	it->device_fd = open_cdev(it->device);
	if (it->device_fd == -1)
		return "the device's file";
	bind.iommufd = it->iommufd;
	if (ioctl(it->device_fd, BIND_IOMMUFD, &bind))
		return "VFIO_DEVICE_BIND_IOMMUFD";
	if (!whole)
		return NULL;
	if (ioctl(it->iommufd, IOAS_ALLOC, &alloc))
		return "IOMMU_IOAS_ALLOC";
	it->ioas = alloc.out_ioas_id;
	attach.pt_id = it->ioas;
	if (ioctl(it->device_fd, ATTACH_PT, &attach))
		return "VFIO_DEVICE_ATTACH_IOMMUFD_PT";
	return NULL;
}

/*
 * VFIO leaves bus mastering to the owner of a device; so do QEMU and DPDK. What is
 * written behind its back would be lost, or would let a device write that its owner
 * holds off.
 */
static const char *switch_on(int device_fd)
{
	struct vfio_region_info config = {
		.argsz = sizeof(config), .index = VFIO_PCI_CONFIG_REGION_INDEX,
	};
	off_t place;
	uint16_t command, both = PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;

	if (ioctl(device_fd, VFIO_DEVICE_GET_REGION_INFO, &config))
		return "VFIO_DEVICE_GET_REGION_INFO";
	place = config.offset + PCI_COMMAND;
	errno = EIO;
	if (pread(device_fd, &command, sizeof(command), place) != sizeof(command))
		return "reading the command register";
	command |= both;
	if (pwrite(device_fd, &command, sizeof(command), place) != sizeof(command))
		return "writing the command register";
	if (pread(device_fd, &command, sizeof(command), place) != sizeof(command) ||
	    (command & both) != both)
		return "the command register, which does not take it";
	return NULL;
}

/* Whole: up to where DMA could be mapped; else only to own it. */
void claim(const char *how, const char *device, int whole)
{
	struct claimed it = NONE;
	const char *where;
	int error;

	if (count == MAX || find(device)) {
		say("BUSY", "claimed before in this script");
		return;
	}
	snprintf(it.device, sizeof(it.device), "%s", device);
	it.group_number = group_of(device);
	if (it.group_number < 0) {
		say_error(it.group_number, "it has no IOMMU group");
		return;
	}
	where = strcmp(how, "cdev") ? claim_group(&it, whole) : claim_cdev(&it, whole);
	if (!where && it.device_fd != -1)
		where = switch_on(it.device_fd);
	error = -errno;
	if (where) {
		put(&it);
		say_error(error, where);
		return;
	}
	table[count++] = it;
	say("ok", "%s", how);
}

/* To release what could not be claimed is no error: scripts go on either way. */
void release(const char *device)
{
	struct claimed *it = find(device);

	if (!it) {
		say("ok", "it was not claimed");
		return;
	}
	put(it);
	*it = table[--count];
	say_word("ok");
}

void map(const char *device, uint64_t iova, uint64_t size)
{
	struct claimed *it = find(device);
	const char *where;
	void *buffer;
	int ret;

	if (!it) {
		say_word("UNCLAIMED");
		return;
	}
	buffer = mmap(NULL, size, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (buffer == MAP_FAILED) {
		say_error(-errno, "mmap");
		return;
	}
	if (it->iommufd != -1) {
		struct ioas_map args = {
			.size = sizeof(args), .flags = MAP_FIXED_WRITE_READ,
			.ioas_id = it->ioas, .user_va = (uintptr_t)buffer,
			.length = size, .iova = iova,
		};
		where = "IOMMU_IOAS_MAP";
		ret = ioctl(it->iommufd, IOAS_MAP, &args);
	} else {
		struct vfio_iommu_type1_dma_map args = {
			.argsz = sizeof(args),
			.flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
			.vaddr = (uintptr_t)buffer, .iova = iova, .size = size,
		};
		where = "VFIO_IOMMU_MAP_DMA";
		ret = ioctl(it->container, VFIO_IOMMU_MAP_DMA, &args);
	}
	if (ret) {
		ret = -errno;
		munmap(buffer, size);
		say_error(ret, where);
		return;
	}
	if (it->buffer)
		munmap(it->buffer, it->size);
	it->buffer = buffer;
	it->iova = iova;
	it->size = size;
	say_word("ok");
}

int is_claimed(const char *device)
{
	return !!find(device);
}

volatile uint32_t *mapped(const char *device, uint64_t iova)
{
	struct claimed *it = find(device);

	if (!it || !it->buffer || iova < it->iova ||
	    iova - it->iova > it->size - sizeof(uint32_t))
		return NULL;
	return (volatile uint32_t *)((char *)it->buffer + (iova - it->iova));
}

void dma_mapped(const char *device, const char *owned, uint64_t iova)
{
	volatile uint32_t *memory = mapped(owned, iova);

	if (memory)
		dma(device, iova, memory);
	else
		say("UNMAPPED", "nothing of %s is at 0x%llx", owned, (unsigned long long)iova);
}
