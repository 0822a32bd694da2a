# SPDX-License-Identifier: GPL-2.0-only
"""``iommuq drivers``: read the sources of bases, judge the drivers, write the results."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from iommudrivers import goals, notes, page, sources
from iommudrivers.memo import judged
from iommudrivers.page import Kernel
from iommuq.bases import basefile
from iommuq.bases import sources as bases
from iommuq.firmware import topology
from iommuq.guests import machine
from iommuq.guests.machine import Machine
from iommuq.queue.model import PLAIN, load_queue
from iommuq.queue.steps import make_step
from iommuq.system import progress
from iommuq.system.errors import UserError, VerdictError
from iommuq.system.git.objects import Objects
from iommuq.system.temporary import temporary_folder


def claiming(found: Iterable[Machine]) -> list[tuple[str, str]]:
    """Return the machines whose firmware can claim regions, each with the source of its driver."""
    return [(each.name, each.driver) for each in found if each.driver and topology.table_of(each)]


def run_goals(name: str, into: Path | None) -> None:
    """Print or write which goals the drivers of a base meet, without its queue and with it.

    :param name: the base.
    :param into: file for the page; None: print the table.
    :raises UserError: there is no such base, or the file cannot be written.
    :raises VerdictError: a tree has no IOMMU drivers.
    """
    if into is not None and not into.parent.is_dir():
        raise UserError(f"{into}: no directory {into.parent}")
    spec = basefile.load_spec(name)
    machines = claiming(machine.load_machine(each) for each in machine.names())
    title, files = _read(spec, None)
    queued = replace(_judge(spec, title, files), notes=notes.of(name, queue=True))
    recovers = goals.LAST_RESORT in files.get("drivers/iommu/iommu.c", b"")
    state = goals.State(_judge(spec, *_read(spec, PLAIN)), queued, recovers, machines)
    if into is None:
        print("\n".join(goals.table(state)))
    else:
        _write(into, goals.render(state))


def run_drivers(
    names: Sequence[str], at: str | None, into: Path | None, json_file: Path | None
) -> None:
    """Print or write what the drivers of kernels support.

    :param names: bases; none for all.
    :param at: the step of their queues; the plain kernels if None.
    :param into: file for the page; None: print the tables.
    :param json_file: file for all results as JSON; ``-``: standard output.
    :raises UserError: there is no such base or step, or a file cannot be written.
    :raises VerdictError: a tree has no IOMMU drivers.
    """
    chosen = list(dict.fromkeys(names)) or [spec.name for spec in basefile.list_specs()]
    if at not in (None, PLAIN) and len(chosen) != 1:
        raise UserError("--at needs exactly one base", hint="name the base")
    for path in (into, json_file):
        if path is not None and not path.parent.is_dir():
            raise UserError(f"{path}: no directory {path.parent}")
    specs = [basefile.load_spec(name) for name in chosen]
    kernels = [_judge(spec, *_read(spec, at or PLAIN)) for spec in specs]
    if json_file is not None:
        text = json.dumps(page.as_json(kernels), indent=1, ensure_ascii=False)
        if str(json_file) == "-":
            print(text)
        else:
            _write(json_file, f"{text}\n")
    if into is not None:
        _write(into, page.render(kernels))
    elif json_file is None:
        print(page.as_text(kernels))


def _read(spec: basefile.BaseSpec, at: str | None) -> tuple[str, Mapping[str, bytes]]:
    """Return the title of a kernel, and its sources by path.

    :param at: the step of its queue; None: the last.
    """
    base = bases.open_base(spec)
    step = make_step(base, load_queue(spec.folder, spec.name), None, to=at)
    title = f"Linux {base.kernel}" + ("" if step.label == PLAIN else f", {step.label}")
    with progress.task(f"reading the sources of {title}"), temporary_folder("drivers") as folder:
        return title, sources.read_tree(Objects(base.git_dir, folder), step.tree)


def _judge(spec: basefile.BaseSpec, title: str, files: Mapping[str, bytes]) -> Kernel:
    with progress.task(f"reading the drivers of {title}"):
        drivers = judged(files)
    if not drivers:
        raise VerdictError(
            f"{title}: no driver found", hint="its drivers/iommu has no struct iommu_ops"
        )
    return Kernel(spec.name, title, tuple(drivers), notes.of(spec.name))


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    progress.note(f"{path} written")
