// SPDX-License-Identifier: GPL-2.0-only
/* What every program of the guest needs: to say how a step ended, and small files. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "steps.h"

int number;

void say(const char *word, const char *format, ...)
{
	char more[300];
	va_list args;

	va_start(args, format);
	vsnprintf(more, sizeof(more), format, args);
	va_end(args);
	dprintf(STDOUT_FILENO, "step %d %s%s%s\n", number, word, *more ? " " : "", more);
}

void say_word(const char *word)
{
	say(word, "%s", "");
}

const char *word_of(int error)
{
	const char *name = strerrorname_np(-error);

	return name ? name : "ERROR";
}

void say_error(int error, const char *where)
{
	if (!error)
		say("ok", "%s", where);
	else if (strerrorname_np(-error))
		say(word_of(error), "%s", where);
	else
		say("ERROR", "%d, %s", error, where);
}

int read_and_close(int fd, char *text, size_t size)
{
	ssize_t length = read(fd, text, size - 1);
	int error = errno;

	close(fd);
	if (length < 0)
		return -error;
	text[length] = 0;
	while (length > 0 && isspace((unsigned char)text[length - 1]))
		text[--length] = 0;
	return 0;
}

int write_and_close(int fd, const char *text)
{
	int ret = write(fd, text, strlen(text)) < 0 ? -errno : 0;

	close(fd);
	return ret;
}

int read_text(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	return fd == -1 ? -errno : read_and_close(fd, text, size);
}

int write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	return fd == -1 ? -errno : write_and_close(fd, text);
}

int group_of(const char *device)
{
	char text[64];
	int ret = read_link(device, "iommu_group", text, sizeof(text));

	return ret ? ret : atoi(text);
}
