# SPDX-License-Identifier: GPL-2.0-only
"""The HTML report as text: what it says, and that nothing hostile gets out of its place."""

from __future__ import annotations

import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from iommuq.report import excerpts, html
from iommuq.report.html import to_html
from iommuq.report.sections import bars, covered_files, firmware_tables, known_failures, mutant_rows
from iommuq.report.view import View, middle, visible
from iommuq.results.known import Verdict
from iommuq.results.runs.model import CommandRun, State, Timing
from records import NASTY, SPLAT, broken, case, cell, queue, record


class Elements(HTMLParser):
    """All elements of a page, and the text in it that is not style, script or data."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._skip = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._skip = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002
        self._skip = False

    def handle_data(self, data: str) -> None:
        if not self._skip:
            self.text += data


def data_of(text: str, name: str = "data") -> object:
    match = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', text, re.S)
    assert match is not None
    return json.loads(match[1])


def with_log(tmp_path: Path, text: str | bytes) -> CommandRun:
    log = tmp_path / "x.log"
    log.write_bytes(text if isinstance(text, bytes) else text.encode())
    return record(cell("0001", case("toy.a", "fail", log=str(log))), exit_code=1)


@pytest.mark.parametrize(
    "run", [queue(), broken(), record(), CommandRun("i", "c", "b", State.INCOMPLETE, 1.0)]
)
def test_nothing_is_fetched_and_nothing_else_runs(run: CommandRun) -> None:
    page = Elements(to_html(run))
    for tag, attributes in page.found:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base"), tag
        assert not any(name.startswith("on") or name in ("src", "style") for name in attributes), (
            tag
        )
        if tag == "a":
            assert (attributes["href"] or "").startswith(("#", "https://"))
    scripts = [attributes for tag, attributes in page.found if tag == "script"]
    assert sum("type" not in attributes for attributes in scripts) == 1
    (policy,) = [a["content"] for t, a in page.found if t == "meta" and "http-equiv" in a]
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy


def test_the_sentence_comes_first() -> None:
    text = Elements(to_html(broken())).text
    assert "3 tests of 6 fail" not in text
    assert "2 tests of 6 fail: toy.a" in text
    assert text.index("2 tests of 6 fail") < text.index("Failures and their messages")
    assert "# a: EXPECTATION FAILED" in text
    assert (
        "no verdict: the run was killed" in Elements(to_html(broken(state=State.INCOMPLETE))).text
    )


def test_a_queue_says_what_each_patch_did() -> None:
    text = " ".join(Elements(to_html(queue())).text.split())
    assert "PASS: 1 of 2 tests pass with 2 patches applied (1 known to fail)" in text
    assert "0001 toy: refuse to block fixes 1toy.a" in text
    assert "breaks 1, as declared" in text
    assert "until 2099-06-30" in text
    assert "Building 6.12 0001 for um8.0 s" in text
    # What 0001 turns is told from what passes anyway.
    assert data_of(to_html(queue()))["looks"] == ["eo", "fo", "ok"]  # type: ignore[index]


def test_hostile_names_stay_in_their_place() -> None:
    text = to_html(broken())
    assert "<b>&amp;\n" not in text
    assert "\u202e" not in text
    assert "\x1b" not in text
    assert "\x00" not in text
    assert visible(NASTY) in Elements(text).text
    # In the data as it is, for the filter.
    assert NASTY.partition(".")[2] in data_of(text)["tests"]  # type: ignore[index]


def test_a_log_with_markup_is_data(tmp_path: Path) -> None:
    text = to_html(
        with_log(tmp_path, "</script><script>alert(1)</script>\n<!--\n\x1b[31mred\x00\n")
    )
    assert "alert(1)</script" not in text
    parts = data_of(text, "log-0")["parts"]  # type: ignore[index]
    assert parts == [[1, ["</script><script>alert(1)</script>", "<!--", "red\\x00"]]]


def test_splats_are_shown_with_their_stack() -> None:
    text = Elements(to_html(broken())).text
    assert SPLAT.title in text
    assert "toy_step+0x2\n" in text


def test_a_long_log_is_cut_in_the_middle_and_named(tmp_path: Path) -> None:
    run = with_log(tmp_path, "".join(f"line {number}\n" for number in range(1, 5001)))
    log = data_of(to_html(run), "log-0")
    assert log["lines"] == 5000  # type: ignore[index]
    first, last = log["parts"]  # type: ignore[index]
    assert (first[0], len(first[1])) == (1, excerpts.HEAD)
    assert (last[0], last[1][-1]) == (5000 - excerpts.TAIL + 1, "line 5000")
    assert str(tmp_path / "x.log") in Elements(to_html(run)).text


def test_what_a_test_printed_is_kept(tmp_path: Path) -> None:
    lines = ["boot"] * 500 + [
        "KTAP version 1", "1..1", "    KTAP version 1", "    # Subtest: toy", "    1..2",
        "    # a: EXPECTATION FAILED", "    not ok 1 a", "    ok 2 b", "not ok 1 toy",
    ] + ["after"] * 500  # fmt: skip
    (tmp_path / "log").write_text("\n".join(lines))
    found = excerpts.read(str(tmp_path / "log"), ["toy.a"])
    assert found.where == {"toy.a": (502, 507)}
    kept = {first + at: line for first, part in found.parts for at, line in enumerate(part)}
    assert kept[506].strip() == "# a: EXPECTATION FAILED"
    assert 300 not in kept


def test_what_a_program_and_a_scenario_printed_is_found() -> None:
    lines = [
        "iommuq: prog| TAP version 13", "iommuq: prog| 1..2", "kernel line",
        "iommuq: prog| # says", "iommuq: prog| not ok 1 toy.a", "iommuq: prog| ok 2 toy.b",
        "iommuq: claim| step 1 ok", "iommuq: claim| step 2 BLOCKED",
    ]  # fmt: skip
    found = excerpts.locate(lines, ["prog.toy.a", "q35.claim.dma", "other.x"])
    assert found["prog.toy.a"][1] == 5
    assert found["q35.claim.dma"] == (7, 8)
    assert "other.x" not in found


def test_logs_that_cannot_be_read_say_why(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert excerpts.read(str(tmp_path / "fifo"), ()).missing == "not a file"
    assert excerpts.read(str(tmp_path), ()).missing == "not a file"
    assert excerpts.read(str(tmp_path / "no"), ()).missing == "the log is gone"
    assert excerpts.read("", ()).missing
    assert "cannot be read" in excerpts.read("a\x00b", ()).missing


def test_logs_outside_of_ours_are_not_read_for_a_file_of_somebody_elses(tmp_path: Path) -> None:
    run = with_log(tmp_path, "secret\n")
    below = tmp_path / "logs"
    below.mkdir()
    (below / "link").symlink_to(tmp_path / "x.log")
    assert "secret" not in to_html(run, below=below)
    assert "secret" in to_html(run, below=tmp_path)
    assert excerpts.read(str(below / "link"), (), below).missing


def test_a_log_of_200_mb_is_not_read_whole(tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as file:
        file.write(b"first\n")
        file.seek(200 << 20)
        file.write(b"\nlast\n")
    found = excerpts.read(str(tmp_path / "huge"), ["toy.a"])
    assert found.size == (200 << 20) + 6
    assert found.parts[0][1][0] == "first"
    assert found.parts[-1][1][-2:] == ("last", "") or found.parts[-1][1][-1] == "last"
    assert excerpts.total([found]) < 4 * excerpts.KEPT


def test_all_logs_together_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html, "_LOGS", 1000)
    tests = []
    for number in range(5):
        (tmp_path / f"{number}.log").write_text(f"log {number}\n" + "x" * 400 + "\n")
        status = "fail" if number == 4 else "pass"
        tests.append(case(f"toy.{number}", status, log=str(tmp_path / f"{number}.log")))
    text = to_html(record(cell("0001", *tests), exit_code=1))
    # That of the failure is there, though it is the last one.
    assert data_of(text, "log-4")["parts"]  # type: ignore[index]
    assert "left out" in data_of(text, "log-3")["missing"]  # type: ignore[index]


def test_known_failures_that_end_soon_come_first() -> None:
    import datetime

    (row,) = known_failures(queue(), datetime.date(2099, 6, 1))
    assert (row.days, row.soon, row.steps) == (29, True, ("0002",))
    (row,) = known_failures(queue(), datetime.date(2099, 7, 1))
    assert row.days == -1


def test_bars_are_drawn_in_their_time() -> None:
    first, second = bars(queue())
    assert (first.x, first.width, first.kind) == (0.0, 800.0, "build")
    assert (second.x, second.width, second.kind) == (800.0, 200.0, "run")
    assert bars(record()) == []
    assert bars(record(timings=(Timing("x", 0, 0.0, 0.0),))) == []


def test_firmware_answers_stand_side_by_side() -> None:
    run = record(
        cell(
            "0001",
            case("q35.ok.dma", "pass", answer="`dma`: REACHED"),
            case("q35.claim.dma", "fail", answer="`dma`: BLOCKED"),
            case("amd.claim.dma", "pass", answer="`dma`: REACHED"),
            lane="firmware",
        ),
        exit_code=1,
    )
    first, _ = firmware_tables(run)
    assert (first.name, first.machines) == ("claim", ("q35", "amd"))
    assert [test and test.answer for test in first.checks[0][1]] == [
        "`dma`: BLOCKED",
        "`dma`: REACHED",
    ]
    assert "`dma`: BLOCKED" in Elements(to_html(run)).text


COVERAGE = {
    "format": 1, "base": "6.12", "patch": "0001",
    "files": [
        {
            "file": "a.c", "built": True, "lines": 10, "lines_executed": 7, "branches": 4,
            "branches_executed": 2,
            "functions": [
                {
                    "name": "f<b>", "line": 1, "touched": True, "lines": 5, "lines_executed": 4,
                    "branches": 2, "branches_executed": 1, "missed": [3, 4, 5, 9], "one_way": [],
                }
            ],
        }
    ],
}  # fmt: skip
MUTANTS = {
    "counts": {"killed": 1, "survived": 1},
    "mutants": [
        {
            "file": "a.c",
            "function": "f",
            "line": 3,
            "before": "if (a)",
            "after": "if (!a)",
            "fate": fate,
        }
        for fate in ("killed", "survived", None)
    ],
}


def test_coverage_and_mutants_are_shown() -> None:
    run = record(
        head={"coverage": COVERAGE, "mutants": MUTANTS, "findings": ("a.c:3 f: survived",)},
        exit_code=1,
    )
    text = Elements(to_html(run)).text
    assert "f<b>" in text
    assert "3–5, 9" in text
    assert "- if (a)" in text
    assert "+ if (!a)" in text
    assert "a.c:3 f: survived" in text


def coverage_of(lines: object) -> dict[str, object]:
    return {"files": [{**COVERAGE["files"][0], "lines": lines}]}  # type: ignore[index]


@pytest.mark.parametrize(
    "data",
    [
        {"files": 1},
        {"files": [{}]},
        coverage_of("ten"),
        coverage_of(float("inf")),
        {"mutants": None},
        {"counts": []},
        {"counts": {"killed": float("inf")}, "mutants": []},
    ],
)
def test_figures_of_another_form_are_left_out(data: dict[str, object]) -> None:
    assert covered_files(data) == []
    assert mutant_rows(data) is None
    to_html(record(head={"coverage": data, "mutants": data}))


def test_text_is_cut_in_its_middle() -> None:
    assert middle("x" * 10, 10) == "x" * 10
    assert middle("a" * 50 + "b" * 50, 20).startswith("a" * 10 + "\n… 80 characters")


def test_a_step_that_does_not_build_is_a_failure() -> None:
    run = record(cell("0001", failure="0001 does not build: <b>"), exit_code=1)
    text = Elements(to_html(run)).text
    assert "0001 does not build" in text
    assert View(run).tone == "bad"


def test_many_tests_are_folded() -> None:
    tests = [case(f"suite.t{number}", "pass") for number in range(2000)]
    tests.append(case("suite.bad", "fail"))
    text = to_html(record(cell("0001", *tests), exit_code=1))
    assert text.count("<tr data-r=") == 1
    assert "2,000 more pass or are skipped" in Elements(text).text


def test_a_test_that_was_not_run_at_a_step_has_an_empty_cell() -> None:
    run = record(cell("a", case("t.x", "pass")), cell("b", case("t.y", "pass", Verdict.OK)))
    assert data_of(to_html(run))["looks"] == ["on", "no"]  # type: ignore[index]
