// SPDX-License-Identifier: GPL-2.0-only
/*
 * Lets user-mode Linux before 6.13 run on processors with AMX.
 *
 * It keeps 2696 bytes of a process's extended state, enough up to AVX-512 and
 * protection keys. A host whose processor has more of it takes the whole state
 * back or nothing: PTRACE_SETREGSET fails with EFAULT, and UML's init is killed
 * ("ptrace set fp regs failed, errno = 14"). Preloaded, this adds what is missing
 * from what the process has. UML 6.13 asks for the size, and never gets here.
 */
#include <elf.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

/* UML has one thread that calls ptrace(), and its stacks are small. */
static char state[65536];

long ptrace(enum __ptrace_request request, ...)
{
	struct iovec *given, whole = { state, sizeof(state) };
	void *addr, *data;
	va_list list;
	long ret, word;
	pid_t pid;

	va_start(list, request);
	pid = va_arg(list, pid_t);
	addr = va_arg(list, void *);
	data = va_arg(list, void *);
	va_end(list);

	/* The system call stores what it read; the C library returns it. */
	if (request == PTRACE_PEEKTEXT || request == PTRACE_PEEKDATA ||
	    request == PTRACE_PEEKUSER) {
		ret = syscall(SYS_ptrace, request, pid, addr, &word);
		if (ret < 0)
			return ret;
		errno = 0;
		return word;
	}
	ret = syscall(SYS_ptrace, request, pid, addr, data);
	if (ret >= 0 || errno != EFAULT || request != PTRACE_SETREGSET ||
	    (long)addr != NT_X86_XSTATE)
		return ret;

	given = data;
	if (syscall(SYS_ptrace, PTRACE_GETREGSET, pid, addr, &whole) < 0 ||
	    given->iov_len >= whole.iov_len) {
		errno = EFAULT;
		return -1;
	}
	memcpy(state, given->iov_base, given->iov_len);
	return syscall(SYS_ptrace, PTRACE_SETREGSET, pid, addr, &whole);
}
