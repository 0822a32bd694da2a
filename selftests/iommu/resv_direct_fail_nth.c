// SPDX-License-Identifier: GPL-2.0-only
/*
 * Devices with IOMMU_RESV_DIRECT regions, with an error at every place where the
 * kernel can inject one.
 *
 * Unlike iommufd_fail_nth, which only wants the kernel's log to stay clean, this
 * looks at what comes out: whatever fails, nobody gets such a device, and every
 * device is on its default domain again.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "mock_resv.h"

/* More than any path here has places; reached if the kernel never says that */
#define MAX_NTH 1000

/*
 * The places are not the same every time: what a cache or the last ID's bitmap
 * has left needs no allocation. So each place is tried this often, or one could
 * slip by between two numbers,
 */
#define TRIES 3
/* and all have been seen once so many tries in a row met no error. */
#define QUIET 20
/* The place of a try */
#define NTH(_try) (1 + (_try) / TRIES)
/* How many tries there are at the least if there are so many places */
#define TRIES_OF(_places) ((_places) * TRIES + QUIET)

static bool have_fault_injection;

static int write_at(int dir, const char *name, const char *text)
{
	ssize_t len;
	int fd;

	fd = openat(dir, name, O_WRONLY);
	if (fd == -1)
		return -1;
	len = write(fd, text, strlen(text));
	close(fd);
	return len == (ssize_t)strlen(text) ? 0 : -1;
}

/* As in iommufd_fail_nth: not put back afterwards */
static __attribute__((constructor)) void setup_fault_injection(void)
{
	DIR *debugfs = opendir("/sys/kernel/debug/");
	struct dirent *entry;
	char name[300];

	if (!debugfs)
		return;

	/* Those that may sleep, too, which is nearly all */
	if (!write_at(dirfd(debugfs), "failslab/ignore-gfp-wait", "N")) {
		have_fault_injection = true;
		write_at(dirfd(debugfs), "fail_page_alloc/ignore-gfp-wait", "N");
		write_at(dirfd(debugfs), "fail_page_alloc/ignore-gfp-highmem", "N");
	}
	while ((entry = readdir(debugfs))) {
		if (strncmp(entry->d_name, "fail", 4))
			continue;
		/* A stack for every error injected would hide what matters */
		snprintf(name, sizeof(name), "%s/verbose", entry->d_name);
		write_at(dirfd(debugfs), name, "0");
	}
	closedir(debugfs);
}

static int open_fail_nth(void)
{
	char path[100];

	snprintf(path, sizeof(path), "/proc/self/task/%u/fail-nth", getpid());
	return open(path, O_RDWR);
}

static int start_faults(int fd, unsigned int nth)
{
	char text[20];
	int len;

	len = snprintf(text, sizeof(text), "%u", nth);
	return pwrite(fd, text, len, 0) == len ? 0 : -1;
}

/* 1 if an error was injected since start_faults(), 0 if it would come later */
static int stop_faults(int fd)
{
	bool injected;
	char text[20];
	ssize_t len;

	/* These calls have such places as well: EFAULT is the error itself */
	len = pread(fd, text, sizeof(text), 0);
	if (len == -1 && errno != EFAULT)
		return -1;
	injected = len == 2 && text[0] == '0';
	if (pwrite(fd, "0", 1, 0) == 1)
		return injected;
	return errno == EFAULT && pwrite(fd, "0", 1, 0) == 1 ? 0 : -1;
}

/*
 * What is done between these two meets an error at its @_nth place. A case does
 * it with one at the first place, the second and so on, and at last without any,
 * until @_quiet says that this was often enough.
 */
#define START_FAULTS(_nth)                                                     \
	do {                                                                   \
		unsigned int _place = _nth;                                    \
									       \
		ASSERT_GT(MAX_NTH, _place);                                    \
		ASSERT_EQ(0, start_faults(self->nth_fd, _place));              \
	} while (0)

#define STOP_FAULTS(_quiet)                                                    \
	do {                                                                   \
		int _stopped = stop_faults(self->nth_fd);                      \
									       \
		ASSERT_NE(-1, _stopped);                                       \
		_quiet = _stopped ? 0 : _quiet + 1;                            \
	} while (0)

#define EXPECT_ON_DEFAULT(_stdev_id, _nth)                                     \
	do {                                                                   \
		EXPECT_EQ(MOCK_ON_IDENTITY,                                    \
			  mock_dev_domain(self->fd, _stdev_id))                \
		{                                                              \
			TH_LOG("error injected at place %u", _nth);            \
		}                                                              \
	} while (0)

