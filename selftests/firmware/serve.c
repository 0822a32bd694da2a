// SPDX-License-Identifier: GPL-2.0-only
/*
 * Steps that are not known beforehand: they come over a port of the guest, line by line,
 * and what came of each goes back the same way.
 *
 *   steps --serve NAME
 *
 * NAME is that of a virtio port. It is greeted with "steps 1". The lines are those of a
 * script; after the last line of what a step says there is one more:
 *
 *   now NUMBER STATE...     a state for each device of the step `watch`
 *   now NUMBER =            a step that changes none of them
 *
 * STATE is GROUP,TYPE,DRIVER,CLAIMED: the number of its group, or - if it has none, or x
 * if the kernel does not see the device; the type of the group; its driver, or -; and 1 if
 * this program has claimed it.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "steps.h"

#define PORTS "/sys/class/virtio-ports"
#define MAX_WATCHED 16
#define LINE_SIZE 1024

static char watched[MAX_WATCHED][32];
static int watched_count;

void watch(const char *device)
{
	if (watched_count == MAX_WATCHED) {
		say("MALFORMED", "more than %d devices", MAX_WATCHED);
		return;
	}
	snprintf(watched[watched_count++], sizeof(watched[0]), "%.31s", device);
	say_word("ok");
}

/* To look each up costs more than such a step itself. */
static int changes_nothing(const char *line)
{
	static const char *const kinds[] = { "enable", "entry", "fail", "failed", "look" };
	size_t length = strcspn(line, "\t");

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (strlen(kinds[i]) == length && !strncmp(line, kinds[i], length))
			return 1;
	return 0;
}

static void say_state(int number)
{
	char text[MAX_WATCHED * 128 + 32], type[64], driver[64];
	int length, group;

	length = snprintf(text, sizeof(text), "now %d", number);
	for (int i = 0; i < watched_count; i++) {
		if (!is_there(watched[i])) {
			length += snprintf(text + length, sizeof(text) - length, " x,-,-,%d",
					   is_claimed(watched[i]));
			continue;
		}
		strcpy(type, "-");
		strcpy(driver, "-");
		group = group_of(watched[i]);
		read_group_file(group, "type", type, sizeof(type));
		read_link(watched[i], "driver", driver, sizeof(driver));
		if (group >= 0)
			length += snprintf(text + length, sizeof(text) - length, " %d,", group);
		else
			length += snprintf(text + length, sizeof(text) - length, " -,");
		length += snprintf(text + length, sizeof(text) - length, "%.20s,%.20s,%d", type,
				   driver, is_claimed(watched[i]));
	}
	dprintf(STDOUT_FILENO, "%s\n", text);
}

static int open_port(const char *name)
{
	char path[PATH_MAX], label[64];
	struct dirent *entry;
	DIR *folder = opendir(PORTS);
	int fd = -1;

	if (!folder)
		return -1;
	while (fd == -1 && (entry = readdir(folder))) {
		snprintf(path, sizeof(path), PORTS "/%s/name", entry->d_name);
		if (entry->d_name[0] == '.' || read_text(path, label, sizeof(label)) ||
		    strcmp(label, name))
			continue;
		snprintf(path, sizeof(path), "/dev/%s", entry->d_name);
		fd = open(path, O_RDWR | O_CLOEXEC);
	}
	closedir(folder);
	return fd;
}

int serve(const char *name)
{
	char line[LINE_SIZE];
	int fd = open_port(name), same;
	FILE *in;

	if (fd == -1) {
		fprintf(stderr, "there is no port %s\n", name);
		return 2;
	}
	/* Its answers are what it says; its buffered input needs a descriptor of its own. */
	in = fdopen(dup(fd), "re");
	if (!in || dup2(fd, STDOUT_FILENO) == -1)
		return 2;
	dprintf(STDOUT_FILENO, "steps 1\n");
	for (number = 0; fgets(line, sizeof(line), in); number++) {
		line[strcspn(line, "\n")] = 0;
		/* A sequence begins: what warns once does so in each. */
		if (!strcmp(line, "listen"))
			write_text("/sys/kernel/debug/clear_warn_once", "1");
		/* It is taken apart after this. */
		same = changes_nothing(line);
		do_line(line);
		if (same)
			dprintf(STDOUT_FILENO, "now %d =\n", number);
		else
			say_state(number);
	}
	return 0;
}
