# SPDX-License-Identifier: GPL-2.0-only
"""Text of kernels, guests and archives in each output: nothing acts on a terminal or a page."""

from __future__ import annotations

import json
import re
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest

from iommuq.cli.main import run
from iommuq.proof.matrix import Column, build
from iommuq.report import excerpts, junit, ktapout, live, matrix
from iommuq.report.html import to_html
from iommuq.report.kcidb import to_kcidb
from iommuq.results.known import Verdict
from iommuq.results.store import Result, Status
from iommuq.system import progress
from iommuq.system.errors import UserError
from iommuq.system.logtext import escape
from records import STEPS, case, cell, record

HOSTILE = {
    "red": "\x1b[31mred\x1b[0m",
    "title": "\x1b]0;title\x07",
    "C0": "".join(map(chr, (*range(9), 11, 12, *range(14, 32), 127))),
    "C1": "".join(map(chr, range(0x80, 0xA0))),
    "bidi": "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c",
    "line ends": "a\u2028b\u2029c\x85d\x0be\x0cf",
    "return": "good\rbad",
    "surrogate": "\ud800\udfff\udce9",
    "no character": "\ufffe\uffff\ufeff",
    "markup": "]]><script>alert(1)</script>&amp;",
}
# Tab and line end are allowed.
BAD = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
    "\ufeff\ufffe\uffff]"
)


def a_run(text: str, log: Path) -> Any:
    name = f"toy.{text}"
    test = case(name, "fail", message=f"{text}\n{text}", answer=text, log=str(log))
    return record(
        cell("0001", test, failure=text),
        cell("0002", case(name, "error", message=text)),
        head={"steps": STEPS, "findings": (text,), "errors": (text,)},
        exit_code=1,
    )


def shown_error(text: str, capsys: pytest.CaptureFixture[str]) -> str:
    @click.command()
    def fail() -> None:
        raise UserError(f"{text} is neither a file nor a link", hint=f"see {text}")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["iommuq"])
        with pytest.raises(SystemExit):
            run(fail, "iommuq", "_X")
    said = capsys.readouterr().err
    assert "is neither a file nor a link" in said
    return said


def shown_run(text: str, capsys: pytest.CaptureFixture[str]) -> str:
    one = Result("6.12", "0001", "kunit", f"s.{text}", Status.FAIL, 0.0, f"{text}\n{text}", "/log")
    lane: Any = SimpleNamespace(judge=lambda _: {one.test: Verdict.FAILED}, title="KUnit")
    done: Any = SimpleNamespace(results=(one,), accelerator="native", base="6.12", patch="0001")
    live.report_run("6.12", lane, done)
    return capsys.readouterr().out


def shown_log(text: str, log: Path) -> str:
    log.write_bytes(f"{text}\n".encode("utf-8", "surrogatepass") * 3)
    return "\n".join(line for _, part in excerpts.read(str(log), []).parts for line in part)


OUTPUTS: dict[str, Callable[[str, Path, pytest.CaptureFixture[str]], str]] = {
    "one line": lambda text, *_: progress.one_line(text),
    "escape": lambda text, *_: escape(text),
    "error": lambda text, _, capsys: shown_error(text, capsys),
    "results": lambda text, _, capsys: shown_run(text, capsys),
    "table": lambda text, *_: matrix.to_text(
        build([Column(text, text, {f"s.{text}": Verdict.FAILED}, text)])
    ),
    "log": lambda text, log, _: shown_log(text, log),
    "HTML": lambda text, log, _: to_html(a_run(text, log)),
    "JUnit": lambda text, log, _: junit.to_junit(a_run(text, log)),
    "KTAP": lambda text, log, _: ktapout.to_ktap(a_run(text, log)),
    "KCIDB": lambda text, log, _: json.dumps(
        to_kcidb(a_run(text, log)), ensure_ascii=False
    ),
}  # fmt: skip


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_escaped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], output: str, name: str
) -> None:
    text = HOSTILE[name]
    log = tmp_path / "log"
    log.write_bytes(text.encode("utf-8", "surrogatepass"))
    shown = OUTPUTS[output](text, log, capsys)
    assert not BAD.findall(shown)
    if output == "JUnit":
        ElementTree.fromstring(shown)
    if output == "HTML":
        assert "<script>alert" not in shown
