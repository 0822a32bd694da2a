// SPDX-License-Identifier: GPL-2.0-only
/*
 * Two threads that change a group. The first stops in a callback of the driver,
 * and the second runs until it has to wait or is done: in each of the callbacks
 * in turn. What lies between two callbacks is not taken apart, and the second
 * one is never stopped.
 */
#include <linux/kthread.h>

enum race_op { RACE_ADD, RACE_CLAIM, RACE_TYPE };

struct race_row {
	const char *name;
	enum race_op first;
	enum race_op second;
	/* What is written to the type file; the group has the other type before */
	const char *type;
};

static const struct race_row race_rows[] = {
	{ "add_meets_claim", RACE_ADD, RACE_CLAIM },
	{ "claim_meets_add", RACE_CLAIM, RACE_ADD },
	{ "add_meets_identity", RACE_ADD, RACE_TYPE, "identity" },
	{ "add_meets_dma", RACE_ADD, RACE_TYPE, "DMA" },
	{ "identity_meets_add", RACE_TYPE, RACE_ADD, "identity" },
	{ "dma_meets_add", RACE_TYPE, RACE_ADD, "DMA" },
	{ "claim_meets_identity", RACE_CLAIM, RACE_TYPE, "identity" },
	{ "claim_meets_dma", RACE_CLAIM, RACE_TYPE, "DMA" },
	{ "identity_meets_claim", RACE_TYPE, RACE_CLAIM, "identity" },
	{ "dma_meets_claim", RACE_TYPE, RACE_CLAIM, "DMA" },
};

static void race_get_desc(const struct race_row *row, char *desc)
{
	strscpy(desc, row->name, KUNIT_PARAM_DESC_SIZE);
}

KUNIT_ARRAY_PARAM(race, race_rows, race_get_desc);

/* Points to stop at; no operation has as many callbacks */
#define RACE_MAX_STOPS	64

struct race_thread {
	struct mock_ctx *ctx;
	struct mock_dev *joiner;
	struct iommu_domain *user;
	const char *type;
	enum race_op op;
	int ret;
	struct completion *start;
	struct completion done;
};

static int race_run(void *data)
{
	struct race_thread *thread = data;
	struct mock_ctx *ctx = thread->ctx;

	wait_for_completion(thread->start);
	switch (thread->op) {
	case RACE_ADD:
		thread->ret = iommu_probe_device(&thread->joiner->pci.dev);
		break;
	case RACE_CLAIM:
		thread->ret = iommu_group_claim_dma_owner(ctx->group, ctx);
		if (!thread->ret)
			thread->ret = iommu_attach_group(thread->user, ctx->group);
		break;
	case RACE_TYPE:
		thread->ret = mock_store_type(ctx, thread->type);
		break;
	}
	complete(&thread->done);
	return 0;
}

static struct task_struct *race_start(struct race_thread *thread)
{
	struct task_struct *task = kthread_create(race_run, thread, "iommu_kunit");

	KUNIT_ASSERT_FALSE(thread->ctx->test, IS_ERR(task));
	init_completion(&thread->done);
	return task;
}

/* What an operation returns after the other one, or with nothing before it */
static int race_ret(const struct race_thread *thread, const struct race_thread *before)
{
	bool owned = before && before->op == RACE_CLAIM;

	switch (thread->op) {
	case RACE_ADD:
#ifdef IOMMU_KUNIT_WAITS
		return 0;
#else
		return owned ? -ENODEV : 0;
#endif
	case RACE_CLAIM:
		return before && before->op == RACE_ADD ? IOMMU_KUNIT_REFUSED : 0;
	case RACE_TYPE:
		return owned ? -EPERM : strlen(thread->type);
	}
	return 0;
}

/* One came before the other; which one is up to them if @any */
static void race_expect_order(const struct race_thread *first,
			      const struct race_thread *second, bool any)
{
	struct kunit *test = first->ctx->test;

	if (any && (first->ret != race_ret(first, NULL) ||
		    second->ret != race_ret(second, first)))
		swap(first, second);
	KUNIT_EXPECT_EQ(test, first->ret, race_ret(first, NULL));
	KUNIT_EXPECT_EQ(test, second->ret, race_ret(second, first));
	if (first->op == RACE_CLAIM || second->op == RACE_CLAIM)
		KUNIT_EXPECT_EQ(test, iommu_group_dma_owner_claimed(first->ctx->group),
				!(first->op == RACE_CLAIM ? first : second)->ret);
}

/* Whatever came first: what the devices have is what the group says that they have */
static void race_expect_consistent(struct mock_ctx *ctx, struct mock_dev *joiner,
				   struct iommu_domain *user)
{
	bool claimed = iommu_group_dma_owner_claimed(ctx->group);
	struct kunit *test = ctx->test;
	struct mock_dev *mdev;
	unsigned int i;

