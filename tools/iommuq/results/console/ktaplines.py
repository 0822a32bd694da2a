# SPDX-License-Identifier: GPL-2.0-only
"""The lines of KTAP: headers, plans, results, and the notes between them."""

from __future__ import annotations

import re

from iommuq.results.store import Status
from iommuq.system.logtext import STAMP

#: Largest number of lines of notes for one case.
MESSAGE_LINES = 100

VERSION = re.compile(r"(K?TAP) version (\d{1,9})$")
VERSIONS = {"KTAP": range(1, 3), "TAP": range(13, 15)}
SUBTEST = re.compile(r"# Subtest: ?(.*)$")
PLAN = re.compile(r"1\.\.(\d{1,9})(?:\s*#\s*(.*))?$")
RESULT = re.compile(r"(ok|not ok) (\d{1,9})(?: (.*))?$")
EXECUTOR = re.compile(r"kunit executor: (.*)$")
PANIC = "Kernel panic - not syncing: "
#: The kernel has ended: nothing after this is a result.
END = re.compile(
    rf"List of all partitions:|{PANIC}"
    r"|reboot: (?:System halted|Power down|Restarting system|machine restart)"
)

_DIRECTIVE = re.compile(
    r"(?:^|\s)#\s*(SKIP(?:PED)?|TODO|XFAIL|XPASS|TIMEOUT|ERROR)\b:?\s*(.*)$", re.IGNORECASE
)
_COMMENT = re.compile(r"(?:^|\s)#(?:\s+(.*))?$")
# A line of printk in the middle of a program's line.
_CUT_IN = re.compile(rf"{STAMP} .*")
_DURATION = re.compile(
    r"#.*\b(?:duration|runtime)(?:_(ms|us|ns))?\s*(?:[:=]\s*)?(\d{1,9}(?:\.\d+)?)\s*(ms|us|ns|s)?\b"
)
_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_KUNIT_FAILED = re.compile(r"# .*\b(?:EXPECTATION|ASSERTION) FAILED at ")
# Lines that the frameworks print for every case.
_CHATTER = re.compile(
    r"# (?: *(?:RUN|OK|FAIL) +\S+.*|Starting \d+ tests from .*|Totals: pass:.*"
    r"|\S+: pass:\d+ fail:\d+ skip:\d+ total:\d+|(?:PASSED|FAILED): \d+ / \d+ tests passed\."
    r"|(?:module|(?:[\w.]+\.)?(?:speed|is_init)): .*)$"
)
# kselftest_harness.h names a case before it runs; KUnit does not.
_RUNNING = re.compile(r"#  RUN +(\S+) \.\.\.$")


def outcome(match: re.Match[str]) -> tuple[Status, str, str]:
    """Return status, name and reason of a line that `RESULT` matches."""
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
    # ksft_test_result_skip() and similar print the name after the directive.
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
    """Return the reason of ``1..0 # SKIP reason``; None: the plan skips nothing."""
    match = _DIRECTIVE.match(f"# {comment}")
    if match is None or not match[1].upper().startswith("SKIP"):
        return None
    return match[2].strip() or "no reason given"


class Notes:
    """The lines since the last result that may belong to the next one.

    These are comments, and after the first line of a failed KUnit expectation the lines
    with at least its indentation and the test's own message, after an empty line.

    :ivar duration: the first duration in them, in seconds; None: there is none.
    :ivar running: the name of the case that started last; None: there is none.
    """

    duration: float | None
    running: str | None
    _own_words: bool
    # Indentation of the current failed expectation.
    _block: int | None

    def __init__(self) -> None:
        self.clear()

    def add(self, indent: int, text: str) -> None:
        """Add a line that is no event, if it belongs to the notes."""
        if text.startswith("#"):
            self._append(text)
            if self.duration is None and (match := _DURATION.match(text)):
                self.duration = float(match[2]) * _UNITS[match[1] or match[3] or "s"]
            if match := _RUNNING.match(text):
                self.running = match[1]
            self._block = indent if _KUNIT_FAILED.match(text) else None
        elif self._block is not None:
            if text and not self._own_words and indent < max(self._block, 1):
                self._block = None
                return
            self._own_words = not text
            self._append(" " * max(indent - self._block, 0) + text)

    def _append(self, line: str) -> None:
        if _CHATTER.match(line):
            return
        if len(self._lines) < MESSAGE_LINES:
            self._lines.append(line)
        else:
            self._more += 1

    def clear(self) -> None:
        """Remove all lines."""
        self._lines: list[str] = []
        self._more = 0
        self._block = None
        self._own_words = False
        self.duration = self.running = None

    def message(self, reason: str) -> str:
        """Return *reason* and the notes without those of every case."""
        more = [f"… {self._more} more lines"] if self._more else []
        return "\n".join(([reason] if reason else []) + self._lines + more).rstrip()
