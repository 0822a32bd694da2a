# SPDX-License-Identifier: GPL-2.0-only
"""Shell completion of arguments."""

from __future__ import annotations

import contextlib

import click

#: The name of the program, and the variable by which shells request completions.
PROGRAM = "iommuq"
VARIABLE = "_IOMMUQ_COMPLETE"


def bases(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the bases that begin with a word."""
    from iommuq.system.errors import IommuqError
    from iommuq.system.files import project_root

    # No error messages during completion.
    with contextlib.suppress(IommuqError, OSError):
        names = (path.parent.name for path in (project_root() / "patches").glob("*/base.toml"))
        return sorted(name for name in names if name.startswith(incomplete))
    return []


def patches(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the steps that begin with a word, of the base on the command line."""
    from iommuq.defaults import DEFAULT_BASE
    from iommuq.queue.model import load_queue
    from iommuq.system.errors import IommuqError
    from iommuq.system.files import project_root

    with contextlib.suppress(IommuqError, OSError):
        base = context.params.get("base") or DEFAULT_BASE
        steps = load_queue(project_root() / "patches" / base, base).steps
        return [label for label in steps if label.startswith(incomplete)]
    return []
