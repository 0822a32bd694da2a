# SPDX-License-Identifier: GPL-2.0-only
"""Write the files of a queue: all of them seen to be good first, and nothing lost on the way."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from iommuq.queue.format import Proof, same_words
from iommuq.queue.model import BASELINE, Queue, load_queue
from iommuq.system.errors import InfraError, UserError
from iommuq.system.git.commit import Commit

#: The file that lists the patches.
SERIES = "series"


def sums(queue: Queue) -> dict[str, str]:
    """Return the sha256 of each file of a queue, the series file included."""
    found = {patch.name: patch.sha256 for patch in queue.patches}
    found[SERIES] = hashlib.sha256((queue.folder / SERIES).read_bytes()).hexdigest()
    return found


def check(
    proof: Proof,
    base: str,
    commits: Mapping[str, Commit],
    kept: Collection[str],
    files: Mapping[str, bytes],
    text: str,
) -> None:
    """See that a new queue can be read, and says what the commits do.

    :param base: the name of its base.
    :param commits: for each patch what it is made of.
    :param kept: the patches of which that is known already.
    :param files: for each patch its file.
    :param text: the series file.
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
                f"commit {commit.title} does not survive being sent as a mail",
                hint="look for line ends of DOS, or for dashes or a diff in its message",
            )


def write(folder: Path, files: Mapping[str, bytes], text: str, gone: Sequence[str] = ()) -> None:
    """Write what differs.  What is new comes first, so that nothing is ever missing.

    :param folder: ``patches/<base>``.
    :param files: for each patch its file.
    :param text: the series file.
    :param gone: patches whose files are to leave.
    """
    try:
        for name, data in {**files, SERIES: text.encode()}.items():
            path = folder / name
            if path.is_file() and path.read_bytes() == data:
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}.new")
            temporary.write_bytes(data)
            temporary.replace(path)
        for name in gone:
            (folder / name).unlink()
            if not any((folder / name).parent.iterdir()):
                (folder / name).parent.rmdir()
    except OSError as error:
        raise InfraError(f"{error.filename or folder}: {error.strerror}") from error


_NAME = re.compile(r"\s*(?P<name>[^\s#]\S*)(?P<rest>.*)", re.DOTALL)


def rewrite(text: str, order: Sequence[str], names: Mapping[str, str]) -> str:
    """Return a series file with other names in another order.

    Comments and empty lines stay with the patch that they stand before.  What stands
    before the first patch of a section is about the section, and stays at its head;
    with the last patch of a section it leaves.

    :param text: the file.
    :param order: the names it is to have.
    :param names: what each of them was called in *text*; those not in it are new.
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
            # What set it apart from a section that is no longer before it.
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
    """Take a series file apart.

    :return: what stands at the top, up to the first empty line; what stands before each
        patch; the line of each; what stands at the end.
    """
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
    # The last empty line before the first patch ends what is said of the whole file.
    end = leads[first].rfind("\n\n")
    header = leads[first][: end + 2] if end >= 0 else ""
    leads[first] = leads[first][len(header) :]
    return header, leads, lines, lead


_NUMBERED = re.compile(r"(?P<number>\d+)(?P<rest>[-_].*)")
_SECTION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Slot:
    """A patch to be named.

    :ivar old: its name in the series file so far; None if it is new.
    :ivar old_subject: the subject that went with that name.
    :ivar made: the file name that git makes of its subject now.
    :ivar subject: the subject now.
    """

    old: str | None
    old_subject: str
    made: str
    subject: str


def assign(slots: Sequence[Slot], section: str | None = None) -> list[str]:
    """Return the names of patches, in the order of the series.

    :param section: where new ones go; None for where they stand.
    :raises UserError: nothing says where a new one belongs.
    """
    if section is not None and not _SECTION.fullmatch(section):
        raise UserError(f"{section!r} cannot be the name of a section", hint="use one like resv")
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
    """Return the folder of a patch."""
    own = slots[at].old
    if own is not None:
        return str(PurePosixPath(own).parent)
    if section is not None:
        return section
    before = next((slot.old for slot in reversed(slots[:at]) if slot.old), None)
    after = next((slot.old for slot in slots[at:] if slot.old), None)
    # What is put between the baseline and the first series is meant to be sent.
    for name in (before, after):
        if name is not None and _is_sent(name):
            return str(PurePosixPath(name).parent)
    if after is not None:
        return BASELINE
    raise UserError(
        f"nothing says where the patch {slots[at].subject!r} belongs",
        hint="name its section: --section NAME",
    )


def _is_sent(name: str) -> bool:
    return str(PurePosixPath(name).parent) != BASELINE


def _rest(slot: Slot) -> str:
    """Return the file name of a patch, with some number."""
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
    """Tell whether git made a file's name of a subject, by the way git does it."""
    text = re.sub(r"[^A-Za-z0-9._]+", "-", subject)
    return re.sub(r"\.+", ".", text).strip("-").startswith(stem)
