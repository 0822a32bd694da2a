# SPDX-License-Identifier: GPL-2.0-only
"""What is upstream: made cases with a known truth, and what is said of them."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from iommuq.queue.upstream import patches as report
from iommuq.queue.upstream.compare.judge import Grade
from iommuq.queue.upstream.compare.view import _Splitter, split
from iommuq.queue.upstream.patches import PatchVerdict, judge_patch
from upstreamcases import Case, Measure, Memory, make_patch
from upstreammill import CHECK, NEW, OLD, PATH, WORN, by_hand, mechanical, swap


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
    assert found.hunks[1].notes == ("the code is unchanged from before the patch",)


def test_names_alone_are_there_in_spirit_only() -> None:
    after = swap(OLD, ("mill->wheels = 1;", "mill->wheels = mill_count_wheels(dev);"))
    target = swap(OLD, ("mill->wheels = 1;", "if (0) mill_count_wheels(NULL, &x, 3, y);"))
    found = verdict(OLD, after, target)
    assert found.grade < Grade.DRIFT
    assert found.notes == ("another form: the tree has mill_count_wheels",)


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
    assert found.notes == ("another form: the tree has require_direct",)


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
    assert "MILL_MAX_HOURS is named MILL_HOURS_LIMIT" in found.hunks[0].notes


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


#: What files are made of below, much of it cut at unlikely places.
SCRAPS = [
    "int f(void)\n{\n\treturn 1;\n}\n",
    "struct s {\n\tint a;\n} __packed;\n",
    "} t,\n",
    "/* A comment\n}\n",
    " * of three lines */\n",
    "#define M() \\\n{ \\\n} \\\n\tg()\n",
    "#if 0\n",
    "#ifdef X\n",
    "#else\n",
    "#endif\n",
    'static const char *n[] = {\n\t"}",\n};\n',
    "\tif (x) {\n",
    "}\n",
    "f(a,\n",
]


@given(st.lists(st.sampled_from(SCRAPS), max_size=40))
@example(["\tif (x) {\n", "#if 0\n", "}\n", "#endif\n", SCRAPS[0]])
def test_a_file_in_pieces_says_what_the_file_says(scraps: list[str]) -> None:
    text = "".join(scraps)
    assert split("a.c", text.encode()) == list(_Splitter(text).run())


def test_statements_know_no_layout() -> None:
    one = split("x.c", b"int f(int a)\n{\n\tif (a &&\n\t    b)\n\t\treturn g(1,\n2);\n}\n")
    two = split("x.c", b"int f(int a) { /* x */ if (a && b) { return g(1, 2); } }")
    assert [each.tokens for each in one] == [each.tokens for each in two]
    assert {each.scope for each in one} == {"f"}
    assert (one[1].first, one[1].last) == (3, 4)


def test_terminal_is_safe_from_what_is_shown() -> None:
    after = swap(OLD, ("\twhile (done", f"{CHECK}\twhile (done"))
    found = verdict(OLD, after, swap(after, ("return -E2BIG;", "return -E2BIG; /* \x1b[2J */")))
    text = report.as_text([found], "x\x1b[1m")
    assert "\x1b" not in text
