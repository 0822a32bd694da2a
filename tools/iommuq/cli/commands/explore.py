# SPDX-License-Identifier: GPL-2.0-only
"""``iommuq explore``."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click

from iommuq.cli import options
from iommuq.explore import store, write
from iommuq.explore.campaign import Outcome
from iommuq.explore.known import make_page
from iommuq.explore.plans import Wanted, plans_of
from iommuq.explore.run import (
    FORMAT,
    figures,
    find_lines,
    replayed,
    run_all,
    run_one,
    shown,
    verdict,
)
from iommuq.system.errors import (
    EXIT_INFRA,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_VERDICT,
    InfraError,
    UserError,
)
from iommuq.system.files import project_root

_UNITS = {"s": 1, "m": 60, "h": 3600}


class _Duration(click.ParamType[float]):
    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, int | float):
            return float(value)
        match = re.fullmatch(r"(\d{1,6}(?:\.\d+)?)([smh]?)", value, re.ASCII)
        if match is None or float(match[1]) == 0:
            self.fail(f"{value!r} is not a time like 90s, 10m or 1h", param, ctx)
        return float(match[1]) * _UNITS[match[2] or "s"]


@click.command()
@options.base
@options.at_patch
@click.option(
    "--for",
    "seconds",
    type=_Duration(),
    default="10m",
    show_default=True,
    metavar="TIME",
    help="How long, like 90s, 10m or 1h.",
)
@click.option(
    "--operations",
    "most",
    type=click.IntRange(0, 10**9),
    default=0,
    metavar="N",
    help="Stop after N operations, if the time is not over before: at the same point on each "
    "machine.",
)
@click.option(
    "--on",
    default="",
    metavar="MACHINE",
    help="Explore the driver of a machine of QEMU: q35-intel, q35-intel-scalable, q35-amd.",
)
@click.option(
    "--layout",
    default="",
    metavar="NAME",
    help="With --on: what its firmware claims; by default one layout after the other.",
)
@click.option(
    "--kernel",
    default="",
    metavar="IMAGE|PACKAGE",
    help="With --on: explore this kernel instead of a base.",
)
@click.option(
    "--light",
    is_flag=True,
    help="With --on: a kernel without KASAN, lockdep and debug objects, for more steps a second.",
)
@click.option("--seed", type=click.IntRange(0, 2**31), default=0, show_default=True)
@click.option(
    "--jobs",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    metavar="N",
    help="Explore in N guests side by side.",
)
@click.option(
    "--without",
    multiple=True,
    metavar="RULE",
    help="Leave a rule out, or a group of rules: regions, or regions.lost.",
)
@click.option(
    "--only",
    multiple=True,
    metavar="SIGNATURE",
    help="Look for finds of this signature alone; * stands for anything.",
)
@click.option("--empty", is_flag=True, help="Neither use nor keep earlier finds.")
@click.option(
    "--replay", type=options.file, metavar="FILE", help="Carry out the find in FILE, and no more."
)
@click.option(
    "--write",
    "case",
    metavar="NAME",
    help="With --replay: add the find as case NAME to the KUnit suite iommu_explored, or as "
    "scenario NAME to those of `iommuq firmware`.",
)
@click.option(
    "--known",
    is_flag=True,
    help="Look how soon known defects are found, and write docs/generated/explored.md.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON: one object per line.")
def explore(
    base: str,
    at: str | None,
    seconds: float,
    most: int,
    on: str,
    layout: str,
    kernel: str,
    light: bool,
    seed: int,
    jobs: int,
    without: tuple[str, ...],
    only: tuple[str, ...],
    empty: bool,
    replay: Path | None,
    case: str | None,
    known: bool,
    as_json: bool,
) -> int:
    """Try random sequences of operations on BASE, and hold each state against rules.

    Devices come and go, drivers are bound, groups claimed, domains attached, and
    attaches and allocations fail, on a simulated IOMMU under the kernel's own
    iommu.c.  A rule that does not hold is reported with the shortest sequence
    that shows it.  Earlier finds are tried first.
    """

    def emit(event: dict[str, Any]) -> None:
        if as_json:
            print(json.dumps({"format": FORMAT, **event}), flush=True)
        elif event["event"] == "find":
            print("\n".join([*find_lines(event), ""]), flush=True)

    if case is not None and replay is None:
        raise UserError("--write needs --replay FILE", hint="each find names its file")
    wanted = Wanted(
        *(base, at, seconds, seed, jobs, without, empty, only, on, layout, kernel, most),
        light=light,
    )
    if replay is not None:
        find = store.read(replay)
        if case is not None:
            print(write.add(project_root(), case, shown(wanted, find)))
            return EXIT_OK
        return replayed(wanted, find, emit)
    if known:
        text, found = make_page(wanted)
        print(text)
        return EXIT_OK if found else EXIT_VERDICT
    plans, outcome = plans_of(wanted), Outcome()
    try:
        (run_one if jobs == 1 else run_all)(wanted, plans, outcome, emit)
    except (InfraError, KeyboardInterrupt) as error:
        code, why = EXIT_INTERRUPTED, {}
        if isinstance(error, InfraError):
            code, why = EXIT_INFRA, {"error": error.what, "hint": error.hint}
        emit({"event": "end", **figures(outcome), "exit": code, **why})
        if not as_json:
            print(verdict(plans[0], outcome, ended=False))
        raise
    code = EXIT_VERDICT if outcome.finds else EXIT_OK
    emit({"event": "end", **figures(outcome), "exit": code})
    if not as_json:
        print(verdict(plans[0], outcome))
    return code
