# SPDX-License-Identifier: GPL-2.0-only
"""Which earlier patches of a queue a series needs to apply.

By text: the fewest patches from which the series applies, found by leaving one out after
the other, from the last to the first.  What a patch needs in other files to compile is not
seen this way, and is for the person to name.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from iommuq.objects import Store
from iommuq.patchqueue import Patch


def prerequisites(
    store: Store,
    tree: str,
    earlier: Sequence[Patch],
    series: Sequence[Patch],
    always: Collection[str] = (),
) -> list[Patch] | None:
    """Return the patches that must be applied before a series.

    :param store: a repository with *tree*; its private index is used.
    :param tree: what all is applied to.
    :param earlier: the patches before the series, in order.
    :param always: sections that are needed whether the series applies without them or not.
    :return: in order; None if the series does not even apply with all of them.
    """
    related = _related(earlier, series, always)
    keep = [patch for patch in earlier if patch.name in related]
    if _applies(store, tree, [p for p in keep if p.section in always], series):
        keep = [patch for patch in keep if patch.section in always]
    elif not _applies(store, tree, keep, series):
        # What was left out changes other files: it makes no difference, but for renames.
        keep = list(earlier)
        if not _applies(store, tree, keep, series):
            return None
    for patch in reversed(keep.copy()):
        without = [each for each in keep if each is not patch]
        if patch.section not in always and _applies(store, tree, without, series):
            keep = without
    return keep


def _related(
    earlier: Sequence[Patch], series: Sequence[Patch], always: Collection[str]
) -> set[str]:
    """Return the names of the patches that touch files of the series, and so on."""
    paths = {change.path for patch in series for change in patch.changes}
    found: set[str] = set()
    for patch in reversed(earlier):
        own = {change.path for change in patch.changes}
        if patch.section in always or own & paths:
            found.add(patch.name)
            paths |= own
    return found


def _applies(store: Store, tree: str, first: Sequence[Patch], then: Sequence[Patch]) -> bool:
    store.read_tree(tree)
    return all(store.apply(patch.diff).returncode == 0 for patch in (*first, *then))
