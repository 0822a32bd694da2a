# SPDX-License-Identifier: GPL-2.0-only
"""A disk that is full: it is said in a line, nothing is left half-written, the next run is right.

The disk is a real one, of memory, in a name space of mounts of its own; no rights are needed
for that, but a machine may forbid it all the same.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import toykernel
from toykernel import BASE, PATIENCE, Done, Project
from toyproof import GOOD, PROOF

#: As the user who asks, but with a root of its own kind, who may mount.
UNSHARE = ("unshare", "--user", "--map-root-user", "--mount")
#: What happens on the disk: one run on a small one, and one when there is room.
SCRIPT = """\
mount -t tmpfs -o size={size}k tmpfs {disk} || exit 99
{run} >{out}/1.out 2>{out}/1.err; echo $? >{out}/1.code
find {disk}/cache/images -mindepth 1 -maxdepth 1 ! -name '.*' >{out}/images
mount -o remount,size=100m {disk} || exit 99
{run} >{out}/2.out 2>{out}/2.err; echo $? >{out}/2.code
for image in $(cat {out}/images); do test -e $image/image.json && echo $image; done >{out}/whole
find {disk}/cache {disk}/state -name '*.tmp*' >{out}/left
"""


@pytest.fixture(scope="module")
def may_mount(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skip where a name space of its own is forbidden."""
    where = tmp_path_factory.mktemp("mount")
    probe = ("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(where))
    done = subprocess.run([*UNSHARE, *probe], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no disk of its own can be mounted here: {done.stderr.strip()}")


def on_disk(project: Project, size: int) -> list[Done]:
    """Prove a queue with cache and state on a disk of so many KiB, then once more with room."""
    disk, out = project.root / "disk", project.root / "out"
    disk.mkdir()
    out.mkdir()
    project.extra = {
        "IOMMUQ_CACHE_DIR": str(disk / "cache"),
        "IOMMUQ_STATE_DIR": str(disk / "state"),
    }
    argv = [sys.executable, "-m", "iommuq", "prove", BASE, "--suite", "kunit"]
    script = SCRIPT.format(size=size, disk=disk, out=out, run=shlex.join(argv))
    done = subprocess.run(
        [*UNSHARE, "sh", "-c", script],
        cwd=project.root,
        env=project.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=4 * PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [read_back(out, "1"), read_back(out, "2")]


def read_back(out: Path, run: str) -> Done:
    code, text, errors = ((out / f"{run}.{name}").read_text() for name in ("code", "out", "err"))
    return Done(int(code), text, errors)


@pytest.mark.usefixtures("may_mount")
@pytest.mark.parametrize("size", [16, 128, 256, 400])
def test_full_disk(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, size: int) -> None:
    """At 16 KiB not even the sources fit, then there is no room for a tree, or an image."""
    template = toykernel.template(tmp_path_factory.getbasetemp())
    project = toykernel.copy_project(template, tmp_path / "project", warm=False)
    (project.root / PROOF).write_text(GOOD)
    full, again = on_disk(project, size)
    assert full.code == 3, full
    assert "Traceback" not in full.err
    said = full.err.partition("iommuq: ")[2].splitlines()
    assert len(said) in (1, 2), full.err
    assert "space left" in full.err or "no room" in full.err, full.err
    # What was there under its own name was whole, and the next run could build on it.
    out = project.root / "out"
    assert (out / "whole").read_text() == (out / "images").read_text()
    assert (out / "left").read_text() == ""
    assert again.code == 0, again
    expected = project_cells(template)
    assert again.cells == expected


def project_cells(template: Project) -> dict[str, list[str]]:
    """Return the table of the same queue on a disk with room."""
    (template.root / PROOF).write_text(GOOD)
    done = template.run("prove", BASE, "--suite", "kunit")
    (template.root / PROOF).unlink()
    assert done.code == 0, done
    return done.cells
