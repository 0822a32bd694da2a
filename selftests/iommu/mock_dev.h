/* SPDX-License-Identifier: GPL-2.0-only */
#include "iommufd_utils.h"

/*
 * WARNs, and reports of sanitizers, since boot. Unlike the taint it tells how
 * many: a test can see that one came while it ran.
 */
static long read_warn_count(void)
{
	char buf[32];
	ssize_t len;
	int fd;

	fd = open("/sys/kernel/warn_count", O_RDONLY);
	if (fd == -1)
		return -1;
	len = read(fd, buf, sizeof(buf) - 1);
	close(fd);
	if (len <= 0)
		return -1;
	buf[len] = 0;
	return strtol(buf, NULL, 10);
}

static int _test_cmd_mock_dev(int fd, __u32 dev_flags, __u32 peer_id,
			      __u32 *stdev_id)
{
	struct iommu_test_cmd cmd = {
		.size = sizeof(cmd),
		.op = IOMMU_TEST_OP_MOCK_DEV,
		.id = peer_id,
		.mock_dev = {
			.dev_flags = dev_flags,
		},
	};
	int ret;

	ret = ioctl(fd, _IOMMU_TEST_CMD(IOMMU_TEST_OP_MOCK_DEV), &cmd);
	if (ret)
		return ret;
	*stdev_id = cmd.mock_dev.out_stdev_id;
	return 0;
}

static int _test_cmd_mock_dev_bind(int fd, __u32 stdev_id)
{
	struct iommu_test_cmd cmd = {
		.size = sizeof(cmd),
		.op = IOMMU_TEST_OP_MOCK_DEV_BIND,
		.id = stdev_id,
	};

	return ioctl(fd, _IOMMU_TEST_CMD(IOMMU_TEST_OP_MOCK_DEV_BIND), &cmd);
}

#define test_cmd_mock_dev_bind(stdev_id) \
	ASSERT_EQ(0, _test_cmd_mock_dev_bind(self->fd, stdev_id))
#define test_err_mock_dev_bind(_errno, stdev_id) \
	EXPECT_ERRNO(_errno, _test_cmd_mock_dev_bind(self->fd, stdev_id))

static int _test_cmd_mock_dev_attach(int fd, __u32 stdev_id, __u32 pt_id)
{
	struct iommu_test_cmd cmd = {
		.size = sizeof(cmd),
		.op = IOMMU_TEST_OP_MOCK_DEV_ATTACH,
		.id = stdev_id,
		.mock_dev_attach = {
			.pt_id = pt_id,
		},
	};

	return ioctl(fd, _IOMMU_TEST_CMD(IOMMU_TEST_OP_MOCK_DEV_ATTACH), &cmd);
}

#define test_cmd_mock_dev_attach(stdev_id, pt_id) \
	ASSERT_EQ(0, _test_cmd_mock_dev_attach(self->fd, stdev_id, pt_id))
#define test_err_mock_dev_attach(_errno, stdev_id, pt_id) \
	EXPECT_ERRNO(_errno,                              \
		     _test_cmd_mock_dev_attach(self->fd, stdev_id, pt_id))

static int _test_cmd_mock_dev_unbind(int fd, __u32 stdev_id)
{
	struct iommu_test_cmd cmd = {
		.size = sizeof(cmd),
		.op = IOMMU_TEST_OP_MOCK_DEV_UNBIND,
		.id = stdev_id,
	};

	return ioctl(fd, _IOMMU_TEST_CMD(IOMMU_TEST_OP_MOCK_DEV_UNBIND), &cmd);
}

#define test_cmd_mock_dev_unbind(stdev_id) \
	ASSERT_EQ(0, _test_cmd_mock_dev_unbind(self->fd, stdev_id))

static int _test_cmd_mock_dev_fail_attach(int fd, __u32 stdev_id)
{
	struct iommu_test_cmd cmd = {
		.size = sizeof(cmd),
		.op = IOMMU_TEST_OP_MOCK_DEV_FAIL_ATTACH,
		.id = stdev_id,
	};

	return ioctl(fd, _IOMMU_TEST_CMD(IOMMU_TEST_OP_MOCK_DEV_FAIL_ATTACH),
		     &cmd);
}

#define test_cmd_mock_dev_fail_attach(stdev_id) \
	ASSERT_EQ(0, _test_cmd_mock_dev_fail_attach(self->fd, stdev_id))

static int _test_cmd_mock_dev_state(int fd, __u32 stdev_id, __u32 *domain,
				    __u32 *group_id)
{
	struct iommu_test_cmd cmd = {
		.size = sizeof(cmd),
		.op = IOMMU_TEST_OP_MOCK_DEV_STATE,
		.id = stdev_id,
	};
	int ret;

	ret = ioctl(fd, _IOMMU_TEST_CMD(IOMMU_TEST_OP_MOCK_DEV_STATE), &cmd);
	if (ret)
		return ret;
	*domain = cmd.mock_dev_state.out_domain;
	*group_id = cmd.mock_dev_state.out_group_id;
	return 0;
}

/* MOCK_DEV_DOMAIN_*, or -1 */
static int mock_dev_domain(int fd, __u32 stdev_id)
{
	__u32 domain, group_id;

	if (_test_cmd_mock_dev_state(fd, stdev_id, &domain, &group_id))
		return -1;
	return domain;
}

#define test_mock_dev_on(_domain, stdev_id)       \
	EXPECT_EQ(MOCK_DEV_DOMAIN_##_domain,      \
		  mock_dev_domain(self->fd, stdev_id))

/*
 * The device must get to its default domain. If it did not, every bind would
 * fail, and the refusal of one would tell nothing.
 */
#define test_cmd_mock_dev(flags, peer_id, stdev_id)                          \
	({                                                                   \
		ASSERT_EQ(0, _test_cmd_mock_dev(self->fd, flags, peer_id,    \
						stdev_id));                  \
		ASSERT_EQ(MOCK_DEV_DOMAIN_IDENTITY,                          \
			  mock_dev_domain(self->fd, *(stdev_id)));           \
	})
