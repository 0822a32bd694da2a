// SPDX-License-Identifier: GPL-2.0-only
#include "mock_dev.h"

/*
 * Devices with IOMMU_RESV_DIRECT regions. Firmware wants such a device to reach
 * its region 1:1 for as long as the machine runs. Neither a blocking domain nor
 * what userspace makes does that, so nobody may take the device, or another one
 * of its group, from the default domain. The kernel must not WARN meanwhile.
 */
FIXTURE(resv_direct)
{
	int fd;
	__u32 ioas_id;
	long warn_count;
};

FIXTURE_SETUP(resv_direct)
{
	self->warn_count = read_warn_count();
	ASSERT_NE(-1, self->warn_count);
	self->fd = open("/dev/iommu", O_RDWR);
	ASSERT_NE(-1, self->fd);
	test_ioctl_ioas_alloc(&self->ioas_id);
}

FIXTURE_TEARDOWN(resv_direct)
{
	EXPECT_EQ(0, close(self->fd));
	/* What is still bound has been unbound by that */
	EXPECT_EQ(self->warn_count, read_warn_count());
}

static int read_group_file(int fd, __u32 stdev_id, const char *name, char *buf,
			   size_t size)
{
	__u32 domain, group_id;
	char path[100];
	ssize_t len;

	if (_test_cmd_mock_dev_state(fd, stdev_id, &domain, &group_id))
		return -1;
	snprintf(path, sizeof(path), "/sys/kernel/iommu_groups/%u/%s", group_id,
		 name);
	fd = open(path, O_RDONLY);
	if (fd == -1)
		return -1;
	len = read(fd, buf, size - 1);
	close(fd);
	if (len < 0)
		return -1;
	buf[len] = 0;
	return 0;
}

#define test_group_file(stdev_id, name, text)                                \
	({                                                                   \
		char _buf[4096] = "";                                        \
									     \
		EXPECT_EQ(0, read_group_file(self->fd, stdev_id, name, _buf, \
					     sizeof(_buf)));                 \
		EXPECT_STREQ(text, _buf);                                    \
	})

/* The group has one region, and nothing else to say */
#define test_reserved_region(stdev_id, start, type)                          \
	({                                                                   \
		char _line[100];                                             \
									     \
		snprintf(_line, sizeof(_line), "0x%016lx 0x%016lx %s\n",     \
			 (unsigned long)(start),                             \
			 (unsigned long)(start) + MOCK_RESV_LENGTH - 1,      \
			 type);                                              \
		test_group_file(stdev_id, "reserved_regions", _line);        \
	})

#define test_same_group(stdev_id, other_id)                                  \
	({                                                                   \
		__u32 _domain, _group, _other;                               \
									     \
		ASSERT_EQ(0, _test_cmd_mock_dev_state(self->fd, stdev_id,    \
						      &_domain, &_group));   \
		ASSERT_EQ(0, _test_cmd_mock_dev_state(self->fd, other_id,    \
						      &_domain, &_other));   \
		ASSERT_EQ(_group, _other);                                   \
	})

/* To bind it fails, and leaves nothing behind that lets it work the next time. */
TEST_F(resv_direct, bind_refused_twice)
{
	__u32 direct;
	int i;

	test_cmd_mock_dev(MOCK_FLAGS_DEVICE_RESV_DIRECT, 0, &direct);

	for (i = 0; i != 2; i++) {
		test_err_mock_dev_bind(EINVAL, direct);
		/* No bind has left it in the blocking domain, not even for a while */
		test_mock_dev_on(IDENTITY, direct);
	}
}

/* It is refused as well when another region of the device would not matter. */
TEST_F(resv_direct, both_regions_refused)
{
	__u32 both;

	test_cmd_mock_dev(MOCK_FLAGS_DEVICE_RESV_DIRECT |
			  MOCK_FLAGS_DEVICE_RESV_RELAXABLE, 0, &both);

	test_err_mock_dev_bind(EINVAL, both);
	test_mock_dev_on(IDENTITY, both);
}

/* Userspace can see why it is refused. */
TEST_F(resv_direct, sysfs_says_direct)
{
	__u32 direct;

	test_cmd_mock_dev(MOCK_FLAGS_DEVICE_RESV_DIRECT, 0, &direct);

	test_reserved_region(direct, MOCK_RESV_DIRECT_START, "direct");
	test_group_file(direct, "type", "identity\n");

	/* Nor does a refusal change what it sees */
	test_err_mock_dev_bind(EINVAL, direct);
	test_reserved_region(direct, MOCK_RESV_DIRECT_START, "direct");
	test_group_file(direct, "type", "identity\n");
}

