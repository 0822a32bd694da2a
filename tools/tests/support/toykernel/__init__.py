# SPDX-License-Identifier: GPL-2.0-only
"""A toy kernel that goes the whole way: configured, compiled and booted in milliseconds.

The processes are real (git, make, gcc, a kunit.py), and so are the files; only the
kernel is none.  What it prints, and what its build prints, has the form of Linux's.

Variables that its build files and the kernel itself heed, none of which changes a key:

``TOY_TRACE``
    a file that make and kunit.py each append a line to when they are called.
``TOY_STALL``
    the stage (``fetch``, ``checkout``, ``config``, ``build``, ``boot``) that never ends;
    it makes the file ``TOY_STALLED`` when it is there.

``linux/`` has its source, ``project/`` what is kept for it; in both, files are named as
in the real ones.
"""

from toykernel.files import BASE, FILES, FRAGMENT, IOMMU_C, KNOWN, PATIENCE, PROJECT, SUITE_C
from toykernel.project import (
    Done,
    Project,
    copy_project,
    interrupt,
    make_project,
    template,
    wait_for,
)

__all__ = [
    "BASE",
    "FILES",
    "FRAGMENT",
    "IOMMU_C",
    "KNOWN",
    "PATIENCE",
    "PROJECT",
    "SUITE_C",
    "Done",
    "Project",
    "copy_project",
    "interrupt",
    "make_project",
    "template",
    "wait_for",
]
