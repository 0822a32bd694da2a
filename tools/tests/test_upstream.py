# SPDX-License-Identifier: GPL-2.0-only
"""What is upstream: made cases with a known truth, and what is said of them."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import toy
from upstreamcases import Case, Measure, Memory, Versions, make_patch

from iommuq import queuecommands
from iommuq.bases import Base
from iommuq.compare.judge import Grade
from iommuq.compare.statements import split
from iommuq.errors import UserError
from iommuq.patchqueue import Queue, load_queue
from iommuq.report import upstream as report
from iommuq.targets import FolderTarget
from iommuq.upstream import PatchVerdict, judge_patch, judge_queue

PATH = "drivers/iommu/mill.c"

OLD = """\
// SPDX-License-Identifier: GPL-2.0-only
#include <linux/slab.h>

struct mill {
	struct device *dev;
	unsigned int wheels;
	bool running;
};

static int mill_start(struct mill *mill)
{
	int ret;

	if (!mill->dev)
		return -EINVAL;

	ret = mill_power(mill, true);
	if (ret)
		return ret;

	mill->running = true;
	return 0;
}

static void mill_stop(struct mill *mill)
{
	mill_power(mill, false);
	mill->running = false;
}

static int mill_grind(struct mill *mill, const void *grain, size_t length)
{
	size_t done = 0;
	int ret;

	if (!mill->running)
		return -ENODEV;

	while (done < length) {
		ret = mill_feed(mill, grain + done);
		if (ret < 0)
			return ret;
		done += ret;
	}

	return 0;
}

static int mill_flush(struct mill *mill)
{
	if (!mill->running)
		return -ENODEV;

	return mill_wait(mill, MILL_TIMEOUT);
}

static int mill_remove(struct mill *mill)
{
	dev_info(mill->dev, "removed\\n");
	mill_stop(mill);
	kfree(mill);
	return 0;
}

static int mill_probe(struct device *dev)
{
	struct mill *mill;

	mill = kzalloc(sizeof(*mill), GFP_KERNEL);
	if (!mill)
		return -ENOMEM;

	mill->dev = dev;
	mill->wheels = 1;
	return mill_start(mill);
}
"""

NEW = """\
// SPDX-License-Identifier: GPL-2.0-only
#include <linux/mutex.h>
#include <linux/slab.h>

struct mill {
	struct device *dev;
	struct mutex grain_lock;
	unsigned int wheels;
	bool running;
};

static bool mill_is_worn(struct mill *mill)
{
	unsigned int hours = mill_hours(mill);

	if (hours > MILL_MAX_HOURS)
		return true;
	return mill_temperature(mill) > MILL_MAX_TEMPERATURE;
}

static int mill_start(struct mill *mill)
{
	int ret;

	if (!mill->dev)
		return -EINVAL;

	if (mill_is_worn(mill)) {
		dev_warn(mill->dev, "worn, not started\\n");
		return -EIO;
	}

	ret = mill_power(mill, true);
	if (ret)
		return ret;

	mill->running = true;
	return 0;
}

static void mill_stop(struct mill *mill)
{
	mutex_lock(&mill->grain_lock);
	mill_power(mill, false);
	mill->running = false;
	mutex_unlock(&mill->grain_lock);
}

static int mill_grind(struct mill *mill, const void *grain, size_t length)
{
	size_t done = 0;
	int ret;

	if (!mill->running)
		return -ENODEV;

	if (length > MILL_MAX_LENGTH || mill->wheels == 0)
		return -E2BIG;

	while (done < length) {
		ret = mill_feed_wheels(mill, grain + done, mill->wheels);
		if (ret < 0)
			return ret;
		done += ret;
	}

	return 0;
}

static int mill_flush(struct mill *mill)
{
	if (!mill->running)
		return -ENODEV;

	return mill_wait_interruptible(mill, MILL_TIMEOUT);
}

static int mill_remove(struct mill *mill)
{
	mill_stop(mill);
	kfree(mill);
	return 0;
}

static int mill_probe(struct device *dev)
{
	struct mill *mill;

	mill = kzalloc(sizeof(*mill), GFP_KERNEL);
	if (!mill)
		return -ENOMEM;

	mutex_init(&mill->grain_lock);
	mill->dev = dev;
	mill->wheels = mill_count_wheels(dev);
	return mill_start(mill);
}
"""

CHECK = """\
	if (length > MILL_MAX_LENGTH || mill->wheels == 0)
		return -E2BIG;