/* Firmware can do without an IOMMU_RESV_DIRECT_RELAXABLE region. */
TEST_F(resv_direct, relaxable_binds)
{
	__u32 relaxable;
	void *page;

	test_cmd_mock_dev(MOCK_FLAGS_DEVICE_RESV_RELAXABLE, 0, &relaxable);

	page = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, page);
	test_reserved_region(relaxable, MOCK_RESV_RELAXABLE_START,
			     "direct-relaxable");

	test_cmd_mock_dev_bind(relaxable);
	test_mock_dev_on(BLOCKED, relaxable);
	test_cmd_mock_dev_attach(relaxable, self->ioas_id);
	test_mock_dev_on(PAGING, relaxable);
	/* What was there is of no interest any more */
	test_ioctl_ioas_map_fixed(page, PAGE_SIZE, MOCK_RESV_RELAXABLE_START);
	test_cmd_mock_dev_unbind(relaxable);
	test_mock_dev_on(IDENTITY, relaxable);
}

/* Nothing changes for devices without regions. */
TEST_F(resv_direct, plain_binds)
{
	__u32 plain;
	int i;

	test_cmd_mock_dev(0, 0, &plain);

	test_group_file(plain, "reserved_regions", "");
	for (i = 0; i != 2; i++) {
		test_cmd_mock_dev_bind(plain);
		test_mock_dev_on(BLOCKED, plain);
		test_cmd_mock_dev_attach(plain, self->ioas_id);
		test_mock_dev_on(PAGING, plain);
		test_cmd_mock_dev_unbind(plain);
		test_mock_dev_on(IDENTITY, plain);
	}
}

/* Nor for the mock devices that there were before, on a blocked default domain. */
TEST_F(resv_direct, plain_on_blocked_binds)
{
	__u32 stdev_id, hwpt_id, idev_id;

	test_cmd_mock_domain(self->ioas_id, &stdev_id, &hwpt_id, &idev_id);
	test_mock_dev_on(PAGING, stdev_id);
}

/* A group without such a region can be taken, and every device comes back. */
TEST_F(resv_direct, plain_group_binds)
{
	__u32 one, two;

	test_cmd_mock_dev(0, 0, &one);
	test_cmd_mock_dev(MOCK_FLAGS_DEVICE_RESV_RELAXABLE, one, &two);

	test_same_group(one, two);
	test_cmd_mock_dev_bind(one);
	test_mock_dev_on(BLOCKED, one);
	test_mock_dev_on(BLOCKED, two);
	test_cmd_mock_dev_bind(two);
	test_cmd_mock_dev_attach(one, self->ioas_id);
	test_cmd_mock_dev_attach(two, self->ioas_id);
	test_mock_dev_on(PAGING, one);
	test_mock_dev_on(PAGING, two);
	test_cmd_mock_dev_unbind(one);
	test_mock_dev_on(PAGING, one);
	test_mock_dev_on(PAGING, two);
	test_cmd_mock_dev_unbind(two);
	test_mock_dev_on(IDENTITY, one);
	test_mock_dev_on(IDENTITY, two);
}

/* An attach that fails leaves the device blocked, and does no harm to the next. */
TEST_F(resv_direct, attach_fails)
{
	__u32 plain;

	test_cmd_mock_dev(0, 0, &plain);

	test_cmd_mock_dev_bind(plain);
	test_cmd_mock_dev_fail_attach(plain);
	test_err_mock_dev_attach(EIO, plain, self->ioas_id);
	test_mock_dev_on(BLOCKED, plain);
	test_cmd_mock_dev_attach(plain, self->ioas_id);
	test_mock_dev_on(PAGING, plain);
	test_cmd_mock_dev_unbind(plain);
	test_mock_dev_on(IDENTITY, plain);
}

/* If it fails for the last device of a group, those before it go back too. */
TEST_F(resv_direct, attach_fails_in_group)
{
	__u32 one, two;

	test_cmd_mock_dev(0, 0, &one);
	test_cmd_mock_dev(0, one, &two);

	test_cmd_mock_dev_bind(one);
	test_cmd_mock_dev_fail_attach(two);
	test_err_mock_dev_attach(EIO, one, self->ioas_id);
	test_mock_dev_on(BLOCKED, one);
	test_mock_dev_on(BLOCKED, two);
	test_cmd_mock_dev_attach(one, self->ioas_id);
	test_mock_dev_on(PAGING, one);
	test_mock_dev_on(PAGING, two);
	test_cmd_mock_dev_unbind(one);
	test_mock_dev_on(IDENTITY, one);
	test_mock_dev_on(IDENTITY, two);
}

