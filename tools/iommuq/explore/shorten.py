# SPDX-License-Identifier: GPL-2.0-only
"""Shorten a sequence that Hypothesis has shortened, once more as what it is.

Hypothesis shortens choices; which device one stands for depends on those before.  Here
operations are left out, and made simpler, by themselves.
"""

from __future__ import annotations

import time
from typing import Any

from iommuq.explore.play import F, Play, replay

#: Sequences to try at most.
MOST = 2000
#: Seconds for one find: a sequence that crashes the kernel costs a boot.
SECONDS = 60.0


def shortest(player: Play[Any, F], find: F, *, alone: bool = True) -> F:
    """Return the find with the shortest sequence that could be made of its own.

    :param alone: nothing else may be found before it.
    :raises GuestDied: the guest was lost.
    """
    best, tried = find, 0
    wanted = "" if alone else find.signature
    deadline = time.monotonic() + SECONDS
    progress = True
    while progress:
        progress = False
        for operations in player.simpler(best.operations):
            tried += 1
            if tried > MOST or time.monotonic() > deadline:
                return best
            found = replay(player, operations, wanted)
            same = [each for each in found if each.signature == find.signature]
            if same and player.size(same[0].operations) < player.size(best.operations):
                best, progress = same[0], True
                break
    return best
