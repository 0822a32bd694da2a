# SPDX-License-Identifier: GPL-2.0-only
"""Checks of what a patch says: its subject, its message, its trailers.

The rules are those of Documentation/process/submitting-patches.rst.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from iommuq.checks.model import REGISTRY, Finding, Status, Subject
from iommuq.checks.tables import load_prefixes

#: Columns of a message.
WIDTH = 75
#: Characters of a subject, without the tag in brackets.
_SUBJECT = 95

_TRAILER = re.compile(r"([A-Z][A-Za-z-]+(?:-by|-to)?|Link|Fixes|Closes|Cc): *(.*)")
_FIXES = re.compile(r'[0-9a-f]{12,40} \("[^"].*"\)')
_ASSISTED = re.compile(r"[\w.+-]+:[\w.+-]+(?: \[[^\]]+\])*(?: [\w.+/-]+)*")
_PERSON = re.compile(r"[^<>]+ <[^<>@\s]+@[^<>@\s]+>")
_NO_ORDER = re.compile(r"(?!(?:Need|Feed|Embed|Speed|Bring) )\w+(?:ed|ing) ")
_BY = re.compile(r"(?:Signed-off|Reviewed|Acked|Tested|Reported|Suggested|Co-developed)-by")


def trailers(subject: Subject) -> Iterator[tuple[str, str]]:
    """Yield name and value of each line of the last paragraph, if that is one of trailers."""
    paragraphs = subject.patch.message.rstrip("\n").split("\n\n")
    last = paragraphs[-1].split("\n") if len(paragraphs) > 1 else []
    matches = [_TRAILER.fullmatch(line) for line in last]
    if matches and all(matches):
        yield from ((match[1], match[2]) for match in matches if match)


@REGISTRY.add("subject", "subject line")
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
        found.append(Finding(Status.WARN, f"{rest.split()[0]!r}: is that an imperative?"))
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


@REGISTRY.add("width", "width of the message")
def message_width(subject: Subject) -> list[Finding]:
    """A message has 75 columns; what cannot be broken may be longer."""
    found = []
    for number, line in enumerate(subject.body, 3):
        long = len(line) > WIDTH
        whole = re.match(r"\s*\S+$|[A-Z][\w-]+: |[0-9a-f]{12,} |\s|>", line)
        if long and not whole:
            found.append(Finding(Status.WARN, f"{len(line)} columns: {line}", f"message:{number}"))
    if not any(line.strip() for line in subject.body):
        found.append(Finding(Status.FAIL, "there is no message below the subject"))
    return found


@REGISTRY.add("trailers", "Link, Fixes, Assisted-by and the like")
def trailer_form(subject: Subject) -> list[Finding]:
    """Trailers have the form that the tools which read them know."""
    found = []
    for name, value in trailers(subject):
        bad = ""
        if name == "Fixes" and not _FIXES.fullmatch(value):
            bad = 'it is 12 digits of a commit and ("its subject")'
        elif name in ("Link", "Closes") and not re.match(r"https?://\S+(?: #.*)?$", value):
            bad = "it is an address"
        elif name == "Assisted-by" and not _ASSISTED.fullmatch(value):
            bad = "it is NAME:VERSION, and the tools besides"
        elif _BY.fullmatch(name) and not _PERSON.fullmatch(value):
            bad = "it is Name <address>"
        if bad:
            found.append(Finding(Status.FAIL, f"{name}: {value}: {bad}"))
    text = subject.patch.message.rstrip("\n")
    last = text.rpartition("\n\n")[2]
    for line in text[: -len(last)].split("\n"):
        if re.match(r"(?:Fixes|Link|[\w-]+-by): \S", line):
            found.append(Finding(Status.WARN, f"{line}: not among the trailers at the end"))
    return found


@REGISTRY.add("signed-off", "no Signed-off-by before it is sent")
def signed_off(subject: Subject) -> list[Finding]:
    """A Signed-off-by is a person's statement, made when they send the patch.

    A mail that came from somewhere was sent, so it must have one.
    """
    there = any(name == "Signed-off-by" for name, _ in trailers(subject))
    if subject.workspace is None:
        missing = Finding(Status.FAIL, "no Signed-off-by, and this was sent")
        return [] if there else [missing]
    return [Finding(Status.FAIL, "a Signed-off-by, but nobody sent this yet")] if there else []
