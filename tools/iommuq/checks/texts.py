# SPDX-License-Identifier: GPL-2.0-only
"""Checks of what a patch says and changes, and of a series with its cover letter.

Nothing is built.  Source: Documentation/process/submitting-patches.rst.
"""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Iterator

from iommuq.checks.model import Finding, Report, Series, Skipped, Status, Subject, register
from iommuq.checks.tables import load_prefixes
from iommuq.queue.hunks import hunks
from iommuq.system.run import run, tail

_INCLUDE = re.compile(rb'^\s*#\s*include\s+([<"][^>"]+[>"])', re.MULTILINE)
#: The most columns of a message.
WIDTH = 75
#: The most characters of a subject, without the tag in brackets.
_SUBJECT = 95

_TRAILER = re.compile(r"([A-Z][A-Za-z-]+(?:-by|-to)?|Link|Fixes|Closes|Cc): *(.*)")
_FIXES = re.compile(r'[0-9a-f]{12,40} \("[^"].*"\)')
_ASSISTED = re.compile(r"[\w.+-]+:[\w.+-]+(?: \[[^\]]+\])*(?: [\w.+/-]+)*")
_PERSON = re.compile(r"[^<>]+ <[^<>@\s]+@[^<>@\s]+>")
_NO_ORDER = re.compile(r"(?!(?:Need|Feed|Embed|Speed|Bring) )\w+(?:ed|ing) ")
_BY = re.compile(r"(?:Signed-off|Reviewed|Acked|Tested|Reported|Suggested|Co-developed)-by")
_ADDRESS = re.compile(r"<?([\w.+-]+@[\w.-]+)>?")
_LIMIT = 120.0


@register("applies", "applies in its place, alone")
def applies(subject: Subject) -> list[Finding]:
    """The patch changes its tree.  One that does not apply is an error before any check."""
    tree = subject.need_tree()
    if tree.before == tree.after:
        return [Finding(Status.FAIL, "no change")]
    return []


@register("includes", "headers that are included twice")
def includes(subject: Subject) -> list[Finding]:
    """The patch does not include a header a second time."""
    tree = subject.need_tree()
    found = []
    for change in subject.changes:
        if not change.path.endswith((".c", ".h")):
            continue
        before, after = (
            Counter(_INCLUDE.findall(tree.store.read_file(each, change.path) or b""))
            for each in (tree.before, tree.after)
        )
        found += [
            Finding(Status.WARN, f"{name.decode('utf-8', 'replace')} twice", change.path)
            for name, count in after.items()
            if count > 1 and count > before[name]
        ]
    return found


@register("blanks", "blanks at the end of lines, and conflict markers")
def blanks(subject: Subject) -> list[Finding]:
    """Added lines have no trailing blanks and no conflict markers."""
    found = []
    for hunk in hunks(subject.patch.diff):
        for number in hunk.added:
            line = hunk.after[number]
            if line != line.rstrip():
                found.append(Finding(Status.WARN, "blanks at the end of a line", hunk.path))
            if re.match(rb"(?:<{7}|>{7})(?: |$)", line):
                found.append(Finding(Status.FAIL, "a conflict marker", hunk.path))
    return list(dict.fromkeys(found))


def trailers(subject: Subject) -> Iterator[tuple[str, str]]:
    """Yield name and value of each trailer, if all lines of the last paragraph are trailers."""
    paragraphs = subject.patch.message.rstrip("\n").split("\n\n")
    last = paragraphs[-1].split("\n") if len(paragraphs) > 1 else []
    matches = [_TRAILER.fullmatch(line) for line in last]
    if matches and all(matches):
        yield from ((match[1], match[2]) for match in matches if match)


@register("subject", "subject line")
def subject_line(subject: Subject) -> list[Finding]:
    """A subject has a prefix, an imperative with a capital, and no full stop."""
    text = subject.patch.subject
    prefix, colon, rest = text.rpartition(": ")
    found = []
    if not colon:
        found.append(Finding(Status.FAIL, "the subject has no prefix that names the subsystem"))
    if len(text) > _SUBJECT:
        found.append(Finding(Status.WARN, f"the subject has {len(text)} characters"))
    if text.endswith("."):
        found.append(Finding(Status.WARN, "the subject ends with a full stop"))
    if rest[:1].islower():
        found.append(Finding(Status.WARN, f"{rest.split()[0]!r}: capital letter after the prefix"))
    if _NO_ORDER.match(rest):
        found.append(Finding(Status.WARN, f"{rest.split()[0]!r}: use the imperative"))
    wanted = {
        rule.prefix
        for change in subject.changes
        for rule in load_prefixes()
        if change.path.startswith(rule.path)
    }
    allowed = {each for rule in load_prefixes() if rule.prefix in wanted for each in rule.all}
    if colon and allowed and not any(part in allowed for part in (prefix, *prefix.split(": "))):
        names = " or ".join(sorted(wanted))
        found.append(Finding(Status.WARN, f"prefix {prefix!r}; files like these have {names}"))
    return found


