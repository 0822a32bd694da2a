# SPDX-License-Identifier: GPL-2.0-only
"""The pages of ``docs/``, to be read in a terminal."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from iommuq.dirs import project_root
from iommuq.errors import UserError
from iommuq.progress import one_line

#: Columns that a page takes at most: longer lines are hard to read.
_WIDEST = 100
#: The page that the site begins with; it only lists the others.
_INDEX = "index"


@dataclass(frozen=True)
class Topic:
    """One page.

    :ivar title: its first heading.
    """

    name: str
    title: str
    path: Path


def topics() -> list[Topic]:
    """Return all pages, by name."""
    found = []
    for path in sorted((project_root() / "docs").glob("*.md")):
        if path.stem != _INDEX:
            first = path.read_text("utf-8", "replace").partition("\n")[0]
            found.append(Topic(path.stem, one_line(first.lstrip("# ")), path))
    return found


def list_topics() -> None:
    """Print each page in a line."""
    found = topics()
    width = max((len(topic.name) for topic in found), default=0)
    print("iommuq COMMAND --help has the options of a command; iommuq help TOPIC has a page:\n")
    for topic in found:
        print(f"  {topic.name:<{width}}  {topic.title}")


def find(name: str) -> Topic | None:
    """Return the page of that name, if there is one."""
    return next((topic for topic in topics() if topic.name == name), None)


def show(topic: Topic) -> None:
    """Print a page: laid out on a terminal, else as it is."""
    text = topic.path.read_text("utf-8", "replace")
    if not sys.stdout.isatty():
        print(text, end="")
        return
    from rich.console import Console
    from rich.markdown import Markdown

    console = Console()
    console.print(Markdown(text, hyperlinks=False), width=min(_WIDEST, console.width))


def unknown(name: str, commands: Collection[str]) -> UserError:
    """Return the error that there is neither a page nor a command of that name."""
    near = difflib.get_close_matches(name, [topic.name for topic in topics()] + list(commands), 3)
    hint = f"did you mean {', '.join(near)}?" if near else "`iommuq help` lists them"
    return UserError(f"no topic {name!r}", hint=hint)
