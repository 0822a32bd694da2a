# SPDX-License-Identifier: GPL-2.0-only
"""Tests of `iommuq.proof.mutants.faults` and `explained`: each kind of fault, and no other text."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpieces import PIECES
from iommuq.proof.mutants import report
from iommuq.proof.mutants.faults import OPERATORS, Found, Mutant, mutants_of
from iommuq.proof.mutants.report import Explanation
from iommuq.queue.csource import parse
from iommuq.system.errors import UserError


def found_in(body: str) -> Found:
    text = f"int f(struct group *group, int x, int y, int z)\n{{\n{body}\n}}\n".encode()
    source = parse(text)
    return mutants_of(source, "a.c", source.functions[0])


def afters(body: str, operator: str) -> list[str]:
    """Return what the mutants of one operator make of a body of one line."""
    return [mutant.after for mutant in found_in(body).mutants if mutant.operator == operator]


def test_a_condition_of_a_chain_is_dropped() -> None:
    assert afters("return x && y && z;", "drop-condition") == [
        "return y && z;",
        "return x && z;",
        "return x && y;",
    ]
    # Parentheses, or another operator, are a chain of their own.
    assert set(afters("return (x || y) && z;", "drop-condition")) == {
        "return z;",
        "return (x || y);",
        "return (y) && z;",
        "return (x) && z;",
    }
    assert set(afters("return x && y || z;", "drop-condition")) == {
        "return z;",
        "return x && y;",
        "return y || z;",
        "return x || z;",
    }
    assert afters("return x & y;", "drop-condition") == []


def test_and_becomes_or() -> None:
    assert afters("return x && y || z;", "swap-logic") == [
        "return x || y || z;",
        "return x && y && z;",
    ]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("if (x) y = 1;", ["if (!x) y = 1;"]),
        ("if (!x) y = 1;", ["if (x) y = 1;"]),
        ("if (x == 1) y = 1;", ["if (!(x == 1)) y = 1;"]),
        ("while (f(x)) y = 1;", ["while (!f(x)) y = 1;"]),
        ("do y = 1; while (x);", ["do y = 1; while (!x);"]),
        ("for (; x; ) y = 1;", ["for (; !x; ) y = 1;"]),
        ("for (;;) y = 1;", []),
        ("switch (x) { case 1: y = 1; }", []),
        ("y = x ? 1 : 2;", ["y = !x ? 1 : 2;"]),
        ("return x || (y & 1);", ["return !x || (y & 1);", "return x || !(y & 1);"]),
        ("if (x && y) z = 1;", [
            "if (!x && y) z = 1;", "if (!(x && y)) z = 1;", "if (x && !y) z = 1;",
        ]),
        # Its arguments are not a condition.
        ("for_each_y(x, y) z = 1;", []),
    ],
)  # fmt: skip
def test_a_condition_is_negated(body: str, expected: list[str]) -> None:
    assert afters(body, "negate") == expected


def test_a_statement_is_skipped() -> None:
    assert afters("x = 1; ; f(x); goto out; int q = 3; out: return x;", "skip-statement") == [
        "; ; f(x); goto out; int q = 3; out: return x;",
        "x = 1; ; ; goto out; int q = 3; out: return x;",
        "x = 1; ; f(x); ; int q = 3; out: return x;",
        "x = 1; ; f(x); goto out; int q = 3; out: ;",
    ]
    assert afters("for_each_y(x, y) { if (z) continue; break; }", "skip-statement") == [
        "for_each_y(x, y) { if (z) ; break; }",
        "for_each_y(x, y) { if (z) continue; ; }",
    ]


def test_a_call_in_an_error_path_is_a_put_back() -> None:
    body = "g(x); if (ret) { if (y) h(x); } else k(x); if (x > 3) l(x); out: m(x); n(x); x = 1;"
    skipped = [
        call
        for call in "ghklmn"
        if any(f"{call}(x)" not in after for after in afters(body, "skip-put-back"))
    ]
    assert skipped == ["h", "m", "n"]
    for condition in ("!x", "ret < 0", "IS_ERR(x)", "err"):
        assert afters(f"if ({condition}) put(x);", "skip-put-back") == [f"if ({condition}) ;"]
    # Under one name, not two.
    assert afters("if (ret) put(x);", "skip-statement") == []


def test_another_error_number() -> None:
    assert afters("return -EINVAL;", "wrong-errno") == ["return 0;", "return -EPERM;"]
    assert afters("return ERR_PTR(-EPERM);", "wrong-errno") == [
        "return ERR_PTR(0);",
        "return ERR_PTR(-EINVAL);",
    ]
    assert afters("return ret;", "wrong-errno") == ["return 0;"]
    assert afters("return -x - EINVAL;", "wrong-errno") == []


def test_off_by_one() -> None:
    assert afters("return x < y;", "off-by-one") == ["return x <= y;"]
    assert afters("for (; x >= 3;) y = 1;", "off-by-one") == ["for (; x > 3;) y = 1;"]
    assert afters("return x == y;", "off-by-one") == []


def test_the_first_iteration_is_skipped() -> None:
    outer = "for (int mutant_first = 1, mutant_once = 1; mutant_once; mutant_once = 0) "
    assert afters("for_each_y(x, y) { z = 1; }", "skip-first") == [
        outer + "for_each_y(x, y) { if (mutant_first) { mutant_first = 0; continue; } z = 1; }"
    ]
    assert afters("for (x = 0; x < 3; x++) z = 1;", "skip-first") == [
        outer + "for (x = 0; x < 3; x++) if (mutant_first) mutant_first = 0; else z = 1;"
    ]
    assert afters("while (x) z = 1;", "skip-first") == []


MANY = """\
	if (dev->direct &&
		blocks(group, x)) {
		warn(x,
			"so \\n");
		return -EINVAL;
	}
	if (y)
		return -EINVAL;
	for_each_y(x, y) {
		z = 1;
	}
	return x;"""


def test_lines_stay_where_they_are() -> None:
    text = f"int f(int x)\n{{\n{MANY}\n}}\n".encode()
    source = parse(text)
    found = mutants_of(source, "a.c", source.functions[0]).mutants
    assert {mutant.operator for mutant in found} == set(OPERATORS) - {"skip-put-back", "off-by-one"}
    whole = text.decode().split("\n")
    for mutant in found:
        lines = mutant.apply(text).decode().split("\n")
        assert len(lines) == len(whole)
        changed = [number for number, line in enumerate(lines) if line != whole[number]]
        # What is shown is what differs.
        start = mutant.line - 1
        count = mutant.before.count("\n") + 1
        assert mutant.before.split("\n") == whole[start : start + count]
        assert mutant.after.split("\n") == lines[start : start + count]
        assert changed
        assert set(changed) <= set(range(start, start + count))
        assert [line[1:] for line in mutant.diff if line[0] == "+"] == [lines[n] for n in changed]
    assert len({mutant.apply(text) for mutant in found}) == len(found)


def test_those_that_are_alike_are_numbered() -> None:
    found = found_in(MANY).mutants
    alike = [mutant for mutant in found if mutant.before.strip() == "return -EINVAL;"]
    assert [
        (mutant.operator, mutant.number) for mutant in alike if mutant.after.strip() == ";"
    ] == [
        ("skip-statement", 1),
        # The other one is indented like the first.
        ("skip-statement", 2),
    ]


def test_what_cannot_be_parsed_is_left_alone() -> None:
    body = "x = 1;\nguard(mutex)(&y);\nz = container_of(x, struct y, z);\nif (x)\n\ty = 1;"
    found = found_in(body)
    assert found.unparsed == (5,)
    assert "z = container_of(x, struct y, z);" not in [each.before for each in found.mutants]
    # Nor are its neighbours, nor what it is a part of.
    found = found_in("x = 1; @ y = 2; z = 3; if (x) __user { y = 1; }")
    assert found.unparsed == (3, 3)
    assert [each.after for each in found.mutants] == ["x = 1; @ y = 2; ; if (x) __user { y = 1; }"]
    # An unknown block is looked into, but what opens it is not touched.
    found = found_in("scoped_guard(mutex, &y) {\n\tx = 1;\n}")
    assert found.unparsed == (3,)
    assert [(each.before, each.after) for each in found.mutants] == [("\tx = 1;", "\t;")]


@given(st.lists(st.sampled_from(PIECES), max_size=30))
def test_any_text_is_edited_soundly(pieces: list[str]) -> None:
    text = ("int f(void)\n{\n" + " ".join(pieces) + "\n}\n").encode()
    source = parse(text)
    for function in source.functions:
        for mutant in mutants_of(source, "a.c", function).mutants:
            after = mutant.apply(text)
            assert after != text
            assert after.count(b"\n") == text.count(b"\n")
            assert mutant.edit.end <= function.node.end_byte


def entry(mutant: Mutant, **changes: object) -> Explanation:
    fields = {
        "file": mutant.path,
        "function": mutant.function,
        "operator": mutant.operator,
        "before": mutant.before,
        "after": mutant.after,
        "reason": "it is so",
        **changes,
    }
    return Explanation(**fields)  # type: ignore[arg-type]


def test_explanations_find_their_mutants() -> None:
    found = found_in(MANY).mutants
    first = found[0]
    good = entry(first, before=" ".join(first.before.split()))
    assert report.match([good], found) == ({first: good}, ())
    alike = [each for each in found if each.before.strip() == "return -EINVAL;"]
    twin = next(each for each in alike if each.number == 2 and each.after.strip() == ";")
    entries = [
        entry(twin, number=2),
        entry(twin),
        entry(first, after="other"),
        entry(first, file="b.c"),
        good,
        good,
    ]
    matched, wrong = report.match(entries, found)
    assert set(matched) == {twin, first}
    assert [line.partition("): ")[2] for line in wrong] == [
        "matches 2 mutants: select one with number = 1, …",
        "matches no mutant",
        "matches no mutant",
        "listed twice",
    ]
    assert wrong[1].startswith("mutants.toml: mutant 3 (f, ")


GOOD = """\
[[mutant]]
file = "a.c"
function = "f"
operator = "negate"
before = "if (x)"
after = "if (!x)"
reason = "both are the same"
"""


def test_list_of_explanations(tmp_path: Path) -> None:
    assert report.load_explanations(tmp_path) == ()
    path = tmp_path / report.NAME
    path.write_text(GOOD)
    assert [each.operator for each in report.load_explanations(tmp_path)] == ["negate"]
    for old, new, named in (
        ('"negate"', '"negated"', "operator is none of drop-condition, "),
        ("both are the same", " ", "reason is empty"),
        ('reason = "both are the same"', "", "reason"),
        ('after = "if (!x)"', 'after = "if (!x)"\nline = 7', "line"),
        ('after = "if (!x)"', 'after = "if (!x)"\nnumber = 0', "number counts from 1"),
        ("[[mutant]]", "[[mutants]]", "mutants"),
        ("[[mutant]]", "[[mutant]", "line 1"),
    ):
        path.write_text(GOOD.replace(old, new))
        with pytest.raises(UserError, match=r"mutants\.toml") as caught:
            report.load_explanations(tmp_path)
        assert named in str(caught.value)
