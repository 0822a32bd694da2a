# SPDX-License-Identifier: GPL-2.0-only
"""The scripts of real kernels, as the checks of a patch run them, find what was planted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import toy
from iommuq.bases import basefile, sources
from iommuq.queue.upstream.patches import TreeTarget
from iommuq.system import files
from iommuq.system.git.objects import Objects
from realrun import iommuq

pytestmark = pytest.mark.real

IOMMU_C = "drivers/iommu/iommu.c"
#: What is said of the faults: of kernel-doc, the words of both its versions are these.
FAULTS = {
    "checkpatch": "WARNING:LONG_LINE",
    "kernel-doc": "'toy_second' not described",
    "recipients": "joro@8bytes.org is not in the cover letter",
}
PLANTED = f"""
/**
 * toy_planted - Plant a fault
 * @first: a number
 *
 * Return: another one.
 */
int toy_planted(int first, int toy_second)
{{
	return first + toy_second + {"1 + " * 30}1;
}}
"""


@pytest.mark.parametrize("name", ["6.12", "7.3"])
def test_planted_faults_are_found(name: str, tmp_path: Path) -> None:
    """6.12 has its kernel-doc in Perl, 7.3 in Python, at another place."""
    root = tmp_path / "project"
    for part in ("patches", "kunit"):
        shutil.copytree(files.project_root() / part, root / part)
    base = sources.open_base(basefile.load_spec(name))
    (tmp_path / "store").mkdir()
    tree = TreeTarget(Objects(base.git_dir, tmp_path / "store"), base.commit)
    data = tree.read(IOMMU_C)
    assert data is not None
    folder = root / "patches" / name
    for path in folder.glob("*/*.patch"):
        path.unlink()
    work = tmp_path / "work"
    toy.write_tree(work, {IOMMU_C: data.decode()})
    toy.git("init", "--quiet", "--template=", ".", cwd=work)
    toy.commit_all(work, "Base")
    maker = toy.QueueMaker(folder=folder, work=work)
    good = {IOMMU_C: ('#include "iommu-priv.h"\n', '#include "iommu-priv.h"\n\n/* Toys. */\n')}
    maker.add("toys/0001-good.patch", maker.mail("iommu: Say what is of toys", good))
    planted = {IOMMU_C: (work / IOMMU_C).read_text() + PLANTED}
    maker.add("toys/0002-planted.patch", maker.mail("iommu: Plant faults", planted))
    (folder / "toys/0000-cover.md").write_text("# Toys\n\nTo nobody.\n")
    words = ("--only", "checkpatch", "--only", "kernel-doc", "--only", "series")
    done = iommuq("queue", "check", name, "--json", *words, root=root)
    assert done.returncode == 1, done
    found = {(each["check"], each["subject"]): each for each in json.loads(done.stdout)}
    for check, words_of_it in FAULTS.items():
        report = found[check, "toys" if check == "recipients" else "0002"]
        assert report["status"] == "warn", report
        assert any(words_of_it in finding["text"] for finding in report["findings"]), report
    for check in ("checkpatch", "kernel-doc"):
        assert found[check, "0001"]["status"] == "pass", found
