# SPDX-License-Identifier: GPL-2.0-only
"""The text of a reply: quotes, what was run, and the results.

Text of mails and of the sandbox is untrusted: it is limited, and stripped of control characters.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from iommuq.mail.review.draft_points import PROGRAMS, WIDTH, plain, points, quoted, wrap
from iommuq.mail.review.fetch import Message
from iommuq.mail.review.model import Ran, Reviewed
from iommuq.report.matrix import MIN_NAMES
from iommuq.system.progress import one_line

#: The prefix of lines for the user, to be deleted before sending.
NOTE = "# "
_QUOTED_LINES = 8
_MOST_ROWS = 24
_VERBS = {
    "pass": ("passes", "pass"),
    "FAIL": ("fails", "fail"),
    "skip": ("is skipped", "are skipped"),
    "flaky": ("is flaky", "are flaky"),
    "?": ("has no verdict", "have no verdict"),
}
#: Verdicts whose tests are named, up to this number.
_NAMED = ("FAIL", "flaky", "?")
_MOST_NAMES = 4
_MARKS = {"passed": "pass", "failed": "FAIL", "skipped": "skip", "flaky": "flaky", "unknown": "?"}


def head_body(found: Reviewed, *, details: str = "") -> str:
    """Return the text of the reply to a whole series.

    :param details: findings about the patch that is replied to; empty for none.
    """
    posted = found.posted
    head = posted.cover or posted.patches[0]
    lines = [*_notes(found), ""] if _notes(found) else []
    if not details:
        lines += [_intro(head), *_quote(_first_paragraph(head)), ""]
    else:
        lines += [details.rstrip(), ""]
    lines += [*wrap(_applied(found)), ""]
    if found.refusal is not None:
        number, why = found.refusal
        lines += [f"Patch {number}/{len(posted.patches)} does not apply:", *quoted(why), ""]
        return "\n".join(lines)
    assert found.answer is not None
    for lane, title in found.answer.lanes.items():
        lines += [*_lane(found, lane, title), ""]
    lines += [*_builds(found), ""]
    if found.clean and _tested(found):
        lines += [NOTE + "Uncomment this after you have read the code:"]
        who = one_line(head.reply.get("From", "")) or "Your Name <you@example.com>"
        lines += [f"{NOTE}Tested-by: {who}", ""]
    return "\n".join(lines)


def patch_body(found: Reviewed, number: int) -> str:
    """Return the text of the reply to patch *number*, from 1; empty without findings."""
    found_points = sorted(points(found, number), key=lambda point: point.order)
    if not found_points:
        return ""
    lines = [_intro(found.posted.patches[number - 1])]
    last: tuple[str, ...] | None = None
    for point in found_points:
        if point.quote and point.quote != last:
            lines += [*_quote(point.quote), ""]
        last = point.quote
        lines += [*point.text, ""]
    return "\n".join(lines)


def _notes(found: Reviewed) -> list[str]:
    """Return the lines that are only for the user."""
    posted = found.posted
    lines = ["A draft; nothing was sent. Delete the lines that begin with #."]
    if found.trusted:
        lines.append("Built and run without a sandbox.")
    total = len(posted.patches)
    mails = [(f"{number}/{total}", mail) for number, mail in enumerate(posted.patches, 1)]
    if posted.cover is not None:
        mails.insert(0, ("cover letter", posted.cover))
    signatures = {mail.signature for _, mail in mails}
    if len(signatures) == 1:
        lines.append(f"Every mail: {signatures.pop()}")
    else:
        lines += [f"{name}: {mail.signature}" for name, mail in mails]
    lines += [f"{name}: {remark}" for name, mail in mails for remark in mail.remarks]
    lines += [f"b4: {note}" for note in posted.notes]
    if len(posted.revisions) > 1:
        others = ", ".join(f"v{each}" for each in posted.revisions)
        lines.append(f"The thread has {others}; this is v{posted.revision}.")
    return [part for line in lines for part in _note(line)]


def _intro(message: Message) -> str:
    return f"On {one_line(message.date)}, {one_line(message.sender)} wrote:"


def _first_paragraph(message: Message) -> list[str]:
    text = message.body.replace("\r\n", "\n").strip("\n")
    lines = text.split("\n\n")[0].split("\n")
    more = len(text.split("\n\n")) > 1 or len(lines) > _QUOTED_LINES
    return [*lines[:_QUOTED_LINES], *(["[...]"] if more else [])]


def _quote(lines: Sequence[str]) -> list[str]:
    return [f"> {_printable(line)}".rstrip() for line in lines]


def _printable(line: str) -> str:
    """Replace control characters other than tabs."""
    return "".join(char if char.isprintable() or char == "\t" else " " for char in line).rstrip()


def _applied(found: Reviewed) -> str:
    place = found.place
    if place.met:
        return f"Applied to your base-commit {plain(place.wanted[:12])}, {place.title}."
    text = f"Applied to {place.title}."
    if place.wanted:
        text += f" (Your base-commit {plain(place.wanted[:12])} is not used.)"
    return text


def _lane(found: Reviewed, lane: str, title: str) -> list[str]:
    """Return the results of a suite: tests that a patch changes, and the number of others."""
    assert found.answer is not None
    ran = {each.label: each for each in found.answer.outcomes if each.lane == lane}
    columns = [ran[label] for label in found.labels if label in ran]
    tests = list(dict.fromkeys(test for each in columns for test in _cells(each)))
    rows = {test: [_cells(each).get(test, "-") for each in columns] for test in tests}
    told = {
        test: cells
        for test, cells in rows.items()
        if len({cell for cell, each in zip(cells, columns, strict=True) if not each.failure}) > 1
    }
    accelerator = next((each.accelerator for each in columns if each.accelerator), "")
    if f"({accelerator})" not in title and accelerator not in ("", "native"):
        title += f" ({accelerator})"
    lines = wrap(
        f"Ran {plain(title)} before the series and after each patch. The tests are not"
        " part of the tree; they were added to each step of it."
    )
    lines += ["", *wrap(_what_each_did(found, lane)), ""]
    if told:
        lines += [*_table(told, [found.names[each.label] for each in columns]), ""]
    lines += wrap(_steady(rows, told, columns))
    return lines


def _what_each_did(found: Reviewed, lane: str) -> str:
    """Return a sentence for each patch on its effect on the tests."""
    assert found.answer is not None
    parts = []
    changes = {each.label: each for each in found.changes if each.lane == lane}
    for ran in found.answer.outcomes:
        if ran.lane != lane or ran.label == found.labels[0]:
            continue
        name = found.names[ran.label]
        change = changes.get(ran.label)
        if ran.failure is not None:
            parts.append(f"{name} does not build.")
        elif change is None:
            parts.append(f"{name} has no earlier result to compare with.")
        else:
            does = []
            if change.broke:
                does.append(f"breaks {_count(change.broke)}")
            if change.fixed:
                does.append(f"fixes {_count(change.fixed)}")
            parts.append(f"{name} {' and '.join(does) or 'changes no result'}.")
    return " ".join(parts)


def _count(tests: Sequence[str]) -> str:
    return "1 test" if len(tests) == 1 else f"{len(tests)} tests"


def _cells(ran: Ran) -> dict[str, str]:
    return {test: mark for kind, mark in _MARKS.items() for test in getattr(ran, kind)}


def _table(rows: dict[str, list[str]], heads: Sequence[str]) -> list[str]:
    """Return a table of tests, grouped by suite, in the width of a mail."""
    width = 2 + max(5, *map(len, heads))
    room = max(MIN_NAMES, WIDTH - 4 - width * len(heads))
    shown = dict(list(rows.items())[:_MOST_ROWS])
    names = {test: plain(test.partition(".")[2] or test) for test in shown}
    longest = min(room, max(map(len, names.values())))
    lines = ["    " + " " * longest + "".join(f"{head:>{width}}" for head in heads)]
    suite = ""
    for test, cells in shown.items():
        if test.partition(".")[0] != suite and "." in test:
            suite = test.partition(".")[0]
            lines.append(f"  {plain(suite)}")
        name = names[test] if len(names[test]) <= longest else f"..{names[test][2 - longest :]}"
        lines.append(f"    {name:<{longest}}" + "".join(f"{cell:>{width}}" for cell in cells))
    if len(rows) > _MOST_ROWS:
        lines.append(f"  and {len(rows) - _MOST_ROWS} more that change")
    return lines


def _steady(rows: dict[str, list[str]], told: dict[str, list[str]], columns: Sequence[Ran]) -> str:
    """Return the results of the tests that no patch changes."""
    by_mark: dict[str, list[str]] = {}
    for test, cells in rows.items():
        if test not in told:
            marks = (cell for cell, each in zip(cells, columns, strict=True) if not each.failure)
            by_mark.setdefault(next(marks, "-"), []).append(test)
    if not rows:
        return "No test ran."
    parts = []
    for mark, (one, several) in _VERBS.items():
        tests = by_mark.get(mark, [])
        if tests:
            few = mark in _NAMED and len(tests) <= _MOST_NAMES
            names = f" ({', '.join(map(plain, tests))})" if few else ""
            parts.append(f"{len(tests)} {one if len(tests) == 1 else several}{names}")
    rest = ", ".join(parts)
    if not told:
        return f"No patch changes a result: {rest}, before and after."
    return f"Of the other tests {rest}, before and after." if rest else "There are no others."


def _builds(found: Reviewed) -> list[str]:
    """Return the text on builds and checks."""
    assert found.answer is not None
    compiler = plain(found.answer.compiler)
    bad = any(each.failure or each.warnings for each in found.answer.outcomes)
    text = f"Built with {compiler}"
    text += "." if bad else ", at every step without a new warning."
    status: dict[str, set[str]] = {}
    for report in found.answer.reports:
        status.setdefault(report.check, set()).update(each.status for each in report.findings)
    made = [name for check, name in PROGRAMS.items() if "skip" not in status.get(check, {"skip"})]
    if made:
        text += f" Checked with {', '.join(made)}."
    spoken = [
        f"{number}/{len(found.mails)}"
        for number in range(1, len(found.mails) + 1)
        if any(points(found, number))
    ]
    if spoken and len(found.mails) > 1:
        text += f" See my replies to {', '.join(spoken)}."
    lines = wrap(text)
    reasons = {
        f"{report.check} ({each.text})": None
        for report in found.answer.reports
        for each in report.findings
        if each.status == "skip"
    }
    for reason in reasons:
        lines += _note(f"Not checked: {reason}")
    return lines


def _note(text: str) -> list[str]:
    return textwrap.wrap(one_line(text), WIDTH, initial_indent=NOTE, subsequent_indent=f"{NOTE}  ")


def _tested(found: Reviewed) -> bool:
    assert found.answer is not None
    return any(ran.passed for ran in found.answer.outcomes if ran.label == found.labels[-1])
