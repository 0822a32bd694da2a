# SPDX-License-Identifier: GPL-2.0-only
"""Checks of the patches of a series together, with their cover letter."""

from __future__ import annotations

import re
import shutil

from iommuq.checks.model import Finding, Report, Series, Skipped, Status
from iommuq.system.run import run, tail

_ADDRESS = re.compile(r"<?([\w.+-]+@[\w.-]+)>?")
_LIMIT = 120.0


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
