# SPDX-License-Identifier: GPL-2.0-only
"""``iommuq mail``."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from iommuq.bases.basefile import load_spec
from iommuq.build.workspace import Workspace
from iommuq.cli import options
from iommuq.cli.lazy import Entry, LazyGroup
from iommuq.mail import branch as branches
from iommuq.mail import gate
from iommuq.mail.branch import MailBranch, Taken, take_back
from iommuq.mail.outbox import Letter, Outbox
from iommuq.queue import edit as edittree
from iommuq.queue.edit import EditTree
from iommuq.system import progress
from iommuq.system.errors import EXIT_INFRA, EXIT_OK, EXIT_VERDICT, UserError, VerdictError
from iommuq.system.progress import count

_REVIEW = Entry("review", "Test a posted series, and draft a reply.")
_tree = click.option(
    "--from",
    "start",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="The work tree; by default the current directory.",
)


@click.group(cls=LazyGroup, table=[_REVIEW])
def mail() -> None:
    """Series on mailing lists: prepare, send, collect, compare, review."""


@mail.command()
@click.argument("base")
@click.argument("series")
@click.option(
    "--into", type=options.folder, help="The work tree; by default that of `iommuq queue edit`."
)
def prep(base: str, series: str, into: Path | None) -> None:
    """Make or update a branch for b4 with SERIES of the queue of BASE."""
    from iommuq.mail.prep import prepare

    workspace = Workspace.open(base)
    tree = _tree_of(workspace, into)
    done = prepare(workspace, tree, series)
    branch = done.branch
    print(f"{tree.folder}: branch {branch.name}, v{branch.revision}, change-id {branch.change_id}")
    for patch in done.needs:
        print(f"  needs  {progress.one_line(f'{patch.label} {patch.subject}')}")
    with branches.objects(tree) as store:
        for commit in branch.commits(store):
            kind = "tests" if branch.is_test(commit) else "patch"
            print(f"  {kind}  {commit.id[:12]} {progress.one_line(commit.subject)}")
    for line in branch.cover.splitlines():
        if line.startswith(("To: ", "Cc: ")):
            print(f"  {progress.one_line(line)}")
    for line in done.skipped:
        print(f"not in the series: {line}")


@mail.command()
@_tree
def check(start: Path | None) -> int:
    """Check whether the series may be sent: checks, sign-offs, recipients, proof."""
    workspace, branch = _open(start)
    return _print_findings(gate.examine(workspace, branch))


@mail.command()
@_tree
@click.option("--yes", is_flag=True, help="Do not ask.")
def sign(start: Path | None, yes: bool) -> None:
    """Add your Signed-off-by to the patches that lack it."""
    from iommuq.mail.branch import sign, unsigned

    branch = branches.load_branch(edittree.find(None, start))
    left = unsigned(branch)
    who = branches.identity(branch.tree)
    if not left:
        print(f"all patches are signed off by {who} already")
        return
    for each in left:
        print(f"  {each.id[:12]} {progress.one_line(each.subject)}")
    print("Signed-off-by certifies the Developer's Certificate of Origin:")
    print('Documentation/process/submitting-patches.rst, "Sign your work".')
    if not yes:
        if not sys.stdin.isatty():
            raise UserError("standard input is not a terminal", hint="--yes signs without asking")
        click.confirm(f"Sign these {len(left)} patches off as {who}?", abort=True)
    print(f"{sign(branch)} patches signed off by {who}")


@mail.command()
@_tree
@click.option("--really", is_flag=True, help="Send; without it nothing is sent.")
@click.option("--dry-run", is_flag=True, help="Print what would be sent; the default.")
@click.option("--output", type=options.folder, help="Write the messages into this directory.")
@click.option("--preview-to", metavar="ADDR", default="", help="Send only to this address.")
@click.option("--no-sign", is_flag=True, help="Without a cryptographic signature.")
@click.option("--without", multiple=True, metavar="ADDR", help="Drop a refused recipient.")
def send(
    start: Path | None,
    really: bool,
    dry_run: bool,
    output: Path | None,
    preview_to: str,
    no_sign: bool,
    without: tuple[str, ...],
) -> int:
    """Send the series, or the rest of a series whose sending was interrupted."""
    if really and dry_run:
        raise click.UsageError("--really and --dry-run exclude each other")
    from iommuq.mail import send

    workspace, branch = _open(start)
    findings = gate.examine(workspace, branch)
    if not really:
        code = _print_findings(findings)
        return _write(workspace, branch, output, preview_to, plain=no_sign) or code
    if output is not None:
        raise UserError("--output and --really exclude each other")
    if any(each.level is gate.Level.STOP for each in findings) and not preview_to:
        _print_findings(findings)
        raise VerdictError("nothing was sent", hint="see above")
    done = send.send(workspace, branch, preview=preview_to, plain=no_sign, without=tuple(without))
    _print_outcome(done.letters, done.box)
    if done.problem:
        print(f"stopped at {progress.one_line(done.problem)}")
        print(f"Messages marked `sent` are out. Repeat the command for the rest: {done.box.folder}")
        return EXIT_INFRA
    print(f"v{branch.revision}: {len(done.letters)} messages sent by {done.server}")
    if not preview_to:
        after = branches.load_branch(branch.tree)
        print(f"tagged sent/{branch.change_id}-v{branch.revision}; the next is v{after.revision}")
    return EXIT_OK


@mail.command()
@_tree
@click.option(
    "--mbox",
    type=click.Path(path_type=Path, exists=True),
    help="Read this file or Maildir instead of the archive.",
)
@click.option("--look", is_flag=True, help="Change nothing.")
def trailers(start: Path | None, mbox: Path | None, look: bool) -> int:
    """Collect trailers such as Reviewed-by from the thread into the patches of the queue."""
    from iommuq.mail.trailers import Fate, collect

    workspace, branch = _open(start)
    done = collect(branch, mbox=mbox, take=not look)
    for problem in done.problems:
        print(f"thread: {progress.one_line(problem)}")
    for each in done.found:
        given = f"v{each.revision} of {each.patch}" if each.revision else each.patch
        print(f"{each.fate}: {progress.one_line(each.text)}")
        if each.fate is Fate.STALE:
            print(f"    given to {progress.one_line(given)}, which has changed since")
        else:
            print(f"    for {progress.one_line(given)}")
        print(f"    in <{progress.one_line(each.msgid)}> of {progress.one_line(each.sender)}")
        print(f"    {progress.one_line(each.attestation)}")
    if not done.found:
        print("no trailers in the thread")
    if done.taken and not look:
        _print_taken(take_back(branches.load_branch(branch.tree), workspace.queue.folder))
    settled = (Fate.TAKEN, Fate.THERE)
    return EXIT_OK if all(each.fate in settled for each in done.found) else EXIT_VERDICT


@mail.command()
@_tree
@click.argument("old", default="", metavar="[vN]")
@click.argument("new", default="", metavar="[vM]")
@click.option("--html", "page", type=options.file, help="Also write a page.")
def diff(start: Path | None, old: str, new: str, page: Path | None) -> None:
    """Show the changes between two versions, or since the last one sent."""
    from iommuq.mail.rangediff import compare, shown

    branch = branches.load_branch(edittree.find(None, start))
    done = compare(branch, old, new)
    if page is not None:
        try:
            page.write_text(done.html, encoding="utf-8")
        except OSError as error:
            raise UserError(f"{page}: {error.strerror}") from error
    print(f"{done.old} and {done.new}:")
    for line in done.text.splitlines():
        print(shown(line))


#: Number of recipients that are named; the others are counted.
_NAMED = 4


def _tree_of(workspace: Workspace, into: Path | None) -> EditTree:
    """Return the work tree of a queue, or make it."""
    from iommuq.queue.edit import edit

    name = workspace.queue.base
    if into is not None and (not into.exists() or not any(into.iterdir())):
        return edit(workspace.base, workspace.queue, into)
    try:
        return edittree.find(name, into)
    except edittree.NoTree:
        if into is not None:
            raise
        return edit(workspace.base, workspace.queue, None)


def _open(start: Path | None) -> tuple[Workspace, MailBranch]:
    branch = branches.load_branch(edittree.find(None, start))
    return Workspace.open(branch.tree.note.base), branch


def _print_findings(findings: Sequence[gate.GateResult]) -> int:
    width = max(len(each.name) for each in findings)
    for each in findings:
        print(f"{each.level:<5}{each.name:<{width}}  {progress.one_line(each.text)}")
        if each.hint and each.level is gate.Level.STOP:
            print(f"{'':<{width + 7}}({progress.one_line(each.hint)})")
    stops = sum(each.level is gate.Level.STOP for each in findings)
    print(
        f"FAIL: {count(stops, 'problem')} to fix before sending" if stops else "PASS: may be sent"
    )
    return EXIT_VERDICT if stops else EXIT_OK


def _write(
    workspace: Workspace, branch: MailBranch, output: Path | None, preview: str, *, plain: bool
) -> int:
    from iommuq.mail import send

    folder = output or branch.tree.git_dir / "iommuq-dry-run"
    if output is not None and output.exists() and any(output.iterdir()):
        raise UserError(f"{output}: not empty", hint="name a new directory")
    if output is None:
        shutil.rmtree(folder, ignore_errors=True)
    try:
        letters = send.write(workspace, branch, folder, preview=preview, plain=plain)
        print()
        for letter in letters:
            print(f"{letter.subject}\n    to {_names(letter.recipients)}")
    finally:
        if output is None:
            shutil.rmtree(folder, ignore_errors=True)
    try:
        where = f"would go to {send.server_of(branch)}"
    except UserError as error:
        where = f"cannot be sent: {error.what}"
    print(f"\nNothing was sent. {len(letters)} messages {where}; --really sends them.")
    if output is not None:
        print(f"They are in {output}")
    return EXIT_OK


def _names(recipients: Sequence[str]) -> str:
    shown = ", ".join(map(progress.one_line, recipients[:_NAMED]))
    more = len(recipients) - _NAMED
    return f"{shown} and {more} more" if more > 0 else shown


def _print_outcome(letters: Sequence[Letter], box: Outbox) -> None:
    states = box.states()
    words = {"": "to send", "trying": "unknown", "failed": "to send"}
    for letter in letters:
        said = {each: states.get((letter.name, each), ("", "")) for each in letter.recipients}
        kinds = list(dict.fromkeys(words.get(what, what) for what, _ in said.values()))
        print(f"{', '.join(kinds):<10} {letter.subject}")
        for each, (what, text) in said.items():
            if len(kinds) > 1 or what == "refused":
                line = f"{words.get(what, what):<8} {each} {text}"
                print(f"{'':<11}{progress.one_line(line)}")


def refresh_branch(start: Path | None, *, force: bool) -> None:
    """Write the amended commits of a branch back into the queue, and print the changes."""
    branch = branches.load_branch(edittree.find(None, start))
    _print_taken(take_back(branch, load_spec(branch.tree.note.base).folder, force=force))


def _print_taken(done: Taken) -> None:
    for entry in done.refreshed.entries:
        if entry.action != "unchanged":
            print(f"{entry.action:<10} {progress.one_line(entry.name)}")
    for gone in done.refreshed.dropped:
        print(f"{'dropped':<10} {progress.one_line(gone)}")
    if done.cover:
        print(f"{'changed':<10} 0000-cover.md")
    if not (done.cover or done.refreshed.changed):
        print("the queue is up to date")
