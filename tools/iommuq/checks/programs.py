# SPDX-License-Identifier: GPL-2.0-only
"""Checks that are programs of the kernel tree or of the system: ``checks.toml``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from itertools import groupby
from pathlib import Path

from iommuq.checks.model import CHECKS, Check, Finding, Skipped, Status, Subject
from iommuq.checks.tables import Program, load_programs
from iommuq.system.progress import one_line
from iommuq.system.run import describe_status, run
from iommuq.system.temporary import temporary_folder

#: Seconds for one run of one program.
_LIMIT = 300.0
_PLACE = re.compile(r":\d+(?=[: ])")
# Messages of an interpreter that cannot start the program.
_BROKEN = re.compile(r"No such file or directory|Can't locate|SyntaxError|ModuleNotFoundError")


def run_first(variants: Sequence[Program], subject: Subject) -> list[Finding]:
    """Run the first program whose files the tree has, as kernels move their scripts.

    :raises Skipped: the tree has no such files, or the program cannot run.
    """
    for program in variants[:-1]:
        try:
            subject.need_tree().extract(*(program.files or ()))
        except Skipped:
            continue
        return run_program(program, subject)
    return run_program(variants[-1], subject)


def run_program(program: Program, subject: Subject) -> list[Finding]:
    """Run a program on a patch, or on every changed file, without messages from before.

    :raises Skipped: it needs a tree and there is none, or it cannot run.
    """
    if not program.each:
        folder = subject.patch.path.parent
        if program.files:
            folder = subject.need_tree().extract(*program.files)
        return _run(program, subject, folder, "")
    tree = subject.need_tree()
    found: list[Finding] = []
    for path in (c.path for c in subject.changes if re.search(program.each, c.path)):
        if tree.store.read_file(tree.after, path) is None:
            continue
        known: set[str] = set()
        if tree.store.read_file(tree.before, path) is not None:
            folder = tree.extract(*(program.files or ()), path, before=True)
            known = {_PLACE.sub("", each.text) for each in _run(program, subject, folder, path)}
        folder = tree.extract(*(program.files or ()), path)
        found += [
            each
            for each in _run(program, subject, folder, path)
            if _PLACE.sub("", each.text) not in known
        ]
    return found


def _run(program: Program, subject: Subject, folder: Path, path: str) -> list[Finding]:
    """Run a program once; *folder* has the files of the tree that it needs."""
    mail = subject.patch.path
    with temporary_folder("said") as place:
        said_in = place / "patch"
        said_in.write_bytes(_what_it_says(subject))
        argv = [w.format(mail=mail, said=said_in, path=path, root=folder) for w in program.argv]
        done = run(argv, cwd=folder, env={"LC_ALL": "C.UTF-8"}, timeout=_LIMIT, check=False)
    said = f"{done.output}\n{done.stderr}"
    for name in (f"{mail}:", f"{said_in}:", f"{folder}/"):
        said = said.replace(name, "")
    lines = [line for line in said.splitlines() if line.strip()]
    if program.ignore:
        lines = [line for line in lines if not re.search(program.ignore, line)]
    findings = [each for each in map(partial(_finding, program), lines) if each]
    if done.returncode < 0 or (done.returncode and not findings and _BROKEN.search(said)):
        what = one_line(lines[0]) if lines else describe_status(done.returncode)
        raise Skipped(f"{program.argv[0]} cannot run here: {what}")
    if done.returncode and not findings:
        # It failed with a message of unknown form.
        text = one_line(lines[0]) if lines else describe_status(done.returncode)
        findings = [Finding(Status.FAIL, text)]
    return findings


def _what_it_says(subject: Subject) -> bytes:
    """Return a mail with all lines empty but those of its message and its additions."""
    lines = subject.data.split(b"\n")
    first = next((n for n, line in enumerate(lines) if line.startswith(b"diff --git ")), len(lines))
    kept = [
        line if number < first else line[1:] if re.match(rb"\+(?!\+\+ )", line) else b""
        for number, line in enumerate(lines)
    ]
    return b"\n".join(kept)


def _finding(program: Program, line: str) -> Finding | None:
    for pattern, status in ((program.fail, Status.FAIL), (program.warn, Status.WARN)):
        if pattern and re.search(pattern, line):
            return Finding(status, one_line(line))
    return None


for _name, _variants in groupby(load_programs(), key=lambda program: program.name):
    _all = tuple(_variants)
    _needs = tuple(dict.fromkeys(name for each in _all for name in each.needs))
    CHECKS.append(Check(_name, _all[0].title, partial(run_first, _all), _needs))
