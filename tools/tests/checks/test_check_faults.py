# SPDX-License-Identifier: GPL-2.0-only
"""Every check finds a fault that was planted for it, and without its tool it is no pass."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest

import toy
import toykernel
from iommuq.bases.sources import Base
from iommuq.build.workspace import Workspace
from iommuq.checks.model import CHECKS
from iommuq.checks.runner import check_queue, choose
from iommuq.queue.model import Queue

PLANTED_C = "drivers/iommu/planted.c"
#: What each check says of the faults; what is to be seen is part of it.
QUICK = {
    "applies": "no change",
    "includes": "<stdio.h> twice",
    "blanks": "blanks at the end of a line",
    "subject": "no prefix that names the subsystem",
    "width": "columns: ",
    "trailers": "Link: lore: the form is https://…",
    "signed-off": "a Signed-off-by before the patch is sent",
    "checkpatch": "WARNING:LONG_LINE",
    "spelling": "recieve ==> receive",
    "kernel-doc": "toy_new has no short description",
}
#: Those that fail; the others warn.
FAIL = {"applies", "subject", "trailers", "signed-off"}
SERIES = {"cover": "fewer than 20 words", "recipients": "bo@example.com is not in the cover"}
BUILDS = {
    "build-um": "toy_unused",
    "build-x86_64": "toy_unused",
    "w1-um": "no previous prototype for",
    "w1-x86_64": "no previous prototype for",
    "w1-arm64": "no previous prototype for",
    "sparse": "Using plain integer as NULL pointer",
    "coccicheck": "toy_leak leaks",
}
#: What a check cannot do without, if it is not on every machine.
NEEDS = {
    "spelling": "codespell",
    "w1-arm64": "aarch64-linux-gnu-gcc",
    "sparse": "sparse",
    "coccicheck": "spatch",
}
PLANTED = """\
// SPDX-License-Identifier: GPL-2.0-only
void *toy_null = 0;
int toy_leak(int toy);

int toy_bare(void)
{
	return toy_leak(1);
}
"""

Found = dict[tuple[str, str], tuple[str, str]]


def check(project: toykernel.Project, *words: str) -> Found:
    """Check the queue, and return check and patch -> how it ended, and all it said."""
    done = project.run("queue", "check", toykernel.BASE, "--json", *words)
    assert done.code in (0, 1), done
    return {
        (each["check"], each["subject"]): (
            each["status"],
            "\n".join(finding["text"] for finding in each["findings"]),
        )
        for each in json.loads(done.out)
    }


def new_project(root: Path, temporary: Path) -> toykernel.Project:
    project = toykernel.copy_project(toykernel.template(temporary), root, warm=True)
    shutil.copy(project.root / toykernel.FRAGMENT, project.root / "kunit/configs/x86_64.config")
    return project


@cache
def planted(temporary: Path) -> tuple[toykernel.Project, Found]:
    """Return a project with a patch that has a fault for each check, and what is said of it.

    Before it is one that leaves a fault behind, and one that has none.
    """
    project = new_project(temporary / "planted", temporary)
    maker = project.maker
    old = {toykernel.IOMMU_C: ("int toy_driver", "/** toy_old */\nint toy_driver")}
    maker.add("resv/0003-toy-old.patch", maker.mail("toy: Leave a fault", old))
    good = {toykernel.IOMMU_C: ("return 2;", "return 4;")}
    maker.add("resv/0004-good.patch", maker.mail("iommu: Return four", good))
    source = toykernel.FILES[toykernel.IOMMU_C]
    assert "#include <stdio.h>\n" in source
    text = (project.root / "work" / toykernel.IOMMU_C).read_text()
    text = text.replace("#include <stdio.h>\n", "#include <stdio.h>\n#include <stdio.h>\n")
    text += f"\n/** toy_new */\nstatic int toy_unused(void)\n{{\n\treturn {'1 + ' * 30}1; \n}}\n"
    body = (
        f"They recieve.\n\n{'They have toys. ' * 6}\n\n"
        "Link: lore\nSigned-off-by: Ada Toy <ada@example.com>"
    )
    maker.add(
        "resv/0005-plant.patch",
        maker.mail("Plant faults", {toykernel.IOMMU_C: text, PLANTED_C: PLANTED}, body=body),
    )
    mail = maker.mail("toy: Nothing", {toykernel.IOMMU_C: ("return 4;", "return 6;")})
    maker.add("resv/0006-toy-nothing.patch", mail.replace(b"+\treturn 6;", b"+\treturn 4;"))
    (maker.folder / "resv/0000-cover.md").write_text("# Toys\n\nTo Ada <ada@example.com>.\n")
    return project, check(project, "--quick")


def skip_without(name: str) -> None:
    tool = NEEDS.get(name)
    if tool is not None and shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")


def test_no_check_is_left_out() -> None:
    """A new check needs a planted fault here."""
    quick = {each.name for each in choose([], slow=False)}
    assert quick == QUICK.keys()
    assert {each.name for each in CHECKS} - quick == BUILDS.keys()


@pytest.mark.parametrize("name", QUICK)
def test_fault_is_found(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    skip_without(name)
    _, found = planted(tmp_path_factory.getbasetemp())
    label = "0006" if name == "applies" else "0005"
    status, text = found[name, label]
    assert status == ("fail" if name in FAIL else "warn")
    assert QUICK[name] in text
    assert "toy_old" not in text


@pytest.mark.parametrize("name", QUICK)
def test_patch_without_a_fault_passes(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What is wrong in the file before and after it is not the patch's."""
    skip_without(name)
    _, found = planted(tmp_path_factory.getbasetemp())
    assert found[name, "0004"] == ("pass", "")


