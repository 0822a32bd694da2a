// SPDX-License-Identifier: GPL-2.0-only
/*
 * Do the steps of a script, and say what came of each: the part of a firmware
 * scenario that runs in the guest.
 *
 *   steps SCRIPT [SECONDS]
 *   steps --serve NAME        (serve.c)
 *
 * A line of the script is one step, its words separated by tabs; devices are PCI
 * addresses like 0000:00:05.0, numbers hexadecimal. For each step, counted from 0,
 * one line is written: "step NUMBER WORD [MORE]". WORD is ok, the name of an error
 * such as EINVAL, or what the step asked for. Nothing is judged here.
 *
 * The steps are done by a child, so that one which never returns, or kills its
 * process, can be told of by the parent: WORD is then HANG or DIED, and the script
 * is over.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "steps.h"

#define MAX_WORDS 17
#define DEFAULT_LIMIT 15
/* How long a device may take to appear after a rescan: 50 times 0.1 s */
#define APPEAR_TRIES 50

static int unbind_driver(const char *device)
{
	int ret;

	device_write(device, "driver_override", "\n");
	ret = device_write(device, "driver/unbind", device);
	return ret == -ENOENT ? 0 : ret;
}

/* Ports and bridges keep their drivers: those do no DMA, and what is below needs them. */
static int is_bridge(const char *device)
{
	char class[32];

	return !device_read(device, "class", class, sizeof(class)) && !strncmp(class, "0x0604", 6);
}

/* Have a device to ourselves */
static int take(const char *device)
{
	int ret = is_bridge(device) ? 0 : unbind_driver(device);

	return ret ? ret : dma_prepare(device);
}

/* A device of the machine: it must be there, and then nobody has it. */
static void do_device(char **words)
{
	char vendor[32], model[32], seen[64] = "";

	for (int i = 0; i < APPEAR_TRIES && !is_there(words[1]); i++) {
		if (!i)
			find_all();
		usleep(100 * 1000);
	}
	if (device_read(words[1], "vendor", vendor, sizeof(vendor))) {
		say("MISSING", "there is nothing at %s", words[1]);
		return;
	}
	dma_remember(words[1]);
	if (!device_read(words[1], "device", model, sizeof(model)) && strlen(vendor) > 2 &&
	    strlen(model) > 2)
		snprintf(seen, sizeof(seen), "%.20s:%.20s", vendor + 2, model + 2);
	if (strcmp(words[2], "-") && strcmp(seen, words[2]))
		say("MISSING", "%s is at %s", seen, words[1]);
	else
		say_error(take(words[1]), seen);
}

static void do_bind(char **words)
{
	char now[64] = "none";
	int ret;

	ret = unbind_driver(words[1]);
	if (!ret) {
		ret = device_write(words[1], "driver_override", words[2]);
	}
	if (!ret)
		ret = write_text(ROOT "/sys/bus/pci/drivers_probe", words[1]);
	if (ret) {
		say_error(ret, "sysfs");
		return;
	}
	read_link(words[1], "driver", now, sizeof(now));
	say(strcmp(now, words[2]) ? "UNBOUND" : "ok", "its driver is %s", now);
}

static void do_unbind(char **words)
{
	say_error(unbind_driver(words[1]), "");
}

static void do_driver(char **words)
{
	char now[64] = "none";

	read_link(words[1], "driver", now, sizeof(now));
	say_word(now);
}

static void do_claim(char **words)
{
	claim(words[1], words[2], 1);
}

static void do_own(char **words)
{
	claim(words[1], words[2], 0);
}

static void do_release(char **words)
{
	release(words[1]);
}

static void do_map(char **words)
{
	map(words[1], strtoull(words[2], NULL, 16), strtoull(words[3], NULL, 16));
}

static void do_dma(char **words)
{
	dma(words[1], strtoull(words[2], NULL, 16), NULL);
}

static void do_dma_mapped(char **words)
{
	dma_mapped(words[1], words[1], strtoull(words[2], NULL, 16));
}

static void do_dma_foreign(char **words)
{
	dma_mapped(words[1], words[2], strtoull(words[3], NULL, 16));
}

static void do_enable(char **words)
{
	enable(words[1]);
}

static void do_switch(char **words)
{
	switch_type(words[1], words[2], strtoull(words[3], NULL, 16), words[4]);
}

static void do_fail(char **words)
{
	fail(words[1], words[2]);
}

