# SPDX-License-Identifier: GPL-2.0-only
"""The patch queue of a base: its series file, its patches, and the labels of its steps.

Every patch of a `Queue` was checked: it has an author, a date, a subject and a valid diff.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from iommuq.queue.parse import Mail, read_mails
from iommuq.system import files
from iommuq.system.errors import UserError

#: The section whose patches take the tree back to before the discussion.  Never sent.
BASELINE = "baseline"
#: The cover letter of a series.
COVER = "0000-cover.md"
#: The step before any patch.
PLAIN = "base"

_SUFFIX = re.compile(r"\.(?:patch|diff|eml|mbox)$")


@dataclass(frozen=True)
class Patch(Mail):
    """One patch of a queue.

    :ivar name: as in the series file, ``resv-direct/0001-iommu-….patch``.
    :ivar section: the folder in *name*, ``resv-direct``; empty if there is none.
    :ivar label: ``0001``, or ``resv-direct/0001`` where the number is ambiguous.
    """

    path: Path
    name: str
    section: str
    label: str


@dataclass(frozen=True)
class Queue:
    """The patches of a base, in order; those of the baseline come first.

    :ivar base: the name of the base, ``6.12``.
    :ivar folder: ``patches/<base>``.
    """

    base: str
    folder: Path
    patches: tuple[Patch, ...]

    @property
    def baseline(self) -> tuple[Patch, ...]:
        """The patches that are never sent."""
        return tuple(patch for patch in self.patches if patch.section == BASELINE)

    @property
    def sent(self) -> tuple[Patch, ...]:
        """The patches for upstream."""
        return tuple(patch for patch in self.patches if patch.section != BASELINE)

    @property
    def steps(self) -> tuple[str, ...]:
        """The labels of the steps: the baseline, then one for each patch to send."""
        return (BASELINE, *(patch.label for patch in self.sent))


def load_queue(folder: Path, base: str) -> Queue:
    """Read ``series`` in *folder* and every patch that it names.

    :raises UserError: the series file or a patch is malformed; names file and line.
    """
    names = _read_series(folder)
    paths = [folder / name for name in names]
    mails = read_mails(paths)
    labels = _labels(names, _main_series(folder, names))
    return Queue(
        base=base,
        folder=folder,
        patches=tuple(
            Patch(**vars(mail), path=path, name=name, section=_section(name), label=label)
            for path, name, label, mail in zip(paths, names, labels, mails, strict=True)
        ),
    )


def _series_lines(series: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield number and words of each line with words, without comments."""
    text = files.read_text(series, hint="it lists the patches, one path a line")
    for number, line in enumerate(text.splitlines(), 1):
        # As in quilt: a comment is a whole line, or starts after a blank.
        words = re.sub(r"(?:^|\s)#.*", "", line).split()
        if words:
            yield number, words


def _read_series(folder: Path) -> list[str]:
    """Return the names in the series file, and check that each is a file inside *folder*."""
    series = folder / "series"
    names: list[str] = []
    seen: dict[Path, int] = {}
    for number, (name, *options) in _series_lines(series):
        where = f"{series}:{number}"
        for option in options:
            if option != "-p1":
                raise UserError(f"{where}: {option}: only -p1 can follow a patch")
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise UserError(f"{where}: {name} is outside {folder}")
        name = str(PurePosixPath(name))
        try:
            real = (folder / name).resolve(strict=True)
        except FileNotFoundError:
            raise UserError(f"{where}: there is no {name} in {folder}") from None
        # RuntimeError: a loop of symbolic links; ValueError: a NUL.
        except (OSError, RuntimeError, ValueError) as error:
            raise UserError(f"{where}: {name} cannot be read") from error
        if not real.is_relative_to(folder.resolve()):
            raise UserError(f"{where}: {name} is a link to {real}, outside {folder}")
        if not real.is_file():
            raise UserError(f"{where}: {name} is not a file")
        if real in seen:
            raise UserError(f"{where}: {name} is named twice, first in line {seen[real]}")
        if _section(name) == BASELINE and names and _section(names[-1]) != BASELINE:
            raise UserError(
                f"{where}: {name} comes after {names[-1]}",
                hint=f"the patches of {BASELINE}/ come first",
            )
        seen[real] = number
        names.append(name)
    return names


