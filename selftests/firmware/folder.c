// SPDX-License-Identifier: GPL-2.0-only
/*
 * The folders of devices in sysfs, and that of groups. A path to a file there has a dozen
 * parts, and a kernel that checks itself, on a machine that is emulated, takes a millisecond
 * to look one up. So folders stay open, until this program has devices come or go.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "steps.h"

#define MAX_FOLDERS 32

static struct {
	char device[32];
	int fd;
} folders[MAX_FOLDERS];
static int count;

/* Each may be another one after this, or gone. */
void folders_changed(void)
{
	while (count)
		close(folders[--count].fd);
}

static void forget(const char *device)
{
	for (int i = 0; i < count; i++) {
		if (strcmp(folders[i].device, device))
			continue;
		close(folders[i].fd);
		folders[i] = folders[--count];
		return;
	}
}

/* It stays open. What is not there is looked for again the next time. */
static int folder_of(const char *device)
{
	char path[PATH_MAX];
	int fd;

	for (int i = 0; i < count; i++)
		if (!strcmp(folders[i].device, device))
			return folders[i].fd;
	snprintf(path, sizeof(path), DEVICES "/%s", device);
	fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd == -1)
		return -1;
	if (count == MAX_FOLDERS)
		folders_changed();
	snprintf(folders[count].device, sizeof(folders[0].device), "%.31s", device);
	folders[count].fd = fd;
	return folders[count++].fd;
}

int device_open(const char *device, const char *name, int flags)
{
	int folder = folder_of(device);

	return folder == -1 ? -1 : openat(folder, name, flags | O_CLOEXEC);
}

int device_has(const char *device, const char *name)
{
	int folder = folder_of(device);

	return folder != -1 && !faccessat(folder, name, F_OK, 0);
}

int is_there(const char *device)
{
	if (device_has(device, "vendor"))
		return 1;
	/* The kernel may have let go of it by itself, and have found it again. */
	forget(device);
	return device_has(device, "vendor");
}

int device_read(const char *device, const char *name, char *text, size_t size)
{
	int fd = device_open(device, name, O_RDONLY);

	return fd == -1 ? -errno : read_and_close(fd, text, size);
}

int device_write(const char *device, const char *name, const char *text)
{
	int fd = device_open(device, name, O_WRONLY);

	return fd == -1 ? -errno : write_and_close(fd, text);
}

/* The last part of what a symbolic link of the device points to */
int read_link(const char *device, const char *name, char *target, size_t size)
{
	int folder = folder_of(device);
	char text[PATH_MAX];
	ssize_t length;

	length = folder == -1 ? -1 : readlinkat(folder, name, text, sizeof(text) - 1);
	if (length < 0)
		return -errno;
	text[length] = 0;
	name = strrchr(text, '/');
	snprintf(target, size, "%.*s", (int)size - 1, name ? name + 1 : text);
	return 0;
}

int find_all(void)
{
	int ret;

	folders_changed();
	ret = write_text(RESCAN, "1");
	dma_found_again();
	return ret;
}
