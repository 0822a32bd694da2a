# SPDX-License-Identifier: GPL-2.0-only
"""``iommuq help``."""

from __future__ import annotations

import datetime
import difflib
import os
import sys
import textwrap
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from iommuq import __version__
from iommuq.system.errors import UserError
from iommuq.system.files import project_root
from iommuq.system.progress import one_line


def _topics(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    return [topic.name for topic in topics() if topic.name.startswith(incomplete)]


@click.command("help")
@click.argument("words", nargs=-1, metavar="[TOPIC|COMMAND...]", shell_complete=_topics)
@click.option("--man", is_flag=True, help="Print the manual page, for man(1).")
@click.pass_context
def help_(context: click.Context, words: tuple[str, ...], man: bool) -> None:
    """Show a page of the documentation, or the help of a command.

    Without TOPIC it lists the pages.
    """
    root = context.find_root()
    group = root.command
    assert isinstance(group, click.Group)
    if man:
        click.echo(render(group), nl=False)
        return
    if not words:
        list_topics()
        return
    page = find(words[0]) if len(words) == 1 else None
    if page is not None:
        show(page)
        return
    command, inner = root.command, root
    for word in words:
        found = command.get_command(inner, word) if isinstance(command, click.Group) else None
        if found is None:
            raise unknown(" ".join(words), group.list_commands(root))
        command, inner = found, click.Context(found, info_name=word, parent=inner)
    click.echo(command.get_help(inner))


_WIDTH = 76


def render(root: click.Group, date: datetime.date | None = None) -> str:
    """Return the manual page.

    :param root: the command line.
    :param date: by default that of ``SOURCE_DATE_EPOCH``, or today.
    """
    # Not at the top: the other pages do not need it.
    from iommuq.report.view import template

    page = template(Path(__file__).parent / "templates/man.1.j2", troff=_escape, filled=_filled)
    context = click.Context(root, info_name="iommuq")
    text = page.render(
        date=(date or _date()).isoformat(),
        version=__version__,
        summary=" ".join((root.help or "").partition("\n\n")[0].split()).rstrip("."),
        about=root.help or "",
        options=_options(root, context),
        commands=_commands(root, context),
    )
    return f"{text}\n"


def _date() -> datetime.date:
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    if epoch.isdigit():
        return datetime.datetime.fromtimestamp(int(epoch), datetime.UTC).date()
    return datetime.date.today()


def _commands(
    command: click.Group, context: click.Context
) -> Iterator[tuple[str, str, str, list[tuple[str, str]]]]:
    """Yield path, usage, help and options of each command that is not a group."""
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        if found is None or found.hidden:
            continue
        inner = click.Context(found, info_name=name, parent=context)
        if isinstance(found, click.Group):
            yield from _commands(found, inner)
        else:
            usage = " ".join(found.collect_usage_pieces(inner))
            yield inner.command_path, usage, found.help or "", _options(found, inner)


def _options(command: click.Command, context: click.Context) -> list[tuple[str, str]]:
    records = (parameter.get_help_record(context) for parameter in command.get_params(context))
    # Arguments, which have no help, are in the text.
    return [(names.replace(" RANGE", ""), text) for names, text in filter(None, records) if text]


def _filled(text: str) -> str:
    # Before escaping: no line break within an escape sequence.
    words = " ".join(text.split())
    lines = textwrap.wrap(words, _WIDTH, break_long_words=False, break_on_hyphens=False)
    return "\n".join(map(_escape, lines))


def _escape(text: str) -> str:
    """Return a text that means itself to troff."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    text = "".join(c if c.isascii() else f"\\[u{ord(c):04X}]" for c in text)
    return f"\\&{text}" if text.startswith((".", "'")) else text


#: Columns that a page takes at most: longer lines are hard to read.
_WIDEST = 100
#: The page that the site begins with; it only lists the others.
_INDEX = "index"


@dataclass(frozen=True)
class Topic:
    """One page; its *title* is its first heading."""

    name: str
    title: str
    path: Path


def topics() -> list[Topic]:
    """Return all pages, by name."""
    found = []
    docs = project_root() / "docs"
    for path in sorted(
        [*docs.glob("*.md"), *docs.glob("generated/*.md")], key=lambda each: each.stem
    ):
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