"""
WORN = NEW[NEW.index("static bool mill_is_worn") : NEW.index("static int mill_start")]
GRIND = NEW[NEW.index("static int mill_grind") : NEW.index("static int mill_flush")]


def swap(text: str, *pairs: tuple[str, str]) -> str:
    """Replace texts that must be there."""
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new)
    return text


def mechanical() -> Iterator[Case]:
    """Yield what can be made of every change between the two versions."""
    versions = Versions(PATH, OLD, NEW)
    for number in range(len(versions.changes)):
        yield from versions.cases(number)


def by_hand() -> Iterator[Case]:
    """Yield what takes some thought to make."""
    checked = swap(OLD, ("\twhile (done", f"{CHECK}\twhile (done"))
    worn = swap(
        OLD,
        ("static int mill_start", f"{WORN}static int mill_start"),
        ("\tret = mill_power", "\tif (mill_is_worn(mill))\n\t\treturn -EIO;\n\n\tret = mill_power"),
    )
    quiet = swap(OLD, ('\tdev_info(mill->dev, "removed\\n");\n', ""))
    counted = swap(OLD, ("mill->wheels = 1;", "mill->wheels = mill_count_wheels(dev);"))

    def case(name: str, after: str, target: str | dict[str, str], truth: Grade) -> Case:
        files = target if isinstance(target, dict) else {PATH: target}
        return Case(name, {PATH: OLD}, {PATH: after}, files, truth)

    there, absent, partly = Grade.DRIFT, Grade.ABSENT, Grade.PARTLY
    # The same, written differently.
    yield case(
        "a helper of the patch written out",
        swap(
            OLD,
            (
                "static int mill_grind",
                "static bool mill_is_full(struct mill *mill, size_t bytes)\n{\n"
                "\treturn bytes > MILL_MAX_LENGTH || mill->wheels == 0;\n}\n\n"
                "static int mill_grind",
            ),
            (
                "\twhile (done",
                "\tif (mill_is_full(mill, length))\n\t\treturn -E2BIG;\n\n\twhile (done",
            ),
        ),
        checked,
        there,
    )
    yield case(
        "put into a helper there",
        checked,
        swap(
            OLD,
            (
                "static int mill_grind",
                "static bool mill_takes_not(struct mill *m, size_t bytes)\n{\n"
                "\treturn bytes > MILL_MAX_LENGTH || m->wheels == 0;\n}\n\nstatic int mill_grind",
            ),
            (
                "\twhile (done",
                "\tif (mill_takes_not(mill, length))\n\t\treturn -E2BIG;\n\n\twhile (done",
            ),
        ),
        there,
    )
    yield case(
        "conditions in another order",
        checked,
        swap(
            checked,
            (
                "length > MILL_MAX_LENGTH || mill->wheels == 0",
                "mill->wheels == 0 || length > MILL_MAX_LENGTH",
            ),
        ),
        there,
    )
    yield case("in a file of another name", checked, {"drivers/iommu/mill/core.c": checked}, there)
    yield case(
        "a function of the patch has another name there",
        worn,
        worn.replace("mill_is_worn", "mill_worn_out"),
        there,
    )
    yield case(
        "the function that it changes has another name there",
        checked,
        checked.replace("mill_grind", "mill_grind_grain"),
        there,
    )
    yield case(
        "with something in between",
        worn,
        swap(worn, ("\tret = mill_power", "\tmill_count(mill);\n\tret = mill_power")),
        there,
    )
    yield case(
        "with other words in a message",
        swap(
            OLD,
            (
                "\tmill_stop(mill);\n\tkfree",
                '\tdev_info(mill->dev, "mill is gone\\n");\n\tmill_stop(mill);\n\tkfree',
            ),
            ('\tdev_info(mill->dev, "removed\\n");\n', "\tmill_drain(mill);\n"),
        ),
        swap(
            OLD,
            (
                "\tmill_stop(mill);\n\tkfree",
                '\tdev_info(mill->dev, "the mill has left\\n");\n\tmill_stop(mill);\n\tkfree',
            ),
            ('\tdev_info(mill->dev, "removed\\n");\n', "\tmill_drain(mill);\n"),
        ),
        there,
    )
    yield case("functions in another order", checked, _moved(checked), there)
    # What only looks like it.
    yield case("another limit", checked, swap(checked, ("wheels == 0", "wheels == 7")), absent)
    yield case(
        "the same check in another function",
        checked,
        swap(OLD, ("\treturn mill_wait(", f"{CHECK}\treturn mill_wait(")),
        absent,
    )
    yield case(
        "a check like those that every function has",
        swap(
            OLD,
            (
                "\tmill_power(mill, false)",
                "\tif (!mill->running)\n\t\treturn;\n\n\tmill_power(mill, false)",
            ),
        ),
        OLD,
        absent,
    )
    yield case(
        "declared and never called",
        worn,
        swap(
            OLD,
            (
                "static int mill_start",
                "static bool mill_is_worn(struct mill *mill);\n\nstatic int mill_start",
            ),
        ),
        partly,
    )
    yield case(
        "defined and never called",
        worn,
        swap(worn, ("\tif (mill_is_worn(mill))\n\t\treturn -EIO;\n\n", "")),
        partly,
    )
    yield case(
        "another cure for the same thing",
        checked,
        swap(OLD, ("\twhile (done", "\tlength = min(length, mill_room(mill));\n\twhile (done")),
        absent,
    )
    yield case(
        "what it removes is there under another name",
        swap(OLD, ("\tmill->wheels = 1;\n", "")),
        swap(OLD, ("mill->wheels = 1", "mill->wheel_count = 1")),
        absent,
    )
    yield case("the file is gone", quiet, {"drivers/iommu/other.c": "int i;\n"}, absent)
    yield case("the file is empty", quiet, "", absent)
    yield case(
        "taken back and done otherwise",
        counted,
        swap(OLD, ("mill->wheels = 1;", "mill->wheels = mill_guess_wheels(2);")),
        absent,
    )
    yield case(
        "the arguments the other way round",
        swap(OLD, ("mill->wheels = 1;", "mill_copy_wheels(mill, dev);")),
        swap(OLD, ("mill->wheels = 1;", "mill_copy_wheels(dev, mill);")),
        absent,
    )
    yield case(
        "what is new is there, and the old as well",
        counted,
        swap(
            OLD,
            ("mill->wheels = 1;", "mill->wheels = mill_count_wheels(dev);\n\tmill->wheels = 1;"),
        ),
        partly,
    )


def _moved(text: str) -> str:
    start, end = text.index("static int mill_grind"), text.index("static int mill_flush")
    block = text[start:end]
    return text[:start] + text[end:] + "\n" + block


def test_measure() -> None:
    """The figures: a false "present" is worse than a missed one."""
    cases = [*mechanical(), *by_hand()]
    assert len(cases) >= 40
    assert sum(not case.is_there for case in cases) >= 20
    measure = Measure.of(cases)
    print(measure)
    assert not measure.false
    assert len(measure.missed) <= 0.1 * measure.there, measure.missed


@pytest.mark.parametrize("case", list(by_hand()), ids=lambda case: case.name.replace(" ", "-"))
def test_made_by_hand(case: Case) -> None:
    grade = case.judge()
    assert (grade >= Grade.DRIFT) == case.is_there, grade.words


def verdict(before: str, after: str, target: str) -> PatchVerdict:
    trees = [Memory({PATH: text}) for text in (before, after, target)]
    return judge_patch(make_patch({PATH: before}, {PATH: after}), *trees)


def test_evidence_names_file_and_lines() -> None:
    found = verdict(OLD, swap(OLD, ("\twhile (done", f"{CHECK}\twhile (done")), NEW)
    (hunk,) = found.hunks
    assert hunk.path == PATH
    line = NEW[: NEW.index("\tif (length >")].count("\n") + 1
    assert hunk.lines[0] <= line <= hunk.lines[1]
    assert found.grade is Grade.DRIFT
    assert hunk.difference


def test_parts_are_told_hunk_by_hunk() -> None:
    after = swap(
        OLD,
        ("\twhile (done", f"{CHECK}\twhile (done"),
        ("mill->wheels = 1;", "mill->wheels = mill_count_wheels(dev);"),
    )
    target = swap(OLD, ("\twhile (done", f"{CHECK}\twhile (done"))
    found = verdict(OLD, after, target)
    assert found.grade is Grade.PARTLY
    assert [hunk.grade for hunk in found.hunks] == [Grade.PRESENT, Grade.ABSENT]
    assert found.hunks[1].notes == ("the code is as it was before the patch",)


def test_names_alone_are_there_in_spirit_only() -> None:
    after = swap(OLD, ("mill->wheels = 1;", "mill->wheels = mill_count_wheels(dev);"))
    target = swap(OLD, ("mill->wheels = 1;", "if (0) mill_count_wheels(NULL, &x, 3, y);"))
    found = verdict(OLD, after, target)
    assert found.grade < Grade.DRIFT
    assert found.notes == ("in spirit only: mill_count_wheels is there",)


def test_short_names_say_nothing_of_the_spirit() -> None:
    after = swap(OLD, ("mill->wheels = 1;", "mill->wheels = dev_warn(dev);"))
    target = swap(OLD, ("mill->wheels = 1;", "if (0) dev_warn(NULL, &x, 3, y);"))
    assert verdict(OLD, after, target).notes == ()


def test_declarations_alone_are_there_in_spirit_only() -> None:
    """As 6.1's backport has it: the flag is in the later kernel, the refusal is another."""
    header = "include/linux/mill.h"
    flag = "struct mill_dev {\n\tu32 max_hours;\n\tu32 require_direct : 1;\n};\n"
    bare = flag.replace("\tu32 require_direct : 1;\n", "")
    refuse = swap(OLD, ("\twhile (done", f"{CHECK}\tmill_turn_away(mill);\n\twhile (done"))
    sides = ({PATH: OLD, header: bare}, {PATH: refuse, header: flag}, {PATH: OLD, header: flag})
    found = judge_patch(make_patch(sides[0], sides[1]), *map(Memory, sides))
    assert found.grade is Grade.PARTLY
    assert found.notes == ("in spirit only: require_direct is there",)


