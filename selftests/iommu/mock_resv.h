/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The part of drivers/iommu/iommufd/iommufd_test.h that has mock devices with
 * reserved regions. It is repeated here, with numbers and other names, because
 * these programs are also built in trees that do not have it: enumerators and
 * members of a union cannot be asked for with #ifdef. A kernel without these
 * ops answers EOPNOTSUPP, and the cases are skipped.
 */
#ifndef __SELFTEST_MOCK_RESV
#define __SELFTEST_MOCK_RESV

/* Nobody else may include it, half of it is outside of its own guard */
#include "iommufd_utils.h"

#define MOCK_OP_DEV			64	/* IOMMU_TEST_OP_MOCK_DEV */
#define MOCK_OP_DEV_BIND		65	/* ..._BIND */
#define MOCK_OP_DEV_ATTACH		66	/* ..._ATTACH */
#define MOCK_OP_DEV_UNBIND		67	/* ..._UNBIND */
#define MOCK_OP_DEV_FAIL_ATTACH		68	/* ..._FAIL_ATTACH */
#define MOCK_OP_DEV_STATE		69	/* ..._STATE */

/* MOCK_FLAGS_DEVICE_RESV_* */
#define MOCK_PLAIN			0
#define MOCK_DIRECT			(1 << 17)
#define MOCK_RELAXABLE			(1 << 18)

/* MOCK_RESV_*_START and MOCK_RESV_LENGTH */
#define MOCK_DIRECT_START		0x1100000
#define MOCK_RELAXABLE_START		0x1200000
#define MOCK_REGION_LENGTH		0x10000

/* MOCK_DEV_DOMAIN_* */
#define MOCK_ON_NONE			0	/* the probe failed */
#define MOCK_ON_IDENTITY		1
#define MOCK_ON_BLOCKED			2
#define MOCK_ON_PAGING			3

#define MOCK_NO_GROUP			((__u32)-1)

union mock_resv_cmd {
	struct {
		__u32 size;
		__u32 op;
		__u32 id;
		__u32 __reserved;
		union {
			struct {
				__u32 dev_flags;
				__u32 out_stdev_id;
			} dev;
			struct {
				__u32 out_idev_id;
			} bind;
			struct {
				__u32 pt_id;
			} attach;
			struct {
				__u32 out_domain;
				__u32 out_group_id;
			} state;
		};
	};
	/* The kernel wants the size of this one */
	struct iommu_test_cmd cmd;
};

/* Like all below: 0, or the error as a negative number */
static int mock_resv_ioctl(int fd, __u32 op, __u32 id, union mock_resv_cmd *cmd)
{
	cmd->size = sizeof(cmd->cmd);
	cmd->op = op;
	cmd->id = id;
	return ioctl(fd, IOMMU_TEST_CMD, cmd) ? -errno : 0;
}

/* Join the group of @peer, unless that is 0 */
static int mock_dev_create(int fd, __u32 flags, __u32 peer, __u32 *stdev_id)
{
	union mock_resv_cmd cmd = { .dev.dev_flags = flags };
	int rc;

	rc = mock_resv_ioctl(fd, MOCK_OP_DEV, peer, &cmd);
	if (!rc)
		*stdev_id = cmd.dev.out_stdev_id;
	return rc;
}

static int mock_dev_bind(int fd, __u32 stdev_id)
{
	union mock_resv_cmd cmd = {};

	return mock_resv_ioctl(fd, MOCK_OP_DEV_BIND, stdev_id, &cmd);
}

static int mock_dev_attach(int fd, __u32 stdev_id, __u32 pt_id)
{
	union mock_resv_cmd cmd = { .attach.pt_id = pt_id };

	return mock_resv_ioctl(fd, MOCK_OP_DEV_ATTACH, stdev_id, &cmd);
}

static int mock_dev_unbind(int fd, __u32 stdev_id)
{
	union mock_resv_cmd cmd = {};

	return mock_resv_ioctl(fd, MOCK_OP_DEV_UNBIND, stdev_id, &cmd);
}

static int mock_dev_fail_attach(int fd, __u32 stdev_id)
{
	union mock_resv_cmd cmd = {};

	return mock_resv_ioctl(fd, MOCK_OP_DEV_FAIL_ATTACH, stdev_id, &cmd);
}

/* MOCK_ON_*, or an error */
static int mock_dev_domain(int fd, __u32 stdev_id)
{
	union mock_resv_cmd cmd = {};
	int rc;

	rc = mock_resv_ioctl(fd, MOCK_OP_DEV_STATE, stdev_id, &cmd);
	return rc ? rc : (int)cmd.state.out_domain;
}

static __u32 mock_dev_group(int fd, __u32 stdev_id)
{
	union mock_resv_cmd cmd = {};

	if (mock_resv_ioctl(fd, MOCK_OP_DEV_STATE, stdev_id, &cmd))
		return MOCK_NO_GROUP;
	return cmd.state.out_group_id;
}

static int mock_dev_destroy(int fd, __u32 stdev_id)
{
	return _test_ioctl_destroy(fd, stdev_id) ? -errno : 0;
}

/*
 * For setups: open iommufd, skip where the mock driver lacks what is needed,
 * and see that a device gets to its default domain. Where that does not work
 * every bind would fail, and the refusal of a bind would tell nothing.
 */
#define MOCK_RESV_SETUP(_fd)                                                   \
	do {                                                                   \
		__u32 _stdev_id;                                               \
		int _rc;                                                       \
									       \
		PAGE_SIZE = sysconf(_SC_PAGE_SIZE);                            \
		_fd = open("/dev/iommu", O_RDWR);                              \
		ASSERT_NE(-1, _fd);                                            \
		_rc = mock_dev_create(_fd, MOCK_PLAIN, 0, &_stdev_id);         \
		if (_rc == -EOPNOTSUPP || _rc == -EINVAL || _rc == -ENOTTY)    \
			SKIP(return,                                           \
			     "no mock devices with reserved regions: %s",      \
			     strerror(-_rc));                                  \
		ASSERT_EQ(0, _rc);                                             \
		ASSERT_EQ(MOCK_ON_IDENTITY, mock_dev_domain(_fd, _stdev_id));  \
		ASSERT_EQ(0, mock_dev_destroy(_fd, _stdev_id));                \
	} while (0)

/* A device that must be there, and on its default domain */
#define MOCK_DEV(_fd, _flags, _peer)                                           \
	({                                                                     \
		__u32 _stdev_id = 0;                                           \
									       \
		ASSERT_EQ(0, mock_dev_create(_fd, _flags, _peer, &_stdev_id)); \
		ASSERT_EQ(MOCK_ON_IDENTITY, mock_dev_domain(_fd, _stdev_id));  \
		_stdev_id;                                                     \
	})

#endif
