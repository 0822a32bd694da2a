# SPDX-License-Identifier: GPL-2.0-only
"""A project with the toy kernel, and iommuq run on it as a user does."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import toy
from toykernel.files import BASE, FILES, GIT, IOMMU_C, PATIENCE, PROJECT


@dataclass(frozen=True)
class Done:
    """A run of iommuq that has ended."""

    code: int
    out: str
    err: str

    @property
    def cells(self) -> dict[str, list[str]]:
        """The table of `iommuq run`: test -> the word in each column."""
        suite = ""
        found: dict[str, list[str]] = {}
        for line in self.out.splitlines():
            words = line.split()
            if len(words) == 1 and not line.startswith(" "):
                suite = words[0]
            elif len(words) > 1 and line.startswith("  "):
                if words[0] == "baseline":
                    found["labels"] = words
                elif suite:
                    found[f"{suite}.{words[0]}"] = words[1:]
            elif found and not words:
                break
        return found


@dataclass
class Project:
    """A project with the toy kernel, a queue, and a cache and a state of its own.

    :ivar root: its folder.
    """

    root: Path
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """What iommuq is run with."""
        return {
            **os.environ,
            "IOMMUQ_ROOT": str(self.root),
            "IOMMUQ_CACHE_DIR": str(self.root / "cache"),
            "IOMMUQ_STATE_DIR": str(self.root / "state"),
            "TOY_PYTHON": sys.executable,
            "TOY_TRACE": str(self.root / "trace"),
            # Tells the processes of this project from all others; see leftovers().
            "TOY_MARKER": str(self.root),
            **self.extra,
        }

    @property
    def maker(self) -> toy.QueueMaker:
        """A maker of further patches, on top of those that there are."""
        folder = self.root / "patches" / BASE
        names = (folder / "series").read_text().split()
        return toy.QueueMaker(folder=folder, work=self.root / "work", names=names)

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace a text that is in a file of the project."""
        path = self.root / name
        text = path.read_text()
        assert old in text, f"{name} has no {old!r}"
        path.write_text(text.replace(old, new))

    def start(self, *words: str, group: bool = False) -> subprocess.Popen[str]:
        """Start iommuq.

        :param group: as a shell does it, which makes a process group of every command.
        """
        return subprocess.Popen(
            [sys.executable, "-m", "iommuq", *words],
            cwd=self.root,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0 if group else None,
        )

    def finish(self, process: subprocess.Popen[str]) -> Done:
        """Wait for what `start` started."""
        out, err = process.communicate(timeout=PATIENCE)
        assert "Traceback" not in err, err
        return Done(process.returncode, out, err)

    def run(self, *words: str, **environment: str) -> Done:
        """Run iommuq to its end.

        :param environment: variables for this run only.
        """
        before = dict(self.extra)
        self.extra.update(environment)
        try:
            return self.finish(self.start(*words))
        finally:
            self.extra = before

    @property
    def trace(self) -> list[str]:
        """The calls of make and kunit.py so far."""
        path = self.root / "trace"
        return path.read_text().splitlines() if path.exists() else []

    def forget_trace(self) -> None:
        """Start with an empty trace."""
        (self.root / "trace").unlink(missing_ok=True)

    @contextlib.contextmanager
    def stalled(self, stage: str, *words: str) -> Iterator[subprocess.Popen[str]]:
        """Run iommuq up to a stage that does not end, for as long as the block runs."""
        shim = self.root / "bin"
        shim.mkdir(exist_ok=True)
        shutil.copyfile(GIT, shim / "git")
        (shim / "git").chmod(0o755)
        mark = self.root / "stalled"
        mark.unlink(missing_ok=True)
        before = dict(self.extra)
        path = f"{shim}:{os.environ['PATH']}"
        self.extra.update(TOY_STALL=stage, TOY_STALLED=str(mark), PATH=path)
        self.extra["TOY_GIT"] = shutil.which("git") or "git"
        process = self.start(*words, group=True)
        self.extra = before
        try:
            wait_for(lambda: mark.exists() or process.poll() is not None)
            assert process.poll() is None, process.communicate()
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            for pipe in (process.stdout, process.stderr):
                assert pipe is not None
                pipe.close()
            process.wait()

    def leftovers(self) -> list[str]:
        """Return the command lines of all processes that were started for this project."""
        marker = f"TOY_MARKER={self.root}".encode()
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if marker in (entry / "environ").read_bytes().split(b"\0"):
                    words = (entry / "cmdline").read_bytes().split(b"\0")
                    # A process that has ended may still be listed; it has no words any more.
                    if any(words):
                        found.append(b" ".join(words).decode(errors="replace"))
        return found


def wait_for(condition: object, seconds: float = PATIENCE) -> None:
    """Wait until *condition*, a function, is true."""
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"still not so after {seconds:g} s"
        time.sleep(0.01)


def interrupt(process: subprocess.Popen[str], *, group: bool) -> None:
    """Press Ctrl-C, or send the signal to the process alone."""
    if group:
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGINT)


def make_project(root: Path) -> Project:
    """Make a project whose cache is empty, with a baseline patch and two more."""
    toy.write_tree(root / "linux", FILES)
    # Absolute, so that a project and its copies have the same base.
    source = f'provider = "directory"\npath = "{root / "linux"}"\n'
    base = f'name = "{BASE}"\ntitle = "Toy Linux"\n\n[source]\n{source}'
    toy.write_tree(root, {**PROJECT, f"patches/{BASE}/base.toml": base})
    toy.write_tree(root / "work", FILES)
    toy.git("init", "--quiet", "--template=", "--initial-branch=base", "work", cwd=root)
    toy.commit_all(root / "work", "Linux 6.12.117")
    maker = toy.QueueMaker(folder=root / "patches" / BASE, work=root / "work")
    steps = {
        "baseline/0001-toy-go-back.patch": ("return -22;", "return 0;"),
        "resv/0001-toy-refuse-to-block.patch": ("return 0;", "return -22;"),
        "resv/0002-toy-drop-the-check.patch": ("return 3;", "return 5;"),
    }
    for name, edit in steps.items():
        subject = "toy: " + name.partition("toy-")[2].removesuffix(".patch").replace("-", " ")
        maker.add(name, maker.mail(subject, {IOMMU_C: edit}))
    return Project(root)


def copy_project(template: Project, root: Path, *, warm: bool) -> Project:
    """Copy a project.

    :param warm: with the base, the images and the results that it has made.
    """
    skip = ("trees", "boots", "logs") if warm else ("cache", "state")
    shutil.copytree(template.root, root, ignore=shutil.ignore_patterns("trace", *skip))
    return Project(root)


@cache
def template(where: Path) -> Project:
    """Return a project that has run its queue once; tests copy it and leave it as it is.

    :param where: the directory of this run of pytest.
    """
    project = make_project(where / "toykernel")
    done = project.run("run", BASE)
    assert done.code == 0, done
    return project
