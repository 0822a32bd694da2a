# SPDX-License-Identifier: GPL-2.0-only
"""What `iommuq prove` found about a whole queue, kept for those who ask later.

A record answers for exactly one content.  Its key is a hash of the commit of the base, of
the tree of every step with the suites laid over it, of the suites that were run, of what
guests are and run (programs, machines, scenarios), of the configurations, of the promises
and of the known failures; who changes any of them has no proof until `iommuq prove` has
run again.  What a patch says in words is no part of it.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from iommuq.proof import promises
from iommuq.proof.matrix import Column, Matrix, build
from iommuq.results import known
from iommuq.results.known import Verdict
from iommuq.system.errors import EXIT_OK, InfraError
from iommuq.system.files import state_dir

if TYPE_CHECKING:
    from iommuq.build.workspace import Workspace
    from iommuq.proof.lanes import Lane
    from iommuq.proof.prove import Proof

#: Part of every key; to be raised when records get another form.
_FORMAT = 1
#: What guests are, and what runs in them, below the checkout.
_GUESTS = ("init", "suites.toml", "iommu", "machines", "firmware", "scenarios")


@dataclass(frozen=True)
class Ran:
    """A suite, and what it ran on.

    :ivar guest: ``um`` or ``qemu``.
    :ivar accelerator: ``native``, ``kvm`` or ``tcg``.
    """

    lane: str
    title: str
    guest: str
    accelerator: str


@dataclass(frozen=True)
class Record:
    """A proof of a whole queue.

    :ivar key: of the content that it is of.
    :ivar when: seconds since the epoch.
    :ivar kernel: release of the base, such as ``6.12.117``.
    :ivar version: of its sources, as the provider has it.
    :ivar exit_code: of the proof.
    :ivar findings: what was not as it should be.
    """

    key: str
    when: float
    kernel: str
    version: str
    exit_code: int
    findings: tuple[str, ...]
    ran: tuple[Ran, ...]
    columns: tuple[Column, ...]

    @property
    def complete(self) -> bool:
        """Whether every patch does what it promises, and nothing else is wrong."""
        return self.exit_code == EXIT_OK

    @property
    def matrix(self) -> Matrix:
        """The table, tests by their full names."""
        return build(self.columns)


def key_of(workspace: Workspace, lanes: Sequence[str] = ()) -> str:
    """Return the key of a queue's content.

    :param lanes: names of the suites; none for those that the base is proven with.
    """
    names = sorted(lanes or lanes_of(workspace))
    facts = [
        _FORMAT,
        workspace.base.spec.name,
        workspace.base.commit,
        [[step.label, step.tree] for step in workspace.steps()],
        names,
        _guests(workspace.root) if {"selftest", "firmware"} & set(names) else "",
        _hash(workspace.queue.folder / promises.NAME),
        _hash(workspace.queue.folder / known.NAME),
        [[path.name, _hash(path)] for path in _configs(workspace)],
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def lanes_of(workspace: Workspace) -> tuple[str, ...]:
    """Return the names of the suites that a base is proven with."""
    from iommuq.proof.lanes import names

    return promises.load(workspace.queue).suites or names()


def _guests(root: Path) -> list[tuple[str, str]]:
    """Return each file that guests are made of, and its hash."""
    places = [root / "selftests" / name for name in _GUESTS]
    files = {file for place in places for file in (place, *place.rglob("*")) if file.is_file()}
    return [(str(file.relative_to(root)), _hash(file)) for file in sorted(files)]


def _configs(workspace: Workspace) -> list[Path]:
    """Return what the kernels are configured with."""
    root = workspace.root
    folders = (
        root / "kunit/configs",
        root / "selftests/configs",
        workspace.queue.folder / "configs",
    )
    return [path for folder in folders for path in sorted(folder.glob("*.config"))]


def _hash(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise InfraError(f"{path}: {error.strerror}") from error


def record(workspace: Workspace, lanes: Sequence[Lane], proof: Proof, key: str) -> Record | None:
    """Keep what a proof of a whole queue found.

    :param key: of the content when the proof was begun; if it is another by now nobody knows
        which of the two was tested, and nothing is kept.
    """
    if key_of(workspace, [lane.name for lane in lanes]) != key:
        return None
    ran = {}
    for outcome in proof.outcomes:
        if outcome.run is not None:
            title = next(lane.title for lane in lanes if lane.name == outcome.lane)
            ran[outcome.lane] = Ran(outcome.lane, title, outcome.run.guest, outcome.run.accelerator)
    columns: dict[str, Column] = {}
    for outcome in proof.outcomes:
        step = outcome.step
        old = columns.get(step.label, Column(step.label, step.patch.subject if step.patch else ""))
        verdicts = {f"{outcome.lane}.{test}": each for test, each in outcome.verdicts.items()}
        note = old.note if outcome.failure is None else "does not build"
        columns[step.label] = Column(old.label, old.subject, {**old.verdicts, **verdicts}, note)
    done = Record(
        key=key,
        when=time.time(),
        kernel=workspace.base.kernel,
        version=workspace.base.version,
        exit_code=proof.exit_code,
        findings=(*proof.findings, *proof.errors),
        ran=tuple(ran.values()),
        columns=tuple(columns.values()),
    )
    path = _path(done.key)
    temporary = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(asdict(done), indent=1, default=_plain), encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise InfraError(f"{path}: {error.strerror}") from error
    return done


def _plain(value: object) -> object:
    if isinstance(value, Verdict):
        return value.value
    raise TypeError(type(value).__name__)


def find(workspace: Workspace) -> Record | None:
    """Return the proof of a queue as it is now, None if nobody has made one."""
    path = _path(key_of(workspace))
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        columns = tuple(
            Column(
                each["label"],
                each["subject"],
                {test: Verdict(verdict) for test, verdict in each["verdicts"].items()},
                each["note"],
            )
            for each in data.pop("columns")
        )
        ran = tuple(Ran(**each) for each in data.pop("ran"))
        return Record(**{**data, "findings": tuple(data["findings"])}, ran=ran, columns=columns)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InfraError(f"{path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InfraError(
            f"{path}: damaged", hint="remove it; `iommuq prove` writes it anew"
        ) from error


def _path(key: str) -> Path:
    return state_dir() / "proofs" / f"{key}.json"
