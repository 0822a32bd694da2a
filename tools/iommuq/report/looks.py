# SPDX-License-Identifier: GPL-2.0-only
"""How the table of the HTML report shows each verdict: a sign, a word, a letter."""

from __future__ import annotations

from dataclasses import dataclass

from iommuq.results.known import Verdict


@dataclass(frozen=True)
class Look:
    """How the table shows a verdict.

    :ivar code: one letter, for the page's data.
    """

    code: str
    sign: str
    word: str


PASS = Look("o", "·", "passes")
# Alone in its row, a dot says too little.
PASS_ALONE = Look("p", "✓", "passes")
FIXED = Look("f", "✓", "passes, and failed at the step before")
FAIL = Look("x", "✕", "fails, and should not")
EXPECTED = Look("e", "○", "fails here, a later step has the verdict")
SKIP = Look("s", "–", "skipped")
KNOWN = Look("k", "K", "fails, as is known")
SURPRISE = Look("u", "✓!", "passes, but is listed as failing")
EXPIRED = Look("d", "K!", "listed as failing, but past its date")
FLAKY = Look("y", "≈", "flaky: passed and failed on one kernel")
ERROR = Look("r", "?", "no verdict: the machine failed it")
NOT_RUN = Look("n", "", "not run")
LOOKS = (
    PASS,
    PASS_ALONE,
    FIXED,
    FAIL,
    EXPECTED,
    SKIP,
    KNOWN,
    SURPRISE,
    EXPIRED,
    FLAKY,
    ERROR,
    NOT_RUN,
)

#: Where a verdict alone says how it looks.
BY_VERDICT = {
    Verdict.OK: PASS,
    Verdict.SKIPPED: SKIP,
    Verdict.KNOWN: KNOWN,
    Verdict.UNEXPECTED_PASS: SURPRISE,
    Verdict.EXPIRED: EXPIRED,
    Verdict.FLAKY: FLAKY,
    Verdict.ERROR: ERROR,
}


@dataclass(frozen=True)
class Row:
    """One row of the table.

    :ivar number: its place in the page's data.
    """

    number: int
    suite: str
    test: str
    looks: tuple[Look, ...]

    @property
    def steady(self) -> bool:
        """Whether it has nothing to tell: the same pass, or skip, at each step."""
        return len(set(self.looks)) == 1 and self.looks[0] in (PASS, PASS_ALONE, SKIP)
