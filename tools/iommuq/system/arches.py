# SPDX-License-Identifier: GPL-2.0-only
"""The architectures that kernels are built for and booted on: ``arches.toml``."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from iommuq.system.errors import UserError


@dataclass(frozen=True)
class Arch:
    """One architecture.

    :ivar name: as the user says it and as kunit.py's ``--arch`` takes it.
    :ivar make_arch: the kernel's ``ARCH=``.
    :ivar target: what to ask make for.
    :ivar image: the file that is booted, below the build directory.
    :ivar guest: ``um`` or ``qemu``.
    :ivar accelerator: what the guest runs on when kunit.py starts it.
    :ivar needs: programs that must be installed to boot it.
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
    text = resources.files(__package__).joinpath("arches.toml").read_text()
    return {
        name: Arch(
            name=name,
            title=table["title"],
            make_arch=table["make_arch"],
            target=table["target"],
            image=Path(table["image"]),
            guest=table["guest"],
            accelerator=table["accelerator"],
            needs=tuple(table["needs"]),
        )
        for name, table in tomllib.loads(text).items()
    }


def names() -> tuple[str, ...]:
    """Return the names of all architectures."""
    return tuple(_all())


def get(name: str) -> Arch:
    """Return an architecture by its name.

    :raises UserError: there is none of that name.
    """
    try:
        return _all()[name]
    except KeyError:
        raise UserError(f"no architecture {name!r}; there are {', '.join(_all())}") from None
