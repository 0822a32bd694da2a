# SPDX-License-Identifier: GPL-2.0-only
"""What is explored on a machine: a kernel with its driver, once for each layout of regions."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

from iommuq.explore.campaign import Plan
from iommuq.explore.drivers.guest import DriverGuest
from iommuq.explore.drivers.player import DriverPlayer
from iommuq.explore.drivers.world import World
from iommuq.explore.play import Play
from iommuq.firmware.kernels import Kernel
from iommuq.firmware.scenario import Action, Scenario
from iommuq.suites.firmware.cases import Case
from iommuq.suites.firmware.subjects import Tested

#: Merged last: in ``selftests/configs``.
_LIGHT = "light.config"


def kernel_of(subject: Tested, world: World, *, light: bool = False) -> Kernel:
    """Return the kernel for a machine from the cache, or build it.

    :param light: without KASAN, lockdep and debug objects.
    :raises VerdictError: the step does not build.
    :raises InfraError: a tool is missing, the disk is full.
    """
    machine = world.machine
    if light:
        machine = replace(machine, config=(*machine.config, _LIGHT))
    any_case = Scenario("explore", "explore", (machine.name,), (Action("listen", check="any"),))
    found = subject.kernel(Case(machine, any_case), True)
    assert found is not None
    return found


def play(
    kernel: Kernel, world: World, rules: frozenset[str], log: Path
) -> Callable[[Plan], AbstractContextManager[Play[Any, Any]]]:
    """Return what starts a guest for a plan."""

    @contextlib.contextmanager
    def opened(_plan: Plan) -> Iterator[DriverPlayer]:
        with DriverGuest(kernel, world, log) as guest:
            player = DriverPlayer(guest, rules)
            yield player
            player.check_oracle()

    return opened
