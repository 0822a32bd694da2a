// SPDX-License-Identifier: GPL-2.0-only
/*
 * Devices with IOMMU_RESV_DIRECT regions, as userspace sees them.
 *
 * Firmware wants such a device to reach its region 1:1 for as long as the
 * machine runs. Neither a blocking domain nor what userspace makes does that,
 * so nobody may take the device, or another one of its group, from the default
 * domain. The kernel's log must stay clean all the while: whoever runs this has
 * to look there.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "mock_resv.h"

static int read_group_file(__u32 group, const char *name, char *text, size_t size)
{
	char path[100];
	ssize_t len;
	int fd;

	snprintf(path, sizeof(path), "/sys/kernel/iommu_groups/%u/%s", group, name);
	fd = open(path, O_RDONLY);
	if (fd == -1)
		return -errno;
	len = read(fd, text, size - 1);
	text[len > 0 ? len : 0] = 0;
	close(fd);
	return len < 0 ? -EIO : 0;
}

#define EXPECT_GROUP_FILE(_group, _name, _text)                                \
	do {                                                                   \
		char _seen[4096] = "";                                         \
									       \
		EXPECT_EQ(0, read_group_file(_group, _name, _seen,             \
					     sizeof(_seen)));                  \
		EXPECT_STREQ(_text, _seen);                                    \
	} while (0)

/* A line of reserved_regions */
static const char *region(char *line, size_t size, unsigned long start, const char *type)
{
	snprintf(line, size, "0x%016lx 0x%016lx %s\n", start,
		 start + MOCK_REGION_LENGTH - 1, type);
	return line;
}

#define EXPECT_ON(_domain, _stdev_id) \
	EXPECT_EQ(MOCK_ON_##_domain, mock_dev_domain(self->fd, _stdev_id))

/* Where it can be bound after all, what comes next shall not fail for that */
#define EXPECT_REFUSED(_stdev_id)                                              \
	do {                                                                   \
		int _rc = mock_dev_bind(self->fd, _stdev_id);                  \
									       \
		EXPECT_EQ(-EINVAL, _rc);                                       \
		if (!_rc)                                                      \
			mock_dev_unbind(self->fd, _stdev_id);                  \
	} while (0)

FIXTURE(resv_direct)
{
	int fd;
	__u32 ioas_id;
};

FIXTURE_SETUP(resv_direct)
{
	MOCK_RESV_SETUP(self->fd);
	test_ioctl_ioas_alloc(&self->ioas_id);
}

FIXTURE_TEARDOWN(resv_direct)
{
	EXPECT_EQ(0, close(self->fd));
}

/* To bind it fails, and leaves nothing behind that lets it work the next time. */
TEST_F(resv_direct, bind_refused_twice)
{
	__u32 direct = MOCK_DEV(self->fd, MOCK_DIRECT, 0);
	int i;

	for (i = 0; i != 2; i++) {
		EXPECT_REFUSED(direct);
		/* No bind has left it in the blocking domain, not even for a while */
		EXPECT_ON(IDENTITY, direct);
	}
}

/* It is refused as well when another region of the device would not matter. */
TEST_F(resv_direct, both_regions_refused)
{
	__u32 both = MOCK_DEV(self->fd, MOCK_DIRECT | MOCK_RELAXABLE, 0);

	EXPECT_REFUSED(both);
	EXPECT_ON(IDENTITY, both);
}

/* Userspace can see why it is refused. */
TEST_F(resv_direct, sysfs_says_direct)
{
	__u32 direct = MOCK_DEV(self->fd, MOCK_DIRECT, 0);
	__u32 group = mock_dev_group(self->fd, direct);
	char line[100];

	region(line, sizeof(line), MOCK_DIRECT_START, "direct");
	EXPECT_GROUP_FILE(group, "reserved_regions", line);
	EXPECT_GROUP_FILE(group, "type", "identity\n");

	/* Nor does a refusal change what it sees */
	EXPECT_REFUSED(direct);
	EXPECT_GROUP_FILE(group, "reserved_regions", line);
	EXPECT_GROUP_FILE(group, "type", "identity\n");
}

/* Firmware can do without an IOMMU_RESV_DIRECT_RELAXABLE region. */
TEST_F(resv_direct, relaxable_binds)
{
	__u32 relaxable = MOCK_DEV(self->fd, MOCK_RELAXABLE, 0);
	char line[100];
	void *page;

	page = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, page);
	region(line, sizeof(line), MOCK_RELAXABLE_START, "direct-relaxable");
	EXPECT_GROUP_FILE(mock_dev_group(self->fd, relaxable), "reserved_regions", line);

	ASSERT_EQ(0, mock_dev_bind(self->fd, relaxable));
	EXPECT_ON(BLOCKED, relaxable);
	ASSERT_EQ(0, mock_dev_attach(self->fd, relaxable, self->ioas_id));
	EXPECT_ON(PAGING, relaxable);
	/* What was there is of no interest any more */
	test_ioctl_ioas_map_fixed(page, PAGE_SIZE, MOCK_RELAXABLE_START);
	ASSERT_EQ(0, mock_dev_unbind(self->fd, relaxable));
	EXPECT_ON(IDENTITY, relaxable);
}

