# SPDX-License-Identifier: GPL-2.0-only
"""The findings about a patch, and the lines that each is about."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from iommuq.mail.review.model import Reviewed
from iommuq.queue.hunks import Hunk, hunks
from iommuq.system.progress import one_line

#: Columns of a mail.
WIDTH = 75
#: The names, in a draft, of the checks that run a program known to kernel developers.
PROGRAMS = {
    "checkpatch": "checkpatch.pl --strict",
    "kernel-doc": "kernel-doc",
    "spelling": "codespell",
    "sparse": "sparse",
    "coccicheck": "Coccinelle",
    "build-um": "W=1 for UML",
    "build-x86_64": "W=1 for x86_64",
}
#: Lines quoted up to the one that a finding is about.
_CONTEXT = 4
#: Findings of one check, and lines and columns of a test's output.
_MOST_FINDINGS = 8
_MESSAGE_LINES = 8
_MESSAGE_WIDTH = 160
_MOST_PLAIN = 120
_MAIL_LINE = re.compile(r"(\d{1,9}): (.*)")
_SOURCE_LINE = re.compile(r"([\w./+-]+\.[chSs]):(\d{1,9}):")


@dataclass(frozen=True)
class Point:
    """A finding about a patch.

    :ivar order: the line of the mail, from 1; 0 to come first.
    :ivar quote: the lines that it is about.
    """

    order: int
    quote: tuple[str, ...]
    text: tuple[str, ...]


def wrap(text: str, width: int = WIDTH) -> list[str]:
    """Wrap a text to the width of a mail."""
    return textwrap.wrap(one_line(text), width, break_long_words=False, break_on_hyphens=False)


def quoted(text: str) -> list[str]:
    """Wrap untrusted text, so that no line of it can be taken for a trailer or a header."""
    return [f"| {line}" for line in wrap(text, WIDTH - 2)]


def plain(text: str) -> str:
    """Return untrusted text for use within a sentence; other characters become ``?``."""
    return re.sub(r"[^\w .,()/+~-]", "?", one_line(text))[:_MOST_PLAIN]


def points(found: Reviewed, number: int) -> Iterator[Point]:
    """Yield the findings about a patch, counted from 1."""
    if found.refusal is not None or found.answer is None:
        return
    label = found.labels[number]
    mail = found.texts[number - 1]
    subject = (found.posted.patches[number - 1].subject,)
    diff = found.mails[number - 1].diff
    for ran in found.answer.outcomes:
        if ran.label != label:
            continue
        if ran.failure is not None:
            quote = _at_source(diff, ran.failure) or (0, subject)
            reason = ran.failure.partition(": ")[2] or ran.failure
            yield Point(*quote, ("It does not build:", *quoted(reason)))
        for warning in ran.warnings:
            quote = _at_source(diff, warning) or (0, subject)
            yield Point(*quote, ("New warning:", *quoted(warning)))
        if ran.flaky:
            names = ", ".join(map(plain, ran.flaky[:_MOST_FINDINGS]))
            yield Point(0, subject, tuple(wrap(f"Passes and fails with this: {names}")))
    for change in found.changes:
        if change.label == label and change.broke:
            yield Point(0, subject, tuple(_broken(found, label, change.lane, change.broke)))
    if not re.search(r"^Signed-off-by: \S", found.mails[number - 1].message, re.MULTILINE):
        yield Point(0, subject, ("Your Signed-off-by is missing.",))
    for report in found.answer.reports:
        if report.label != label:
            continue
        remarks = [each for each in report.findings if each.status in ("warn", "fail")]
        for remark in remarks[:_MOST_FINDINGS]:
            order, lines, text = _at_mail(mail, remark.text)
            where = f" ({remark.where})" if remark.where else ""
            head = [f"{report.check}:"] if report.check in PROGRAMS else []
            yield Point(order, lines or subject, (*head, *quoted(f"{text}{where}")))
        if len(remarks) > _MOST_FINDINGS:
            left = len(remarks) - _MOST_FINDINGS
            yield Point(1 << 30, (), (f"{plain(report.check)}: and {left} more like these.",))


def _broken(found: Reviewed, label: str, lane: str, tests: Sequence[str]) -> list[str]:
    assert found.answer is not None
    messages: dict[str, str] = {}
    for ran in found.answer.outcomes:
        if (ran.label, ran.lane) == (label, lane):
            messages = ran.messages
    count = f"{len(tests)} tests fail" if len(tests) > 1 else "A test fails"
    lines = [f"{count} with this patch and passed before it:", ""]
    for test in tests[:_MOST_FINDINGS]:
        lines.append(f"  {plain(test)}")
        said = [one_line(line) for line in messages.get(test, "").splitlines() if line.strip()]
        # Kernel messages are not wrapped.
        lines += [f"  | {line[:_MESSAGE_WIDTH]}" for line in said[:_MESSAGE_LINES]]
    if len(tests) > _MOST_FINDINGS:
        lines.append(f"  and {len(tests) - _MOST_FINDINGS} more")
    return lines


def _at_mail(mail: Sequence[str], text: str) -> tuple[int, tuple[str, ...], str]:
    """Return the lines of a mail that a remark is about, and the remark without its number."""
    match = _MAIL_LINE.fullmatch(text)
    if match is None:
        return 0, (), text
    number = int(match[1])
    if not 1 <= number <= len(mail):
        return 0, (), match[2]
    first = max(0, number - _CONTEXT)
    lines = list(mail[first:number])
    # The quote begins at the start of the hunk or file.
    for at in range(len(lines) - 1, -1, -1):
        if re.match(r"@@ |diff --git |$", lines[at]) and at < len(lines) - 1:
            lines = lines[at + (lines[at] == "") :]
            break
    return number, tuple(lines), match[2]


def _at_source(diff: bytes, text: str) -> tuple[int, tuple[str, ...]] | None:
    """Return the lines of a diff that a compiler's message is about."""
    place = _SOURCE_LINE.search(text)
    if place is None:
        return None
    for hunk in hunks(diff):
        at = int(place[2]) - hunk.new_start
        if place[1].endswith(hunk.path) and 0 <= at < len(hunk.after):
            return hunk.line + at, tuple(_hunk_lines(hunk, at))
    return None


def _hunk_lines(hunk: Hunk, at: int) -> Iterator[str]:
    yield f"+++ b/{hunk.path}"
    yield hunk.header
    for number in range(max(0, at - _CONTEXT + 1), at + 1):
        sign = "+" if number in hunk.added else " "
        yield sign + hunk.after[number].decode("utf-8", "replace")
