# SPDX-License-Identifier: GPL-2.0-only
"""The checks before a series is sent.

The proof is of the queue (see `iommuq.proof.records`), so the branch must be equal to the queue.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from iommuq.build.workspace import Workspace
from iommuq.mail import branch as branches
from iommuq.mail import export
from iommuq.mail.b4tool import b4, lines_of
from iommuq.mail.branch import MailBranch
from iommuq.mail.cover import PLACEHOLDER
from iommuq.proof import records
from iommuq.queue.model import BASELINE
from iommuq.system.git.command import Commit
from iommuq.system.git.objects import Objects

_PEOPLE = re.compile(r"^(To|Cc): .*@.*$", re.M | re.I)
# b4 prints it before each patch and each finding.
_MARK = "●"
_PASSED = ": passed all checks"
_SUMMARY = re.compile(r"Success: (\d+), Warning: (\d+), Error: (\d+)")
#: Providers whose commits are local.
_OWN = {"debian": "a distribution's", "directory": "a directory's", "tarball": "a tarball's"}


class Level(StrEnum):
    """What a finding means: STOP prevents sending, NOTE does not."""

    OK = "ok"
    NOTE = "note"
    STOP = "STOP"


@dataclass(frozen=True)
class GateResult:
    """The result of a check.

    :ivar text: the result, in one line.
    :ivar hint: what to do; may be empty.
    """

    name: str
    level: Level
    text: str
    hint: str = ""


def examine(workspace: Workspace, branch: MailBranch) -> list[GateResult]:
    """Run all checks, and return at least one finding for each, in order."""
    with branches.objects(branch.tree) as store:
        commits = branch.commits(store)
        return [
            *_b4(branch),
            *_signed(branch, commits),
            *_cover(branch),
            *_recipients(branch),
            *_base(workspace, branch),
            *_queue(workspace, branch, store, commits),
            *_proof(workspace, branch),
        ]


def _b4(branch: MailBranch) -> list[GateResult]:
    """Run checkpatch and our checks on each patch, through b4."""
    command = "b4.prep-perpatch-check-cmd"
    added = [(command, f"{sys.executable} -P -m iommuq queue check-mail --form lines")]
    own = branches.person(branch.tree, "config", "--get-all", command, check=False).output
    theirs = branch.tree.folder / "scripts/checkpatch.pl"
    note = []
    # b4 names each check by the program that it ran.
    names = {Path(sys.executable).name: "iommuq"}
    if not own and os.access(theirs, os.X_OK) and shutil.which("perl"):
        # The default of b4.  b4 takes each line on standard error for a failure, and
        # checkpatch prints warnings there when a Python module is missing.
        quiet = """sh -c 'exec "$0" "$@" 2>/dev/null'"""
        words = "-q --terse --no-summary --mailback --showfile"
        added.insert(0, (command, f"{quiet} {theirs} {words}"))
        names["sh"] = theirs.stem
    elif not own:
        text = "no checkpatch: the tree has none, or perl is not installed"
        note = [GateResult("b4 check", Level.NOTE, text)]
    done = b4("prep", "--check", cwd=branch.tree.folder, added=added, check=False)
    lines = lines_of(done)
    summary = next((match for match in map(_SUMMARY.search, lines) if match), None)
    if summary is None:
        text = next((line for line in reversed(lines) if line.strip()), "no answer")
        return [GateResult("b4 check", Level.STOP, f"b4 prep --check: {text}")]
    level = Level.STOP if int(summary[3]) else Level.NOTE if int(summary[2]) else Level.OK
    found = [GateResult("b4 check", level, summary[0].lower())]
    details = _details(lines, names)
    return [*note, *found, *(GateResult("b4 check", Level.NOTE, line) for line in details)]


def _details(lines: Sequence[str], names: Mapping[str, str]) -> Iterator[str]:
    """Yield the findings of b4 with their patch; *names* replaces names of programs."""
    patch = ""
    for line in lines:
        mark, _, text = line.strip().partition(" ")
        if mark != _MARK:
            continue
        if line.startswith(_MARK):
            patch = text.partition(":")[0]
        elif not text.endswith(_PASSED):
            program, colon, said = text.partition(":")
            yield f"{patch}: {names.get(program, program)}{colon}{said}"


def _signed(branch: MailBranch, commits: list[Commit]) -> list[GateResult]:
    who = branches.identity(branch.tree)
    found = [
        GateResult(
            "signed-off", Level.STOP, f"{each.title}: not by {who}", "run `iommuq mail sign`"
        )
        for each in commits
        if who not in branches.signers(each.message)
    ]
    return found or [GateResult("signed-off", Level.OK, f"{len(commits)} patches by {who}")]


def _cover(branch: MailBranch) -> list[GateResult]:
    text = branch.cover
    found = [
        GateResult("cover", Level.STOP, f"not filled in: {line.strip()}", _EDIT)
        for line in text.splitlines()
        if PLACEHOLDER.search(line) and not line.startswith("#")
    ]
    subject = text.partition("\n")[0].strip()
    if not subject:
        found.append(GateResult("cover", Level.STOP, "no subject", _EDIT))
    if branch.revision > 1 and not re.search(
        rf"^changes in v{branch.revision}\b", text, re.M | re.I
    ):
        text = f"no changelog: `Changes in v{branch.revision}`"
        found.append(GateResult("cover", Level.STOP, text, _EDIT))
    return found or [GateResult("cover", Level.OK, subject)]


_EDIT = "`b4 prep --edit-cover`, or 0000-cover.md and `iommuq mail prep` again"


def _recipients(branch: MailBranch) -> list[GateResult]:
    people = [match[1].lower() for match in _PEOPLE.finditer(branch.cover)]
    if not people:
        hint = "`b4 prep --auto-to-cc`, or To: and Cc: lines in the cover letter"
        return [GateResult("recipients", Level.STOP, "no recipients", hint)]
    text = f"{people.count('to')} in To, {people.count('cc')} in Cc"
    return [GateResult("recipients", Level.OK, text)]


def _base(workspace: Workspace, branch: MailBranch) -> list[GateResult]:
    whose = _OWN.get(workspace.base.spec.source.provider)
    found = []
    if whose:
        text = f"{branch.tree.note.version} is {whose} tree: reviewers do not have its commit"
        found.append(GateResult("base", Level.NOTE, text, "use a base with provider git"))
    for name in branch.note.needs:
        if name.startswith(f"{BASELINE}/"):
            text = f"needs {name}: baseline patches are never sent"
            hint = "send it against a tree that needs no baseline patch"
            found.append(GateResult("base", Level.STOP, text, hint))
        else:
            found.append(GateResult("base", Level.NOTE, f"needs {name}, a prerequisite"))
    return found or [GateResult("base", Level.OK, branch.tree.note.commit[:12])]


def _queue(
    workspace: Workspace, branch: MailBranch, store: Objects, commits: list[Commit]
) -> list[GateResult]:
    """Check that the branch is equal to the queue and the suites."""
    section = branch.note.section
    patches = [patch for patch in workspace.queue.patches if patch.section == section]
    mine = [each for each in commits if not branch.is_test(each)]
    again = "`iommuq queue refresh` keeps the branch, `iommuq mail prep` keeps the queue"
    if [each.subject for each in mine] != [patch.subject for patch in patches]:
        return [GateResult("queue", Level.STOP, "queue and branch have different patches", again)]
    if mine != commits[: len(mine)]:
        return [GateResult("queue", Level.STOP, "the suites are not the last commits", again)]
    tree = store.tree_of(branch.start)
    store.read_tree(tree)
    for each, patch in zip(mine, patches, strict=True):
        applied = store.apply(patch.diff).returncode == 0
        if not applied or store.write_tree() != each.tree:
            text = f"{patch.label} differs from commit {each.id[:12]} on the branch"
            return [GateResult("queue", Level.STOP, text, again)]
    tree = mine[-1].tree if mine else tree
    wanted = dict.fromkeys(branch.note.tests)
    for folder, suite in export.load_exports(workspace.root):
        if suite.subject in wanted:
            kernel = workspace.base.kernel
            tree = export.lay(store, tree, folder, suite, workspace.exported, kernel)
    if tree != store.tree_of(branch.head):
        text = "the suites changed since `iommuq mail prep`"
        return [GateResult("queue", Level.STOP, text, again)]
    return [GateResult("queue", Level.OK, f"{len(mine)} patches of {section}, and the suites")]


def _proof(workspace: Workspace, branch: MailBranch) -> list[GateResult]:
    hint = f"run `iommuq prove {branch.tree.note.base}`"
    record = records.find(workspace)
    if record is None:
        return [GateResult("proof", Level.STOP, "no proof for this tree", hint)]
    if not record.complete:
        findings = record.findings or ("incomplete",)
        return [GateResult("proof", Level.STOP, text, hint) for text in findings]
    ran = ", ".join(f"{each.lane} on {each.guest} ({each.accelerator})" for each in record.ran)
    return [GateResult("proof", Level.OK, f"complete: {ran}; {record.key[:12]}")]
