# SPDX-License-Identifier: GPL-2.0-only
"""The state of a rebase, stored in its work tree."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from iommuq.system import files
from iommuq.system.errors import InfraError, UserError
from iommuq.system.files import write_json

#: The note in the repository of the work tree.
FILE = "iommuq-rebase.json"
#: The stored result of a patch whose conflict the user resolved.
RESOLVED = "resolved"


@dataclass(frozen=True)
class Carried:
    """The result of one patch.

    :ivar name: as in the old series file.
    :ivar how: ``unchanged``, ``offset``, ``merged``, `RESOLVED`, ``already there`` or ``skipped``.
    :ivar commit: the new commit; empty if there is none.
    :ivar old: the old commit.
    """

    name: str
    how: str
    commit: str
    old: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class State:
    """The state of a rebase.

    :ivar base: the name of the old base.
    :ivar onto: the name of the new base.
    :ivar start: the commit of the new base.
    :ivar sums: the sha256 of each file of the queue at the start.
    :ivar names: the patches to carry over, in order.
    :ivar done: the results of the first of them.
    :ivar stopped: the time it stopped at a conflict; empty if it did not.
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
        """The name of the next patch, or ``its end``."""
        return self.names[len(self.done)] if len(self.done) < len(self.names) else "its end"

    @property
    def tip(self) -> str:
        """The last of the new commits."""
        return next((each.commit for each in reversed(self.done) if each.commit), self.start)


def place(base: str, onto: str) -> Path:
    """Return the default directory of a rebase."""
    return files.state_dir() / "rebase" / f"{base}-onto-{onto}"


def read(where: Path) -> State | None:
    """Return the state in a work tree; None if it has no rebase."""
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
        raise UserError(f"{path}: damaged", hint=f"remove {where}, and start again") from error


def write(where: Path, state: State) -> None:
    """Store the state of a rebase."""
    write_json(where / ".git" / FILE, asdict(state))
