# SPDX-License-Identifier: GPL-2.0-only
"""The stored results of `iommuq prove` for a whole queue.

The key of a record is a hash of all tested content; see `key_of`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from iommuq.defaults import SUITES
from iommuq.proof import promises
from iommuq.proof.matrix import Column, Matrix, build
from iommuq.proof.prove import columns_of
from iommuq.results import known
from iommuq.system.errors import EXIT_OK, InfraError, os_errors_as
from iommuq.system.files import file_sha256, hash_of, state_dir, write_json
from iommuq.system.tables import Table, load_json

if TYPE_CHECKING:
    from iommuq.build.workspace import Workspace
    from iommuq.proof.lanes import Lane
    from iommuq.proof.prove import Proof

#: Part of every key.  Raise it when the form of records changes.
_FORMAT = 1
#: Files and directories of guests and their programs, below ``selftests/``.
_GUESTS = ("init", "suites.toml", "iommu", "machines", "firmware", "scenarios", "vfio.toml")

#: Files about the tree's own KUnit suites, below ``kunit/``.
_TREE = ("tree.config", "tree.toml")


@dataclass(frozen=True)
class Ran(Table):
    """A suite, its *guest* (``um``, ``qemu``) and *accelerator* (``native``, ``kvm``, ``tcg``)."""

    lane: str
    title: str
    guest: str
    accelerator: str


@dataclass(frozen=True)
class ProofRecord(Table):
    """A proof of a whole queue.

    :ivar key: of the tested content.
    :ivar when: seconds since the epoch.
    :ivar kernel: release of the base, such as ``6.12.117``.
    :ivar version: of its sources, from the provider.
    :ivar findings: one line each, with missing verdicts.
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
        """Whether the proof passed."""
        return self.exit_code == EXIT_OK

    @property
    def matrix(self) -> Matrix:
        """The table, with full names of tests."""
        return build(self.columns)


def key_of(workspace: Workspace, lanes: Sequence[str] = ()) -> str:
    """Return the hash of the base, all steps, suites, guests, configurations and lists.

    :param lanes: names of the suites; empty for those of the base.
    """
    own = promises.load_promises(workspace.queue).suites or tuple(SUITES)
    names = sorted(lanes or own)
    parents = (workspace.root / "kunit", workspace.root / "selftests", workspace.queue.folder)
    folders = [parent / "configs" for parent in parents]
    facts = [
        _FORMAT,
        workspace.base.spec.name,
        workspace.base.commit,
        [[step.label, step.tree] for step in workspace.steps()],
        names,
        _guests(workspace.root) if {"selftest", "firmware", "vfio"} & set(names) else "",
        _hash(workspace.queue.folder / promises.NAME),
        _hash(workspace.queue.folder / known.NAME),
        [[path.name, _hash(path)] for each in folders for path in sorted(each.glob("*.config"))],
        [_hash(workspace.root / "kunit" / name) for name in _TREE],
    ]
    return hash_of(json.dumps(facts))


def _guests(root: Path) -> list[tuple[str, str]]:
    """Return the files of guests, and their hashes."""
    places = [root / "selftests" / name for name in _GUESTS]
    files = {file for place in places for file in (place, *place.rglob("*")) if file.is_file()}
    return [(str(file.relative_to(root)), _hash(file)) for file in sorted(files)]


def _hash(path: Path) -> str:
    with os_errors_as(InfraError, path):
        return file_sha256(path) if path.exists() else ""


def record(
    workspace: Workspace, lanes: Sequence[Lane], proof: Proof, key: str
) -> ProofRecord | None:
    """Store the proof of a whole queue.

    :param key: of the content when the proof began.
    :return: None, and nothing is stored, if the content changed since then.
    """
    if key_of(workspace, [lane.name for lane in lanes]) != key:
        return None
    ran = {}
    for outcome in proof.outcomes:
        if outcome.run is not None:
            title = next(lane.title for lane in lanes if lane.name == outcome.lane)
            ran[outcome.lane] = Ran(outcome.lane, title, outcome.run.guest, outcome.run.accelerator)
    done = ProofRecord(
        key=key,
        when=time.time(),
        kernel=workspace.base.kernel,
        version=workspace.base.version,
        exit_code=proof.exit_code,
        findings=(*proof.findings, *proof.errors),
        ran=tuple(ran.values()),
        columns=tuple(columns_of(proof.outcomes)),
    )
    data = asdict(done)
    for column in data["columns"]:
        column["verdicts"] = {test: each.value for test, each in column["verdicts"].items()}
    write_json(_path(done.key), data)
    return done


def find(workspace: Workspace) -> ProofRecord | None:
    """Return the proof of the current content of a queue; None if there is none."""
    path = _path(key_of(workspace))
    hint = "remove it, then run `iommuq prove` again"
    return load_json(ProofRecord, path, InfraError(f"{path}: damaged", hint=hint))


def _path(key: str) -> Path:
    return state_dir() / "proofs" / f"{key}.json"
