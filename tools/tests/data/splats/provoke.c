// SPDX-License-Identifier: GPL-2.0-only
/*
 * Break the kernel in each of the ways that the splat rules are for. Each case
 * was booted on its own, and what the console showed is the log of its name in
 * this folder; see README.
 */
#include <kunit/test.h>
#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/kthread.h>
#include <linux/mutex.h>
#include <linux/rcupdate.h>
#include <linux/refcount.h>
#include <linux/slab.h>
#include <linux/spinlock.h>

static void warn(struct kunit *test)
{
	WARN_ON(test);
}

static void bug(struct kunit *test)
{
	BUG_ON(test);
}

/* Where KASAN looks first, it is a general protection fault. */
static __no_sanitize_address void oops(struct kunit *test)
{
	int *volatile nowhere = (int *)0x28;

	*nowhere = 1;
}

static void general_protection(struct kunit *test)
{
	int *volatile nowhere = (int *)0x6b6b6b6b6b6b6b6b;

	*nowhere = 1;
}

static void kasan_use_after_free(struct kunit *test)
{
	char *volatile memory = kmalloc(64, GFP_KERNEL);

	kfree(memory);
	memory[8] = 1;
}

static DEFINE_MUTEX(first);
static DEFINE_MUTEX(second);

static void lockdep_circular(struct kunit *test)
{
	mutex_lock(&first);
	mutex_lock(&second);
	mutex_unlock(&second);
	mutex_unlock(&first);

	mutex_lock(&second);
	mutex_lock(&first);
	mutex_unlock(&first);
	mutex_unlock(&second);
}

static DEFINE_RAW_SPINLOCK(raw);
static DEFINE_SPINLOCK(sleeps_under_rt);

static void lockdep_wait_context(struct kunit *test)
{
	raw_spin_lock(&raw);
	spin_lock(&sleeps_under_rt);
	spin_unlock(&sleeps_under_rt);
	raw_spin_unlock(&raw);
}

static void atomic_sleep(struct kunit *test)
{
	spin_lock(&sleeps_under_rt);
	mutex_lock(&first);
	mutex_unlock(&first);
	spin_unlock(&sleeps_under_rt);
}

static int wait_for_readers(void *unused)
{
	msleep(200);
	synchronize_rcu();
	return 0;
}

static void rcu_stall(struct kunit *test)
{
	unsigned long end = jiffies + 8 * HZ;

	kthread_run(wait_for_readers, NULL, "wait-for-readers");
	rcu_read_lock();
	while (time_before(jiffies, end))
		cpu_relax();
	rcu_read_unlock();
}

static void soft_lockup(struct kunit *test)
{
	unsigned long end = jiffies + 8 * HZ;

	preempt_disable();
	while (time_before(jiffies, end)) {
		cpu_relax();
	}
	preempt_enable();
}

static int wait_for_ever(void *done)
{
	wait_for_completion((struct completion *)done);
	return 0;
}

static void hung_task(struct kunit *test)
{
	static DECLARE_COMPLETION(never);

	kthread_run(wait_for_ever, &never, "never-done");
	ssleep(10);
	complete(&never);
}

/* Two scans by userspace find them: an object's first one only takes its checksum. */
static void kmemleak(struct kunit *test)
{
	for (int i = 0; i < 10; i++)
		kmalloc(96, GFP_KERNEL);
}

static int table[4];

static void ubsan(struct kunit *test)
{
	volatile int index = 5;

	table[index & 7] = 1;
}

static void refcount(struct kunit *test)
{
	refcount_t count = REFCOUNT_INIT(0);

	refcount_dec(&count);
}

static void panics(struct kunit *test)
{
	panic("provoked");
}

static void passes(struct kunit *test)
{
}

static struct kunit_case cases[] = {
	KUNIT_CASE(passes),
	KUNIT_CASE(warn),
	KUNIT_CASE(bug),
	KUNIT_CASE(oops),
	KUNIT_CASE(general_protection),
	KUNIT_CASE(kasan_use_after_free),
	KUNIT_CASE(lockdep_circular),
	KUNIT_CASE(lockdep_wait_context),
	KUNIT_CASE(atomic_sleep),
	KUNIT_CASE_SLOW(rcu_stall),
	KUNIT_CASE_SLOW(soft_lockup),
	KUNIT_CASE_SLOW(hung_task),
	KUNIT_CASE(kmemleak),
	KUNIT_CASE(ubsan),
	KUNIT_CASE(refcount),
	KUNIT_CASE(panics),
	{ }
};

static struct kunit_suite suite = {
	.name = "splat",
	.test_cases = cases,
};
kunit_test_suite(suite);
