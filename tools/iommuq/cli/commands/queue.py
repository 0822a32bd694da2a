# SPDX-License-Identifier: GPL-2.0-only
"""``iommuq queue``."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from iommuq.bases import basefile, sources
from iommuq.cli import options
from iommuq.defaults import DEFAULT_BASE
from iommuq.queue import edit as edittree
from iommuq.queue.model import find_step, load_queue
from iommuq.queue.steps import apply_to_repo, make_steps
from iommuq.system import progress
from iommuq.system.errors import EXIT_OK, EXIT_VERDICT, UserError
from iommuq.system.git.objects import Objects
from iommuq.system.temporary import temporary_folder

if TYPE_CHECKING:
    from iommuq.queue.upstream.patches import Target


# Old names of options, which are still accepted.
_RENAMED = {"afresh": "rewrite-all"}


@click.group()
def queue() -> None:
    """Patch queues, and trees with a queue applied."""


@queue.command()
@options.base
def show(base: str) -> None:
    """List the patches of the queue of BASE."""
    queue = load_queue(basefile.load_spec(base).folder, base)
    section = None
    for patch in queue.patches:
        if patch.section != section:
            section = patch.section
            print(f"{section}:")
        print(f"  {patch.label:<16} {progress.one_line(patch.subject)}")


@queue.command()
@options.base
@click.option("--to", metavar="PATCH", help="Stop after this patch.")
@click.option(
    "--into", type=options.folder, help="Make a git repository here; by default only test this."
)
def apply(base: str, to: str | None, into: Path | None) -> None:
    """Apply the queue of BASE, one commit per patch."""
    spec = basefile.load_spec(base)
    queue = load_queue(spec.folder, base)
    kernel = sources.open_base(spec)
    if into is None:
        steps = make_steps(kernel, queue, None, to=to)
    else:
        steps = apply_to_repo(kernel, queue, into, to=to)
    for step in steps:
        subject = step.patch.subject if step.patch else f"{len(queue.baseline)} patches"
        print(f"{step.commit[:12]} {step.label:<16} {progress.one_line(subject)}")
    if into is not None:
        print(f"{into}: branch iommuq/{base}")


@queue.command()
@options.base
@click.option("--into", type=options.folder, help="Make it here instead of the default place.")
def edit(base: str, into: Path | None) -> None:
    """Make a work tree whose commits are the queue of BASE, to change it with git."""
    from iommuq.queue.edit import edit

    spec = basefile.load_spec(base)
    queue = load_queue(spec.folder, base)
    tree = edit(sources.open_base(spec), queue, into)
    print(f"{tree.folder}: branch iommuq/{base}, {len(queue.patches)} commits from iommuq-base on")


@queue.command(context_settings={"token_normalize_func": lambda word: _RENAMED.get(word, word)})
@click.argument("base", required=False)
@click.option(
    "--from",
    "start",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="The work tree; by default the current directory, or the last one made.",
)
@click.option("--section", metavar="NAME", help="The section of new patches.")
@click.option("--rewrite-all", is_flag=True, help="Also write unchanged patches again.")
@click.option("--force", is_flag=True, help="Overwrite patches that were changed in the queue.")
def refresh(
    base: str | None, start: Path | None, section: str | None, rewrite_all: bool, force: bool
) -> None:
    """Write the commits of a work tree back as the queue of BASE."""
    from iommuq.mail.branch import is_on_mail_branch
    from iommuq.queue.edit import refresh

    try:
        tree = edittree.find(base, start)
    except edittree.NoTree:
        if base or start:
            raise
        tree = edittree.find(DEFAULT_BASE, None)
    if is_on_mail_branch(tree):
        # Not at the top: imports b4.
        from iommuq.cli.commands.mail import refresh_branch

        refresh_branch(tree.folder, force=force)
        return
    spec = basefile.load_spec(tree.note.base)
    strays = tree.strays()
    if strays:
        more = f" and {len(strays) - _STRAYS} more" if len(strays) > _STRAYS else ""
        names = ", ".join(strays[:_STRAYS])
        progress.note(f"{tree.folder}: in no commit: {names}{more} (git add -f)")
    now = sources.cached(spec)
    if now is not None and now.commit != tree.note.commit:
        progress.note(
            f"{tree.folder} is of {tree.note.version}, the base is now {now.version}:"
            " run `iommuq queue rebase`"
        )
    done, _ = refresh(tree, spec.folder, section=section, rewrite_all=rewrite_all, force=force)
    for entry in done.entries:
        was = f" (was {entry.old})" if entry.old not in (None, entry.name) else ""
        print(f"{entry.action:<10} {progress.one_line(entry.name)}{was}")
    for gone in done.dropped:
        print(f"{'dropped':<10} {progress.one_line(gone)}")
    print(f"{spec.folder}: {'written' if done.changed else 'nothing to write'}")


@queue.command()
@options.base
@click.option(
    "--against",
    required=True,
    metavar="NEW",
    help="A base, a directory with a kernel tree, or REPOSITORY@REF of git.",
)
@click.option("--patch", metavar="PATCH", help="Only this patch.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def upstream(base: str, against: str, patch: str | None, as_json: bool) -> None:
    """Show which patches of the queue of BASE another kernel has already."""
    from iommuq.queue.upstream import patches as report

    spec = basefile.load_spec(base)
    queue = load_queue(spec.folder, base)
    patches = None
    if patch is not None:
        label = find_step(queue, patch)
        patches = [patch for patch in queue.sent if patch.label == label]
    with open_target(against) as (target, title):
        verdicts = report.judge_queue(sources.open_base(spec), queue, target, patches)
    print(report.as_json(verdicts, title) if as_json else report.as_text(verdicts, title))


@queue.command()
@options.base
@click.option(
    "--onto", required=True, metavar="NEW", help="The new base, or REPOSITORY@REF of git."
)
@click.option("--into", type=options.folder, help="Make the work tree here, and keep it.")
@click.option("--section", metavar="NAME", help="Only the patches of this section.")
@click.option("--baseline", is_flag=True, help="Also the patches of the baseline.")
@click.option("--continue", "action", flag_value="continue", help="Go on with resolved conflicts.")
@click.option("--skip", "action", flag_value="skip", help="Drop the patch that conflicts.")
@click.option("--abort", "action", flag_value="abort", help="End the rebase, and remove its tree.")
def rebase(
    base: str, onto: str, into: Path | None, section: str | None, baseline: bool, action: str | None
) -> None:
    """Rebase the queue of BASE to another kernel with three-way merges."""
    from iommuq.bases import named
    from iommuq.queue import rebase
    from iommuq.queue.edit import attach

    other = named.find_spec(onto)
    onto = other.name
    where = into or rebase.place(base, onto)
    if action == "abort":
        state = rebase.abort(where)
        print(f"aborted the rebase of {state.base} onto {state.onto}, removed {where}")
        return
    spec = basefile.load_spec(base)
    queue = load_queue(spec.folder, base)
    new = named.open_base(other)
    old = sources.open_base(spec) if onto != base else _as_seen(new)
    if action is None:
        if onto != base and load_queue(other.folder, onto).patches:
            raise UserError(
                f"{other.folder} has patches already", hint="`iommuq queue edit` changes them"
            )
        patches = rebase.wanted(queue, section, baseline=baseline or onto == base)
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


@queue.command()
@options.base
@click.option("--patch", metavar="PATCH", help="Only this patch.")
@click.option("--only", "names", multiple=True, metavar="CHECK", help="Only this check.")
@click.option("--quick", is_flag=True, help="Without the checks that build.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(base: str, patch: str | None, names: tuple[str, ...], quick: bool, as_json: bool) -> int:
    """Check the patches of BASE as reviewers do: message, style, new warnings."""
    from iommuq.build.workspace import Workspace
    from iommuq.checks import show as report
    from iommuq.checks.model import Status
    from iommuq.checks.runner import check_queue as check

    workspace = Workspace.open(base)
    label = None if patch is None else find_step(workspace.queue, patch)
    reports = []
    for each in check(workspace, label, names, slow=not quick):
        reports.append(each)
        if not as_json and each.findings:
            print("\n".join(report.as_lines(each)), flush=True)
    print(report.as_json(reports) if as_json else f"\n{report.as_table(reports)}")
    bad = [each for each in reports if each.status in (Status.FAIL, Status.WARN)]
    if not as_json:
        patches = progress.count(len({each.subject for each in bad or reports}), "patch", "patches")
        failed = f"FAIL: {base}: {progress.count(len(bad), 'check')} of {patches} without an answer"
        print(failed if bad else f"PASS: {base}: {patches} checked")
    return EXIT_VERDICT if bad else EXIT_OK


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


#: Number of untracked sources that are named; the others are counted.
_STRAYS = 3


@contextlib.contextmanager
def open_target(against: str) -> Iterator[tuple[Target, str]]:
    """Open a tree to compare a queue with.

    :param against: a base, a directory with sources, or ``REPOSITORY@REF`` of a local git
        repository.
    :return: the tree, and its name.
    :raises UserError: it is none of them.
    """
    from iommuq.bases import named
    from iommuq.bases.named import Kind
    from iommuq.queue.upstream.patches import FolderTarget, TreeTarget, find_commit

    found = named.parse(against)
    if found.kind in (Kind.FOLDER, Kind.FILE):
        yield FolderTarget(found.path), str(found.path)
        return
    if found.kind is Kind.COMMIT:
        git_dir, commit = find_commit(found.path, found.name)
        title = against
    else:
        other = sources.open_base(basefile.load_spec(against))
        git_dir, commit, title = other.git_dir, other.commit, f"Linux {other.kernel}"
    with temporary_folder("target") as folder:
        yield TreeTarget(Objects(git_dir, folder), commit), title


def _as_seen(base: sources.Base) -> sources.Base:
    """Return the version of a base in its ``[seen]``, which its patches are for."""
    seen = base.spec.seen
    name = base.spec.name
    if seen is None or not seen.commit or seen.commit == base.commit:
        raise UserError(
            f"{name} is {base.version}, which its patches are for",
            hint=f"`iommuq base fetch {name} --update` fetches a newer one, if there is one",
        )
    with temporary_folder("seen") as folder:
        if not Objects(base.git_dir, folder).has(seen.commit):
            raise UserError(
                f"{name} {seen.version}, which its patches are for, is not in the cache;"
                f" {base.version} is",
                hint="add a base for the old version (see snapshot.debian.org)",
            )
    return replace(base, commit=seen.commit, version=seen.version)