@pytest.mark.parametrize("name", SERIES)
def test_fault_of_a_series_is_found(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    _, found = planted(tmp_path_factory.getbasetemp())
    status, text = found[name, "resv"]
    assert status == "warn"
    assert SERIES[name] in text
    assert "ada@example.com" not in text


@cache
def built(temporary: Path) -> Found:
    """Return what the checks that build say of the patch with the faults, and of a good one."""
    project, _ = planted(temporary)
    words = [word for name in BUILDS for word in ("--only", name)]
    return check(project, *words, "--patch", "0004") | check(project, *words, "--patch", "0005")


@pytest.mark.parametrize("name", BUILDS)
def test_fault_is_found_by_building(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    skip_without(name)
    found = built(tmp_path_factory.getbasetemp())
    status, text = found[name, "0005"]
    assert status == ("warn" if name in ("sparse", "coccicheck") else "fail")
    assert BUILDS[name] in text
    if name != "w1-arm64":  # The C library for it, which the toy needs, is one more package.
        assert found[name, "0004"] == ("pass", "")


def test_patch_that_does_not_compile(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """What the compiler says is in the words of make, too, and a checker has nothing to add."""
    project = new_project(tmp_path / "project", tmp_path_factory.getbasetemp())
    edit = {toykernel.IOMMU_C: ("return 2;", "return nothing;")}
    project.maker.add("resv/0003-toy-break.patch", project.maker.mail("toy: Break", edit))
    found = check(project, "--only", "w1-um", "--only", "w1-x86_64", "--patch", "0003")
    for name in ("w1-um", "w1-x86_64"):
        status, text = found[name, "0003"]
        assert status == "fail"
        assert text.startswith("does not compile: drivers/iommu/iommu.c: ")
        assert "nothing" in text


def hide(tools: Iterable[str], where: Path) -> str:
    """Return a PATH with all that is installed but some tools."""
    where.mkdir()
    for folder in os.environ["PATH"].split(":"):
        for program in Path(folder).glob("*"):
            if program.name not in tools and not (where / program.name).exists():
                (where / program.name).symlink_to(program)
    return str(where)


MISSING = {
    "checkpatch": "perl",
    "spelling": "codespell",
    "kernel-doc": "perl",
    "build-um": "gcc",
    "build-x86_64": "gcc",
    "w1-um": "gcc",
    "w1-x86_64": "gcc",
    "w1-arm64": "aarch64-linux-gnu-gcc",
    "sparse": "sparse",
    "coccicheck": "spatch",
}


def test_what_is_not_installed_is_skipped(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """All of them at once, and the other checks are made."""
    project = new_project(tmp_path / "project", tmp_path_factory.getbasetemp())
    (project.maker.folder / "resv/0000-cover.md").write_text("# Toys\n")
    project.extra["PATH"] = hide(set(MISSING.values()), tmp_path / "bin")
    found = check(project)
    for label in ("0001", "0002"):
        for name, tool in MISSING.items():
            assert found[name, label][0] == "skip", name
            assert found[name, label][1].startswith(f"{tool} is not installed")
    assert found["recipients", "resv"] == ("skip", "perl is not installed")
    assert found["applies", "0001"] == ("pass", "")


def test_nothing_to_compile_is_skipped(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    project = new_project(tmp_path / "project", tmp_path_factory.getbasetemp())
    mail = project.maker.mail("toy: Say more", {"README": "More.\n"})
    project.maker.add("resv/0003-toy-more.patch", mail)
    names = [name for name in BUILDS if not name.startswith("build-")]
    found = check(project, "--patch", "0003", *(w for name in names for w in ("--only", name)))
    for (name, _), (status, text) in found.items():
        assert status == "skip", name
        assert text == "no compiled file changes" or text.endswith("is not installed")


def test_answer_that_answers_nothing(
    monkeypatch: pytest.MonkeyPatch, toy_base: Base, toy_queue: Queue, tmp_path: Path
) -> None:
    """It is of something that is no more, and said only if all was looked at."""
    text = '[[answer]]\ncheck = "subject"\npatch = "*"\ntext = "{}"\nreason = "toys"\n'
    (toy_queue.folder / "checks.toml").write_text(text.format("capital") + text.format("moon"))
    monkeypatch.setattr("iommuq.checks.runner.CHECKS", [c for c in CHECKS if c.name == "subject"])
    workspace = Workspace(tmp_path, toy_base, toy_queue, toy.OVERLAY)
    everything = {each.check: each for each in check_queue(workspace, None, (), slow=True)}
    (finding,) = everything["answers"].findings
    assert finding.text == "unused: subject, *, moon"
    assert everything["answers"].status == "warn"
    for words in ((None, ("subject",)), ("0001", ())):
        assert all(each.check != "answers" for each in check_queue(workspace, *words, slow=True))


def test_cover_letter_that_is_no_text(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    project = new_project(tmp_path / "project", tmp_path_factory.getbasetemp())
    (project.maker.folder / "resv/0000-cover.md").write_bytes(b"# \xff\n")
    done = project.run("queue", "check", toykernel.BASE, "--only", "series")
    assert done.code == 2
    assert "0000-cover.md: not UTF-8 at byte 2" in done.err
