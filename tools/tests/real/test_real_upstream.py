# SPDX-License-Identifier: GPL-2.0-only
"""The real lane of the queue's upkeep: the queue of 6.12 against real kernels."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from iommuq.bases import basefile, sources
from iommuq.queue.model import load_queue
from iommuq.queue.upstream.patches import TreeTarget
from iommuq.system import files
from iommuq.system.git.objects import Objects
from realrun import iommuq
from upstreamcases import Case, Measure, Versions

pytestmark = pytest.mark.real


@pytest.fixture(autouse=True)
def own_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Leave alone which work tree is the user's latest."""
    monkeypatch.setenv("IOMMUQ_STATE_DIR", str(tmp_path / "state"))


#: Files whose changes from 6.12 to 7.3 are taken for patches.
FILES = (
    "drivers/iommu/iommu.c",
    "drivers/iommu/intel/iommu.c",
    "drivers/iommu/amd/iommu.c",
    "drivers/iommu/dma-iommu.c",
    "include/linux/iommu.h",
)

#: Series that no kernel has.
ADDED = ("follow-up", "fixes", "late-joiner", "regions", "last-resort")
#: Patches of 7.3 that are partly in a kernel.
PARTLY = {
    "7.3": {"last-resort/0003", "last-resort/0004", "last-resort/0005", "regions/0007"},
    "6.12": {"last-resort/0003", "late-joiner/0004", "regions/0006", "regions/0007"},
}


def plain(name: str, where: Path) -> TreeTarget:
    base = sources.open_base(basefile.load_spec(name))
    return TreeTarget(Objects(base.git_dir, where), base.commit)


def patches_of(base: str, against: str) -> dict[str, dict[str, Any]]:
    """Return what is said of each patch of a queue, by the beginning of its name."""
    begin = time.monotonic()
    done = iommuq("queue", "upstream", base, "--against", against, "--json")
    assert done.returncode == 0, done.stderr
    print(f"{base} against {against}: {time.monotonic() - begin:.1f} s")
    return {patch["patch"][:16]: patch for patch in json.loads(done.stdout)["patches"]}


def verdicts(against: str, base: str = "6.12") -> dict[str, str]:
    """Return the verdict on each patch of a queue, by the beginning of its name."""
    return {name: patch["verdict"] for name, patch in patches_of(base, against).items()}


def test_resv_direct_is_in_7_3() -> None:
    """All but one condition of the core's patch: it does not refuse what must succeed."""
    found = verdicts("7.3")
    assert found["resv-direct/0001"] == "partly present"
    assert found["resv-direct/0002"] == "present with drift"
    assert found["mock/0001-iommuf"] == "absent"


def test_resv_direct_is_in_plain_6_12() -> None:
    """Written anew, the core's patch differs; what VT-d lost is lost to the line."""
    found = verdicts("6.12")
    assert found["resv-direct/0001"] == "partly present"
    assert found["resv-direct/0002"].startswith("present")
    assert found["mock/0001-iommuf"] == "absent"


@pytest.mark.parametrize(("base", "against"), [("7.3", "7.3"), ("7.3", "6.12"), ("6.12", "7.3")])
def test_follow_up_is_nowhere(base: str, against: str) -> None:
    """Neither in the kernel that it is for, nor in the one before or after it."""
    found = verdicts(against, base)
    added = {name: verdict for name, verdict in found.items() if name.startswith(ADDED)}
    assert len(added) >= 10
    # Lines that these add stand elsewhere in the kernel, too: of functions that they split.
    known = PARTLY.get(against, set()) if base == "7.3" else set()
    others = {name[: name.index("/") + 5] for name in added if added[name] != "absent"}
    assert others == known, added
    assert set(added.values()) <= {"absent", "partly present"}, added


@pytest.mark.parametrize("against", ["6.12", "7.3"])
def test_backport_is_there_in_spirit_only(against: str) -> None:
    """Later kernels know the flag; what 6.1's patch does with it is another thing there."""
    found = patches_of("6.1", against)["resv-direct/0001"]
    assert found["verdict"] == "partly present"
    assert any("another form: " in note for note in found["notes"]), found["notes"]


def test_measure_on_real_changes(tmp_path: Path) -> None:
    """Changes of two years, as patches, against trees with and without each of them."""
    old, new = plain("6.12", tmp_path), plain("7.3", tmp_path)
    choice = random.Random(3)

    def cases() -> Iterator[Case]:
        for path in FILES:
            texts = [tree.read(path) for tree in (old, new)]
            versions = Versions(path, *(text.decode() for text in texts if text is not None))
            for number in choice.sample(range(len(versions.changes)), 5):
                yield from versions.cases(number)

    measure = Measure.of(cases())
    print(measure)
    assert measure.there + measure.not_there >= 100
    # One to three in a hundred, on samples that nothing was tuned on.
    assert len(measure.false) <= 0.04 * measure.not_there, measure.false
    assert len(measure.missed) <= 0.15 * measure.there, measure.missed


