# SPDX-License-Identifier: GPL-2.0-only
"""The table of verdicts, and what each step did."""

from __future__ import annotations

import io
import re
import subprocess
import sys

import pytest

from iommuq.proof.matrix import Column, Matrix, build
from iommuq.report.matrix import describe, show, to_text
from iommuq.results.known import Verdict

OK, FAILED, SKIPPED, KNOWN, ERROR, SURPRISE, EXPIRED = (
    Verdict.OK,
    Verdict.FAILED,
    Verdict.SKIPPED,
    Verdict.KNOWN,
    Verdict.ERROR,
    Verdict.UNEXPECTED_PASS,
    Verdict.EXPIRED,
)


def make(*columns: dict[str, Verdict]) -> Matrix:
    labels = ["baseline", *(f"{number:04}" for number in range(1, len(columns)))]
    return build(
        [
            Column(label, "" if label == "baseline" else f"iommu: do {label}", verdicts)
            for label, verdicts in zip(labels, columns, strict=True)
        ]
    )


TABLE = make(
    {"set.blocked": KNOWN, "set.identity": OK, "own.claim": OK, "set.late": FAILED},
    {"set.blocked": OK, "set.identity": OK, "own.claim": FAILED, "set.late": ERROR},
    {"set.blocked": OK, "set.identity": SKIPPED, "own.claim": OK, "set.new": SURPRISE},
)


PLAIN = """\
            baseline      0001      0002
set
  blocked      known      pass      pass
  identity      pass      pass      skip
  late          FAIL     error         -
  new              -         -     PASS!
own
  claim         pass      FAIL      pass

known: known failure
error: no verdict: the infrastructure failed
PASS!: passes, but is listed as failing
0001 iommu: do 0001: fixes 1 (set.blocked), breaks 1 (own.claim), no verdict on 1 (set.late)
0002 iommu: do 0002: fixes 1 (own.claim), breaks none
"""


def test_plain_text() -> None:
    assert to_text(TABLE) == PLAIN


@pytest.mark.parametrize("before", [KNOWN, FAILED])
@pytest.mark.parametrize("after", [OK, SURPRISE])
def test_fixed_and_broke(before: Verdict, after: Verdict) -> None:
    (change,) = make({"s.a": before}, {"s.a": after}).changes
    assert (change.fixed, change.broke, change.unknown) == (("s.a",), (), ())
    (change,) = make({"s.a": after}, {"s.a": before}).changes
    assert (change.fixed, change.broke, change.unknown) == ((), ("s.a",), ())


@pytest.mark.parametrize("other", [ERROR, SKIPPED, EXPIRED, None])
@pytest.mark.parametrize("verdict", [OK, FAILED])
def test_what_is_no_verdict_neither_fixes_nor_breaks(
    verdict: Verdict, other: Verdict | None
) -> None:
    lacking = {} if other is None else {"s.a": other}
    for columns in (({"s.a": verdict}, lacking), (lacking, {"s.a": verdict})):
        (change,) = make(*columns).changes
        assert change.fixed == change.broke == ()


def test_error_after_a_verdict_is_named() -> None:
    (change,) = make({"s.a": OK, "s.b": KNOWN}, {"s.a": ERROR}).changes
    assert change.unknown == ("s.a", "s.b")
    assert describe(change).endswith("no verdict on 2 (s.a, s.b)")


def test_step_without_verdicts_says_why() -> None:
    matrix = build([Column("baseline", "", {"s.a": OK}), Column("0001", "x: y", note="no build")])
    assert describe(matrix.changes[0]) == "0001 x: y: no build"
    assert "no build" in to_text(matrix)


def test_what_follows_a_step_without_verdicts_is_compared_with_the_last_one() -> None:
    columns = [
        Column("baseline", "", {"s.a": OK, "s.b": FAILED}),
        Column("0001", "x: y", note="no build"),
        Column("0002", "x: z", note="no build"),
        Column("0003", "x: w", {"s.a": FAILED, "s.b": OK}),
        Column("0004", "x: v", {"s.a": OK, "s.b": OK}),
    ]
    *_, third, fourth = build(columns).changes
    assert (third.fixed, third.broke, third.since) == (("s.b",), ("s.a",), "baseline")
    assert describe(third) == ("0003 x: w (compared with baseline): fixes 1 (s.b), breaks 1 (s.a)")
    assert (fourth.fixed, fourth.since) == (("s.a",), "")
    # Another suite had a kernel there: its tests are compared with that step.
    columns[2] = Column("0002", "x: z", {"s.a": FAILED}, note="no build")
    third = build(columns).changes[2]
    assert (third.fixed, third.broke, third.since) == (("s.b",), (), "baseline")