/* Nothing changes for devices without regions. */
TEST_F(resv_direct, plain_binds)
{
	__u32 plain = MOCK_DEV(self->fd, MOCK_PLAIN, 0);
	int i;

	EXPECT_GROUP_FILE(mock_dev_group(self->fd, plain), "reserved_regions", "");
	for (i = 0; i != 2; i++) {
		ASSERT_EQ(0, mock_dev_bind(self->fd, plain));
		EXPECT_ON(BLOCKED, plain);
		ASSERT_EQ(0, mock_dev_attach(self->fd, plain, self->ioas_id));
		EXPECT_ON(PAGING, plain);
		ASSERT_EQ(0, mock_dev_unbind(self->fd, plain));
		EXPECT_ON(IDENTITY, plain);
	}
}

/* Nor for the mock devices that there were before, on a blocked default domain. */
TEST_F(resv_direct, plain_on_blocked_binds)
{
	__u32 stdev_id, hwpt_id, idev_id;

	test_cmd_mock_domain(self->ioas_id, &stdev_id, &hwpt_id, &idev_id);
	EXPECT_ON(PAGING, stdev_id);
}

/* A group without such a region can be taken, and every device comes back. */
TEST_F(resv_direct, plain_group_binds)
{
	__u32 one = MOCK_DEV(self->fd, MOCK_PLAIN, 0);
	__u32 two = MOCK_DEV(self->fd, MOCK_RELAXABLE, one);

	ASSERT_EQ(mock_dev_group(self->fd, one), mock_dev_group(self->fd, two));
	ASSERT_EQ(0, mock_dev_bind(self->fd, one));
	EXPECT_ON(BLOCKED, one);
	EXPECT_ON(BLOCKED, two);
	ASSERT_EQ(0, mock_dev_bind(self->fd, two));
	ASSERT_EQ(0, mock_dev_attach(self->fd, one, self->ioas_id));
	ASSERT_EQ(0, mock_dev_attach(self->fd, two, self->ioas_id));
	EXPECT_ON(PAGING, one);
	EXPECT_ON(PAGING, two);
	ASSERT_EQ(0, mock_dev_unbind(self->fd, one));
	EXPECT_ON(PAGING, one);
	EXPECT_ON(PAGING, two);
	ASSERT_EQ(0, mock_dev_unbind(self->fd, two));
	EXPECT_ON(IDENTITY, one);
	EXPECT_ON(IDENTITY, two);
}

/* An attach that fails leaves the device blocked, and does no harm to the next. */
TEST_F(resv_direct, attach_fails)
{
	__u32 plain = MOCK_DEV(self->fd, MOCK_PLAIN, 0);

	ASSERT_EQ(0, mock_dev_bind(self->fd, plain));
	ASSERT_EQ(0, mock_dev_fail_attach(self->fd, plain));
	EXPECT_EQ(-EIO, mock_dev_attach(self->fd, plain, self->ioas_id));
	EXPECT_ON(BLOCKED, plain);
	EXPECT_EQ(0, mock_dev_attach(self->fd, plain, self->ioas_id));
	EXPECT_ON(PAGING, plain);
	EXPECT_EQ(0, mock_dev_unbind(self->fd, plain));
	EXPECT_ON(IDENTITY, plain);
}

/* If it fails for the last device of a group, those before it go back too. */
TEST_F(resv_direct, attach_fails_in_group)
{
	__u32 one = MOCK_DEV(self->fd, MOCK_PLAIN, 0);
	__u32 two = MOCK_DEV(self->fd, MOCK_PLAIN, one);

	ASSERT_EQ(0, mock_dev_bind(self->fd, one));
	ASSERT_EQ(0, mock_dev_fail_attach(self->fd, two));
	EXPECT_EQ(-EIO, mock_dev_attach(self->fd, one, self->ioas_id));
	EXPECT_ON(BLOCKED, one);
	EXPECT_ON(BLOCKED, two);
	EXPECT_EQ(0, mock_dev_attach(self->fd, one, self->ioas_id));
	EXPECT_ON(PAGING, one);
	EXPECT_ON(PAGING, two);
	EXPECT_EQ(0, mock_dev_unbind(self->fd, one));
	EXPECT_ON(IDENTITY, one);
	EXPECT_ON(IDENTITY, two);
}