/*
 * A device that appears in a group that somebody owns, but has not attached to
 * anything, does not get into the blocking domain. Whether it is refused or the
 * group gets another domain is left open here.
 */
TEST_F(resv_direct, joins_bound_group)
{
	__u32 plain, direct;
	int domain;

	test_cmd_mock_dev(0, 0, &plain);

	test_cmd_mock_dev_bind(plain);
	ASSERT_EQ(0, _test_cmd_mock_dev(self->fd, MOCK_FLAGS_DEVICE_RESV_DIRECT,
					plain, &direct));
	domain = mock_dev_domain(self->fd, direct);
	ASSERT_NE(-1, domain);
	EXPECT_NE(MOCK_DEV_DOMAIN_BLOCKED, domain);
	EXPECT_NE(MOCK_DEV_DOMAIN_PAGING, domain);

	test_ioctl_destroy(direct);
	test_cmd_mock_dev_unbind(plain);
	test_mock_dev_on(IDENTITY, plain);
}

/*
 * Nor does it get into the domain of the owner. This fails as long as the core
 * attaches whatever appears in a group to the domain that the group is in.
 */
TEST_F(resv_direct, joins_attached_group)
{
	__u32 plain, direct;
	int domain;

	test_cmd_mock_dev(0, 0, &plain);

	test_cmd_mock_dev_bind(plain);
	test_cmd_mock_dev_attach(plain, self->ioas_id);
	ASSERT_EQ(0, _test_cmd_mock_dev(self->fd, MOCK_FLAGS_DEVICE_RESV_DIRECT,
					plain, &direct));
	domain = mock_dev_domain(self->fd, direct);
	ASSERT_NE(-1, domain);
	EXPECT_NE(MOCK_DEV_DOMAIN_BLOCKED, domain);
	EXPECT_NE(MOCK_DEV_DOMAIN_PAGING, domain);

	/*
	 * It has to go first. If the owner does, and the device is in the
	 * owner's domain, the core can but WARN.
	 */
	test_ioctl_destroy(direct);
	test_cmd_mock_dev_unbind(plain);
	test_mock_dev_on(IDENTITY, plain);
}

FIXTURE(mixed_group)
{
	int fd;
	__u32 direct;
	__u32 plain;
	long warn_count;
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
	self->warn_count = read_warn_count();
	ASSERT_NE(-1, self->warn_count);
	self->fd = open("/dev/iommu", O_RDWR);
	ASSERT_NE(-1, self->fd);
	if (variant->direct_first) {
		test_cmd_mock_dev(MOCK_FLAGS_DEVICE_RESV_DIRECT, 0,
				  &self->direct);
		test_cmd_mock_dev(0, self->direct, &self->plain);
	} else {
		test_cmd_mock_dev(0, 0, &self->plain);
		test_cmd_mock_dev(MOCK_FLAGS_DEVICE_RESV_DIRECT, self->plain,
				  &self->direct);
	}
	test_same_group(self->plain, self->direct);
}

FIXTURE_TEARDOWN(mixed_group)
{
	EXPECT_EQ(0, close(self->fd));
	EXPECT_EQ(self->warn_count, read_warn_count());
}

/* One owner has the whole group, so no device of it can be taken. */
TEST_F(mixed_group, bind_refused)
{
	int i;

	for (i = 0; i != 2; i++) {
		test_err_mock_dev_bind(EINVAL, self->plain);
		test_mock_dev_on(IDENTITY, self->plain);
		test_mock_dev_on(IDENTITY, self->direct);
		test_err_mock_dev_bind(EINVAL, self->direct);
		test_mock_dev_on(IDENTITY, self->plain);
		test_mock_dev_on(IDENTITY, self->direct);
	}
}

/* The region of one device is a region of the group. */
TEST_F(mixed_group, sysfs_says_direct)
{
	test_reserved_region(self->plain, MOCK_RESV_DIRECT_START, "direct");
}

/* The other device is to blame, and nothing else: without it there is no refusal. */
TEST_F(mixed_group, binds_without_the_other)
{
	test_err_mock_dev_bind(EINVAL, self->plain);
	test_ioctl_destroy(self->direct);
	test_cmd_mock_dev_bind(self->plain);
	test_mock_dev_on(BLOCKED, self->plain);
	test_cmd_mock_dev_unbind(self->plain);
	test_mock_dev_on(IDENTITY, self->plain);
}
