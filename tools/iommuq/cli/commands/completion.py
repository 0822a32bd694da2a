# SPDX-License-Identifier: GPL-2.0-only
"""``iommuq completion``."""

from __future__ import annotations

import click

from iommuq.cli.completion import PROGRAM, VARIABLE


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script for SHELL.

    bash: eval "$(iommuq completion bash)" in ~/.bashrc; zsh: the same with zsh in
    ~/.zshrc; fish: iommuq completion fish > ~/.config/fish/completions/iommuq.fish.
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(context.find_root().command, {}, PROGRAM, VARIABLE).source())