def test_header_that_another_file_includes_is_not_a_patch() -> None:
    """Found on 7.3: of a patch to iommu-priv.h it was said that intel/iommu.h has it."""
    paths = ("drivers/iommu/mill-priv.h", "drivers/iommu/mill-core.h")
    include = "#include <linux/iommu.h>\n"
    more = include + "#include <linux/pci.h>\n"
    sides = ({paths[0]: include}, {paths[0]: more}, {paths[0]: include, paths[1]: more})
    found = judge_patch(make_patch(sides[0], sides[1]), *map(Memory, sides))
    assert found.grade is Grade.ABSENT


def test_rename_is_said() -> None:
    worn = swap(OLD, ("static int mill_start", f"{WORN}static int mill_start"))
    found = verdict(OLD, worn, worn.replace("MILL_MAX_HOURS", "MILL_HOURS_LIMIT"))
    assert found.grade is Grade.DRIFT
    assert "MILL_MAX_HOURS is MILL_HOURS_LIMIT there" in found.hunks[0].notes


def test_another_header_is_not_the_header() -> None:
    """Found on 7.3: <linux/pci.h> is not <linux/msi.h>, though it stands where it would."""
    bare = swap(OLD, ("#include <linux/slab.h>", "#include <linux/slab.h>\n#include <linux/msi.h>"))
    after = swap(
        OLD, ("#include <linux/slab.h>", "#include <linux/slab.h>\n#include <linux/pci.h>")
    )
    assert verdict(OLD, after, bare).grade is Grade.ABSENT
    assert verdict(OLD, after, after).grade is Grade.PRESENT