def _section(name: str) -> str:
    return name.partition("/")[0] if "/" in name else ""


def _number(name: str, *, with_section: bool = False) -> str:
    """Return the leading number of a patch's file name, or the name if it has none."""
    path = PurePosixPath(_SUFFIX.sub("", name))
    digits = re.match(r"\d+", path.name)
    number = digits[0] if digits else path.name
    return str(path.parent / number) if with_section else number


def _labels(names: Sequence[str], main: str | None) -> list[str]:
    """Return a unique label for each patch: its number in section *main*, else its path."""
    stems = [_SUFFIX.sub("", name) for name in names]
    numbered = [_number(name, with_section=True) for name in names]
    short = [_number(name) for name in names]
    sections = [_section(name) for name in names]
    sent = [section != BASELINE for section in sections]
    times_numbered, times_stem = Counter(numbered), Counter(stems)
    labels = []
    for number, name in enumerate(names):
        leads = sections[number] == main and times_numbered[numbered[number]] == 1
        # A patch outside of the sections may have the same number.
        leads = leads and (main == "" or short[number] not in times_numbered)
        # A label must not be the name of another step.
        if sent[number] and leads and short[number] not in (BASELINE, PLAIN):
            labels.append(short[number])
        elif times_numbered[numbered[number]] == 1:
            labels.append(numbered[number])
        else:
            labels.append(stems[number] if times_stem[stems[number]] == 1 else name)
    return labels


def _main_series(folder: Path, names: Sequence[str]) -> str | None:
    """Return the first section with a cover letter, else the first that is sent."""
    sections = list(dict.fromkeys(map(_section, names)))
    sent = [section for section in sections if section != BASELINE]
    covered = (section for section in sent if (folder / section / COVER).is_file())
    return next(covered, sent[0] if sent else None)


def find_step(queue: Queue, text: str) -> str:
    """Return the label of the step that *text* names.

    :param text: ``base`` (no patch), ``baseline``, a label, the end of a path, a number with
        or without its section, or a part of a subject; the first that matches.
    :raises UserError: no step, or more than one, matches.
    """
    if text in (PLAIN, *queue.steps):
        return text
    tail = f"/{PurePosixPath(text)}"
    attempts = (
        [patch for patch in queue.patches if f"/{patch.path.as_posix()}".endswith(tail)],
        [patch for patch in queue.patches if _number(patch.name, with_section=True) == text],
        [patch for patch in queue.sent if text.isdecimal() and _same_number(patch, text)],
        [patch for patch in queue.sent if text and text.lower() in patch.subject.lower()],
    )
    found = next((patches for patches in attempts if patches), [])
    if len(found) > 1:
        choice = " or ".join(f"{patch.label} ({patch.subject})" for patch in found)
        raise UserError(f"{text!r} is ambiguous: {choice}", hint="give the label")
    if not found:
        raise UserError(
            f"no patch {text!r} for {queue.base}; there are {PLAIN}, {', '.join(queue.steps)}",
            hint=f"`iommuq queue show {queue.base}` lists them with their subjects",
        )
    if found[0].section == BASELINE:
        raise UserError(
            f"{text!r} is a patch of the baseline, which is one step", hint=f"give {BASELINE}"
        )
    return found[0].label


def named_step(queue: Queue, name: str) -> str | None:
    """Return the label of the step that a file of the base names; None if there is none.

    :param name: ``baseline``, or the label of a patch, its name with or without ``.patch``,
        or its number with its section, ``resv-direct/0001``.
    """
    if name == BASELINE:
        return BASELINE
    for patch in queue.sent:
        number = _number(patch.name, with_section=True)
        if name in (patch.label, patch.name, _SUFFIX.sub("", patch.name), number):
            return patch.label
    return None


def _same_number(patch: Patch, text: str) -> bool:
    number = _number(patch.name)
    return number.isdecimal() and int(number) == int(text)