#define EXPECT_NOT_BOUND(_rc, _stdev_id, _nth)                                 \
	do {                                                                   \
		EXPECT_NE(0, _rc)                                              \
		{                                                              \
			TH_LOG("error injected at place %u", _nth);            \
		}                                                              \
		if (!(_rc))                                                    \
			mock_dev_unbind(self->fd, _stdev_id);                  \
	} while (0)

FIXTURE(resv_direct_fail_nth)
{
	int fd;
	int nth_fd;
	__u32 ioas_id;
};

FIXTURE_SETUP(resv_direct_fail_nth)
{
	if (!have_fault_injection)
		SKIP(return, "fault injection is not enabled in the kernel");
	MOCK_RESV_SETUP(self->fd);
	test_ioctl_ioas_alloc(&self->ioas_id);
	self->nth_fd = open_fail_nth();
	ASSERT_NE(-1, self->nth_fd);
}

FIXTURE_TEARDOWN(resv_direct_fail_nth)
{
	EXPECT_EQ(0, close(self->nth_fd));
	EXPECT_EQ(0, close(self->fd));
}

/* No error on the way to the refusal turns it into something else. */
TEST_F_TIMEOUT(resv_direct_fail_nth, direct, 120)
{
	__u32 direct = MOCK_DEV(self->fd, MOCK_DIRECT, 0);
	unsigned int try, nth, quiet = 0;
	int rc = 0;

	for (try = 0; quiet < QUIET; try++) {
		nth = NTH(try);
		START_FAULTS(nth);
		rc = mock_dev_bind(self->fd, direct);
		STOP_FAULTS(quiet);
		EXPECT_NOT_BOUND(rc, direct, nth);
		EXPECT_ON_DEFAULT(direct, nth);
	}
	EXPECT_EQ(-EINVAL, rc);
	/* Two at the least, or nothing was tested */
	EXPECT_LE(TRIES_OF(2), try);
}

/* A plain device that shares its group is out of reach just the same. */
TEST_F_TIMEOUT(resv_direct_fail_nth, mixed_group, 120)
{
	__u32 plain = MOCK_DEV(self->fd, MOCK_PLAIN, 0);
	__u32 direct = MOCK_DEV(self->fd, MOCK_DIRECT, plain);
	unsigned int try, nth, quiet = 0;
	int rc = 0;

	for (try = 0; quiet < QUIET; try++) {
		nth = NTH(try);
		START_FAULTS(nth);
		rc = mock_dev_bind(self->fd, plain);
		STOP_FAULTS(quiet);
		EXPECT_NOT_BOUND(rc, plain, nth);
		EXPECT_ON_DEFAULT(plain, nth);
		EXPECT_ON_DEFAULT(direct, nth);
	}
	EXPECT_EQ(-EINVAL, rc);
	EXPECT_LE(TRIES_OF(2), try);
}

/* Whatever fails on the way, a device that may be taken comes back, and can be. */
TEST_F_TIMEOUT(resv_direct_fail_nth, relaxable, 120)
{
	__u32 relaxable = MOCK_DEV(self->fd, MOCK_RELAXABLE, 0);
	unsigned int try, nth, quiet = 0;
	int bound, rc = 0;

	for (try = 0; quiet < QUIET; try++) {
		nth = NTH(try);
		START_FAULTS(nth);
		bound = !mock_dev_bind(self->fd, relaxable);
		rc = bound ? mock_dev_attach(self->fd, relaxable, self->ioas_id) : -1;
		STOP_FAULTS(quiet);
		EXPECT_EQ(0, bound ? mock_dev_unbind(self->fd, relaxable) : 0);
		EXPECT_ON_DEFAULT(relaxable, nth);
	}
	EXPECT_EQ(0, rc);
	EXPECT_LE(TRIES_OF(2), try);
}

/*
 * A device whose regions the kernel could not find out, for lack of memory, is
 * not taken for one without any. This fails as long as the core does that.
 */
TEST_F_TIMEOUT(resv_direct_fail_nth, probe, 120)
{
	unsigned int try, nth, quiet = 0;
	int rc, bind_rc = 0;
	__u32 direct;

	for (try = 0; quiet < QUIET; try++) {
		nth = NTH(try);
		START_FAULTS(nth);
		rc = mock_dev_create(self->fd, MOCK_DIRECT, 0, &direct);
		STOP_FAULTS(quiet);
		if (rc)
			continue;
		bind_rc = mock_dev_bind(self->fd, direct);
		EXPECT_NOT_BOUND(bind_rc, direct, nth);
		EXPECT_EQ(0, mock_dev_destroy(self->fd, direct));
	}
	EXPECT_EQ(0, rc);
	EXPECT_EQ(-EINVAL, bind_rc);
	EXPECT_LE(TRIES_OF(2), try);
}

TEST_HARNESS_MAIN
