# SPDX-License-Identifier: GPL-2.0-only
"""Find the run that the user means: ``last``, ``last~2``, the begin of an id, or a file."""

from __future__ import annotations

import re
from pathlib import Path

from iommuq.results.runs import document
from iommuq.results.runs.archive import Archive
from iommuq.results.runs.model import Record
from iommuq.system.errors import UserError

LAST = "last"
_BACK = re.compile(r"last(?:~(\d{1,6}))?")
_HINT = "`iommuq runs list` shows them"
#: Bytes of a file that are read; a run of 50,000 tests has a tenth of that.
_LARGEST = 512 << 20


def is_file(word: str) -> bool:
    """Tell whether a word means a file, and not a run in the store."""
    # An id is no path, but for a file that somebody called like one.
    return word.endswith(".json") or "/" in word


def pick(word: str, archive: Archive | None = None) -> Record:
    """Return the run that a word means.

    :param word: ``last``, ``last~N`` for the Nth before it, an id or the begin of one, or
        the path of a run's JSON.
    :raises UserError: there is no such run, or the word could mean several.
    """
    if is_file(word):
        return _from_file(Path(word))
    archive = archive or Archive()
    if back := _BACK.fullmatch(word):
        number = int(back[1] or 0)
        runs = archive.summaries(number + 1)
        if not runs:
            raise UserError("there are no runs yet", hint="`iommuq run` makes one")
        if number >= len(runs):
            raise UserError(f"{word}: there are {len(runs)} runs", hint=_HINT)
        found = [runs[number].id]
    else:
        ids = [run.id for run in archive.summaries()]
        found = [word] if word in ids else [one for one in ids if word and one.startswith(word)]
    if not found:
        raise UserError(f"no run {word!r}", hint=_HINT)
    if len(found) > 1:
        raise UserError(f"{word!r} could be any of {len(found)} runs", hint=_HINT)
    record = archive.load(found[0])
    if record is None:
        raise UserError(f"run {found[0]} is gone", hint=_HINT)
    return record


def _from_file(path: Path) -> Record:
    try:
        if path.stat().st_size > _LARGEST:
            raise UserError(f"{path}: larger than any run can be")
        text = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    return document.from_json(text, name=str(path))
