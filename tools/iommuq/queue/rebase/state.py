# SPDX-License-Identifier: GPL-2.0-only
"""How far a rebase is: noted in its work tree, so that it can be found again next week."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from iommuq.system import files
from iommuq.system.errors import InfraError, UserError

#: The note in the repository of the work tree.
FILE = "iommuq-rebase.json"


@dataclass(frozen=True)
class Carried:
    """What became of one patch.

    :ivar name: as in the series file that it is from.
    :ivar how: ``unchanged``, ``offset``, ``merged``, ``mended``, ``already there`` or ``skipped``.
    :ivar commit: the new commit; empty if there is none.
    :ivar old: the commit that it was.
    :ivar notes: what is worth knowing, in words.
    """

    name: str
    how: str
    commit: str
    old: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class State:
    """How far a rebase is.

    :ivar base: the base that the patches are from.
    :ivar onto: the base that they go to.
    :ivar start: the commit of the new base.
    :ivar sums: of the files of the queue, when the rebase began.
    :ivar names: the patches that are carried over, in order.
    :ivar done: what became of the first of them.
    :ivar stopped: when it stopped at a conflict, for people.
    """

    base: str
    onto: str
    start: str
    sums: dict[str, str]
    names: list[str]
    done: list[Carried] = field(default_factory=list)
    stopped: str = ""

    @property
    def at(self) -> str:
        """The patch that comes next, in words."""
        return self.names[len(self.done)] if len(self.done) < len(self.names) else "its end"

    @property
    def tip(self) -> str:
        """The last of the new commits."""
        return next((each.commit for each in reversed(self.done) if each.commit), self.start)


def place(base: str, onto: str) -> Path:
    """Return where a rebase goes on if nobody says where."""
    return files.state_dir() / "rebase" / f"{base}-onto-{onto}"


def read(where: Path) -> State | None:
    """Return what is noted in a work tree; None if no rebase is under way there."""
    path = where / ".git" / FILE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        done = [Carried(**{**each, "notes": tuple(each["notes"])}) for each in data.pop("done")]
        return State(**data, done=done)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InfraError(f"{path}: {error.strerror}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path}: damaged", hint=f"remove {where}, and begin anew") from error


def write(where: Path, state: State) -> None:
    """Note how far a rebase is."""
    path = where / ".git" / FILE
    temporary = path.with_name(f".{path.name}.new")
    try:
        temporary.write_text(json.dumps(asdict(state), indent=1), encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise InfraError(f"{path}: {error.strerror}") from error
