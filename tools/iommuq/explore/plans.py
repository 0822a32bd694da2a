# SPDX-License-Identifier: GPL-2.0-only
"""What the user has asked for, opened and built: the core, or the driver of a machine."""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass, replace
from pathlib import Path

from iommuq.bases.basefile import load_spec
from iommuq.explore import store
from iommuq.explore.campaign import Plan
from iommuq.explore.drivers import plan as drivers
from iommuq.explore.drivers.finds import DriverFind
from iommuq.explore.drivers.rules import chosen
from iommuq.explore.drivers.world import World, layouts
from iommuq.explore.exceptions import Exceptions
from iommuq.explore.exceptions import load as load_exceptions
from iommuq.explore.finds import Find
from iommuq.explore.image import Subject
from iommuq.explore.rules import all_rules, choose
from iommuq.firmware import packages
from iommuq.suites.firmware.subjects import foreign, queued
from iommuq.system.errors import UserError
from iommuq.system.files import new_log


@dataclass(frozen=True)
class Wanted:
    """What the user has asked for.

    :ivar seconds: how long to explore.
    :ivar jobs: processes, each with a guest of its own.
    :ivar without: rules, or groups of rules, that are left out.
    :ivar most: operations to stop after; 0: when the time is over.
    :ivar empty: neither use nor keep earlier finds and examples.
    :ivar only: patterns of the signatures that are looked for, also of known ones; empty for all.
    :ivar on: a machine of QEMU, to explore its driver; empty: the core, on a simulated IOMMU.
    :ivar kernel: explore this kernel in place of a base: an image or a Debian package.
    :ivar light: build the kernel of a machine without KASAN, lockdep and debug objects.
    :ivar layout: what firmware claims there; empty: one layout after the other.
    """

    base: str
    at: str | None
    seconds: float
    seed: int
    jobs: int = 1
    without: tuple[str, ...] = ()
    empty: bool = False
    only: tuple[str, ...] = ()
    on: str = ""
    layout: str = ""
    kernel: str = ""
    most: int = 0
    light: bool = False

    @property
    def place(self) -> str:
        """The name under which finds are kept."""
        name = _file_name(self.kernel) if self.kernel else self.base
        return f"{name}-{self.on}" if self.on else name


def plans_of(wanted: Wanted) -> list[Plan]:
    """Open and build what is to be explored: one plan, or one for each layout of a machine.

    :raises UserError: a name is unknown, or an entry of the list of exceptions has expired.
    :raises VerdictError: the step does not build.
    """
    if (wanted.kernel or wanted.layout) and not wanted.on:
        raise UserError("--kernel and --layout need --on MACHINE")
    if wanted.light and (wanted.kernel or not wanted.on):
        raise UserError("--light needs --on MACHINE, and is not for --kernel")
    if wanted.kernel and wanted.at:
        raise UserError("--at and --kernel exclude each other")
    return _driver_plans(wanted) if wanted.on else [plan_of(wanted)]


def plan_of(wanted: Wanted) -> Plan:
    """Open and build the core that is to be explored; see `plans_of`."""
    rules = choose(wanted.without)
    subject = Subject.open(wanted.base, wanted.at)
    exceptions = _exceptions(wanted, subject.workspace.base.spec.folder)
    return Plan(
        subject.build(),
        rules,
        exceptions,
        wanted.seconds,
        wanted.seed,
        None if wanted.empty else store.folder(wanted.place) / "examples",
        new_log(f"explore-{wanted.base}-{subject.step.label}"),
        wanted.base,
        subject.step.label,
        only=wanted.only,
        most=wanted.most,
        first=[] if wanted.empty else [f for f in store.kept(wanted.place) if isinstance(f, Find)],
    )


def _driver_plans(wanted: Wanted) -> list[Plan]:
    names = [wanted.layout] if wanted.layout else list(layouts())
    worlds = [World.open(wanted.on, name) for name in names]
    rules = chosen(wanted.without)
    if wanted.kernel:
        exceptions, subject = Exceptions(), foreign(packages.find(wanted.kernel))
    else:
        exceptions = _exceptions(wanted, load_spec(wanted.base).folder)
        subject = queued(wanted.base, wanted.at)
    kernel = drivers.kernel_of(subject, worlds[0], light=wanted.light)
    kept = [] if wanted.empty else list(store.kept(wanted.place))
    plans = []
    for world in worlds:
        log = new_log(f"explore-{wanted.place}-{world.layout}")
        own = [f for f in kept if isinstance(f, DriverFind) and f.layout == world.layout]
        examples = store.folder(wanted.place) / "examples" / world.layout
        plans.append(
            Plan(
                kernel.image,
                (),
                exceptions,
                wanted.seconds / len(worlds),
                wanted.seed,
                None if wanted.empty else examples,
                log,
                _file_name(subject.subject.base),
                subject.subject.patch,
                only=wanted.only,
                most=-(-wanted.most // len(worlds)),
                first=own,
                # A sequence takes a second, and a boot ten.
                shrink=False,
                reboot=False,
                go_on=True,
                play=drivers.play(kernel, world, rules, log),
            )
        )
    return plans


def _file_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", text)[-100:]


def _exceptions(wanted: Wanted, folder: Path) -> Exceptions:
    """Read the list of a base; without its known finds if something is looked for."""
    found = load_exceptions(folder, frozenset(rule.name for rule in all_rules()))
    for reason in found.expired(datetime.datetime.now(tz=datetime.UTC).date()):
        raise UserError(
            f"{folder / 'explore.toml'}: an entry has expired: {reason[:80]}",
            hint="look whether its reason still holds, and change the date or remove it",
        )
    return replace(found, known=()) if wanted.only else found
