// SPDX-License-Identifier: GPL-2.0-only
/*
 * Take operations of the simulated IOMMU from a pipe of the host, and answer
 * each with the state that it leaves.
 *
 * A message is a count and that many operations; the answer is that many
 * states. This never returns: the host ends the guest.
 */
#include <linux/console.h>
#include <linux/delay.h>
#include <linux/init.h>
#include <linux/kernel.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <os.h>

#include "iommu_sim.h"

#define SERVE_MAX_OPS	256
#define SERVE_SPINS	8000
#define SERVE_BLOCKS	(1u << 17)

void __sanitizer_cov_trace_pc(void);

/* As the command line has them: the ends of the pipes that the guest inherits */
static int serve_in = -1, serve_out = -1;
static bool serve_ready;
static unsigned int serve_splats;
static unsigned int serve_blocks;
static unsigned long serve_seen[SERVE_BLOCKS / BITS_PER_LONG];
extern char _stext[];

static int __init serve_setup(char *str)
{
	return sscanf(str, "%d,%d", &serve_in, &serve_out) == 2;
}
__setup("iommu_sim=", serve_setup);

/*
 * Called at the start of each block of iommu.c. Constructors are among them, and
 * run before KASAN has its shadow.
 */
notrace __no_sanitize_address void __sanitizer_cov_trace_pc(void)
{
	unsigned long pc = (unsigned long)__builtin_return_address(0);
	unsigned long i = (pc - (unsigned long)_stext) >> 2;

	if (!serve_ready)
		return;
	/* Two blocks that differ by the size of the table count as one */
	i %= SERVE_BLOCKS;
	if (!(serve_seen[i / BITS_PER_LONG] & BIT(i % BITS_PER_LONG))) {
		serve_seen[i / BITS_PER_LONG] |= BIT(i % BITS_PER_LONG);
		serve_blocks++;
	}
}

/*
 * Every splat is printed, whoever finds it. What is printed leaves the guest at
 * once: the host has it when it gets the answer.
 */
static void serve_watch(struct console *con, const char *text, unsigned int len)
{
	os_write_file(1, text, len);
	if (strnstr(text, "WARNING:", len) || strnstr(text, "BUG:", len) ||
	    strnstr(text, "INFO: trying to register", len) ||
	    strnstr(text, "ODEBUG:", len) || strnstr(text, "refcount_t:", len))
		serve_splats++;
}

static struct console serve_console = {
	.name = "iommu_sim",
	.write = serve_watch,
	.flags = CON_ENABLED | CON_ANYTIME,
	.index = -1,
};

/*
 * The next operation is on its way while the host looks at the last state, so
 * look for it a while: to sleep and to be woken takes longer than most operations.
 */
static bool serve_read(void *data, int len)
{
	unsigned int spins = 0;
	int n;

	while (len) {
		n = os_read_file(serve_in, data, len);
		if (n == -EAGAIN && ++spins < SERVE_SPINS)
			continue;
		if (n == -EINTR || n == -EAGAIN) {
			cond_resched();
			if (n == -EAGAIN)
				os_poll(1, &serve_in);
			continue;
		}
		if (n <= 0)
			return false;
		data += n;
		len -= n;
	}
	return true;
}

static bool serve_write(const void *data, int len)
{
	int n;

	while (len) {
		n = os_write_file(serve_out, data, len);
		if (n == -EINTR || n == -EAGAIN) {
			cond_resched();
			continue;
		}
		if (n <= 0)
			return false;
		data += n;
		len -= n;
	}
	return true;
}

static int __init serve(void)
{
	static struct iommu_sim_op ops[SERVE_MAX_OPS];
	static struct iommu_sim_state states[SERVE_MAX_OPS];
	u32 hello[4] = { 0x4d495349, IOMMU_SIM_VERSION, sizeof(ops[0]), sizeof(states[0]) };
	u32 count, i;

	if (serve_in < 0)
		return 0;
	os_set_fd_block(serve_in, 0);
	register_console(&serve_console);
	if (iommu_sim_init()) {
		pr_err("iommu_sim: cannot be set up\n");
		return -ENODEV;
	}
	serve_splats = 0;
	serve_ready = true;
	if (!serve_write(hello, sizeof(hello)))
		return -EIO;
	while (serve_read(&count, sizeof(count))) {
		if (!count || count > SERVE_MAX_OPS ||
		    !serve_read(ops, count * sizeof(ops[0])))
			break;
		for (i = 0; i < count; i++) {
			iommu_sim_do(&ops[i], &states[i]);
			/* What it has given to a worker prints its splats here */
			cond_resched();
			states[i].splats = min(xchg(&serve_splats, 0), 255u);
			states[i].blocks = serve_blocks;
		}
		if (!serve_write(states, count * sizeof(states[0])))
			break;
	}
	pr_info("iommu_sim: the host has gone\n");
	return 0;
}
late_initcall_sync(serve);