static void do_failed(char **words)
{
	(void)words;
	failed();
}

static void do_entry(char **words)
{
	entry(words[1], !strcmp(words[2], "alias"));
}

int remove_device(const char *device)
{
	volatile uint8_t *bar;
	int fd;

	/* Firmware that uses the device keeps it going, and goes on. */
	bar = dma_open(device);
	if (bar)
		dma_close(bar);
	dma_remember(device);
	fd = device_open(device, "remove", O_WRONLY);
	if (fd == -1)
		return -errno;
	folders_changed();
	return write_and_close(fd, "1");
}

static void do_remove(char **words)
{
	say_error(remove_device(words[1]), "");
}

static void do_removals(char **words)
{
	removals(words[1], strtol(words[2], NULL, 0));
}

static void do_rescan(char **words)
{
	(void)words;
	say_error(find_all(), "");
}

static void do_reset(char **words)
{
	say_error(device_write(words[1], "reset", "1"), "");
}

static void do_renumber(char **words)
{
	renumber(words[1], strtoul(words[2], NULL, 16));
}

static void do_present(char **words)
{
	say_word(is_there(words[1]) ? "yes" : "no");
}

static int group_file(char *path, const char *device, const char *name)
{
	int group = group_of(device);

	if (group < 0) {
		say_error(group, "it has no IOMMU group");
		return -1;
	}
	snprintf(path, PATH_MAX, GROUPS "/%d/%s", group, name);
	return 0;
}

static void do_type(char **words)
{
	char path[PATH_MAX], text[64];
	int ret;

	if (group_file(path, words[1], "type"))
		return;
	ret = read_text(path, text, sizeof(text));
	if (ret)
		say_error(ret, "type");
	else
		say_word(text);
}

static void do_set_type(char **words)
{
	char path[PATH_MAX];

	if (!group_file(path, words[1], "type"))
		say_error(write_text(path, words[2]), "type");
}

static void do_region(char **words)
{
	char path[PATH_MAX], kind[64];
	int ret;

	if (group_file(path, words[1], "reserved_regions"))
		return;
	ret = region_kind(words[1], strtoull(words[2], NULL, 16), kind, sizeof(kind));
	if (ret)
		say_error(ret, "reserved_regions");
	else
		say_word(kind);
}

static void do_rescan_failing(char **words)
{
	rescan_with_faults(words[1], strtoull(words[2], NULL, 16), words[3]);
}

static void do_together(char **words)
{
	int one = group_of(words[1]), other = group_of(words[2]);

	say(one >= 0 && one == other ? "yes" : "no", "groups %d and %d", one, other);
}

static void do_listen(char **words)
{
	(void)words;
	say_error(log_listen(), "/dev/kmsg");
}

static void do_message(char **words)
{
	log_message(words[1]);
}

static void do_boot_message(char **words)
{
	log_boot_message(words[1]);
}

/* The firmware's table as the kernel has it: hexadecimal, on lines of their own */
static void do_table(char **words)
{
	char path[PATH_MAX];
	unsigned char data[64];
	ssize_t length;
	size_t total = 0;
	int fd;

	snprintf(path, sizeof(path), "/sys/firmware/acpi/tables/%s", words[1]);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd == -1) {
		say_error(-errno, path);
		return;
	}
	while ((length = read(fd, data, sizeof(data))) > 0) {
		dprintf(STDOUT_FILENO, "bytes %d ", number);
		for (ssize_t i = 0; i < length; i++)
			dprintf(STDOUT_FILENO, "%02x", data[i]);
		dprintf(STDOUT_FILENO, "\n");
		total += length;
	}
	close(fd);
	say("ok", "%zu bytes", total);
}

/* Whether a file is there; what a kernel lacks shows by that */
static void do_exists(char **words)
{
	say(access(words[1], F_OK) ? "no" : "yes", "%s", words[1]);
}

static void do_watch(char **words)
{
	watch(words[1]);
}

static void do_look(char **words)
{
	int count = 0;

	while (words[1 + count])
		count++;
	look(words + 1, count);
}

#define ANY (-1)

