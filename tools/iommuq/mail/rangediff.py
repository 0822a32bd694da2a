# SPDX-License-Identifier: GPL-2.0-only
"""Compare two versions of a series: git's range-diff, as text and as HTML."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from iommuq.mail.branch import MailBranch
from iommuq.report.view import template
from iommuq.system.errors import UserError
from iommuq.system.progress import one_line

_PAIR = re.compile(r"^ *(?:\d+|-): +\S+ +([=!<>]) +(?:\d+|-): ")
_VERSION = re.compile(r"v([1-9]\d{0,3})")
_KINDS = {"=": "same", "!": "head", "<": "gone", ">": "new"}


@dataclass(frozen=True)
class Difference:
    """The difference of two versions.

    :ivar old: ``v1``.
    :ivar new: ``v2``; ``now`` for the branch as it is.
    :ivar text: the output of ``git range-diff``.
    """

    old: str
    new: str
    text: str

    @property
    def changed(self) -> bool:
        """Whether a patch differs, not only its position."""
        marks = (_PAIR.match(line) for line in self.text.splitlines())
        return any(mark and mark[1] != "=" for mark in marks)

    @property
    def html(self) -> str:
        """The difference as an HTML page."""
        lines = [(_kind(line), shown(line)) for line in self.text.splitlines()]
        page = template(Path(__file__).parent / "templates/rangediff.html.j2", escape=True)
        return page.render(title=f"{self.old} and {self.new}", lines=lines) + "\n"


def shown(text: str) -> str:
    """Replace control characters other than tabs."""
    return "".join(char if char.isprintable() or char == "\t" else "·" for char in text)


def _kind(text: str) -> str:
    """Return the class of a line; empty for one that both versions have."""
    pair = _PAIR.match(text)
    # In a diff of diffs, the outer sign tells the version.
    return _KINDS[pair[1]] if pair else {"-": "old", "+": "now"}.get(text[4:5], "")


def compare(branch: MailBranch, old: str = "", new: str = "") -> Difference:
    """Compare two versions of a series.

    :param old: ``v1``; empty for the last that was sent.
    :param new: ``v2``; empty for the branch as it is.
    :raises UserError: a version was not sent from this repository.
    """
    sent = sorted(int(match[1]) for match in map(_VERSION.fullmatch, branch.history) if match)
    if not old:
        if not sent:
            raise UserError("no version of this series was sent yet", hint="`iommuq mail send`")
        old = f"v{sent[-1]}"
    ranges = [_range(branch, old), _range(branch, new) if new else f"{branch.start}..{branch.head}"]
    text = branch.tree.git("range-diff", "--no-color", *ranges).output
    return Difference(old, new or "now", text)


def _range(branch: MailBranch, version: str) -> str:
    match = _VERSION.fullmatch(version)
    if match is None:
        raise UserError(f"{one_line(version)!r} is not a version", hint="versions are v1, v2, …")
    tag = f"sent/{branch.change_id}-{version}"
    if not branch.tree.repo.find(f"refs/tags/{tag}"):
        known = ", ".join(branch.history) or "none"
        raise UserError(
            f"{version} of this series was not sent from here; sent: {known}",
            hint="`b4 diff` compares versions in the archive",
        )
    # The base of the patches, below the cover letter's commit.
    fork = branch.tree.repo.fork(f"refs/tags/{tag}", f"{branch.start}^")
    return f"{fork}..{tag}"
