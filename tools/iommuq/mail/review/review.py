# SPDX-License-Identifier: GPL-2.0-only
"""Review a posted series: fetch it, apply it, and test it in a sandbox.

b4 reads the mails and git applies them outside; all that runs code of the series is inside.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import iommuq
from iommuq.bases import basefile, sources
from iommuq.bases.sources import Base
from iommuq.mail.review import screen, worker
from iommuq.mail.review.fetch import Posted, fetch
from iommuq.mail.review.model import Answer, Reviewed
from iommuq.mail.review.place import Place, find_place
from iommuq.queue.model import load_queue
from iommuq.queue.parse import Mail, read_mails
from iommuq.queue.steps import Step, make_steps
from iommuq.system import files, progress, tables
from iommuq.system.errors import (
    EXIT_USER,
    EXIT_VERDICT,
    InfraError,
    IommuqError,
    UserError,
    VerdictError,
)
from iommuq.system.git.command import init_bare
from iommuq.system.git.objects import Objects
from iommuq.system.git.scratch import borrow
from iommuq.system.progress import one_line
from iommuq.system.sandbox.box import Sandbox
from iommuq.system.sandbox.bubblewrap import python_paths
from iommuq.system.sandbox.model import default_limits
from iommuq.system.temporary import remove, temporary_folder

#: Seconds that the logs of a review are kept.
KEEP = 30 * 24 * 3600.0
# Bytes kept of one log, and of all; an empty log counts as a block.
_MOST_LOG = 16 << 20
_MOST_LOGS = 256 << 20
_BLOCK = 4096
# Values in the answer of the sandbox: each takes up to 100 bytes of memory.
_MOST_PARTS = 2_000_000
# Where programs keep things for the next time: a trusted series gets other places.
_PLACES = (
    *("HOME", "TMPDIR", "CCACHE_DIR", "SCCACHE_DIR", "CCACHE_TEMPDIR"),
    *("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"),
)


@dataclass(frozen=True)
class Wish:
    """The request of the user.

    :ivar what: a Message-ID, an address, or a file.
    :ivar base: the name of the base.
    :ivar at: the step of its queue to apply to; None for the series' base-commit, or the base.
    :ivar version: of the series; None for the latest.
    :ivar config: settings of b4.
    :ivar seconds: limit for the sandbox; None for the default.
    """

    what: str
    base: str
    at: str | None = None
    version: int | None = None
    config: tuple[str, ...] = ()
    offline: bool = False
    suites: tuple[str, ...] = ("kunit",)
    checks: str = "quick"
    seconds: float | None = None
    trust: bool = False


@contextlib.contextmanager
def review(wish: Wish) -> Iterator[Reviewed]:
    """Fetch, screen, apply and test a series.

    After the block, the kernel's sources and objects are removed.

    :raises UserError: there is no such series, it is not complete, or it was refused.
    :raises InfraError: there is no sandbox, or a limit was reached.
    """
    limits = default_limits()
    if wish.seconds is not None:
        limits = replace(limits, seconds=wish.seconds)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(temporary_folder("review", _home()))
        # The user of the sandbox needs access.
        folder.chmod(0o755)
        sandbox = Sandbox(
            folder / "work",
            limits,
            trusted=wish.trust,
            noun="the series",
            hint="nothing was run; --trust runs the series without a sandbox, as your user",
        )
        stack.enter_context(sandbox.opened())
        (folder / "mails").mkdir()
        with progress.task(f"Fetching {wish.what}"):
            posted = fetch(
                wish.what,
                folder / "mails",
                version=wish.version,
                config=wish.config,
                offline=wish.offline,
            )
        yield _tried(wish, folder, sandbox, posted)


def _tried(wish: Wish, folder: Path, sandbox: Sandbox, posted: Posted) -> Reviewed:
    """Screen a series, apply it, and test it in the sandbox."""
    work = sandbox.writable
    mails = _screened(posted)
    spec = basefile.load_spec(wish.base)
    base = sources.open_base(spec)
    place = find_place(base, load_queue(spec.folder, wish.base), wish.at, posted.base_commit)
    _write_queue(work / "queue", place, posted)
    own = replace(base, git_dir=work / "repo.git", boxed=True)
    init_bare(own.git_dir)
    borrow(own.git_dir, [base.git_dir])
    texts = tuple(
        tuple(path.read_text(encoding="utf-8", errors="replace").split("\n"))
        for path in posted.mails
    )
    found = Reviewed(posted, place, tuple(mails), texts, trusted=wish.trust)
    try:
        steps = _apply(own, work / "queue", wish.base, posted)
    except _DoesNotApply as error:
        return replace(found, refusal=(error.number, str(error)))
    request = worker.Request(
        base=wish.base,
        version=base.version,
        kernel=base.kernel,
        commit=base.commit,
        git_dir=own.git_dir,
        queue=work / "queue",
        suites=wish.suites,
        checks=wish.checks,
    )
    began = time.monotonic()
    logs = folder.parent / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}" / "logs"
    try:
        labels = [step.label for step in steps]
        answer = _run(sandbox, request, base, f"Trying {posted.title}", labels)
    finally:
        _keep_logs(work / "state" / "logs", logs)
    return replace(
        found, labels=tuple(labels), answer=answer, seconds=time.monotonic() - began, logs=logs
    )


def _home() -> Path:
    """Return the directory of all reviews, without the logs that are too old."""
    home = files.cache_dir() / "reviews"
    home.mkdir(parents=True, exist_ok=True)
    for old in home.glob("[!.]*"):
        with contextlib.suppress(OSError):
            if old.stat().st_mtime < time.time() - KEEP:
                remove(old)
    return home


def _screened(posted: Posted) -> list[Mail]:
    """Screen and parse every patch."""
    total = len(posted.mails)
    for number, path in enumerate(posted.mails, 1):
        screen.screen(path.read_bytes(), f"{number}/{total}")
    try:
        return read_mails(posted.mails, boxed=True)
    except UserError as error:
        what = error.what.replace(f"{posted.mails[0].parent}/", "")
        flowed = any("format=flowed" in each for m in posted.patches for each in m.remarks)
        hint = "format=flowed loses lines; ask the author to send it again" if flowed else ""
        raise UserError(what, hint=hint or error.hint) from error


def _write_queue(folder: Path, place: Place, posted: Posted) -> None:
    """Write a queue of the series; its baseline is the patches to apply it to."""
    names = [f"baseline/{number:04}.patch" for number in range(1, len(place.patches) + 1)]
    names += [f"review/{number:04}.patch" for number in range(1, len(posted.mails) + 1)]
    for name, source in zip(
        names, [*(patch.path for patch in place.patches), *posted.mails], strict=True
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, path)
    (folder / "series").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")


class _DoesNotApply(Exception):
    """The patch of this number, from 1, does not apply."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(text)
        self.number = number


