# SPDX-License-Identifier: GPL-2.0-only
"""The cover letter ``0000-cover.md`` of a series, in Markdown, and the proof as a table in it.

A comment at its end, ``<!-- b4 ... -->``, has change-id, revision and the message ids sent.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from iommuq.proof.matrix import Row
from iommuq.proof.records import ProofRecord
from iommuq.queue.model import COVER
from iommuq.results.known import Verdict
from iommuq.system import files
from iommuq.system.errors import InfraError, UserError, os_errors_as
from iommuq.system.progress import one_line

_BLOCK = re.compile(r"\n*<!-- b4\n(.*?)-->\n*\Z", re.DOTALL)
_CHANGE_ID = re.compile(r"[A-Za-z0-9][\w.-]{3,200}")
_VERSION = re.compile(r"v([1-9]\d{0,3})")
_MSGID = re.compile(r"[^\s<>]{3,300}@[^\s<>]{1,200}")
_PEOPLE = re.compile(r"(?:To|Cc): .*\n?", re.IGNORECASE)
#: Text to replace before the series is sent.
PLACEHOLDER = re.compile(r"EDITME|TODO|FIXME|XXX|\*\*\* .* HERE \*\*\*", re.IGNORECASE)
#: Columns of a mail.
WIDTH = 75
#: Columns for the names of tests, before the first mark.
NAMES = 44
_MARKS: Mapping[Verdict | None, str] = {
    Verdict.OK: "p",
    Verdict.FAILED: "F",
    Verdict.KNOWN: "f",
    Verdict.SKIPPED: "s",
    None: ".",
}
_LEGEND = {"p": "passes", "F": "fails", "f": "known failure", "s": "skipped", ".": "not run"}


@dataclass(frozen=True)
class Cover:
    """A cover letter.

    :ivar subject: without ``[PATCH …]``.
    :ivar body: the text below it, with the changelog.
    :ivar change_id: the same for all versions; empty until there is one.
    :ivar revision: the current version, from 1.
    :ivar sent: version -> message id of its first mail.
    """

    subject: str
    body: str
    change_id: str = ""
    revision: int = 1
    sent: Mapping[str, str] = field(default_factory=dict)

    @property
    def for_b4(self) -> str:
        """The text for b4, to which lines that start with ``#`` are comments."""
        body = re.sub(r"^#", ">#", self.body, flags=re.M)
        return f"{self.subject}\n\n{body}".strip() + "\n"

    @property
    def text(self) -> str:
        """The content of the file."""
        block = ""
        if self.change_id:
            lines = [f"change-id: {self.change_id}", f"revision: {self.revision}"]
            lines += [f"{version}: {msgid}" for version, msgid in self.sent.items()]
            block = "\n<!-- b4\n" + "\n".join(lines) + "\n-->\n"
        return f"# {self.subject}\n\n{self.body.strip()}\n{block}"


def parse(text: str, where: str) -> Cover:
    """Parse a cover letter.

    :param where: the name of the file, for errors.
    :raises UserError: it is malformed.
    """
    block = _BLOCK.search(text)
    facts: dict[str, str] = {}
    if block:
        text = text[: block.start()] + "\n"
        for line in block[1].splitlines():
            key, colon, value = line.partition(": ")
            if not colon or key in facts:
                raise UserError(f"{where}: the comment at its end: {line!r} is not `key: value`")
            facts[key] = value.strip()
    title, _, body = text.partition("\n")
    if not title.startswith("# ") or not title[2:].strip():
        raise UserError(f"{where}: first line: not `# SUBJECT`")
    change_id = facts.pop("change-id", "")
    revision = facts.pop("revision", "1")
    if change_id and not _CHANGE_ID.fullmatch(change_id):
        raise UserError(f"{where}: {change_id!r} is not a change-id")
    if not re.fullmatch(r"[1-9]\d{0,3}", revision):
        raise UserError(f"{where}: revision {revision!r} is not a number")
    for version, msgid in facts.items():
        if not _VERSION.fullmatch(version) or not _MSGID.fullmatch(msgid):
            raise UserError(f"{where}: `{version}: {msgid}` is not a version and message id")
    return Cover(title[2:].strip(), body.strip(), change_id, int(revision), facts)


def read(folder: Path, section: str) -> Cover | None:
    """Read the cover letter of a section; None if there is none.

    :param folder: ``patches/<base>``.
    """
    path = folder / section / COVER
    return parse(files.read_text(path), str(path)) if path.exists() else None


