# SPDX-License-Identifier: GPL-2.0-only
"""``iommuq help``."""

from __future__ import annotations

import click


def _topics(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    from iommuq.cli.commands import help as pages

    return [topic.name for topic in pages.topics() if topic.name.startswith(incomplete)]


@click.command("help")
@click.argument("words", nargs=-1, metavar="[TOPIC|COMMAND...]", shell_complete=_topics)
@click.option("--man", is_flag=True, help="Print the manual page, for man(1).")
@click.pass_context
def help_(context: click.Context, words: tuple[str, ...], man: bool) -> None:
    """Show a page of the documentation, or how a command is used.

    Without TOPIC it lists the pages.
    """
    from iommuq.cli.commands import help as pages
    from iommuq.cli.commands.help import render

    root = context.find_root()
    if man:
        click.echo(render(root.command), nl=False)
        return
    if not words:
        pages.list_topics()
        return
    page = pages.find(words[0]) if len(words) == 1 else None
    if page is not None:
        pages.show(page)
        return
    command, inner = root.command, root
    for word in words:
        found = command.get_command(inner, word) if isinstance(command, click.Group) else None
        if found is None:
            names = (
                root.command.list_commands(root) if isinstance(root.command, click.Group) else []
            )
            raise pages.unknown(" ".join(words), names)
        command, inner = found, click.Context(found, info_name=word, parent=inner)
    click.echo(command.get_help(inner))
