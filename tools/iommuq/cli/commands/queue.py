# SPDX-License-Identifier: GPL-2.0-only
"""``iommuq queue``."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from iommuq.bases import basefile, sources
from iommuq.cli.completion import bases
from iommuq.defaults import DEFAULT_BASE
from iommuq.queue.checkout import apply_to_repo
from iommuq.queue.edit import tree as edittree
from iommuq.queue.model import find_step, load_queue
from iommuq.queue.steps import make_steps
from iommuq.system import progress
from iommuq.system.errors import EXIT_OK, EXIT_VERDICT, UserError
from iommuq.system.git.objects import Store

if TYPE_CHECKING:
    from iommuq.queue.upstream.targets import Target


@click.group()
def queue() -> None:
    """The patches, and trees with them applied."""


@queue.command()
@click.argument("base", default=DEFAULT_BASE, shell_complete=bases)
def show(base: str) -> None:
    """List the patches of the queue of BASE."""

    show_queue(base)


@queue.command()
@click.argument("base", default=DEFAULT_BASE, shell_complete=bases)
@click.option("--to", metavar="PATCH", help="Stop after this patch.")
@click.option(
    "--into",
    type=click.Path(path_type=Path, file_okay=False),
    help="Make a git repository here; without it, the patches are only tried.",
)
def apply(base: str, to: str | None, into: Path | None) -> None:
    """Apply the queue of BASE, one commit a patch."""

    apply_queue(base, to, into)


@queue.command()
@click.argument("base", default=DEFAULT_BASE, shell_complete=bases)
@click.option(
    "--into",
    type=click.Path(path_type=Path, file_okay=False),
    help="Make it here, not in the usual place.",
)
def edit(base: str, into: Path | None) -> None:
    """Make a work tree whose commits are the queue of BASE, to be changed with git."""

    edit_queue(base, into)


@queue.command()
@click.argument("base", required=False)
@click.option(
    "--from",
    "start",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="The work tree; else the current directory, or the one made last.",
)
@click.option("--section", metavar="NAME", help="Where new patches go, if not where they stand.")
@click.option("--afresh", is_flag=True, help="Write every patch anew, even if it is unchanged.")
@click.option("--force", is_flag=True, help="Write over patches that somebody else has changed.")
def refresh(
    base: str | None, start: Path | None, section: str | None, afresh: bool, force: bool
) -> None:
    """Write the commits of a work tree back as the queue of BASE."""

    refresh_queue(base, start, section=section, afresh=afresh, force=force)


@queue.command()
@click.argument("base", default=DEFAULT_BASE, shell_complete=bases)
@click.option(
    "--against",
    required=True,
    metavar="NEW",
    help="A base, a directory with a kernel tree, or REPOSITORY@REF of git.",
)
@click.option("--patch", metavar="PATCH", help="Only this patch.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def upstream(base: str, against: str, patch: str | None, as_json: bool) -> None:
    """Say what of the queue of BASE another kernel has already."""

    show_upstream(base, against, patch, as_json=as_json)


@queue.command()
@click.argument("base", default=DEFAULT_BASE, shell_complete=bases)
@click.option(
    "--onto",
    required=True,
    metavar="NEW",
    help="The base to carry the queue over to, or REPOSITORY@REF of git.",
)
@click.option(
    "--into",
    type=click.Path(path_type=Path, file_okay=False),
    help="Make the work tree here, and keep it.",
)
@click.option("--section", metavar="NAME", help="Only the patches of this section.")
@click.option("--baseline", is_flag=True, help="Those that go back in time, too.")
@click.option("--continue", "action", flag_value="continue", help="Take what was mended.")
@click.option("--skip", "action", flag_value="skip", help="Leave out the patch that conflicts.")
@click.option("--abort", "action", flag_value="abort", help="Forget it all.")
def rebase(
    base: str,
    onto: str,
    into: Path | None,
    section: str | None,
    baseline: bool,
    action: str | None,
) -> None:
    """Carry the queue of BASE over to another kernel with three-way merges."""

    rebase_queue(base, onto, into, section=section, baseline=baseline, action=action)


@queue.command()
@click.argument("base", default=DEFAULT_BASE, shell_complete=bases)
@click.option("--patch", metavar="PATCH", help="Only this patch.")
@click.option("--only", "names", multiple=True, metavar="CHECK", help="Only this check.")
@click.option("--quick", is_flag=True, help="None of those that build.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(base: str, patch: str | None, names: tuple[str, ...], quick: bool, as_json: bool) -> int:
    """Check the patches of BASE as reviewers do: message, style, new warnings."""

    return check_queue(base, patch, names, slow=not quick, as_json=as_json)


@queue.command("check-mail")
@click.option(
    "--form",
    type=click.Choice(["json", "lines"]),
    default="json",
    help="json: for b4.review-*-check-cmd; lines: for b4.prep-perpatch-check-cmd.",
)
@click.option("--only", "names", multiple=True, metavar="CHECK", help="Only this check.")
def check_mail_(form: str, names: tuple[str, ...]) -> int:
    """Check the patch mail on standard input, for b4."""

    return check_mail(form, names)


#: Sources in no commit that are named before the rest is only counted.
_STRAYS = 3


def edit_queue(name: str, into: Path | None) -> None:
    """Make a work tree of a queue and print where it is.

    :param into: where; the usual place if None.
    """
    from iommuq.queue.edit.tree import edit

    spec = basefile.load_spec(name)
    queue = load_queue(spec.folder, name)
    tree = edit(sources.open_base(spec), queue, into)
    print(f"{tree.folder}: branch iommuq/{name}, {len(queue.patches)} commits from iommuq-base on")


def refresh_queue(
    name: str | None, start: Path | None, *, section: str | None, afresh: bool, force: bool
) -> None:
    """Write the commits of a work tree back and print what became of each patch.

    :param name: the base; None for that of the tree.
    :param start: the tree; None for the current directory, or else the latest.
    """
    from iommuq.mail.back import is_on_mail_branch
    from iommuq.queue.edit.refresh import refresh

    try:
        tree = edittree.find(name, start)
    except edittree.NoTree:
        if name or start:
            raise
        tree = edittree.find(DEFAULT_BASE, None)
    if is_on_mail_branch(tree):
        # Here, as it takes b4.
        from iommuq.cli.commands.mail import refresh_branch

        refresh_branch(tree.folder, force=force)
        return
    spec = basefile.load_spec(tree.note.base)
    strays = tree.strays()
    if strays:
        more = f" and {len(strays) - _STRAYS} more" if len(strays) > _STRAYS else ""
        names = ", ".join(strays[:_STRAYS])
        progress.note(f"{tree.folder}: in no commit: {names}{more} (git add -f)")
    base = sources.cached(spec)
    if base is not None and base.commit != tree.note.commit:
        progress.note(
            f"{tree.folder} is of {tree.note.version}, the base is {base.version} by now:"
            " `iommuq queue rebase` takes the patches there"
        )
    done, _ = refresh(tree, spec.folder, section=section, afresh=afresh, force=force)
    for entry in done.entries:
        was = f" (was {entry.old})" if entry.old not in (None, entry.name) else ""
        print(f"{entry.action:<10} {progress.one_line(entry.name)}{was}")
    for gone in done.dropped:
        print(f"{'dropped':<10} {progress.one_line(gone)}")
    print(f"{spec.folder}: {'written' if done.changed else 'nothing to write'}")


def show_upstream(name: str, against: str, only: str | None, *, as_json: bool) -> None:
    """Print what of a queue another tree has already.

    :param against: as `open_target` takes it.
    :param only: the patch to look for; all that are sent if None.
    """
    from iommuq.queue.upstream import show as report
    from iommuq.queue.upstream.patches import judge_queue

    spec = basefile.load_spec(name)
    queue = load_queue(spec.folder, name)
    patches = None
    if only is not None:
        label = find_step(queue, only)
        patches = [patch for patch in queue.sent if patch.label == label]
    with open_target(against) as (target, title):
        verdicts = judge_queue(sources.open_base(spec), queue, target, patches)
    print(report.as_json(verdicts, title) if as_json else report.as_text(verdicts, title))


@contextlib.contextmanager
def open_target(against: str) -> Iterator[tuple[Target, str]]:
    """Open what a queue is to be compared with.

    :param against: a base, a directory with unpacked sources, or ``REPOSITORY@REF`` of
        a git repository on this machine.
    :return: the tree, and what to call it.
    :raises UserError: it is none of them.
    """
    from iommuq.queue.upstream.targets import FolderTarget, TreeTarget, find_commit

    path = Path(against)
    with tempfile.TemporaryDirectory(prefix="iommuq-target-") as folder:
        repository, at, ref = against.rpartition("@")
        if at and not path.exists():
            git_dir, commit = find_commit(Path(repository), ref)
            yield TreeTarget(Store(git_dir, Path(folder)), commit), against
            return
        if "/" in against or path.is_dir():
            yield FolderTarget(path), str(path)
            return
        other = sources.open_base(basefile.load_spec(against))
        yield TreeTarget(Store(other.git_dir, Path(folder)), other.commit), f"Linux {other.kernel}"


def rebase_queue(
    name: str,
    onto: str,
    into: Path | None,
    *,
    section: str | None,
    baseline: bool,
    action: str | None,
) -> None:
    """Carry a queue over to another base and print what became of each patch.

    :param onto: the base that it goes to; *name* itself if its sources are newer now;
        or ``REPOSITORY@REF``, which makes a base of that.
    :param into: the work tree; the usual place if None.
    :param section: of this section alone; None for all.
    :param baseline: those that go back in time, too.
    :param action: ``continue``, ``skip`` or ``abort`` what stopped; None to begin.
    """
    from iommuq.bases import named
    from iommuq.queue.edit.tree import attach
    from iommuq.queue.rebase import rebase
    from iommuq.queue.rebase import state as rebasestate

    other = named.read(onto)
    onto = other.name
    where = into or rebasestate.place(name, onto)
    if action == "abort":
        state = rebase.abort(where)
        print(f"the rebase of {state.base} onto {state.onto} is forgotten; {where} is gone")
        return
    spec = basefile.load_spec(name)
    queue = load_queue(spec.folder, name)
    new = named.open_base(other)
    old = sources.open_base(spec) if onto != name else _as_seen(new)
    if action is None:
        if onto != name and load_queue(other.folder, onto).patches:
            raise UserError(
                f"{other.folder} has patches already", hint="`iommuq queue edit` changes them"
            )
        patches = rebase.wanted(queue, section, baseline=baseline or onto == name)
        work = rebase.Rebase.begin(old, queue, new, where, patches)
    else:
        work = rebase.Rebase.resume(old, queue, new, where)
        work.skip() if action == "skip" else work.take()
    try:
        work.run()
    finally:
        for each in work.state.done:
            said = f" ({', '.join(map(progress.one_line, each.notes))})" if each.notes else ""
            print(f"{each.how:<14} {progress.one_line(each.name)}{said}")
    print(work.difference(), end="")
    names = work.write(other.folder)
    if work.finish(keep=into is not None):
        attach(new, load_queue(other.folder, onto), where)
        print(f"{where}: branch iommuq/{onto}")
    print(f"{other.folder}: {len(names)} of {len(work.state.names)} patches")


def _as_seen(base: sources.Base) -> sources.Base:
    """Return a base as it was when its patches were last seen to fit.

    :raises UserError: it is so still, or nobody knows what it was.
    """
    seen = base.spec.seen
    name = base.spec.name
    if seen is None or not seen.commit or seen.commit == base.commit:
        raise UserError(
            f"{name} is {base.version}, which its patches are for",
            hint=f"`iommuq base fetch {name} --update` gets a newer one, if there is one",
        )
    with tempfile.TemporaryDirectory(prefix="iommuq-seen-") as folder:
        if not Store(base.git_dir, Path(folder)).has(seen.commit):
            raise UserError(
                f"{name} {seen.version}, which its patches are for, is not in the cache;"
                f" {base.version} is",
                hint="add a base for the old version (snapshot.debian.org has them all)",
            )
    return replace(base, commit=seen.commit, version=seen.version)


def check_queue(
    name: str, only: str | None, names: Sequence[str], *, slow: bool, as_json: bool
) -> int:
    """Check the patches of a queue and print what was found.

    :param only: the patch to check; all that are sent if None.
    :param names: of the checks to make; none for all.
    :param slow: those that build, too.
    :return: the exit code: 1 if something failed or warned and nobody answered.
    """
    from iommuq.build.workspace import Workspace
    from iommuq.checks import show as report
    from iommuq.checks.model import Status
    from iommuq.checks.runner import check_queue as check

    workspace = Workspace.open(name)
    label = None if only is None else find_step(workspace.queue, only)
    reports = []
    for each in check(workspace, label, names, slow=slow):
        reports.append(each)
        if not as_json and each.findings:
            print("\n".join(report.as_lines(each)), flush=True)
    print(report.as_json(reports) if as_json else f"\n{report.as_table(reports)}")
    bad = any(each.status in (Status.FAIL, Status.WARN) for each in reports)
    return EXIT_VERDICT if bad else EXIT_OK


def check_mail(form: str, names: Sequence[str]) -> int:
    """Check the mail on standard input and answer in the form that b4 wants.

    :param form: ``json`` for review-*-check-cmd, ``lines`` for prep-perpatch-check-cmd.
    :param names: of the checks to make; none for all that need no tree.
    :return: the exit code: 0, as the verdict is in what was printed.
    """
    from iommuq.checks import show as report
    from iommuq.checks.runner import check_mail as check
    from iommuq.queue.parse import is_letter

    data = sys.stdin.buffer.read()
    reports = [] if is_letter(data) else check(data, names)
    if form == "json":
        print(report.as_b4(reports))
    else:
        print(report.as_b4_lines([each for each in reports if each.status != "skip"]), end="")
    return EXIT_OK


def show_queue(name: str) -> None:
    """Print the patches of a queue, one a line, under their sections."""
    queue = load_queue(basefile.load_spec(name).folder, name)
    section = None
    for patch in queue.patches:
        if patch.section != section:
            section = patch.section
            print(f"{section}:")
        print(f"  {patch.label:<16} {progress.one_line(patch.subject)}")


def apply_queue(name: str, to: str | None, into: Path | None) -> None:
    """Apply a queue and print the commits.

    :param to: the step to stop after; all if None.
    :param into: directory for a repository; None to try the patches only.
    """
    spec = basefile.load_spec(name)
    queue = load_queue(spec.folder, name)
    base = sources.open_base(spec)
    if into is None:
        steps = make_steps(base, queue, None, to=to)
    else:
        steps = apply_to_repo(base, queue, into, to=to)
    for step in steps:
        subject = step.patch.subject if step.patch else f"{len(queue.baseline)} patches"
        print(f"{step.commit[:12]} {step.label:<16} {progress.one_line(subject)}")
    if into is not None:
        print(f"{into}: branch iommuq/{name}")
