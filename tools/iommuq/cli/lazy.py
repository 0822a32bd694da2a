# SPDX-License-Identifier: GPL-2.0-only
"""Groups of commands that are imported when they are used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

import click
from click.shell_completion import CompletionItem

from iommuq.system.errors import UserError

_GROUP = "iommuq.commands"
#: Maximal width of a summary in columns.
_WIDTH = 64


@dataclass(frozen=True)
class Entry:
    """A command of a `LazyGroup`.

    :ivar name: the word on the command line.
    :ivar summary: one line for the help of the group.
    :ivar other: another tool registers it in the entry points ``iommuq.commands``; else it
        is in the file *name* in ``commands/``.
    :ivar attribute: its name in the module; by default *name*.
    """

    name: str
    summary: str
    other: bool = False
    attribute: str = ""

    def load(self) -> click.Command:
        """Import the command."""
        found: object
        if self.other:
            registered = entry_points(group=_GROUP, name=self.name)
            if not registered:
                hint = "run `tools/bootstrap env`"
                raise UserError(f"no installed tool has the command {self.name!r}", hint=hint)
            found = next(iter(registered)).load()
        else:
            module = import_module(f"iommuq.cli.commands.{self.name}")
            found = getattr(module, self.attribute or self.name)
        assert isinstance(found, click.Command)
        return found


class LazyGroup(click.Group):
    """A group with a table of commands; ``--help`` and Tab import none of them."""

    def __init__(self, *words: Any, table: Sequence[Entry] = (), **options: Any) -> None:
        super().__init__(*words, **options)
        self._table = {entry.name: entry for entry in table}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted([*super().list_commands(ctx), *self._table])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command; None if there is no such command."""
        entry = self._table.get(cmd_name)
        return entry.load() if entry else super().get_command(ctx, cmd_name)

    def _summaries(self) -> list[tuple[str, str]]:
        own = {name: command.get_short_help_str(_WIDTH) for name, command in self.commands.items()}
        table = {name: entry.summary for name, entry in self._table.items()}
        return sorted((own | table).items())

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the commands with their summaries."""
        with formatter.section("Commands"):
            formatter.write_dl(self._summaries())

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the commands and options that begin with a word."""
        found = [
            CompletionItem(name, help=summary)
            for name, summary in self._summaries()
            if name.startswith(incomplete)
        ]
        return found + click.Command.shell_complete(self, ctx, incomplete)