def _apply(base: Base, folder: Path, name: str, posted: Posted) -> list[Step]:
    """Apply the series patch by patch, and screen each resulting tree."""
    queue = load_queue(folder, name)
    total = len(posted.mails)
    steps = make_steps(base, queue, None, to="baseline")
    with temporary_folder("review") as scratch:
        store = Objects(base.git_dir, scratch)
        for number, patch in enumerate(queue.sent, 1):
            try:
                step = make_steps(base, queue, None, to=patch.label)[-1]
            except VerdictError as error:
                text = error.what.replace(f"{patch.name} does not apply: ", "")
                text = text.replace(f"{folder}/", "").partition(" [")[0]
                hint = f" ({error.hint})" if error.hint else ""
                raise _DoesNotApply(number, f"{text}{hint}") from error
            screen.screen_tree(store, steps[-1].tree, step.tree, f"{number}/{total}")
            steps.append(step)
    return steps


def _run(
    sandbox: Sandbox, request: worker.Request, base: Base, title: str, labels: Sequence[str]
) -> Answer:
    """Run the worker in the sandbox, and return its answer about the steps *labels*."""
    work = sandbox.writable
    root = files.project_root()
    fields = {**asdict(request), "git_dir": str(request.git_dir), "queue": str(request.queue)}
    (work / worker.REQUEST).write_text(json.dumps(fields), encoding="utf-8")
    # Of the user's own patches, those that the series is applied to are in the queue.
    shown = [*(root / "patches" / request.base).glob("*.toml"), root / "kunit", root / "selftests"]
    there = [path for path in shown if path.exists()]
    inside = replace(sandbox, readable=(*python_paths(), *there, base.git_dir))
    package = Path(iommuq.__file__).resolve().parents[1]
    environment = {
        "IOMMUQ_ROOT": str(root),
        "IOMMUQ_CACHE_DIR": str(work / "cache"),
        "IOMMUQ_STATE_DIR": str(work / "state"),
        "PYTHONPATH": str(package),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
    }
    inside.hand_over()
    pieces: list[str] = []
    with progress.task(title) as step, temporary_folder("home") as home:
        if sandbox.trusted:
            environment |= dict.fromkeys(_PLACES, str(home))

        def on_line(line: str) -> None:
            if line.startswith(worker.MARK):
                pieces.append(line.removeprefix(worker.MARK))
            elif line.strip():
                step.update(note=line.strip()[:100])

        words = [sys.executable, "-m", "iommuq.mail.review.worker", str(work)]
        done = inside.run(words, environment=environment, on_line=on_line)
    return _read(pieces, done.returncode, done.output + done.stderr, labels)


def _read(pieces: Sequence[str], returncode: int, output: str, labels: Sequence[str]) -> Answer:
    """Parse the untrusted answer of the worker."""
    try:
        text = "".join(pieces)
        if sum(map(text.count, ",[{")) > _MOST_PARTS:
            raise ValueError("too many parts")
        data = json.loads(text)
        if isinstance(data, dict) and "error" in data:
            kinds = {EXIT_VERDICT: VerdictError, EXIT_USER: UserError}
            said = {key: str(data["error"][key]) for key in ("code", "what", "hint")}
            kind = kinds.get(int(said["code"]), InfraError)
            raise kind(one_line(said["what"]), hint=one_line(said["hint"]))
        answer = tables.validate(Answer, data, Path("the sandbox's answer"))
        places = [(ran.lane, ran.label) for ran in answer.outcomes]
        if len(set(places)) < len(places) or not {label for _, label in places} <= set(labels):
            raise ValueError("unknown or duplicate step")
        return answer
    except (ValueError, KeyError, TypeError, RecursionError, UserError) as error:
        if isinstance(error, IommuqError) and "the sandbox's answer" not in error.what:
            raise
        lines = [one_line(line) for line in output.splitlines() if line.strip()]
        last = lines[-1][:200] if lines else f"exit status {returncode}"
        raise InfraError(
            "no answer from the sandbox: its process ended", hint=f"last line: {last}"
        ) from error


def _keep_logs(source: Path, target: Path) -> None:
    """Keep the logs: only regular files, up to the limit."""
    if source.is_symlink() or source.parent.is_symlink():
        return
    with contextlib.suppress(OSError):
        target.mkdir(parents=True)
        left = _MOST_LOGS
        for entry in os.scandir(source):
            if left > 0 and entry.is_file(follow_symlinks=False):
                handle = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
                with os.fdopen(handle, "rb") as file:
                    kept = (target / entry.name).write_bytes(file.read(_MOST_LOG))
                left -= max(kept, _BLOCK)