@pytest.mark.parametrize("after", [SKIPPED, None])
def test_test_that_is_gone(after: Verdict | None) -> None:
    (change,) = make({"s.a": OK, "s.b": FAILED}, {} if after is None else {"s.a": after}).changes
    assert change.gone == ("s.a",)
    (change,) = make({"s.a": OK}, {"s.a": ERROR}).changes
    assert change.gone == ()


def test_many_names_are_cut() -> None:
    tests = [f"s.t{number}" for number in range(9)]
    (change,) = make(dict.fromkeys(tests, FAILED), dict.fromkeys(tests, OK)).changes
    assert "fixes 9 (s.t0, s.t1, s.t2, s.t3, s.t4, …), breaks none" in describe(change)


def test_suites_stay_together_in_the_order_of_the_first_run() -> None:
    matrix = make({"z.b": OK, "a.x": OK, "z.a": OK}, {"z.new": OK, "plain": OK})
    assert [row.name for row in matrix.rows] == ["z.b", "z.a", "z.new", "a.x", "plain"]


def test_no_columns_and_no_tests() -> None:
    assert to_text(build([])) == "\n"
    assert "0001 iommu: do 0001: fixes none, breaks none" in to_text(make({}, {}))


@pytest.mark.parametrize("width", [20, 40, 60, 100])
def test_plain_table_fits_the_width(width: int) -> None:
    steps = 12
    name = "suite." + "long_name_" * 9
    text = to_text(make(*[{name: OK, "suite.b": FAILED}] * steps), width)
    table = text.split("\n0001 iommu")[0]
    # A name keeps 20 columns, and a step needs 10: 30 is the least there can be.
    assert max(map(len, table.splitlines())) <= max(width, 30)
    assert table.count("pass") == steps
    assert len(re.findall(r"\b0\d\d\d\b", table)) == steps - 1


def test_control_characters_in_names_do_no_harm() -> None:
    text = to_text(make({"s.a\x1b[2J\nb": OK}, {}))
    assert "\x1b" not in text
    assert r"a\x1b[2J b" in text


class _Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> _Terminal:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return _Terminal()


def _plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_terminal_table(terminal: _Terminal) -> None:
    show(TABLE, terminal)
    lines = [line.rstrip() for line in _plain(terminal.getvalue()).splitlines()]
    assert lines[0].split() == ["baseline", "0001", "0002"]
    assert lines[1:8] == [
        "set",
        "  blocked          K         ✓         ✓",
        "  identity         ✓         ✓         –",
        "  late             ✗         E         ·",
        "  new              ·         ·        ✓!",
        "own",
        "  claim            ✓         ✗         ✓",
    ]
    assert "K known failure" in lines
    assert "\x1b[1;31m" in terminal.getvalue()


@pytest.mark.parametrize("columns", [24, 40, 60, 200])
def test_terminal_table_fits(
    terminal: _Terminal, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    show(make(*[{"suite." + "x" * 100: OK, "suite.[b]": KNOWN}] * 9), terminal)
    text = _plain(terminal.getvalue()).split("K known failure")[0]
    assert max(map(len, text.splitlines())) <= max(columns, 30)
    assert text.count("✓") == text.count("K") == 9
    assert "[b]" in text


def test_no_color(terminal: _Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    show(TABLE, terminal)
    assert "✓" in terminal.getvalue()
    assert "\x1b[3" not in terminal.getvalue()
    assert "\x1b[1;3" not in terminal.getvalue()


def test_no_terminal_gets_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    out = io.StringIO()
    show(TABLE, out)
    assert out.getvalue() == to_text(TABLE)


def test_dumb_terminal_gets_words(terminal: _Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    show(TABLE, terminal)
    assert terminal.getvalue() == to_text(TABLE)


def test_ascii_output_gets_no_other_character() -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    show(make({"s.ä": OK}, {"s.ä": FAILED}), out)
    assert b"  \\xe4" in raw.getvalue()


def test_plain_table_does_not_load_rich() -> None:
    code = (
        "import io, sys; from iommuq.proof.matrix import build;"
        "from iommuq.report.matrix import show;"
        "show(build([]), io.StringIO()); sys.exit('rich' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_section_of_a_label_has_a_line_of_its_own() -> None:
    columns = [
        Column("baseline", verdicts={"s.a": Verdict.OK}),
        Column("selftests/0001", verdicts={"s.a": Verdict.OK}),
        Column("0001", verdicts={"s.a": Verdict.FAILED}),
    ]
    assert to_text(build(columns)).splitlines()[:4] == [
        "                selftests",
        "      baseline       0001       0001",
        "s",
        "  a       pass       pass       FAIL",
    ]