static const struct {
	const char *name;
	int words;
	void (*run)(char **words);
} kinds[] = {
	{ "device", 2, do_device },
	{ "bind", 2, do_bind },
	{ "unbind", 1, do_unbind },
	{ "enable", 1, do_enable },
	{ "driver", 1, do_driver },
	{ "claim", 2, do_claim },
	{ "own", 2, do_own },
	{ "release", 1, do_release },
	{ "map", 3, do_map },
	{ "dma", 2, do_dma },
	{ "dma-mapped", 2, do_dma_mapped },
	{ "switch", 4, do_switch },
	{ "fail", 2, do_fail },
	{ "failed", 0, do_failed },
	{ "dma-foreign", 3, do_dma_foreign },
	{ "entry", 2, do_entry },
	{ "remove", 1, do_remove },
	{ "removals", 2, do_removals },
	{ "rescan", 0, do_rescan },
	{ "rescan-failing", 3, do_rescan_failing },
	{ "renumber", 2, do_renumber },
	{ "reset", 1, do_reset },
	{ "present", 1, do_present },
	{ "type", 1, do_type },
	{ "set-type", 2, do_set_type },
	{ "region", 2, do_region },
	{ "together", 2, do_together },
	{ "message", 1, do_message },
	{ "boot-message", 1, do_boot_message },
	{ "listen", 0, do_listen },
	{ "table", 1, do_table },
	{ "exists", 1, do_exists },
	{ "watch", 1, do_watch },
	{ "look", ANY, do_look },
};

void do_line(char *line)
{
	/* One more than any step has, and the end */
	char *words[MAX_WORDS + 2] = { NULL };
	int count = 0;

	for (char *word = strtok(line, "\t"); word && count <= MAX_WORDS; word = strtok(NULL, "\t"))
		words[count++] = word;
	for (size_t i = 0; count && i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		if (!strcmp(kinds[i].name, words[0])) {
			if (kinds[i].words == count - 1 || kinds[i].words == ANY)
				kinds[i].run(words);
			else
				say("MALFORMED", "%s takes %d words", words[0], kinds[i].words);
			return;
		}
	}
	say("MALFORMED", "there is no such step");
}

static int do_script(FILE *script)
{
	char line[1024];

	log_listen();
	for (number = 0; fgets(line, sizeof(line), script); number++) {
		line[strcspn(line, "\n")] = 0;
		do_line(line);
	}
	return 0;
}

/* Copy what the child says; return the number of the step that it is at. */
static int copy(int fd, int limit, int *expired)
{
	struct pollfd poller = { .fd = fd, .events = POLLIN };
	char data[4096];
	ssize_t length;
	int at = 0, at_start = 1;

	*expired = 0;
	for (;;) {
		int ready = poll(&poller, 1, limit * 1000);

		if (ready < 0 && errno == EINTR)
			continue;
		if (ready <= 0) {
			*expired = 1;
			return at;
		}
		length = read(fd, data, sizeof(data));
		if (length <= 0)
			return at;
		for (ssize_t i = 0; i < length; i++) {
			/* Each step ends with a line that begins with an s. */
			if (at_start && data[i] == 's')
				at++;
			at_start = data[i] == '\n';
		}
		for (ssize_t done = 0; done < length;) {
			ssize_t n = write(STDOUT_FILENO, data + done, length - done);

			if (n <= 0)
				return at;
			done += n;
		}
	}
}

int main(int argc, char **argv)
{
	int limit = argc > 2 ? atoi(argv[2]) : DEFAULT_LIMIT;
	int pipes[2], expired, status;
	FILE *script;
	pid_t child;

	if (argc == 3 && !strcmp(argv[1], "--serve"))
		return serve(argv[2]);
	script = argc > 1 ? fopen(argv[1], "re") : NULL;
	if (!script || limit <= 0 || pipe2(pipes, O_CLOEXEC)) {
		fprintf(stderr, "usage: steps SCRIPT [SECONDS]\n");
		return 2;
	}
	child = fork();
	if (child == -1) {
		perror("fork");
		return 2;
	}
	if (!child) {
		/* Our own standard output stays with the parent: a child that hangs
		 * in the kernel would keep it open. */
		dup2(pipes[1], STDOUT_FILENO);
		dup2(pipes[1], STDERR_FILENO);
		_exit(do_script(script));
	}
	close(pipes[1]);
	number = copy(pipes[0], limit, &expired);
	if (expired) {
		say("HANG", "no answer within %d s", limit);
		kill(child, SIGKILL);
		return 1;
	}
	if (waitpid(child, &status, 0) == child && WIFSIGNALED(status)) {
		say("DIED", "%s", strsignal(WTERMSIG(status)));
		return 1;
	}
	puts("end");
	return 0;
}