def _as_in_the_kernel(path: Path) -> None:
    """Take out of a patch what the kernel does not have: an attach that must succeed is refused."""
    lines = path.read_text().splitlines(keepends=True)
    (last,) = (i for i, line in enumerate(lines) if "!(flags & IOMMU_SET_DOMAIN_MUST" in line)
    comment = range(last - 5, last - 2)
    assert "An attach that must succeed" in lines[comment[1]]
    head = max(i for i in range(last) if lines[i].startswith("@@"))
    new = int(re.findall(r",(\d+)", lines[head])[1])
    lines[head] = lines[head].replace(f",{new} @@", f",{new - 4} @@")
    for i in (last, *reversed(comment)):
        del lines[i]
    text = "".join(lines)
    for number in (r"(?<=drivers/iommu/iommu\.c \| )\d+", r"\d+(?= insertions)"):
        text = re.sub(number, lambda found: str(int(found[0]) - 4), text, count=1)
    path.write_text(text)


def test_rebase_of_resv_direct_finds_nothing_to_carry(tmp_path: Path) -> None:
    """All of it is there already, and a refresh of the new queue has nothing to write."""
    root = tmp_path / "project"
    for part in ("patches", "kunit"):
        shutil.copytree(files.project_root() / part, root / part)
    _as_in_the_kernel(next(root.glob("patches/6.12/resv-direct/0001-*.patch")))
    series = root / "patches/6.12/series"
    series.write_text(re.sub(r"^follow-up/.*\n", "", series.read_text(), flags=re.M))
    # As for somebody who has nothing there yet.
    (root / "patches/7.3/series").write_text("")
    for path in root.glob("patches/7.3/*/*.patch"):
        path.unlink()
    (root / "patches/7.3/proof.toml").unlink()
    words = ("--onto", "7.3", "--section", "resv-direct", "--into", str(tmp_path / "tree"))
    done = iommuq("queue", "rebase", "6.12", *words, root=root)
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"^already there +resv-direct/", done.stdout, re.M)) == 2
    done = iommuq("queue", "refresh", "--from", str(tmp_path / "tree"), root=root)
    assert (done.returncode, done.stdout.splitlines()[-1].endswith("nothing to write")) == (0, True)


def test_refresh_reproduces_the_patches(tmp_path: Path) -> None:
    """To the byte, even if all are written anew."""
    root = tmp_path / "project"
    for part in ("patches", "kunit"):
        shutil.copytree(files.project_root() / part, root / part)
    done = iommuq("queue", "edit", "6.12", "--into", str(tmp_path / "tree"), root=root)
    assert done.returncode == 0, done.stderr
    for options in ((), ("--rewrite-all",)):
        words = ("queue", "refresh", "--from", str(tmp_path / "tree"), *options)
        done = iommuq(*words, root=root)
        assert done.returncode == 0, done.stderr
        names = load_queue(root / "patches/6.12", "6.12").patches
        for patch in names:
            ours = files.project_root() / "patches/6.12" / patch.name
            assert patch.path.read_bytes() == ours.read_bytes(), patch.name


def test_quick_checks_are_clean_or_answered() -> None:
    done = iommuq("queue", "check", "6.12", "--quick", "--json")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", [spec.name for spec in basefile.list_specs()])
def test_quilt_and_git_am_take_every_queue(name: str, tmp_path: Path) -> None:
    """On the files that the patches change; the rest of the tree is of no interest to them."""
    spec = basefile.load_spec(name)
    queue = load_queue(spec.folder, name)
    base = sources.open_base(spec)
    tree = TreeTarget(Objects(base.git_dir, tmp_path), base.commit)
    for way in ("quilt", "am", "quiltimport"):
        for change in (change for patch in queue.patches for change in patch.changes):
            data = tree.read(change.path)
            path = tmp_path / way / change.path
            path.parent.mkdir(parents=True, exist_ok=True)
            if data is not None:
                path.write_bytes(data)
        (tmp_path / way).mkdir(exist_ok=True)

    def run(way: str, *words: str) -> str:
        environment = {**os.environ, "QUILT_PATCHES": str(spec.folder), "QUILT_PC": ".pc"}
        where = tmp_path / way
        done = subprocess.run(words, cwd=where, env=environment, check=True, stdout=subprocess.PIPE)
        return done.stdout.decode()

    ends = set()
    for way in ("quilt", "am", "quiltimport"):
        run(way, "git", "init", "-q", ".")
        run(way, "git", "add", "-A", "-f", ".")
        run(way, "git", "commit", "-q", "--allow-empty", "-m", "base")
        if way == "quilt" and queue.patches:
            run(way, "quilt", "--quiltrc", "-", "push", "-a")
            run(way, "git", "add", "-A", "-f", "--", ".", ":!.pc")
            run(way, "git", "commit", "-q", "-m", "pushed")
            ends.add(run(way, "git", "rev-parse", "HEAD^{tree}"))
            run(way, "quilt", "--quiltrc", "-", "pop", "-a")
            assert run(way, "git", "diff", "--stat", "HEAD~1", "--", ".", ":!.pc") == ""
            continue
        if way == "am" and queue.patches:
            run(way, "git", "am", "-q", *(str(patch.path) for patch in queue.patches))
        elif queue.patches:
            run(way, "git", "quiltimport", "--patches", str(spec.folder))
        ends.add(run(way, "git", "rev-parse", "HEAD^{tree}"))
    assert len(ends) == 1
