# SPDX-License-Identifier: GPL-2.0-only
"""What is measured of the emulated IOMMUs: its table, the guest's answers, the page."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import commandcall
from firmwareguests import KERNEL
from iommuq.cli.commands import firmware
from iommuq.firmware import calibration, packages, program
from iommuq.firmware.calibration import Calibration, Row
from iommuq.guests import machine as machines
from iommuq.guests import qemu
from iommuq.report import calibration as page
from iommuq.results.store import Result, Status, Store, SuiteRun
from iommuq.suites.firmware import calibrate
from iommuq.suites.firmware.calibrate import Answer, Measured, judge, read
from iommuq.system import files, tables
from iommuq.system.errors import InfraError, UserError
from iommuq.system.run import run

ROW = Row("iotlb", "T", "H", ("q35-amd",), {"cached": "It shows.", "not-cached": "Cannot show."})
BIT = Row("sc", "T", "H", ("q35-amd",), {"yes": "A", "no": "B"}, "ecap", 7)
KERNEL_NAME = "linux-image-toy"
# The parts of the page that are measured.
_SEEN = re.compile(r"- ([a-z0-9-]+): (.*)")


def made_run(name: str, results: list[Result]) -> SuiteRun:
    return SuiteRun(
        f"id-{name}", "6.1.0-toy", "as-is", "calibration", name, "6.1.0-toy", "qemu", "tcg",
        1e9, 1e9, tuple(results),
    )  # fmt: skip


def measured(word: str, more: str = "seen") -> Measured:
    return Measured({"iotlb": Answer(word, more)})


def answers(found: list[Result]) -> list[tuple[Status, str, str]]:
    return [(one.status, one.answer, one.message) for one in found]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "Big"}, "name is not a word"),
        ({"title": "a\nb"}, "title is not one line"),
        ({"how": " "}, "how is not one line"),
        ({"means": {}}, "machines and means go together"),
        ({"machines": ()}, "machines and means go together"),
        ({"means": {"Yes!": "x"}}, "means: 'Yes!'"),
        ({"means": {"yes": " "}}, "means: yes is empty"),
        ({"bit": 3}, "register and bit go together"),
        ({"register": "cap", "bit": 64}, "bit is not between"),
        ({"register": "cap", "bit": 3}, "a bit is yes or no"),
    ],
)
def test_a_row_that_is_wrong(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        replace(ROW, **change)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('kernel = "k"\nrow = []\nmore = 1\n', "more: unknown key"),
        ("row = []\n", "kernel: is missing"),
        ('kernel = "k"\n[[row]]\nname = "a"\ntitle = "t"\n', "row.0.how: is missing"),
        (
            'kernel = "k"\n[[row]]\nname = "a"\ntitle = "t"\nhow = "h"\nmachines = ["q35"]\n'
            'means.yes = "x"\n',
            "row: a: no machine 'q35' with a control",
        ),
        (
            'kernel = "k"\n[[row]]\nname = "a"\ntitle = "t"\nhow = "h"\n'
            '[[row]]\nname = "a"\ntitle = "t"\nhow = "h"\n',
            "row: two have one name",
        ),
    ],
)
def test_a_table_that_is_wrong(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "calibration.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=re.escape(said)):
        tables.load_toml(Calibration, path)


def test_the_guest_s_lines() -> None:
    found = read(["row a yes one two", "noise", "row a no", "row b no", "end"])
    assert found == Measured({"a": Answer("yes", "one two"), "b": Answer("no")})
    # What came before is kept, whatever ended the program.
    assert read(["row a yes x", "broken the engine"]).trouble == "the engine"
    assert read(["row a yes x"], "killed") == Measured({"a": Answer("yes", "x")}, "killed")
    assert read(["row a yes x"]).trouble == "the guest's program did not end"
    assert read(["end", "broken afterwards"]).trouble == "afterwards"


def test_a_measured_row_has_its_answer() -> None:
    found = judge([ROW], "q35-amd", measured("not-cached"), "6.1", "log")
    assert answers(found) == [(Status.PASS, "not-cached", "seen")]
    assert found[0].test == "q35-amd.iotlb"
    assert judge([ROW], "q35-plain", measured("cached"), "6.1", "log") == []


def test_what_was_not_measured_is_no_answer() -> None:
    for seen, said in (
        (measured("perhaps"), "perhaps (seen) is none of cached, not-cached"),
        (Measured({}), "the guest's program did not measure it"),
        (Measured({}, "guest lost"), "guest lost"),
    ):
        found = judge([ROW], "q35-amd", seen, "6.1", "log")
        assert answers(found) == [(Status.ERROR, "", said)]


@pytest.mark.parametrize(("value", "word"), [("0x80", "yes"), ("0x7f", "no")])
def test_a_bit_of_a_register(value: str, word: str) -> None:
    seen = Measured({"ecap": Answer("read", value)})
    (result,) = judge([BIT], "q35-amd", seen, "6.1", "log")
    assert (result.status, result.answer) == (Status.PASS, word)


def test_a_register_that_was_not_read() -> None:
    for seen in (Measured({}), Measured({"ecap": Answer("read", "soon")})):
        (result,) = judge([BIT], "q35-amd", seen, "6.1", "log")
        assert result.status is Status.ERROR


def test_the_page_says_what_the_answer_means() -> None:
    wanted = Calibration("k", (ROW, Row("walk", "A thing", "No engine.")))
    texts = {}
    for word in ROW.means:
        runs = {
            "q35-amd": made_run("q35-amd", judge([ROW], "q35-amd", measured(word), "6.1.0-toy", ""))
        }
        texts[word] = page.render(wanted, runs, "version 7.2.0")
    assert "| [iotlb](#iotlb) | cached |\n" in texts["cached"]
    assert "- **cached** (`q35-amd`): It shows.\n" in texts["cached"]
    assert "Cannot show." not in texts["cached"]
    assert "- **not-cached** (`q35-amd`): Cannot show.\n" in texts["not-cached"]
    assert "It shows." not in texts["not-cached"]
    for text in texts.values():
        assert "- QEMU 7.2.0, tcg\n- Linux 6.1.0-toy, 2001-09-09\n" in text
        assert "- A thing: No engine." in text
        assert "- iotlb: seen\n" in text


def test_no_page_without_an_answer() -> None:
    results = judge([ROW], "q35-amd", Measured({}, "guest lost"), "6.1.0-toy", "the log")
    with pytest.raises(InfraError, match=r"q35-amd\.iotlb: guest lost"):
        page.render(
            Calibration("k", (ROW,)), {"q35-amd": made_run("q35-amd", results)}, "version 7"
        )


def read_page(text: str, wanted: Calibration) -> dict[str, SuiteRun]:
    """Return the runs that a page was made of, from its table and what was seen."""
    lines = text.splitlines()
    head = next(line for line in lines if line.startswith("| | "))
    names = re.findall(r"`([^`]+)`", head)
    cells: dict[tuple[str, str], str] = {}
    for line in lines:
        if match := re.fullmatch(r"\| \[([a-z0-9-]+)\]\(#\1\) \|(.*)\|", line):
            for name, word in zip(names, match[2].split("|"), strict=True):
                cells[name, match[1]] = word.strip()
    seen: dict[tuple[str, str], str] = {}
    name = ""
    for line in lines[lines.index("## What was seen") :]:
        if line.startswith("### "):
            name = line.removeprefix("### ")
        elif match := _SEEN.fullmatch(line):
            seen[name, match[1]] = match[2]
    (kernel,) = re.findall(r"^- Linux (\S+), ", text, re.M)
    found = {}
    for name in names:
        results = [
            Result(
                kernel, "as-is", "calibration", f"{name}.{row.name}", Status.PASS,
                message=seen.get((name, row.name), ""), answer=cells[name, row.name],
            )
            for row in wanted.row
            if name in row.machines
        ]  # fmt: skip
        made = replace(made_run(name, []), base=kernel, kernel=kernel, results=tuple(results))
        found[name] = made
    return found


def test_our_page_is_what_the_command_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (files.project_root() / page.FILE).read_text()
    wanted = calibration.load()
    (version, days) = re.findall(r"^- QEMU (.*), \w+$|^- Linux \S+, (.*)$", text, re.M)
    monkeypatch.setattr(page, "_day", lambda _run: days[1])
    runs = read_page(text, wanted)
    assert page.render(wanted, runs, f"version {version[0]}") == text
    # A row that is reversed is another page.
    one = runs["q35-amd"]
    turned = tuple(
        replace(each, answer="not-cached") if each.test == "q35-amd.iotlb" else each
        for each in one.results
    )
    assert turned != one.results
    runs["q35-amd"] = replace(one, results=turned)
    other = page.render(wanted, runs, f"version {version[0]}")
    assert "QEMU cannot show a missing invalidation: a driver without any passes." in other
    assert "QEMU cannot show a missing invalidation: a driver without any passes." not in text


def test_the_program_is_asked_for_what_the_machine_has() -> None:
    intel, plain = machines.load_machine("q35-intel"), machines.load_machine("q35-plain")
    assert calibration.command(intel, driver=False) == (
        "DMAR", "3c000000", "0000:00:06.0", "0000:01:01.0", "0000:00:07.0",
    )  # fmt: skip
    assert calibration.command(intel, driver=True) == ("kernel", "0000:02:00.0")
    assert calibration.command(plain, driver=False) == ("none", "3c000000", "0000:00:06.0")
    assert calibration.command(plain, driver=True) == ("kernel",)
    off = calibration.arguments(intel, driver=False)
    assert "iommu=off" in off
    assert "memmap=2048K$0x3c000000" in off
    assert calibration.arguments(intel, driver=True) == intel.arguments
    # The last of two options holds.
    assert off.index("intel_iommu=off") > off.index("intel_iommu=on,sm_off")


def test_the_program_compiles_without_a_warning(tmp_path: Path) -> None:
    code = [path for path in program.calibration_sources() if path.suffix == ".c"]
    flags = ["-Wall", "-Wextra", "-Werror", "-O2", "-D_GNU_SOURCE"]
    run(["gcc", *flags, "-o", tmp_path / "calibrate", *code], cwd=tmp_path, timeout=60)
    said = run([tmp_path / "calibrate"], cwd=tmp_path, check=False)
    assert said.returncode == 2


def test_the_rows_of_the_program_are_those_of_the_table() -> None:
    code = "".join(path.read_text() for path in program.calibration_sources())
    names = {row.name for row in calibration.load().row if row.machines and not row.register}
    asked = set(re.findall(r'(?:row|fault|show_capability)\((?:fd, )?"([a-z-]+)"', code))
    asked |= set(re.findall(r'row_of_event\("([a-z-]+)"', code))
    registers = {"cap", "ecap", "efr", "kernel-cap", "kernel-ecap", "kernel-efr"}
    assert names - asked == set()
    assert asked - names - registers == set()


def test_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[object] = []

    def fake(
        wanted: Calibration, kernel: object, names: tuple[str, ...], *, again: bool = False
    ) -> dict[str, SuiteRun]:
        seen.append((kernel, names, again))
        text = (files.project_root() / page.FILE).read_text()
        return read_page(text, wanted)

    monkeypatch.setattr(packages, "find", lambda text: KERNEL if text == KERNEL_NAME else None)
    monkeypatch.setattr(page, "calibrate", fake)
    monkeypatch.setattr(page, "note", lambda _text: None)
    into = tmp_path / "page.md"
    options = {"kernel": KERNEL_NAME, "stored": False, "again": True, "into": into}
    commandcall.call(firmware.calibrate, **options)
    assert seen == [(KERNEL, calibration.load().machines, True)]
    assert into.read_text().startswith("# Calibration of the emulator\n")
    with pytest.raises(UserError, match="--stored and --again exclude each other"):
        commandcall.call(firmware.calibrate, **{**options, "stored": True})


def test_stored_answers_are_those_of_this_kernel_and_table(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(qemu, "full_version", lambda: "version 7")
    store = Store(tmp_path / "results.sqlite")
    machine = machines.load_machine("q35-amd")
    key = calibrate.run_key(KERNEL, machine)
    good = judge([ROW], "q35-amd", measured("cached"), "6.1.0-toy", "")
    store.add(replace(made_run("q35-amd", good), key=key))
    assert set(calibrate.stored(KERNEL, ["q35-amd", "q35-plain"], store)) == {"q35-amd"}
    assert calibrate.stored(replace(KERNEL, key="other"), ["q35-amd"], store) == {}
    monkeypatch.setattr(qemu, "full_version", lambda: "version 8")
    assert calibrate.stored(KERNEL, ["q35-amd"], store) == {}
