# SPDX-License-Identifier: GPL-2.0-only
"""What there is to try: mutants of the functions that a queue touches, or of its patches."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from iommuq.proof.mutants.faults import Mutant, mutants_of
from iommuq.proof.mutants.hunks import Superseded, hunk_faults
from iommuq.queue.csource import parse
from iommuq.queue.steps import Step
from iommuq.queue.touched import Touched, touched_functions
from iommuq.system.errors import UserError
from iommuq.system.git.objects import Store


@dataclass(frozen=True)
class Unparsed:
    """A place that could not be parsed, and is left alone."""

    path: str
    function: str
    line: int


@dataclass(frozen=True)
class Plan:
    """The mutants of one tree.

    :ivar step: the tree, with all patches and the overlay.
    :ivar texts: the files that the patches touch, by path.
    :ivar touched: the functions that the patches touch.
    :ivar gone: those of them that are not in the tree any more.
    :ivar mutants: those to be tried, in the order of the files.
    :ivar known: the same, and those of the other functions that were asked about.
    :ivar unparsed: places in the functions to be tried.
    :ivar by_patch: whether the mutants are the patches' own: their hunks and lines.
    :ivar superseded: hunks that a later patch has changed again.
    :ivar silent: how many hunks change no code.
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
    store: Store,
    steps: Sequence[Step],
    only: Sequence[str] = (),
    also: Collection[str] = (),
    patches: Sequence[str] = (),
) -> Plan:
    """Find the mutants of a queue.

    :param store: the objects of the base.
    :param steps: all steps of the queue, with the overlay.
    :param only: names of functions to try, in place of those that are touched; any that is
        defined in a file that the queue touches.
    :param also: names of functions whose mutants are listed, but not tried.
    :param patches: labels of patches to try, of those that touch the functions; none for all.
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
    store: Store, steps: Sequence[Step], only: Sequence[str] = (), patches: Sequence[str] = ()
) -> Plan:
    """Find what can be taken out of the patches of a queue, one hunk or line at a time.

    :param store: the objects of the base.
    :param steps: all steps of the queue, with the overlay.
    :param only: names of functions to try; none for all, and for what is in no function.
    :param patches: labels of patches to try; none for all.
    :raises UserError: no patch changes a function of one of the names.
    """
    found = hunk_faults(store, steps)
    for name in only:
        if name not in {mutant.function for mutant in found.mutants}:
            names = sorted({mutant.function for mutant in found.mutants} - {""})
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