/*
 * A device that appears in a group that somebody owns, but has not attached to
 * anything, does not get into the blocking domain. Whether it is refused or the
 * group gets another domain is left open here.
 */
TEST_F(resv_direct, joins_bound_group)
{
	__u32 plain = MOCK_DEV(self->fd, MOCK_PLAIN, 0);
	__u32 direct = 0;

	ASSERT_EQ(0, mock_dev_bind(self->fd, plain));
	ASSERT_EQ(0, mock_dev_create(self->fd, MOCK_DIRECT, plain, &direct));
	EXPECT_NE(MOCK_ON_BLOCKED, mock_dev_domain(self->fd, direct));
	EXPECT_NE(MOCK_ON_PAGING, mock_dev_domain(self->fd, direct));

	EXPECT_EQ(0, mock_dev_destroy(self->fd, direct));
	EXPECT_EQ(0, mock_dev_unbind(self->fd, plain));
	EXPECT_ON(IDENTITY, plain);
}

/*
 * Nor does it get into the domain of the owner. This fails as long as the core
 * attaches whatever appears in a group to the domain that the group is in.
 */
TEST_F(resv_direct, joins_attached_group)
{
	__u32 plain = MOCK_DEV(self->fd, MOCK_PLAIN, 0);
	__u32 direct = 0;

	ASSERT_EQ(0, mock_dev_bind(self->fd, plain));
	ASSERT_EQ(0, mock_dev_attach(self->fd, plain, self->ioas_id));
	ASSERT_EQ(0, mock_dev_create(self->fd, MOCK_DIRECT, plain, &direct));
	EXPECT_NE(MOCK_ON_BLOCKED, mock_dev_domain(self->fd, direct));
	EXPECT_NE(MOCK_ON_PAGING, mock_dev_domain(self->fd, direct));

	/*
	 * It has to go first. If the owner does, and the device is in the
	 * owner's domain, the core can but WARN.
	 */
	EXPECT_EQ(0, mock_dev_destroy(self->fd, direct));
	EXPECT_EQ(0, mock_dev_unbind(self->fd, plain));
	EXPECT_ON(IDENTITY, plain);
}

FIXTURE(mixed_group)
{
	int fd;
	__u32 direct;
	__u32 plain;
};

FIXTURE_VARIANT(mixed_group)
{
	bool direct_first;
};

FIXTURE_VARIANT_ADD(mixed_group, direct_first)
{
	.direct_first = true,
};

/* The core has moved the plain device already when it comes to the other one */
FIXTURE_VARIANT_ADD(mixed_group, direct_last)
{
	.direct_first = false,
};

FIXTURE_SETUP(mixed_group)
{
	MOCK_RESV_SETUP(self->fd);
	if (variant->direct_first) {
		self->direct = MOCK_DEV(self->fd, MOCK_DIRECT, 0);
		self->plain = MOCK_DEV(self->fd, MOCK_PLAIN, self->direct);
	} else {
		self->plain = MOCK_DEV(self->fd, MOCK_PLAIN, 0);
		self->direct = MOCK_DEV(self->fd, MOCK_DIRECT, self->plain);
	}
	ASSERT_EQ(mock_dev_group(self->fd, self->plain),
		  mock_dev_group(self->fd, self->direct));
}

FIXTURE_TEARDOWN(mixed_group)
{
	EXPECT_EQ(0, close(self->fd));
}

/* One owner has the whole group, so no device of it can be taken. */
TEST_F(mixed_group, bind_refused)
{
	int i;

	for (i = 0; i != 2; i++) {
		EXPECT_REFUSED(self->plain);
		EXPECT_ON(IDENTITY, self->plain);
		EXPECT_ON(IDENTITY, self->direct);
		EXPECT_REFUSED(self->direct);
		EXPECT_ON(IDENTITY, self->plain);
		EXPECT_ON(IDENTITY, self->direct);
	}
}

/* The region of one device is a region of the group. */
TEST_F(mixed_group, sysfs_says_direct)
{
	char line[100];

	region(line, sizeof(line), MOCK_DIRECT_START, "direct");
	EXPECT_GROUP_FILE(mock_dev_group(self->fd, self->plain), "reserved_regions", line);
}

/* The other device is to blame, and nothing else: without it there is no refusal. */
TEST_F(mixed_group, binds_without_the_other)
{
	EXPECT_REFUSED(self->plain);
	ASSERT_EQ(0, mock_dev_destroy(self->fd, self->direct));
	EXPECT_EQ(0, mock_dev_bind(self->fd, self->plain));
	EXPECT_ON(BLOCKED, self->plain);
	EXPECT_EQ(0, mock_dev_unbind(self->fd, self->plain));
	EXPECT_ON(IDENTITY, self->plain);
}

TEST_HARNESS_MAIN