	KUNIT_EXPECT_PTR_EQ(test, ctx->group->domain,
			    claimed ? user : mock_default(ctx));
	for (i = 0; i < ctx->nr_devs; i++) {
		mdev = ctx->devs[i];
		if (!mdev->pci.dev.iommu_group || (mdev == joiner && claimed))
			continue;
		KUNIT_EXPECT_PTR_EQ(test, mdev->hw, ctx->group->domain);
		if (!claimed)
			KUNIT_EXPECT_EQ(test, use_dma_iommu(&mdev->pci.dev),
					mock_default(ctx) != &ctx->identity);
	}
	/* Firmware never lost its region, and no owner has the device */
	if (!joiner->pci.dev.iommu_group) {
		KUNIT_EXPECT_EQ(test, 0, mock_attaches(joiner, NULL));
	} else if (!claimed) {
		KUNIT_EXPECT_TRUE(test, mock_reaches(joiner, 0));
		KUNIT_EXPECT_EQ(test, 0, mock_attaches(joiner, &ctx->blocked));
	} else {
#ifdef IOMMU_KUNIT_WAITS
		KUNIT_EXPECT_EQ(test, -EBUSY,
				iommu_device_use_default_domain(&joiner->pci.dev));
#else
		KUNIT_FAIL(test, "joined an owner");
#endif
	}
	KUNIT_EXPECT_EQ(test, 0, mock_attaches(joiner, user));
}

/* Rule: two who change a group do it one after the other. */
static void race_is_no_race(struct kunit *test)
{
	const struct race_row *row = test->param_value;
	struct mock_ctx *ctx = test->priv;
	struct race_thread first = { .ctx = ctx, .op = row->first, .type = row->type };
	struct race_thread second = { .ctx = ctx, .op = row->second, .type = row->type };
	DECLARE_COMPLETION_ONSTACK(go);
	struct iommu_domain *user;
	struct task_struct *task[2];
	struct mock_dev *joiner;
	unsigned int stop;
	bool stopped = true;

	user = mock_user_domain(mock_plain(ctx));
	mock_plain(ctx);
	joiner = mock_new(ctx);
	mock_region(joiner, IOMMU_RESV_DIRECT);
	mock_add_early(joiner);
	first.joiner = joiner;
	second.joiner = joiner;
	first.user = user;
	second.user = user;
	first.start = &go;
	second.start = &ctx->stopped;

	for (stop = 0; stopped && stop < RACE_MAX_STOPS; stop++) {
		/* A new default domain: nothing is mapped for the joiner of before */
		KUNIT_ASSERT_EQ(test, 8, mock_store_type(ctx, "identity"));
		if (!row->type || strcmp(row->type, "DMA"))
			KUNIT_ASSERT_EQ(test, 3, mock_store_type(ctx, "DMA"));
		mock_find_iommu(joiner);
		mock_reset_log(ctx);
		reinit_completion(&go);
		init_completion(&ctx->stopped);
		task[0] = race_start(&first);
		task[1] = race_start(&second);
		ctx->stop_at = stop;
		ctx->stop_task = task[0];
		wake_up_process(task[0]);
		wake_up_process(task[1]);
		complete(&go);
		wait_for_completion(&first.done);
		/* The last round is without a stop: one after the other */
		stopped = !ctx->stop_task;
		ctx->stop_task = NULL;
		complete(&ctx->stopped);
		wait_for_completion(&second.done);

		race_expect_order(&first, &second, stopped);
		race_expect_consistent(ctx, joiner, user);
		if (iommu_group_dma_owner_claimed(ctx->group)) {
			iommu_detach_group(user, ctx->group);
			iommu_group_release_dma_owner(ctx->group);
		}
		iommu_release_device(&joiner->pci.dev);
	}
	iommu_domain_free(user);
	kunit_info(test, "stopped in each of %u callbacks", stop - 1);
	/* Neither too few to mean something nor too many to have been tried */
	KUNIT_EXPECT_GE(test, stop, 2);
	KUNIT_EXPECT_LT(test, stop, RACE_MAX_STOPS);
}

static struct kunit_case iommu_race_cases[] = {
	KUNIT_CASE_PARAM(race_is_no_race, race_gen_params),
	{}
};

static struct kunit_suite iommu_race_suite = {
	.name = "iommu_race",
	.suite_init = mock_suite_init,
	.suite_exit = mock_suite_exit,
	.init = mock_init,
	.exit = mock_exit,
	.test_cases = iommu_race_cases,
};
