# SPDX-License-Identifier: GPL-2.0-only
"""Arguments and options of several commands."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from iommuq.cli.completion import bases, patches
from iommuq.defaults import DEFAULT_BASE, KUNIT_LIMIT
from iommuq.system import arches
from iommuq.system.files import check_folder


class _Folder(click.Path):
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        found = Path(os.fsdecode(super().convert(value, param, ctx)))
        check_folder(found)
        return found


#: Types of options that name a directory, or a file to write.
folder = _Folder(path_type=Path, file_okay=False)
file = click.Path(path_type=Path, dir_okay=False)
#: ``BASE``.
base = click.argument("base", default=DEFAULT_BASE, shell_complete=bases)
#: ``--at``: a step of the queue.
at_patch = click.option(
    "--at",
    metavar="PATCH",
    shell_complete=patches,
    help="Stop at this patch; by default all are applied.",
)
#: ``--json``, for `iommuq.report.live.live.json_lines`.
json_lines = click.option(
    "--json", "as_json", is_flag=True, help="Print only JSON: one object per line for each event."
)
again = click.option(
    "--again", is_flag=True, help="Run even if nothing changed since the last run."
)
no_known = click.option("--no-known", is_flag=True, help="Count known failures as failures.")
arch = click.option(
    "--arch",
    type=click.Choice(arches.names()),
    default="um",
    show_default=True,
    help="Architecture of the kernel: um is fastest, x86_64 runs under QEMU.",
)
config = click.option(
    "--config",
    "configs",
    metavar="NAME",
    multiple=True,
    help="Add kunit/configs/NAME.config, such as debug for KASAN and lockdep.",
)
limit = click.option(
    "--timeout",
    type=click.IntRange(1, 10**6),
    default=KUNIT_LIMIT,
    show_default=True,
    help="Time limit of one boot in seconds.",
)