def test_comments_do_not_count() -> None:
    after = swap(OLD, ("\twhile (done", f"\t/* Not too much at once. */\n{CHECK}\twhile (done"))
    target = swap(OLD, ("\twhile (done", f"\t/* Else it jams. */\n{CHECK}\twhile (done"))
    assert verdict(OLD, after, target).grade is Grade.DRIFT


@pytest.mark.parametrize(
    "text",
    ["", "}", "{{{{", "#if 0\nint", '"', "/*", "a(((", "#define A \\", "case :", "\0\xff", "f(,)"],
)
def test_nonsense_is_no_error(text: str) -> None:
    """Whatever is in a file, it is compared."""
    assert isinstance(split("x.c", text.encode()), list)
    verdict(OLD, NEW, text)
    verdict(text + "\nint a;\n", text + "\nint b;\n", NEW)


def test_statements_know_no_layout() -> None:
    one = split("x.c", b"int f(int a)\n{\n\tif (a &&\n\t    b)\n\t\treturn g(1,\n2);\n}\n")
    two = split("x.c", b"int f(int a) { /* x */ if (a && b) { return g(1, 2); } }")
    assert [each.tokens for each in one] == [each.tokens for each in two]
    assert {each.scope for each in one} == {"f"}
    assert (one[1].first, one[1].last) == (3, 4)


