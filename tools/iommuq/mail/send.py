# SPDX-License-Identifier: GPL-2.0-only
"""Send a series: b4 makes the messages, an outbox ensures that each is sent once."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from iommuq.build.workspace import Workspace
from iommuq.mail.b4tool import side
from iommuq.mail.branch import MailBranch, load_branch, person, write_cover
from iommuq.mail.cover import proof_table
from iommuq.mail.outbox import PERMISSION, Letter, Outbox
from iommuq.proof import records
from iommuq.system.errors import InfraError, UserError, VerdictError, os_errors_as
from iommuq.system.files import state_dir
from iommuq.system.temporary import temporary_folder

_TEMPLATE = "cover.template"
# Without a server, b4 could use its web endpoint.
_NO_WEB = {"sendemail.smtpserver": "127.0.0.1"}
_LIMIT = 3600.0


@dataclass(frozen=True)
class Sent:
    """The result of sending a series.

    :ivar problem: why sending stopped; empty if all were sent.
    :ivar server: where they were sent.
    """

    letters: Sequence[Letter]
    problem: str
    server: str
    box: Outbox


def write(
    workspace: Workspace, branch: MailBranch, folder: Path, *, preview: str, plain: bool
) -> list[Letter]:
    """Write the messages of a series into a directory.

    :param folder: empty or missing.
    :param preview: the only recipient; empty for those of the series.
    :param plain: without a signature of patatt.
    """
    data = {"folder": str(folder), "preview": preview, "plain": plain}
    folder.mkdir(parents=True, exist_ok=True)
    with _form(workspace, branch) as config:
        try:
            side("write", cwd=branch.tree.folder, data=data, config=config)
        except UserError as error:
            if "signingkey" in error.what:
                raise UserError(error.what, hint="`patatt genkey`, or --no-sign") from error
            raise
    return Outbox(folder).letters()


@contextlib.contextmanager
def _form(workspace: Workspace, branch: MailBranch) -> Iterator[dict[str, str]]:
    """Add the proof to the template of the cover letter, and yield b4's configuration."""
    record = records.find(workspace)
    if record is None:
        yield _NO_WEB
        return
    section = branch.note.section
    labels = [patch.label for patch in workspace.queue.patches if patch.section == section]
    text = str(side("template", cwd=branch.tree.folder)["text"])
    # Below a separator, so that the trailers above it stay last in their part.
    shown = proof_table(record, labels).strip("\n").replace("$", "$$")
    text = text.replace("${cover}", f"${{cover}}\n\n---\n{shown}", 1)
    with temporary_folder("send") as name:
        path = name / _TEMPLATE
        path.write_text(text, encoding="utf-8")
        yield {**_NO_WEB, "b4.prep-cover-template": str(path)}


def permitted(branch: MailBranch) -> str:
    """Return the server that the user permits besides loopback."""
    return person(branch.tree, "config", "--get", PERMISSION, check=False).output.strip()


def server_of(branch: MailBranch) -> str:
    """Return where mail would be sent.

    :raises UserError: that is not permitted.
    """
    data = {"permitted": permitted(branch)}
    return str(side("server", cwd=branch.tree.folder, data=data)["server"])


def outbox_of(branch: MailBranch, preview: str = "") -> Outbox:
    """Return the outbox of the current version."""
    name = f"{branch.change_id}-v{branch.revision}" + ("-preview" if preview else "")
    return Outbox(state_dir() / "mail" / name)


def send(
    workspace: Workspace,
    branch: MailBranch,
    *,
    preview: str = "",
    plain: bool = False,
    without: Sequence[str] = (),
) -> Sent:
    """Send a series, or the rest of one that was stopped.

    :param preview: send to this address alone, and do not begin the next version.
    :param plain: without a signature of patatt.
    :param without: refused recipients to drop.
    :raises UserError: the configured server is not permitted, or part of the version was
        sent and the branch changed since.
    :raises InfraError: the server does not answer.
    """
    server_of(branch)
    box = outbox_of(branch, preview)
    if box.exists and (preview or _is_stale(box, branch)):
        shutil.rmtree(box.folder)
    if not box.exists:
        _fill(workspace, branch, box, preview, plain)
    for letter, recipients in box.rest():
        for each in recipients:
            if each in without:
                box.note(letter.name, "skipped", each)
    data = {"folder": str(box.folder), "permitted": permitted(branch)}
    answer = side("deliver", cwd=branch.tree.folder, data=data, network=True, timeout=_LIMIT)
    letters, problem = box.letters(), str(answer["problem"])
    if not problem and not preview:
        with _form(workspace, branch) as config:
            data = {"msgid": letters[0].msgid}
            side("reroll", cwd=branch.tree.folder, data=data, config=config)
        write_cover(load_branch(branch.tree), workspace.queue.folder)
    if not problem:
        done = box.folder.with_name(f"sent-{box.folder.name}")
        if done.exists():
            shutil.rmtree(done)
        box = Outbox(box.folder.replace(done))
    return Sent(letters, problem, str(answer["server"]), box)


def _is_stale(box: Outbox, branch: MailBranch) -> bool:
    """Tell whether an outbox is of an older branch; UserError if part of it was sent."""
    facts = box.facts()
    if facts.get("head") == branch.head:
        return False
    if box.begun:
        raise UserError(
            f"part of v{branch.revision} was sent, and the branch changed since",
            hint=f"`git reset --hard {facts.get('head')}`, then send again; journal: {box.folder}",
        )
    return True


def _fill(workspace: Workspace, branch: MailBranch, box: Outbox, preview: str, plain: bool) -> None:
    """Write the messages into an outbox, all or none."""
    with os_errors_as(InfraError, box.folder):
        if box.folder.exists():
            shutil.rmtree(box.folder)
        box.folder.parent.mkdir(parents=True, exist_ok=True)
        write(workspace, branch, box.folder, preview=preview, plain=plain)
        letters = box.letters()
    if not letters:
        raise VerdictError("b4 made no messages", hint="run `b4 send -d` in the work tree")
    if not all(letter.recipients for letter in letters):
        shutil.rmtree(box.folder)
        raise UserError("no recipients", hint="`b4 prep --auto-to-cc`")
    box.seal({"head": branch.head, "branch": branch.name, "preview": preview})
