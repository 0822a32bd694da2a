# SPDX-License-Identifier: GPL-2.0-only
"""Kconfig fragments: what a kernel is asked to be."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

from iommuq import kconfig
from iommuq.errors import UserError


@dataclass(frozen=True)
class Fragments:
    """Kconfig fragments, read once: what is edited later does not change a run.

    :ivar texts: contents, in the order they are merged.
    :ivar variant: what sets them apart from the usual ones, in a word that can be
        part of a file name; each variant has a build directory of its own.
    :ivar tiny: they start from tinyconfig, not from Kconfig's defaults as kunit.py has it.
    :ivar every: they start from allmodconfig; such a kernel is never built whole.
    :ivar make_args: what else to tell make, such as ``W=1``.
    """

    texts: tuple[str, ...]
    variant: str = ""
    tiny: bool = False
    make_args: tuple[str, ...] = ()
    every: bool = False

    @classmethod
    def read(
        cls, *paths: Path, variant: str = "", tiny: bool = False, every: bool = False
    ) -> Fragments:
        """Read fragments from files.

        :param variant: as above.
        :param tiny: as above.
        :param every: as above.
        :raises UserError: one of them is missing or malformed.
        """
        return cls(tuple(_read_fragment(path) for path in paths), variant, tiny, every=every)

    @property
    def key(self) -> str:
        """A hash of what they ask for; comments do not count."""
        words = [self.tiny, *(kconfig.parse(text) for text in self.texts), *self.make_args]
        if self.every:
            words.append("allmodconfig")
        text = json.dumps(words)
        return hashlib.sha256(text.encode()).hexdigest()

    def with_warnings(self) -> Fragments:
        """Return the same, built with the further warnings of ``W=1``."""
        variant = "-".join(filter(None, (self.variant, "w1")))
        return replace(self, variant=variant, make_args=(*self.make_args, "W=1"))

    @property
    def wanted(self) -> dict[str, str]:
        """What they ask for, a later fragment over an earlier one."""
        return {name: value for text in self.texts for name, value in kconfig.parse(text).items()}


def _read_fragment(path: Path) -> str:
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}", hint="a kernel is configured by it") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}") from error
    number = kconfig.malformed(text)
    if number is not None:
        raise UserError(
            f"{path}:{number}: not a line of a configuration",
            hint="it is CONFIG_X=value, # CONFIG_X is not set, or a comment",
        )
    return text
