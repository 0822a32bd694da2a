# SPDX-License-Identifier: GPL-2.0-only
"""What a commit says, without what reads it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Commit:
    """A commit, as far as a patch says it.

    :ivar parents: their ids.
    :ivar author: ``Name <address>``.
    :ivar date: of the author, in git's raw form.
    :ivar subject: the first paragraph of the message, in one line.
    :ivar message: the whole of it.
    """

    id: str
    tree: str
    parents: tuple[str, ...]
    author: str
    date: str
    subject: str
    message: str

    @property
    def title(self) -> str:
        """What to call it in a message."""
        return f"{self.id[:12]} ({self.subject})"
