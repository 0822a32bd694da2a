# SPDX-License-Identifier: GPL-2.0-only
"""Call what a command does, without its command line."""

from __future__ import annotations

from typing import Any

import click


def call(command: click.Command, *words: Any, **options: Any) -> Any:
    """Call a command with the values of its parameters, and return its exit code."""
    assert command.callback is not None
    return command.callback(*words, **options)
