# SPDX-License-Identifier: GPL-2.0-only
"""Lines to insert into files of a kernel tree, as the ``[[insert]]`` of an ``export.toml`` say.

A file of the project is inserted without what is above its first line of code: its SPDX line
and its ``#include``s, which the file of the tree has already.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from iommuq.system.errors import UserError, VerdictError
from iommuq.system.files import read_text
from iommuq.system.git.command import is_safe_path
from iommuq.system.tables import Table, require

# SPDX line, comments, blank lines and #includes.
_HEAD = re.compile(r"\A(?:[ \t]*(?://[^\n]*|#include [^\n]*)?\n|/\*(?:[^*]|\*(?!/))*\*/[ \t]*\n)*")
_INCLUDE = re.compile(r"^[ \t]*#[ \t]*include\b[^\n]*\n+", re.M)


@dataclass(frozen=True)
class Insert(Table):
    """Lines to insert into a file of the tree.

    :ivar after: the line above them.
    :ivar before: the line below them; with neither they are appended.
    :ivar text: the lines.
    :ivar body: a file of the project, relative to the folder of the description.
    """

    file: str
    after: str = ""
    before: str = ""
    text: str = ""
    body: str = ""

    def __post_init__(self) -> None:
        require(is_safe_path(self.file), f"{self.file!r} is not a path inside a tree")
        require(not (self.after and self.before), "wants after or before")
        require(bool(self.text.strip()) != bool(self.body), "wants either text or body")
        require(not self.body or is_safe_path(self.body), f"{self.body!r} is not below the folder")

    def lines(self, folder: Path, *, numbered: bool = False) -> str:
        """Return the lines, with one at the end.

        :param folder: of the description.
        :param numbered: begin with a ``#line``, so that messages name the file of the project.
        :raises UserError: the file is missing, has no ``#include``, or has one below code.
        """
        if not self.body:
            return self.text.strip("\n") + "\n"
        path = folder / self.body
        text = read_text(path)
        head = _HEAD.match(text)
        end = max((each.end() for each in _INCLUDE.finditer(text)), default=0)
        if not end:
            raise UserError(f"{path}: has no #include, below which its code begins")
        if head is None or end > head.end():
            raise UserError(f"{path}: has an #include below code", hint="move it to the top")
        number = text[:end].count("\n") + 1
        start = f'#line {number} "{path.name}"\n' if numbered else ""
        return start + text[end:].rstrip("\n") + "\n"

    def into(self, text: str, folder: Path, *, numbered: bool = False) -> str:
        """Return a file of the tree with the lines inserted, unless it contains them.

        :raises VerdictError: the file has no such line, or more than one.
        """
        new = self.lines(folder, numbered=numbered)
        if new in text:
            return text
        lines = text.splitlines(keepends=True)
        anchor = self.after or self.before
        if anchor:
            at = [number for number, line in enumerate(lines) if line.rstrip() == anchor]
            if len(at) != 1:
                raise VerdictError(
                    f"{folder.name}: {len(at)} lines {anchor!r} in {self.file}, must be 1",
                    hint="the tests do not fit this tree",
                )
            place = at[0] + bool(self.after)
        else:
            place = len(lines)
        if self.body:
            new = f"{new}\n" if self.before else f"\n{new}"
        if numbered and self.body:
            new += f'#line {place + 1} "{Path(self.file).name}"\n'
        lines.insert(place, new)
        return "".join(lines)
