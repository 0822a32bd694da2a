# SPDX-License-Identifier: GPL-2.0-only
"""``iommuq help``."""

from __future__ import annotations

import datetime
import difflib
import os
import sys
import textwrap
from collections.abc import Collection, Iterator, Mapping
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
    if man:
        click.echo(render(root.command), nl=False)
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
            group = root.command
            names = group.list_commands(root) if isinstance(group, click.Group) else []
            raise unknown(" ".join(words), names)
        command, inner = found, click.Context(found, info_name=word, parent=inner)
    click.echo(command.get_help(inner))


_WIDTH = 76
_STATUS = {
    "0": "Success.",
    "1": "The code fails: a test fails, a patch does not apply or build.",
    "2": "Usage error: a bad argument, a malformed file.",
    "3": "Error of the machine: a tool is missing, a guest was lost, the disk is full.",
    "130": "Interrupted.",
}
_ENVIRONMENT = {
    "IOMMUQ_ROOT": "The checkout. By default that of the package, or the current directory.",
    "IOMMUQ_CACHE_DIR": "Sources, builds, images. By default ~/.cache/iommuq.",
    "IOMMUQ_STATE_DIR": "Results and logs. By default ~/.local/state/iommuq.",
    "NO_COLOR": "If set, output has no colours.",
    "CI": "If set, progress is shown as plain lines even on a terminal.",
}
_FILES = {
    "patches/BASE/series": "The patches of a base, in order.",
    "patches/BASE/proof.toml": "The tests that each patch must fix.",
    "kunit/, selftests/": "The tests.",
}


def render(root: click.Command, date: datetime.date | None = None) -> str:
    """Return the manual page.

    :param root: the command line.
    :param date: by default that of ``SOURCE_DATE_EPOCH``, or today.
    """
    context = click.Context(root, info_name="iommuq")
    lines = [
        '.\\" Made by "iommuq help \\-\\-man"; do not edit.',
        f'.TH IOMMUQ 1 "{(date or _date()).isoformat()}" "iommuq {__version__}" "User Commands"',
        ".SH NAME",
        f"iommuq \\- {_escape(_first(root))}",
        ".SH SYNOPSIS",
        ".B iommuq",
        _escape("[OPTIONS] COMMAND [ARGS]..."),
        ".SH DESCRIPTION",
        *_paragraphs(
            f"{root.help}\n\niommuq help TOPIC shows a page of the documentation; "
            "without a topic it lists the pages."
        ),
        ".SH OPTIONS",
        *_options(root, context),
        ".SH COMMANDS",
        *_commands(root, context),
        *_list("EXIT STATUS", _STATUS),
        *_list("ENVIRONMENT", _ENVIRONMENT),
        *_list("FILES", _FILES),
        ".SH SEE ALSO",
        ".BR git (1),",
        ".BR quilt (1),",
        ".BR qemu\\-system\\-x86_64 (1)",
    ]
    return "\n".join(lines) + "\n"


def _date() -> datetime.date:
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    if epoch.isdigit():
        return datetime.datetime.fromtimestamp(int(epoch), datetime.UTC).date()
    return datetime.date.today()


def _first(command: click.Command) -> str:
    """Return the first paragraph of the help of a command, in one line."""
    return " ".join((command.help or "").partition("\n\n")[0].split()).rstrip(".")


def _commands(command: click.Command, context: click.Context) -> Iterator[str]:
    """Yield a subsection for each command that is not a group."""
    if not isinstance(command, click.Group):
        return
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        if found is None or found.hidden:
            continue
        inner = click.Context(found, info_name=name, parent=context)
        if isinstance(found, click.Group):
            yield from _commands(found, inner)
            continue
        yield f".SS {_escape(inner.command_path)}"
        usage = " ".join(found.collect_usage_pieces(inner))
        yield f".B {_escape(inner.command_path)}"
        yield _escape(usage)
        yield ".PP"
        yield from _paragraphs(found.help or "")
        yield from _options(found, inner)


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        # --help is described once, and arguments are in the text.
        if record is None or not record[1] or (context.parent and parameter.name == "help"):
            continue
        yield ".TP"
        yield f"\\fB{_escape(record[0].replace(' RANGE', ''))}\\fP"
        yield from _filled(record[1])


def _list(title: str, entries: Mapping[str, str]) -> Iterator[str]:
    yield f".SH {title}"
    for name, text in entries.items():
        yield ".TP"
        yield f"\\fB{_escape(name)}\\fP"
        yield from _filled(text)


def _paragraphs(text: str) -> Iterator[str]:
    for number, part in enumerate(filter(str.strip, text.split("\n\n"))):
        if number:
            yield ".PP"
        yield from _filled(part)


def _filled(text: str) -> Iterator[str]:
    # Before escaping: no line break within an escape sequence.
    words = " ".join(text.split())
    for line in textwrap.wrap(words, _WIDTH, break_long_words=False, break_on_hyphens=False):
        yield _escape(line)


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
    """One page.

    :ivar title: its first heading.
    """

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
