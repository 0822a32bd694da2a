# SPDX-License-Identifier: GPL-2.0-only
"""The lines that KTAP is made of: headers, plans, results, and the notes between them."""

from __future__ import annotations

import re

from iommuq.results.store import Status
from iommuq.system.logtext import STAMP

#: Lines of notes that are kept for one case.
MESSAGE_LINES = 100

VERSION = re.compile(r"(K?TAP) version (\d{1,9})$")
VERSIONS = {"KTAP": range(1, 3), "TAP": range(13, 15)}
SUBTEST = re.compile(r"# Subtest: ?(.*)$")
PLAN = re.compile(r"1\.\.(\d{1,9})(?:\s*#\s*(.*))?$")
RESULT = re.compile(r"(ok|not ok) (\d{1,9})(?: (.*))?$")
EXECUTOR = re.compile(r"kunit executor: (.*)$")
PANIC = "Kernel panic - not syncing: "
#: The kernel is done with its tests, well or not: nothing after this is a result.
END = re.compile(
    rf"List of all partitions:|{PANIC}"
    r"|reboot: (?:System halted|Power down|Restarting system|machine restart)"
)

_DIRECTIVE = re.compile(
    r"(?:^|\s)#\s*(SKIP(?:PED)?|TODO|XFAIL|XPASS|TIMEOUT|ERROR)\b:?\s*(.*)$", re.IGNORECASE
)
_COMMENT = re.compile(r"(?:^|\s)#(?:\s+(.*))?$")
# A line of printk's in the middle of what a program prints.
_CUT_IN = re.compile(rf"{STAMP} .*")
_DURATION = re.compile(
    r"#.*\b(?:duration|runtime)(?:_(ms|us|ns))?\s*[:=]?\s*(\d{1,9}(?:\.\d+)?)\s*(ms|us|ns|s)?\b"
)
_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_KUNIT_FAILED = re.compile(r"# .*\b(?:EXPECTATION|ASSERTION) FAILED at ")
# What the frameworks say of every case, of no use to a reader.
_CHATTER = re.compile(
    r"# (?: *(?:RUN|OK|FAIL) +\S+.*|Starting \d+ tests from .*|Totals: pass:.*"
    r"|\S+: pass:\d+ fail:\d+ skip:\d+ total:\d+|(?:PASSED|FAILED): \d+ / \d+ tests passed\."
    r"|(?:module|(?:[\w.]+\.)?(?:speed|is_init)): .*)$"
)
# kselftest_harness.h names a case before it runs; KUnit does not.
_RUNNING = re.compile(r"#  RUN +(\S+) \.\.\.$")


def outcome(match: re.Match[str]) -> tuple[Status, str, str]:
    """Read a line that `RESULT` matches.

    :return: status, name, and the reason that a directive or a comment gives.
    """
    passed = match[1] == "ok"
    rest = _CUT_IN.sub("", match[3] or "")
    status = Status.PASS if passed else Status.FAIL
    directive = reason = ""
    if found := _DIRECTIVE.search(rest):
        directive = found[1].upper().removesuffix("PED")
        reason = found[2].strip()
        rest = rest[: found.start()]
    elif found := _COMMENT.search(rest):
        reason = (found[1] or "").strip()
        rest = rest[: found.start()]
    # ksft_test_result_skip() and its like print the name after the directive.
    name = re.sub(r"^-(?:\s+|$)", "", rest.strip()) or reason or f"#{int(match[2])}"
    if directive == "SKIP":
        return Status.SKIP, name, reason
    if directive == "XFAIL" or (directive == "TODO" and not passed):
        status = Status.SKIP
    elif directive in ("TIMEOUT", "ERROR"):
        status = Status.ERROR
    if directive:
        reason = f"{directive}: {reason}" if reason else directive
    return status, name, reason


def skipped_plan(comment: str) -> str | None:
    """Return why a plan, ``1..0 # SKIP reason``, skips all, or None if it does not."""
    match = _DIRECTIVE.match(f"# {comment}")
    if match is None or not match[1].upper().startswith("SKIP"):
        return None
    return match[2].strip() or "no reason given"


class Notes:
    """The lines since the last result that may belong to the next one.

    They are the comments, and what follows the first line of a failed KUnit
    expectation: lines that are indented at least as far, and the test author's own
    words, which come last, after an empty line.
    """

    def __init__(self) -> None:
        self._lines: list[str] = []
        # Indentation of the failed expectation that we are in.
        self._block: int | None = None
        self._own_words = False

    def add(self, indent: int, text: str) -> None:
        """Keep a line that is no event, unless it is the console's."""
        if text.startswith("#"):
            self._lines.append(text)
            self._block = indent if _KUNIT_FAILED.match(text) else None
        elif self._block is not None:
            if text and not self._own_words and indent < max(self._block, 1):
                self._block = None
                return
            self._own_words = not text
            self._lines.append(" " * max(indent - self._block, 0) + text)

    def clear(self) -> None:
        """Start anew, after a result."""
        self._lines.clear()
        self._block = None
        self._own_words = False

    def message(self, reason: str) -> str:
        """Return *reason* and what of the notes a reader may want."""
        lines = [line for line in self._lines if not _CHATTER.match(line)]
        if len(lines) > MESSAGE_LINES:
            lines[MESSAGE_LINES:] = [f"… {len(lines) - MESSAGE_LINES} more lines"]
        return "\n".join(([reason] if reason else []) + lines).rstrip()

    @property
    def duration(self) -> float | None:
        """The seconds that a note gives, if one does."""
        for line in self._lines:
            if match := _DURATION.match(line):
                return float(match[2]) * _UNITS[match[1] or match[3] or "s"]
        return None

    @property
    def running(self) -> str | None:
        """The name of the case that was begun last, if the framework told."""
        for line in reversed(self._lines):
            if match := _RUNNING.match(line):
                return match[1]
        return None
