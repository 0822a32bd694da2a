# SPDX-License-Identifier: GPL-2.0-only
"""The process that `b4tool.side` runs: calls b4's functions in the current directory.

Reads a task as JSON from standard input, and prints one line of JSON; b4 logs to standard error.
"""

from __future__ import annotations

import argparse
import email.utils
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import b4
import b4.command
import b4.ez

from iommuq.mail import outbox, thread
from iommuq.system.errors import InfraError, IommuqError, UserError

Data = dict[str, Any]


def _load(_: Data) -> Data:
    """Return cover letter and tracking of the branch that is checked out."""
    if not b4.ez.is_prep_branch():
        raise UserError(
            f"{b4.git_get_current_branch() or 'no branch'}: not a b4 branch, or not yours",
            hint="run `iommuq mail prep`, or `b4 prep --claim` if your address changed",
        )
    cover, tracking = b4.ez.load_cover()
    base, start, end = b4.ez.get_series_range()
    return {"cover": cover, "tracking": tracking, "base": base, "start": start, "end": end}


def _store(data: Data) -> Data:
    """Write cover letter and tracking."""
    b4.ez.store_cover(data["cover"], data["tracking"])
    return {}


def _template(_: Data) -> Data:
    """Return the template of the cover letter: the user's, or b4's."""
    own = b4.get_main_config().get("prep-cover-template")
    text = b4.read_template(own) if isinstance(own, str) and own else b4.ez.DEFAULT_COVER_TEMPLATE
    return {"text": text}


def _write(data: Data) -> Data:
    """Write the messages of the branch into a directory, as ``b4 send -o`` does."""
    words = ["send", "-o", data["folder"]]
    if data["plain"]:
        words.append("--no-sign")
    arguments = b4.command.setup_parser().parse_args(words)
    # b4's command line does not accept both options.
    arguments.preview_to = [data["preview"]] if data["preview"] else None
    assert arguments.output_dir
    assert not b4.can_network
    b4.ez.cmd_send(arguments)
    return {}


def _reroll(data: Data) -> Data:
    """Tag the sent version and begin the next, as ``b4 send`` does after sending."""
    branch = b4.git_get_current_branch()
    if branch is None:
        raise UserError("no branch is checked out")
    tag = b4.ez.get_prep_branch_as_patches(expandprereqs=False)[2]
    b4.ez.reroll(branch, tag, data["msgid"])
    return _load({})


def _deliver(data: Data) -> Data:
    """Send the messages of an outbox that were not sent yet."""
    server = outbox.Server.configured(b4.get_sendemail_config(), data["permitted"])
    box = outbox.Outbox(Path(data["folder"]))
    with outbox.connection(server, b4.get_smtp) as line:
        sender = b4.get_smtp(dryrun=True)[1]
        sender = email.utils.parseaddr(sender)[1] or sender
        problem = outbox.deliver(box, line, sender)
    return {"problem": problem, "server": server.title}


def _server(data: Data) -> Data:
    """Return where mail would be sent, if that is permitted."""
    server = outbox.Server.configured(b4.get_sendemail_config(), data["permitted"])
    server.check()
    return {"server": server.title}


_OPERATIONS: dict[str, Callable[[Data], Data]] = {
    "load": _load,
    "template": _template,
    "write": _write,
    "store": _store,
    "reroll": _reroll,
    "gather": thread.gather,
    "deliver": _deliver,
    "server": _server,
}


def main() -> None:
    """Run one task."""
    task = json.load(sys.stdin)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    b4.logger.addHandler(handler)
    b4.logger.setLevel(logging.INFO)
    b4.can_network = bool(task["network"])
    answer: Data
    try:
        b4.setup_config(argparse.Namespace(config=task["config"]))
        answer = {"result": _OPERATIONS[task["operation"]](task["data"])}
    except IommuqError as error:
        kind = "UserError" if isinstance(error, UserError) else "InfraError"
        answer = {"error": {"kind": kind, "what": error.what, "hint": error.hint}}
    except (RuntimeError, LookupError, ValueError) as error:
        failed = InfraError(f"b4: {error}")
        answer = {"error": {"kind": "InfraError", "what": failed.what, "hint": ""}}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
