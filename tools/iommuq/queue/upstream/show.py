# SPDX-License-Identifier: GPL-2.0-only
"""Format the results of `iommuq.queue.upstream.patches`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from iommuq.queue.upstream.compare.judge import Grade, HunkVerdict
from iommuq.queue.upstream.patches import PatchVerdict
from iommuq.system.progress import one_line

#: Lines of a difference that are shown.
_LINES = 24


def as_text(verdicts: Sequence[PatchVerdict], title: str) -> str:
    """Return the verdicts as text; *title* names the other tree."""
    lines = [f"Against {one_line(title)}:"]
    for verdict in verdicts:
        label = f"{verdict.patch.label} {one_line(verdict.patch.subject)}"
        lines.append(f"{verdict.grade.words:<19} {label}")
        lines += [f"    {one_line(note)}" for note in verdict.notes]
        for hunk in verdict.hunks:
            lines += _hunk(hunk)
    return "\n".join(lines)


def _hunk(verdict: HunkVerdict) -> Iterator[str]:
    first, last = verdict.lines
    found = f" -> {verdict.path}:{first}-{last}" if first else ""
    where = f"{verdict.hunk.path}, hunk {verdict.hunk.number}"
    yield f"    {verdict.grade.words:<19} {verdict.share:4.0%}  {one_line(where + found)}"
    for note in verdict.notes:
        yield f"        {one_line(note)}"
    if verdict.grade in (Grade.PARTLY, Grade.DRIFT):
        for line in verdict.difference[:_LINES]:
            yield "        | " + line.expandtabs(8).translate(_CONTROL).rstrip()
        if len(verdict.difference) > _LINES:
            yield f"        | … {len(verdict.difference) - _LINES} more lines"


_CONTROL = dict.fromkeys((*range(32), *range(127, 160)), " ")


def as_json(verdicts: Sequence[PatchVerdict], title: str) -> str:
    """Return the verdicts as JSON."""
    patches = [
        {
            "patch": verdict.patch.name,
            "subject": verdict.patch.subject,
            "verdict": verdict.grade.words,
            "notes": list(verdict.notes),
            "hunks": [
                {
                    "file": hunk.hunk.path,
                    "number": hunk.hunk.number,
                    "header": hunk.hunk.header,
                    "verdict": hunk.grade.words,
                    "share": round(hunk.share, 3),
                    "found": None
                    if not hunk.lines[0]
                    else {"file": hunk.path, "first": hunk.lines[0], "last": hunk.lines[1]},
                    "notes": list(hunk.notes),
                    "difference": list(hunk.difference),
                }
                for hunk in verdict.hunks
            ],
        }
        for verdict in verdicts
    ]
    return json.dumps({"against": title, "patches": patches}, indent=2)
