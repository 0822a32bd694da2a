# SPDX-License-Identifier: GPL-2.0-only
"""Tests of `iommuq.proof.mutants.hunks`: what is taken out of each patch, and what is not."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import toy
from iommuq.proof.mutants.faults import Mutant
from iommuq.proof.mutants.hunks import HunkFaults, hunk_faults
from iommuq.proof.mutants.trial import make_hunk_plan
from iommuq.queue.steps import Step
from iommuq.system.errors import UserError
from iommuq.system.git.objects import Objects

PATH = "drivers/iommu/a.c"


def chain(where: Path, *texts: str | None, path: str = PATH) -> tuple[Objects, list[Step]]:
    """Make a queue of patches, each of which makes the next text of one file."""
    work = where / "work"
    work.mkdir()
    (where / "tmp").mkdir()
    toy.git("init", "--quiet", "--template=", "--initial-branch=base", cwd=work)
    steps = []
    for number, text in enumerate(texts):
        if text is None:
            (work / path).unlink()
        else:
            toy.write_tree(work, {path: text})
        commit = toy.commit_all(work, f"step {number}")
        tree = toy.git("rev-parse", f"{commit}^{{tree}}", cwd=work)
        steps.append(Step(f"{number:04}" if number else "baseline", None, commit, tree))
    return Objects(work / ".git", where / "tmp"), steps


def found(where: Path, *texts: str | None, path: str = PATH) -> HunkFaults:
    return hunk_faults(*chain(where, *texts, path=path))


def made(faults: HunkFaults, operator: str) -> list[str]:
    """Return what the mutants of one kind make of the file, in one line."""
    return [
        solid(one.apply(faults.texts[one.path]).decode())
        for one in faults.mutants
        if one.operator == operator
    ]


def body(*lines: str) -> str:
    return "\n".join(["int f(int x)", "{", *(f"\t{line}" for line in lines), "}", ""])


def solid(text: str) -> str:
    return " ".join(text.split())


OLD = body("a();", "b();", "c();", "return x;")


def test_each_hunk_is_taken_back(tmp_path: Path) -> None:
    new = body("a();", "more(x);", "b();", "return x + 1;")
    faults = found(tmp_path, OLD, new)
    assert made(faults, "revert-hunk") == [
        solid(body("a();", "b();", "return x + 1;")),
        solid(body("a();", "more(x);", "b();", "c();", "return x;")),
    ]
    first, second = faults.mutants[:2]
    assert (first.patch, first.path, first.function, first.line) == ("0001", PATH, "f", 4)
    assert first.diff == ("-\tmore(x);",)
    assert second.diff == ("-\treturn x + 1;", "+\tc();", "+\treturn x;")


def test_lines_stay_where_they_are(tmp_path: Path) -> None:
    """So the same code gives the same kernel, whatever it notes of line numbers."""
    text = body("a();", "b();", "last();")
    for number, new in enumerate(("\n\n\n\t", "x();\n\ty();\n\t", "")):
        where = tmp_path / str(number)
        where.mkdir()
        faults = found(where, text, text.replace("b();\n\t", new))
        for mutant in faults.mutants:
            was = faults.texts[PATH]
            now = mutant.apply(was)
            assert [each.count(b"\n") for each in (was, now)] == [was.count(b"\n")] * 2
            at = was.count(b"\n", 0, was.index(b"last"))
            assert now.count(b"\n", 0, now.index(b"last")) == at


@pytest.mark.parametrize("line", ["#ifdef X", "b(); // it is", "b() + \\"])
def test_lines_that_must_stay_lines(tmp_path: Path, line: str) -> None:
    old = f"int x;\n{line}\nint y;\n"
    faults = found(tmp_path, old, old.replace(f"{line}\n", ""))
    (mutant,) = faults.mutants
    assert mutant.apply(faults.texts[PATH]).decode() == old
    assert (mutant.function, mutant.line) == ("", 2)


def test_statements_that_are_added_are_taken_out(tmp_path: Path) -> None:
    added = ["if (x &&", "    x > 3) {", "\t/* why */", "\twarn(", "\t\tx);", "\treturn 0;", "}"]
    faults = found(tmp_path, body("a();", "return x;"), body("a();", *added, "return x;"))
    drops = made(faults, "drop-line")
    assert drops == [
        # What it is conditional on; all of it is the hunk.
        solid(body("a();", "{", *added[2:], "return x;")),
        solid(body("a();", *added[:3], *added[5:], "return x;")),
        solid(body("a();", *added[:5], *added[6:], "return x;")),
    ]
    assert [one.line for one in faults.mutants] == [4, 4, 7, 9]


@pytest.mark.parametrize(
    "added", ["\tint y = g();\n", "\t/* a();\n\t * b(); */\n", "\n\n", "\t// a();\n"]
)
def test_what_is_no_statement_is_not(tmp_path: Path, added: str) -> None:
    faults = found(tmp_path, OLD, OLD.replace("\ta();", f"{added}\ta();"))
    assert made(faults, "drop-line") == []
    silent = "int" not in added
    assert (faults.silent, len(faults.mutants)) == ((1, 0) if silent else (0, 1))


def test_comment_marks_in_a_string_are_none(tmp_path: Path) -> None:
    faults = found(tmp_path, OLD, OLD.replace("a();", 'a("/*");').replace("c();", 'c("*/");'))
    assert (len(made(faults, "revert-hunk")), faults.silent) == (2, 0)


def test_member_that_is_set(tmp_path: Path) -> None:
    old = "static struct ops ops = {\n\t.one = one,\n};\n"
    faults = found(tmp_path, old, old.replace("};", "\t.two =\n\t\ttwo,\n\t.three = three,\n};"))
    assert made(faults, "drop-line") == [
        solid(old.replace("};", "\t.three = three,\n};")),
        solid(old.replace("};", "\t.two =\n\t\ttwo,\n};")),
    ]


@pytest.mark.parametrize(
    ("later", "superseded", "left"),
    [
        # Elsewhere, above and below: it is found again.
        (lambda text: text.replace("\ta();", "\tzero();\n\ta();\n\ta1();"), 0, 1),
        (lambda text: text.replace("return x;", "return x + 1;"), 0, 1),
        # The neighbours.
        (lambda text: text.replace("\ta();", "\tA();"), 0, 1),
        (lambda text: text.replace("\tone();\n", "\tone();\n\tmore();\n"), 1, 1),
        # Its own lines: the rest of them can still be taken out.
        (lambda text: text.replace("\ttwo();", "\tTWO();"), 1, 1),
        (lambda text: text.replace("\tone();\n\ttwo();\n", ""), 1, 0),
        (lambda text: text.replace("\tone();\n\ttwo();\n", "\tthree();\n"), 1, 0),
    ],
)
def test_what_a_later_patch_changes_is_superseded(
    tmp_path: Path, later: object, superseded: int, left: int
) -> None:
    assert callable(later)
    new = OLD.replace("\tb();", "\tone();\n\ttwo();\n\tb();")
    faults = found(tmp_path, OLD, new, later(new))
    of_first = [one for one in faults.mutants if one.patch == "0001"]
    assert [each.line for each in faults.superseded] == [4] * superseded
    assert sum("one();" in one.before and "two();" in one.before for one in of_first) == (
        0 if superseded else 1
    )
    drops = [one for one in of_first if one.operator == "drop-line"]
    assert sum("one();" in one.before for one in drops) == left
    for one in of_first:
        assert one.before.encode() in faults.texts[PATH]


@pytest.mark.parametrize(
    ("later", "superseded"),
    [
        (lambda text: text.replace("\ta();", "\tA();"), False),
        (lambda text: text.replace("\tc();", "\tC();"), False),
        (lambda text: text.replace("\ta();\n\tc();", "\tac();"), True),
        (lambda text: text.replace("\ta();\n", "\ta();\n\tb2();\n"), True),
    ],
)
def test_lines_that_are_gone_come_back_where_they_were(
    tmp_path: Path, later: object, superseded: bool
) -> None:
    assert callable(later)
    new = OLD.replace("\tb();\n", "")
    faults = found(tmp_path, OLD, new, later(new))
    assert bool(faults.superseded) == superseded
    if not superseded:
        expected = later(new).replace("\tc();", "\tb(); c();").replace("\tC();", "\tb(); C();")
        assert made(faults, "revert-hunk")[0] == solid(expected)


def test_file_that_is_gone_in_the_end(tmp_path: Path) -> None:
    faults = found(tmp_path, OLD, OLD.replace("a();", "b();"), None)
    # That it is gone is a hunk, too.
    assert (faults.mutants, [each.patch for each in faults.superseded]) == ((), ["0001", "0002"])


@pytest.mark.parametrize(
    ("path", "counts"),
    [
        ("include/linux/a.h", True),
        ("tools/testing/selftests/a.c", False),
        ("tools/include/a.h", False),
        ("drivers/iommu/Kconfig", False),
    ],
)
def test_only_code_of_the_kernel(tmp_path: Path, path: str, counts: bool) -> None:
    faults = found(tmp_path, "int a;\n", "long a;\n", path=path)
    assert bool(faults.mutants) == counts


def test_hunks_that_look_alike_have_numbers(tmp_path: Path) -> None:
    faults = found(tmp_path, OLD, OLD.replace("();\n", "();\n\tmore();\n"))
    assert [one.number for one in faults.mutants] == [1, 2, 3]


def test_plan_of_some(tmp_path: Path) -> None:
    second = OLD.replace("int f", "int g")
    first_new = OLD.replace("a();", "one();")
    store, steps = chain(
        tmp_path, OLD + second, first_new + second, first_new + second.replace("b();", "two();")
    )

    def chosen(**words: tuple[str, ...]) -> set[str]:
        return {one.function for one in make_hunk_plan(store, steps, **words).mutants}

    assert chosen() == {"f", "g"}
    assert chosen(patches=("0001",)) == {"f"}
    assert chosen(only=("g",)) == {"g"}
    # All of them are known, whatever is tried: an entry may be for any.
    assert len(make_hunk_plan(store, steps, ("g",)).known) == len(
        make_hunk_plan(store, steps).known
    )
    with pytest.raises(UserError, match="no patch changes a function 'h'") as caught:
        make_hunk_plan(store, steps, ("h",))
    assert caught.value.hint == "there are f, g"


LINES = st.lists(
    st.sampled_from(["a();", "b();", "if (x) {", "}", "/* c", "*/", "return x;", "", "#if 0"]),
    max_size=7,
)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(versions=st.lists(LINES, min_size=2, max_size=3))
def test_any_text_taken_back_is_what_was(
    versions: list[list[str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever is in it; and the last patch's hunks, all taken back, give the text before."""
    texts = [body(*lines) for lines in versions]
    faults = found(tmp_path_factory.mktemp("any"), *texts)
    last = f"{len(texts) - 1:04}"
    undone = texts[-1].encode()
    for one in faults.mutants:
        assert one.apply(faults.texts[PATH]) != faults.texts[PATH]
    reverts = [one for one in faults.mutants if one.patch == last and one.operator == "revert-hunk"]
    for one in sorted(reverts, key=lambda one: one.edit.start, reverse=True):
        undone = one.apply(undone)
    if not faults.silent and len({mutant_key(one) for one in reverts}) == len(reverts):
        assert undone.split() == texts[-2].encode().split()


def mutant_key(mutant: Mutant) -> tuple[int, int]:
    return mutant.edit.start, mutant.edit.end