@register("width", "width of the message")
def message_width(subject: Subject) -> list[Finding]:
    """A message has at most 75 columns, except for lines that cannot be broken."""
    found = []
    for number, line in enumerate(subject.body, 3):
        whole = re.match(r"\s*\S+$|[A-Z][\w-]+: |[0-9a-f]{12,} |\s|>", line)
        if len(line) > WIDTH and not whole:
            found.append(Finding(Status.WARN, f"{len(line)} columns: {line}", f"message:{number}"))
    if not any(line.strip() for line in subject.body):
        found.append(Finding(Status.FAIL, "no message below the subject"))
    return found


@register("trailers", "Link, Fixes, Assisted-by and the like")
def trailer_form(subject: Subject) -> list[Finding]:
    """Trailers have the form that tools expect."""
    found = []
    for name, value in trailers(subject):
        bad = ""
        if name == "Fixes" and not _FIXES.fullmatch(value):
            bad = 'the form is COMMIT ("SUBJECT"), with 12 digits or more'
        elif name in ("Link", "Closes") and not re.match(r"https?://\S+(?: #.*)?$", value):
            bad = "the form is https://…"
        elif name == "Assisted-by" and not _ASSISTED.fullmatch(value):
            bad = "the form is NAME:VERSION [TOOL]…"
        elif _BY.fullmatch(name) and not _PERSON.fullmatch(value):
            bad = "the form is Name <address>"
        if bad:
            found.append(Finding(Status.FAIL, f"{name}: {value}: {bad}"))
    text = subject.patch.message.rstrip("\n")
    last = text.rpartition("\n\n")[2]
    for line in text[: -len(last)].split("\n"):
        if re.match(r"(?:Fixes|Link|[\w-]+-by): \S", line):
            found.append(Finding(Status.WARN, f"{line}: not among the trailers at the end"))
    return found


@register("signed-off", "no Signed-off-by before it is sent")
def signed_off(subject: Subject) -> list[Finding]:
    """A patch of the queue has no Signed-off-by: its sender adds it.  A received mail has one."""
    there = any(name == "Signed-off-by" for name, _ in trailers(subject))
    if subject.workspace is None:
        return [] if there else [Finding(Status.FAIL, "no Signed-off-by in a sent mail")]
    return [Finding(Status.FAIL, "a Signed-off-by before the patch is sent")] if there else []


def check_series(series: Series) -> list[Report]:
    """Run all checks of a series."""
    found = [Report("cover", series.section, tuple(_cover(series)))]
    try:
        people = _recipients(series)
    except Skipped as reason:
        people = [Finding(Status.SKIP, str(reason))]
    return [*found, Report("recipients", series.section, tuple(people))]


def _cover(series: Series) -> list[Finding]:
    if not series.cover:
        several = len(series.subjects) > 1
        return [Finding(Status.WARN, "several patches, and no cover letter")] if several else []
    title, _, body = series.cover.partition("\n")
    found = []
    if not title.startswith("# "):
        found.append(Finding(Status.FAIL, "its first line is not `# ` and a subject"))
    if len(body.split()) < 20:
        found.append(Finding(Status.WARN, "fewer than 20 words"))
    return found


def _recipients(series: Series) -> list[Finding]:
    """Compare the recipients of get_maintainer.pl with those in the cover letter."""
    if not series.cover:
        raise Skipped("no cover letter")
    if shutil.which("perl") is None:
        raise Skipped("perl is not installed")
    there = {match.lower() for match in _ADDRESS.findall(series.cover)}
    wanted: dict[str, str] = {}
    for subject in series.subjects:
        root = subject.need_tree().extract("scripts/get_maintainer.pl", "MAINTAINERS")
        # There is no history, only MAINTAINERS.
        words = ("--no-tree", "--no-git", "--no-git-fallback", "--no-rolestats", "--no-n")
        argv = ["perl", "scripts/get_maintainer.pl", *words, str(subject.patch.path)]
        done = run(argv, cwd=root, timeout=_LIMIT, check=False)
        if done.returncode:
            raise Skipped(f"get_maintainer.pl: {tail(done.stderr, 1)}")
        for address in _ADDRESS.findall(done.output):
            wanted.setdefault(address.lower(), subject.patch.name)
    return [
        Finding(Status.WARN, f"{address} is not in the cover letter", name)
        for address, name in sorted(wanted.items())
        if address not in there and address != "linux-kernel@vger.kernel.org"
    ]
