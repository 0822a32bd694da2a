# SPDX-License-Identifier: GPL-2.0-only
"""Default values and names for the command line, which reads them first: it imports nothing."""

from __future__ import annotations

#: The base for commands without BASE.
DEFAULT_BASE = "6.12"
#: Seconds that a guest with KUnit may take: the suites need a tenth of a second under
#: UML, five under TCG.
KUNIT_LIMIT = 120
#: The same if it also runs the cases of the tree that take minutes.
TREE_LIMIT = 900
#: The suites that a step is tested with, and what one of their tests is.
SUITES = {
    "kunit": "a KUnit case",
    "kunit-tree": "a case of the tree's own KUnit suites",
    "selftest": "a test of a userspace suite",
    "firmware": "a check of a firmware scenario",
    "vfio": "a test of the tree's selftests/vfio",
}
#: The machine of ``selftests/machines`` for each kind of guest.
GUESTS = {"um": "um", "qemu": "q35"}
