// SPDX-License-Identifier: GPL-2.0-only
#include "mock_dev.h"

/*
 * Unlike those above, these tests also look at what comes out: whatever fails, no
 * device with IOMMU_RESV_DIRECT regions is given away, and every device is on
 * its default domain again. They count WARNs, too, so that nobody has to look
 * for them.
 */
FIXTURE(resv_direct_fail_nth)
{
	int fd;
	long warn_count;
};

FIXTURE_SETUP(resv_direct_fail_nth)
{
	self->warn_count = read_warn_count();
	ASSERT_NE(-1, self->warn_count);
	self->fd = open("/dev/iommu", O_RDWR);
	ASSERT_NE(-1, self->fd);
}

FIXTURE_TEARDOWN(resv_direct_fail_nth)
{
	EXPECT_EQ(0, close(self->fd));
	EXPECT_EQ(self->warn_count, read_warn_count());
}

#define EXPECT_AT_NTH(expected, seen)                                     \
	({                                                                \
		EXPECT_EQ(expected, seen)                                 \
		{                                                         \
			TH_LOG("fail_nth iteration %u",                   \
			       _nth_state->iteration);                    \
		}                                                         \
	})

/* -1 if the error is not met before this, and there is nothing to see then */
static int check_on_default(struct __test_metadata *_metadata,
			    struct fail_nth_state *_nth_state, int fd,
			    __u32 stdev_id)
{
	int domain = mock_dev_domain(fd, stdev_id);

	if (domain == -1)
		return -1;
	EXPECT_AT_NTH(MOCK_DEV_DOMAIN_IDENTITY, domain);
	return 0;
}

/* No error on the way to the refusal turns it into something else. */
TEST_FAIL_NTH(resv_direct_fail_nth, direct)
{
	__u32 direct;
	int rc, err;

	test_cmd_mock_dev(MOCK_FLAGS_DEVICE_RESV_DIRECT, 0, &direct);

	fail_nth_enable();

	rc = _test_cmd_mock_dev_bind(self->fd, direct);
	err = errno;
	EXPECT_AT_NTH(-1, rc);
	if (check_on_default(_metadata, _nth_state, self->fd, direct))
		return -1;
	return err == EINVAL ? 0 : -1;
}

/* A plain device that shares its group is out of reach just the same. */
TEST_FAIL_NTH(resv_direct_fail_nth, mixed_group)
{
	__u32 plain, direct;
	int rc, err;

	test_cmd_mock_dev(0, 0, &plain);
	test_cmd_mock_dev(MOCK_FLAGS_DEVICE_RESV_DIRECT, plain, &direct);

	fail_nth_enable();

	rc = _test_cmd_mock_dev_bind(self->fd, plain);
	err = errno;
	EXPECT_AT_NTH(-1, rc);
	if (check_on_default(_metadata, _nth_state, self->fd, plain))
		return -1;
	if (check_on_default(_metadata, _nth_state, self->fd, direct))
		return -1;
	return err == EINVAL ? 0 : -1;
}

/* Whatever fails on the way, a device that may be taken comes back, and can be. */
TEST_FAIL_NTH(resv_direct_fail_nth, relaxable)
{
	__u32 relaxable, ioas_id;
	int rc;

	test_cmd_mock_dev(MOCK_FLAGS_DEVICE_RESV_RELAXABLE, 0, &relaxable);
	test_ioctl_ioas_alloc(&ioas_id);

	fail_nth_enable();

	rc = _test_cmd_mock_dev_bind(self->fd, relaxable);
	if (!rc) {
		rc = _test_cmd_mock_dev_attach(self->fd, relaxable, ioas_id);
		if (_test_cmd_mock_dev_unbind(self->fd, relaxable))
			return -1;
	}
	if (check_on_default(_metadata, _nth_state, self->fd, relaxable))
		return -1;
	return rc;
}

/*
 * A device whose regions the kernel could not find out, for lack of memory, is
 * not taken for one without any.
 */
TEST_FAIL_NTH(resv_direct_fail_nth, probe)
{
	__u32 direct;
	int rc, err;

	fail_nth_enable();

	if (_test_cmd_mock_dev(self->fd, MOCK_FLAGS_DEVICE_RESV_DIRECT, 0,
			       &direct))
		return -1;
	rc = _test_cmd_mock_dev_bind(self->fd, direct);
	err = errno;
	EXPECT_AT_NTH(-1, rc);
	return err == EINVAL ? 0 : -1;
}
