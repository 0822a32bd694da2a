# SPDX-License-Identifier: GPL-2.0-only
"""Find the mutants to try: of the functions that a queue touches, or of its patches."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from iommuq.proof.mutants.faults import Mutant, mutants_of
from iommuq.proof.mutants.hunks import Superseded, hunk_faults
from iommuq.queue.csource import Touched, parse, touched_functions
from iommuq.queue.steps import Step
from iommuq.system.errors import UserError
from iommuq.system.git.objects import Objects


@dataclass(frozen=True)
class Unparsed:
    """A place that could not be parsed."""

    path: str
    function: str
    line: int


@dataclass(frozen=True)
class Plan:
    """The mutants of one tree.

    :ivar step: the last step, with the overlay.
    :ivar texts: the files that the patches touch, by path.
    :ivar touched: the functions that the patches touch.
    :ivar gone: the touched functions that the tree lacks.
    :ivar mutants: the mutants to try, in the order of the files.
    :ivar known: also those of other functions, for the list of explained ones.
    :ivar unparsed: places in the functions to try.
    :ivar by_patch: the mutants are hunks and lines of the patches.
    :ivar superseded: hunks that a later patch changes again.
    :ivar silent: the number of hunks that change no code.
    """

    step: Step
    texts: dict[str, bytes]
    touched: tuple[Touched, ...]
    gone: tuple[Touched, ...]
    mutants: tuple[Mutant, ...]
    known: tuple[Mutant, ...]
    unparsed: tuple[Unparsed, ...]
    by_patch: bool = False
    superseded: tuple[Superseded, ...] = ()
    silent: int = 0


def make_plan(
    store: Objects,
    steps: Sequence[Step],
    only: Sequence[str] = (),
    also: Collection[str] = (),
    patches: Sequence[str] = (),
) -> Plan:
    """Find the mutants of a queue.

    :param steps: all steps of the queue, with the overlay.
    :param only: functions to try instead of the touched ones, in files that the queue touches.
    :param also: functions whose mutants are listed, but not tried.
    :param patches: labels of patches whose functions to try; empty for all.
    :raises UserError: there is no such function.
    """
    step = steps[-1]
    touched = touched_functions(store, steps)
    labels = set(patches)
    wanted = {
        (each.path, each.name) for each in touched if not labels or labels & set(each.patches)
    }
    texts: dict[str, bytes] = {}
    defined: set[tuple[str, str]] = set()
    mutants: list[Mutant] = []
    known: list[Mutant] = []
    unparsed: list[Unparsed] = []
    for path in dict.fromkeys(each.path for each in touched):
        text = store.read_file(step.tree, path)
        if text is None:
            continue
        texts[path] = text
        source = parse(text)
        for function in source.functions:
            defined.add((path, function.name))
            chosen = function.name in only if only else (path, function.name) in wanted
            if not chosen and (path, function.name) not in wanted and function.name not in also:
                continue
            found = mutants_of(source, path, function)
            known += found.mutants
            if chosen:
                mutants += found.mutants
                unparsed += [Unparsed(path, function.name, line) for line in found.unparsed]
    for name in only:
        if name not in {each for _, each in defined}:
            raise UserError(
                f"no function {name!r} in a file that the queue touches",
                hint=f"the files are {', '.join(texts) or 'none'}",
            )
    return Plan(
        step,
        texts,
        touched,
        tuple(each for each in touched if (each.path, each.name) not in defined),
        tuple(mutants),
        tuple(known),
        tuple(unparsed),
    )


def make_hunk_plan(
    store: Objects, steps: Sequence[Step], only: Sequence[str] = (), patches: Sequence[str] = ()
) -> Plan:
    """Find the hunks and lines that can be removed from the patches of a queue.

    :param steps: all steps of the queue, with the overlay.
    :param only: functions to try; empty for all, and for code outside of functions.
    :param patches: labels of patches to try; empty for all.
    :raises UserError: no patch changes a function of one of the names.
    """
    found = hunk_faults(store, steps)
    names = sorted({mutant.function for mutant in found.mutants} - {""})
    for name in only:
        if name not in names:
            raise UserError(
                f"no patch changes a function {name!r}",
                hint=f"there are {', '.join(names) or 'none'}",
            )
    return Plan(
        steps[-1],
        found.texts,
        (),
        (),
        tuple(
            mutant
            for mutant in found.mutants
            if (not only or mutant.function in only) and (not patches or mutant.patch in patches)
        ),
        found.mutants,
        (),
        by_patch=True,
        superseded=tuple(each for each in found.superseded if not patches or each.patch in patches),
        silent=found.silent,
    )
