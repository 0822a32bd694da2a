# SPDX-License-Identifier: GPL-2.0-only
"""Format commits as patch mails, check the files of a new queue, then write them.

The mails do not depend on git's version and configuration.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from iommuq.queue.model import BASELINE, Patch, Queue, load_queue
from iommuq.queue.parse import clean
from iommuq.system.errors import InfraError, UserError, os_errors_as
from iommuq.system.files import write_whole
from iommuq.system.git.command import Commit
from iommuq.system.git.objects import Objects
from iommuq.system.tables import own_table

#: The file that lists the patches.
SERIES = "series"

_NAME = re.compile(r"\s*(?P<name>[^\s#]\S*)(?P<rest>.*)", re.DOTALL)
_FORM = own_table(__package__, "mails.toml")["options"]


def sums(queue: Queue) -> dict[str, str]:
    """Return the sha256 of each file of a queue, the series file included."""
    found = {patch.name: patch.sha256 for patch in queue.patches}
    found[SERIES] = hashlib.sha256((queue.folder / SERIES).read_bytes()).hexdigest()
    return found


def check(
    proof: Replay,
    base: str,
    commits: Mapping[str, Commit],
    kept: Collection[str],
    files: Mapping[str, bytes],
    text: str,
) -> None:
    """Check that a new queue can be read, and that its patches make the trees of the commits.

    :param base: the name of its base.
    :param commits: the commit of each patch.
    :param kept: patches that need no check.
    :param files: the content of each patch.
    :param text: the content of the series file.
    :raises UserError: a commit cannot be written as a patch.
    """
    folder = proof.folder / "queue"
    folder.mkdir()
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    (folder / SERIES).write_text(text, encoding="utf-8")
    try:
        queue = load_queue(folder, base)
    except UserError as error:
        path, _, what = error.what.partition(":")
        commit = commits.get(path.removeprefix(f"{folder}/"))
        if commit is None:
            raise
        what = what.lstrip("0123456789: ")
        raise UserError(f"commit {commit.title}: {what}", hint=error.hint) from error
    for patch in queue.patches:
        commit = commits[patch.name]
        if patch.name in kept:
            continue
        if not (same_words(patch, commit) and proof.same_change(patch.diff, commit)):
            raise UserError(
                f"commit {commit.title} cannot be sent as a mail without a change",
                hint="look for CRLF line ends, or for `---` or a diff in its message",
            )


def write(folder: Path, files: Mapping[str, bytes], text: str, gone: Sequence[str] = ()) -> None:
    """Write the files that differ, then remove those of *gone*.

    :param folder: ``patches/<base>``.
    :param files: the content of each patch.
    :param text: the content of the series file.
    """
    with os_errors_as(InfraError, folder):
        for name, data in {**files, SERIES: text.encode()}.items():
            path = folder / name
            if path.is_file() and path.read_bytes() == data:
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, data)
        for name in gone:
            (folder / name).unlink()
            if not any((folder / name).parent.iterdir()):
                (folder / name).parent.rmdir()


def rewrite(text: str, order: Sequence[str], names: Mapping[str, str]) -> str:
    """Return a series file with new names in a new order.

    Comments and empty lines stay before their patch; those before the first patch of a
    section stay at the head of the section, and go with its last patch.

    :param text: the old file.
    :param order: the new names.
    :param names: their old names in *text*; new patches have none.
    """
    header, leads, lines, tail = _parse(text)
    heads: dict[str, str] = {}
    for old in lines:
        section = _section(old)
        if section not in heads:
            heads[section] = leads.pop(old)
    used: set[str] = set()
    out = [header]
    for name in order:
        section = _section(name)
        if section not in used:
            used.add(section)
            head = heads.get(section, "\n" if len(out) > 1 else "")
            # Empty lines that separated it from the section before.
            moved = len(out) == 1 and section != next(iter(heads), section)
            out.append(head.lstrip("\n") if moved else head)
        old = names.get(name, "")
        out.append(leads.get(old, ""))
        match = _NAME.fullmatch(lines.get(old, f"{name}\n"))
        assert match is not None
        out.append(f"{name}{match['rest']}")
    return "".join(out) + tail


def _section(name: str) -> str:
    return name.rpartition("/")[0].partition("/")[0]


def _parse(text: str) -> tuple[str, dict[str, str], dict[str, str], str]:
    """Return the header of a series file, the text before each patch, its line, the end."""
    leads: dict[str, str] = {}
    lines: dict[str, str] = {}
    lead = ""
    for line in text.splitlines(keepends=True):
        match = _NAME.fullmatch(line)
        if match is None:
            lead += line
            continue
        name = match["name"].removeprefix("./")
        leads[name], lines[name] = lead, line if line.endswith("\n") else f"{line}\n"
        lead = ""
    if not lines:
        return lead, {}, {}, ""
    first = next(iter(leads))
    # The last empty line before the first patch ends the header.
    end = leads[first].rfind("\n\n")
    header = leads[first][: end + 2] if end >= 0 else ""
    leads[first] = leads[first][len(header) :]
    return header, leads, lines, lead


_NUMBERED = re.compile(r"(?P<number>\d+)(?P<rest>[-_].*)")
_SECTION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Slot:
    """A patch that needs a name.

    :ivar old: its old name in the series file; None if it is new.
    :ivar made: the file name that git makes of its new subject.
    """

    old: str | None
    old_subject: str
    made: str
    subject: str


def assign(slots: Sequence[Slot], section: str | None = None) -> list[str]:
    """Return the names of patches, in the order of the series.

    :param section: the section of new patches; None for that of their neighbours.
    :raises UserError: the section of a new patch is unknown.
    """
    if section is not None and not _SECTION.fullmatch(section):
        raise UserError(f"{section!r} is not a valid section name", hint="use one like resv")
    last: dict[str, int] = {}
    names: list[str] = []
    for at, slot in enumerate(slots):
        folder = _folder(slots, at, section)
        file = _rest(slot)
        match = _NUMBERED.fullmatch(file)
        if match:
            number = last.get(folder, 0) + 1
            if slot.old is not None:
                number = max(number, int(match["number"]))
            last[folder] = number
            width = len(match["number"]) if slot.old is not None else 4
            file = f"{number:0{width}}{match['rest']}"
        names.append(str(PurePosixPath(folder, file)))
    return names


def _folder(slots: Sequence[Slot], at: int, section: str | None) -> str:
    own = slots[at].old
    if own is not None:
        return str(PurePosixPath(own).parent)
    if section is not None:
        return section
    before = next((slot.old for slot in reversed(slots[:at]) if slot.old), None)
    after = next((slot.old for slot in slots[at:] if slot.old), None)
    # A patch between the baseline and the first series is to be sent.
    for name in (before, after):
        if name is not None and str(PurePosixPath(name).parent) != BASELINE:
            return str(PurePosixPath(name).parent)
    if after is not None:
        return BASELINE
    raise UserError(
        f"no section for the patch {slots[at].subject!r}", hint="give it with --section NAME"
    )


def _rest(slot: Slot) -> str:
    if slot.old is None:
        return slot.made
    old = PurePosixPath(slot.old).name
    match = _NUMBERED.fullmatch(old)
    stem = PurePosixPath(match["rest"][1:] if match else old).stem
    if slot.subject == slot.old_subject or match is None or not _made_of(stem, slot.old_subject):
        return old
    made = _NUMBERED.fullmatch(slot.made)
    return f"{match['number']}{made['rest'] if made else match['rest']}"


def _made_of(stem: str, subject: str) -> bool:
    """Return whether *stem* is the file name that git makes of a subject."""
    text = re.sub(r"[^A-Za-z0-9._]+", "-", subject)
    return re.sub(r"\.+", ".", text).strip("-").startswith(stem)


def format_mails(store: Objects, base: str, tip: str) -> Iterator[tuple[str, bytes]]:
    """Yield file name and content of a patch mail for each commit, the oldest first.

    The name is that of ``git format-patch``.  The commits are those in *base*..*tip*.
    """
    folder = store.folder / "mails"
    folder.mkdir()
    store.git("format-patch", "--quiet", *_FORM, f"-o{folder}", f"{base}..{tip}")
    for path in sorted(folder.iterdir(), key=lambda path: int(path.name.partition("-")[0])):
        yield path.name, path.read_bytes()
        path.unlink()
    with contextlib.suppress(OSError):
        folder.rmdir()


class Replay:
    """Checks that diffs make the same trees as commits."""

    def __init__(self, store: Objects) -> None:
        self._store = store
        self._loaded = ""  # the tree that the private index holds

    @property
    def folder(self) -> Path:
        """A directory for temporary files."""
        return self._store.folder

    def same_change(self, diff: bytes, commit: Commit) -> bool:
        """Return whether a diff, applied to the parent of a commit, gives the commit's tree."""
        parent = self._store.tree_of(commit.parents[0])
        if self._loaded != parent:
            self._store.read_tree(parent)
            self._loaded = parent
        if self._store.apply(diff).returncode != 0:
            return False
        self._loaded = self._store.write_tree()
        return self._loaded == commit.tree


def same_words(patch: Patch, commit: Commit) -> bool:
    """Return whether patch and commit have the same author, date and message."""
    subject, blank, body = clean(commit.message).partition("\n\n")
    # A mail joins a subject of several lines.
    message = clean(" ".join(subject.split("\n")) + blank + body)
    return (patch.author, patch.date, patch.message) == (commit.author, commit.date, message)
