# SPDX-License-Identifier: GPL-2.0-only
"""Rule 9: an operation returns the errors that are documented for it."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from iommuq.explore.operations import kinds
from iommuq.explore.rules.model import Breach, Moment, Rule

# Python calls this ENOTSUP, which the kernel does not have.
_NAMES = {**errno.errorcode, errno.EOPNOTSUPP: "EOPNOTSUPP"}


def documented(moment: Moment) -> Iterator[Breach]:
    """Find errors that no document names."""
    ret = moment.after.ret
    if ret >= 0:
        return
    name = _NAMES.get(-ret, str(-ret))
    kind = kinds()[moment.operation.kind]
    if name in kind.errnos:
        return
    if moment.after.fault_hit and name == moment.operation.fail_errno:
        return
    # Anything for want of memory is an error of its own right.
    if moment.after.alloc_hit:
        return
    yield Breach(
        "errnos.documented",
        f"it returned {name}; documented are {', '.join(kind.errnos) or 'none'} ({kind.source})",
        f"state.ret != -{name}",
    )


def dropped(moment: Moment) -> Iterator[Breach]:
    """Find failed attaches that an attach does not report."""
    after = moment.after
    reports = ("attach_group", "attach_device", "replace_group", "attach_pasid", "replace_pasid",
               "claim_group", "claim_device", "set_type")  # fmt: skip
    if after.fault_hit and not after.ret and moment.operation.kind in reports:
        yield Breach("errnos.dropped", "an attach failed and it returned 0", "state.ret != 0")


RULES = (
    Rule(
        "errnos.documented",
        "Errors are those that are documented.",
        "the kernel-doc of each function; operations.toml",
        documented,
    ),
    Rule(
        "errnos.dropped",
        "A failed attach is reported.",
        "include/linux/iommu.h, struct iommu_domain_ops",
        dropped,
    ),
)
