# SPDX-License-Identifier: GPL-2.0-only
"""The architectures that kernels are built for and booted on: ``arches.toml``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from iommuq.system.errors import UserError
from iommuq.system.tables import own_table


@dataclass(frozen=True)
class Arch:
    """One architecture.

    :ivar name: the argument of kunit.py's ``--arch``.
    :ivar make_arch: the kernel's ``ARCH=``.
    :ivar target: the make target of the image.
    :ivar image: the file to boot, relative to the build directory.
    :ivar guest: ``um`` or ``qemu``.
    :ivar accelerator: the one that kunit.py starts the guest with.
    :ivar needs: programs required to boot it.
    """

    name: str
    title: str
    make_arch: str
    target: str
    image: Path
    guest: str
    accelerator: str
    needs: tuple[str, ...]


@cache
def _all() -> dict[str, Arch]:
    tables = own_table(__package__, "arches.toml")
    for table in tables.values():
        table.update(image=Path(table["image"]), needs=tuple(table["needs"]))
    return {name: Arch(name, **table) for name, table in tables.items()}


def names() -> tuple[str, ...]:
    """Return the names of all architectures."""
    return tuple(_all())


def get(name: str) -> Arch:
    """Return an architecture by its name.

    :raises UserError: there is no such architecture.
    """
    try:
        return _all()[name]
    except KeyError:
        raise UserError(f"no architecture {name!r}; there are {', '.join(_all())}") from None