def write(folder: Path, section: str, cover: Cover) -> bool:
    """Write a cover letter, and return whether the file changed."""
    path = folder / section / COVER
    with os_errors_as(InfraError, path):
        if path.is_file() and path.read_text(encoding="utf-8") == cover.text:
            return False
        files.write_whole(path, cover.text.encode())
    return True


def from_b4(text: str, tracking: Mapping[str, object], old: Cover | None) -> Cover:
    """Make a cover letter of b4's; recipients that *old* does not have stay with the branch.

    :param text: the letter, as b4 has it.
    :param tracking: b4's ``series``.
    :param old: the current file.
    """
    subject, _, body = text.partition("\n")
    kept = set(_PEOPLE.findall(old.body + "\n")) if old else set()
    lines = [
        line
        for line in body.splitlines(keepends=True)
        if not _PEOPLE.fullmatch(line) or f"{line.rstrip()}\n" in kept
    ]
    body = re.sub(r"^>#", "#", "".join(lines), flags=re.M)
    body = re.sub(r"\n{3,}", "\n\n", body).strip()
    if old is not None and _same(body, old.body):
        body = old.body
    history = tracking.get("history")
    sent = {
        str(version): str(ids[-1])
        for version, ids in (history.items() if isinstance(history, dict) else ())
        if ids
    }
    return Cover(
        subject.strip(),
        body,
        str(tracking.get("change-id", "")),
        int(str(tracking.get("revision", 1))),
        sent,
    )


def _same(one: str, other: str) -> bool:
    """Tell whether two texts are equal except for empty lines."""
    return [line.rstrip() for line in one.split("\n") if line.strip()] == [
        line.rstrip() for line in other.split("\n") if line.strip()
    ]


def proof_table(record: ProofRecord, labels: Sequence[str]) -> str:
    """Return the table of a series, in lines of at most `WIDTH` columns.

    :param record: the proof of the whole queue.
    :param labels: of the patches of the series, in order.
    """
    matrix = record.matrix
    names = [column.label for column in matrix.columns]
    shown = [names.index(label) for label in labels if label in names]
    if not shown:
        return ""
    # The first column is the tree before the first patch.
    at = [max(0, shown[0] - 1), *shown]
    changed = [row for row in matrix.rows if len({_mark(row, each) for each in at}) > 1]
    quiet = [row for row in matrix.rows if row not in changed]
    passing = sum(_mark(row, at[-1]) == "p" for row in quiet)
    lines = [f"Proof: Linux {record.kernel} ({record.version})"]
    for each in record.ran:
        lines.append(f"  {each.lane}: {each.title}; guest {each.guest}, {each.accelerator}")
    lines.append("")
    heads = ["-", *(str(number) for number in range(1, len(shown) + 1))]
    width = (WIDTH - NAMES) // 3
    for begin in range(0, len(at), width):
        part = slice(begin, begin + width)
        lines += [*_block(changed, at[part], heads[part]), ""]
    marks = {_mark(row, each) for row in changed for each in at}
    said = [f"{mark} {text}" for mark, text in _LEGEND.items() if mark in marks]
    lines.append("; ".join(["- is the tree before the first patch", *said]) + ".")
    lines.append(f"{passing} more tests pass at each of these steps.")
    return "\n".join(wrapped for line in lines for wrapped in _fold(line)) + "\n"


def _mark(row: Row, at: int) -> str:
    return _MARKS.get(row.cells[at], "?")


def _block(rows: Sequence[Row], at: Sequence[int], heads: Sequence[str]) -> list[str]:
    lines = []
    group = None
    for row in rows:
        above, _, name = one_line(row.name).rpartition(".")
        if above != group:
            group = above
            lines += _beside(above, "".join(f"{head:>3}" for head in heads))
        marks = "".join(f"{_mark(row, each):>3}" for each in at)
        lines += _beside(f"  {name}", marks)
    return lines


def _beside(name: str, marks: str) -> list[str]:
    """Put marks beside a name, or below a long one."""
    if len(name) <= NAMES:
        return [f"{name:<{NAMES}}{marks}"]
    return [name[:WIDTH], f"{'':<{NAMES}}{marks}"]


def _fold(line: str) -> list[str]:
    if len(line) <= WIDTH:
        return [line]
    return textwrap.wrap(line, WIDTH, subsequent_indent="    ", break_on_hyphens=False)