def test_queue_against_a_tree(toy_base: Base, toy_queue: Queue, toy_work: Path) -> None:
    """In the tree that the patches were made in they are all there, in the base none."""
    found = judge_queue(toy_base, toy_queue, FolderTarget(toy_work))
    assert all(each.grade >= Grade.DRIFT for each in found)
    toy.git("checkout", "-q", "HEAD~2", cwd=toy_work)
    found = judge_queue(toy_base, toy_queue, FolderTarget(toy_work))
    assert [each.grade for each in found] == [Grade.ABSENT] * 2


def test_command(
    toy_base: Base, toy_queue: Queue, toy_work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    del toy_base, toy_queue
    patched = shutil.copytree(toy_work, toy_work.parent / "patched")
    toy.git("checkout", "-q", "HEAD~3", cwd=toy_work)  # where the base comes from
    queuecommands.show_upstream("6.12", str(patched), "0002", as_json=False)
    assert "present             0002 toy: drop the check\n" in capsys.readouterr().out
    queuecommands.show_upstream("6.12", "6.12", None, as_json=True)
    data = json.loads(capsys.readouterr().out)
    assert [patch["verdict"] for patch in data["patches"]] == ["absent", "absent"]
    assert data["patches"][0]["hunks"][0]["file"] == "drivers/iommu/iommu.c"


def test_command_with_a_ref_of_git(
    toy_base: Base, toy_queue: Queue, toy_work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    del toy_base, toy_queue
    toy.git("tag", "patched", cwd=toy_work)
    toy.git("checkout", "-q", "HEAD~3", cwd=toy_work)  # where the base comes from
    queuecommands.show_upstream("6.12", f"{toy_work}@patched", "0002", as_json=False)
    assert "present             0002 toy: drop the check\n" in capsys.readouterr().out
    queuecommands.show_upstream("6.12", f"{toy_work}@HEAD", "0002", as_json=False)
    assert "absent              0002 toy: drop the check\n" in capsys.readouterr().out
    with pytest.raises(UserError, match="has no 'v9'"):
        queuecommands.show_upstream("6.12", f"{toy_work}@v9", None, as_json=False)
    with pytest.raises(UserError, match="is no git repository"):
        queuecommands.show_upstream("6.12", f"{toy_work.parent}@v9", None, as_json=False)
    with pytest.raises(UserError, match="no such directory"):
        queuecommands.show_upstream("6.12", "/nowhere@v9", None, as_json=False)


def test_target_that_is_none(toy_queue: Queue, tmp_path: Path) -> None:
    del toy_queue
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="not a kernel tree"):
        queuecommands.show_upstream("6.12", str(tmp_path / "empty"), None, as_json=False)
    with pytest.raises(UserError, match=r"no base '9\.9'; there are 6\.1"):
        queuecommands.show_upstream("6.12", "9.9", None, as_json=False)


def test_terminal_is_safe_from_what_is_shown() -> None:
    after = swap(OLD, ("\twhile (done", f"{CHECK}\twhile (done"))
    found = verdict(OLD, after, swap(after, ("return -E2BIG;", "return -E2BIG; /* \x1b[2J */")))
    text = report.as_text([found], "x\x1b[1m")
    assert "\x1b" not in text


def test_git_has_no_part_in_it(toy_queue: Queue, tmp_path: Path) -> None:
    """A directory in a repository that ignores everything is searched all the same."""
    assert load_queue(toy_queue.folder, "6.12")
    subprocess.run(["git", "init", "-q", str(tmp_path / "t")], check=True)
    toy.write_tree(
        tmp_path / "t", {".gitignore": "*\n", "drivers/iommu/b.c": "int special_name;\n"}
    )
    target = FolderTarget(tmp_path / "t")
    assert target.candidates("drivers/iommu/a.c", {"special_name"}, missing=True) == [
        "drivers/iommu/b.c"
    ]
