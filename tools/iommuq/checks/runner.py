# SPDX-License-Identifier: GPL-2.0-only
"""Run the checks of a queue, or of one mail."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby, pairwise

from iommuq.build.workspace import Workspace
from iommuq.checks import builds, programs, texts
from iommuq.checks.model import CHECKS, Check, Finding, Report, Series, Status, Subject, Tree
from iommuq.checks.tables import ANSWERS, Answer, load_answers
from iommuq.checks.texts import check_series
from iommuq.queue.model import COVER, Patch
from iommuq.queue.parse import read_mails
from iommuq.queue.steps import make_steps
from iommuq.system import files
from iommuq.system.errors import UserError
from iommuq.system.git.objects import Objects
from iommuq.system.temporary import temporary_folder

#: The modules that register checks.
MODULES = (texts, programs, builds)
#: The name of the checks of a whole series.
OF_SERIES = "series"


def choose(names: Sequence[str], *, slow: bool) -> list[Check]:
    """Return the checks to run.

    :param names: of some checks; empty for all.
    :param slow: also those that build.
    :raises UserError: there is no such check.
    """
    known = {check.name: check for check in CHECKS}
    for name in names:
        if name not in known and name != OF_SERIES:
            raise UserError(f"no check {name!r}; there are {', '.join([*known, OF_SERIES])}")
    if names:
        return [known[name] for name in names if name in known]
    return [check for check in known.values() if slow or not check.slow]


def check_queue(
    workspace: Workspace, only: str | None, names: Sequence[str], *, slow: bool
) -> Iterator[Report]:
    """Yield the reports for each patch of a queue, then for each series.

    :param only: the label of the one patch to check; None for all that are sent.
    :param names: of the checks to run; empty for all.
    :param slow: also those that build.
    :raises UserError: there is no such check, or the answers or a cover letter are malformed.
    """
    checks = choose(names, slow=slow)
    answers = load_answers(workspace.queue.folder)
    used: set[Answer] = set()
    sent = workspace.queue.sent
    with _subjects(workspace) as subjects:
        for subject in subjects:
            if only in (None, subject.patch.label):
                for check in checks:
                    report = check.report(subject)
                    yield _answer(report, subject.patch.name, answers, used)
        if only is None and (not names or OF_SERIES in names):
            by_name = {subject.patch.name: subject for subject in subjects}
            for section, patches in groupby(sent, key=lambda patch: patch.section):
                members = [by_name[patch.name] for patch in patches]
                path = workspace.queue.folder / section / COVER
                text = files.read_text(path) if os.path.lexists(path) else ""
                for report in check_series(Series(section, workspace.queue, members, text)):
                    yield _answer(report, section, answers, used)
    if only is None and not names and slow:
        found = [
            Finding(Status.WARN, f"unused: {answer.check}, {answer.patch}, {answer.text}")
            for answer in answers
            if answer not in used
        ]
        yield Report("answers", ANSWERS, tuple(found))


@contextlib.contextmanager
def _subjects(workspace: Workspace) -> Iterator[list[Subject]]:
    """Return the patches of a queue as subjects."""
    base, queue = workspace.base, workspace.queue
    plain = make_steps(base, queue, None)
    laid = workspace.steps()
    with contextlib.ExitStack() as stack:
        subjects = []
        pairs = zip(pairwise(plain), pairwise(laid), strict=True)
        for (before, after), (previous, step) in pairs:
            patch = after.patch
            assert patch is not None
            folder = stack.enter_context(temporary_folder("check"))
            tree = Tree(Objects(base.git_dir, folder), before.tree, after.tree)
            data = patch.path.read_bytes()
            subjects.append(Subject(patch, data, tree, workspace, step, previous, (before, after)))
        yield subjects


def check_mail(data: bytes, names: Sequence[str] = ()) -> list[Report]:
    """Check one mail, without a tree.

    :param data: the mail, with a patch.
    :param names: of the checks to run; empty for all that do not build.
    :raises UserError: it is not a mail with a patch.
    """
    with temporary_folder("mail") as folder:
        path = folder / "mail.patch"
        path.write_bytes(data)
        mail = read_mails([path])[0]
        patch = Patch(**vars(mail), path=path, name=path.name, section="", label=mail.subject)
        checks = choose(names, slow=False)
        return [check.report(Subject(patch, data)) for check in checks]


def _answer(report: Report, name: str, answers: Sequence[Answer], used: set[Answer]) -> Report:
    """Add the answers to the findings of a report."""
    findings = []
    for finding in report.findings:
        for answer in answers:
            if (
                finding.status in (Status.WARN, Status.FAIL)
                and answer.check == report.check
                and answer.patch in (name, "*")
                and answer.text in finding.text
            ):
                used.add(answer)
                finding = replace(finding, answer=answer.reason)
        findings.append(finding)
    return replace(report, findings=tuple(findings))
