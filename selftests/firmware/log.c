// SPDX-License-Identifier: GPL-2.0-only
/* The kernel's log: what was said since a moment, or since the boot. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "steps.h"

static int kmsg = -1;

#define SYNC_MS 2000

/*
 * Read what there is of the kernel's log; what does not fit is left out. A record that
 * another processor has not finished hides those behind it, so read up to one of our own.
 */
static size_t drain(int fd, char *log, size_t length, size_t size)
{
	static int count;
	char record[8192], sync[64], *text;
	int waited = 0;
	ssize_t n;

	snprintf(sync, sizeof(sync), "iommuq: sync %d\n", ++count);
	dprintf(fd, "<7>%s", sync);
	for (;;) {
		n = read(fd, record, sizeof(record) - 1);
		/* Overwritten before it was read: go on with the next. */
		if (n < 0 && (errno == EPIPE || errno == EINTR))
			continue;
		if (n < 0 && errno == EAGAIN && waited++ < SYNC_MS) {
			usleep(1000);
			continue;
		}
		if (n <= 0)
			return length;
		record[n] = 0;
		text = strchr(record, ';');
		if (text && !strncmp(text + 1, sync, strlen(sync)))
			return length;
		/* What init copies there of our own output is no message of the kernel. */
		if (!text || !strncmp(text + 1, "iommuq: ", 8))
			continue;
		n = strlen(text);
		if (length + n < size) {
			memcpy(log + length, text, n + 1);
			length += n;
		}
	}
}

static char since_listen[1 << 20];
static size_t since_length;

/* From here on, messages are new. */
int log_listen(void)
{
	since_length = 0;
	since_listen[0] = 0;
	if (kmsg == -1)
		kmsg = open("/dev/kmsg", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	return kmsg == -1 || lseek(kmsg, 0, SEEK_END) < 0 ? -errno : 0;
}

void log_message(const char *text)
{
	if (kmsg == -1) {
		say_error(-ENOENT, "/dev/kmsg");
		return;
	}
	since_length = drain(kmsg, since_listen, since_length, sizeof(since_listen));
	say_word(strstr(since_listen, text) ? "present" : "absent");
}

void log_boot_message(const char *text)
{
	static char log[1 << 20];
	int fd = open("/dev/kmsg", O_RDWR | O_NONBLOCK | O_CLOEXEC);

	if (fd == -1) {
		say_error(-errno, "/dev/kmsg");
		return;
	}
	log[0] = 0;
	drain(fd, log, 0, sizeof(log));
	close(fd);
	say_word(strstr(log, text) ? "present" : "absent");
}
