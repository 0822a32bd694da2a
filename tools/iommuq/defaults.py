# SPDX-License-Identifier: GPL-2.0-only
"""What is meant when the user does not say; the command line reads it, so it imports nothing."""

from __future__ import annotations

#: The base that is meant when the user names none.
DEFAULT_BASE = "6.12"
#: Seconds that a guest with KUnit may take: the suites need a tenth of a second under
#: UML, five under TCG.
KUNIT_LIMIT = 120
