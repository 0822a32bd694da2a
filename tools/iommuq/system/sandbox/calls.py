# SPDX-License-Identifier: GPL-2.0-only
"""The filter of system calls, made by libseccomp: what ``sandbox.toml`` does not list
fails with ENOSYS, as in a kernel that does not have it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from functools import cache

from iommuq.system.errors import ToolMissing
from iommuq.system.sandbox.model import document

# <linux/sched.h>: every CLONE_NEW* but CLONE_NEWTIME, whose bit is part of a signal's number.
_NAMESPACES = 0x7E020000
# The type of these arguments is int: the upper half of the register is not looked at.
_INT = 0xFFFFFFFF


@cache
def program(*, guests: bool) -> bytes:
    """Return the filter as bubblewrap reads it, for the machine that this is.

    :param guests: processes may trace their children, as User-mode Linux does.
    :raises ToolMissing: libseccomp is not installed.
    """
    try:
        # Not at the top: it loads the C library, which most commands do without.
        import pyseccomp
    except (ImportError, OSError, RuntimeError) as error:
        raise ToolMissing(f"no filter of system calls: {error}", hint="libseccomp2") from error
    calls = document().calls
    made = pyseccomp.SyscallFilter(pyseccomp.ERRNO(errno.ENOSYS))
    # Another architecture, or x32, has other numbers.
    made.set_attr(pyseccomp.Attr.ACT_BADARCH, pyseccomp.ERRNO(errno.ENOSYS))

    def allow(name: str, mask: int, values: Iterable[int]) -> None:
        for value in values:
            arg = pyseccomp.Arg(0, pyseccomp.MASKED_EQ, mask, value)
            made.add_rule(pyseccomp.ALLOW, name, arg)

    for name in names():
        # libseccomp of another year may not know the newest.
        if _is_known(name):
            made.add_rule(pyseccomp.ALLOW, name)
    allow("clone", _NAMESPACES, [0])
    allow("socket", _INT, calls.families)
    allow("ptrace", _INT, calls.trace if guests else ())
    # A filter has 3 KiB, and a pipe room for 64.
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as source:
        with os.fdopen(writer, "wb") as sink:
            made.export_bpf(sink)
        return source.read()


def names() -> Iterator[str]:
    """Return the names of the system calls that are allowed with any argument."""
    for group in document().calls.always.values():
        yield from group.split()


def _is_known(name: str) -> bool:
    import pyseccomp

    try:
        pyseccomp.resolve_syscall(pyseccomp.system_arch(), name)
    except ValueError:
        return False
    return True
