# SPDX-License-Identifier: GPL-2.0-only
"""The documentation in the terminal, the manual page, and completion in real shells."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner, Result

from iommuq.cli.commands import help as pages
from iommuq.cli.main import cli

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"


def invoke(*words: str) -> Result:
    return CliRunner().invoke(cli, list(words), prog_name="iommuq")


def test_every_page_is_a_topic() -> None:
    pages = {path.stem: path for path in DOCS.rglob("*.md") if path.stem != "index"}
    done = invoke("help")
    assert done.exit_code == 0
    assert set(re.findall(r"^  (\S+)  +\S", done.output, re.MULTILINE)) == set(pages)
    for name, path in pages.items():
        assert invoke("help", name).output == path.read_text()


def test_a_page_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    page = pages.find("live")
    assert page is not None
    pages.show(page)
    out = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out)
    assert "Watching a run" in out
    assert "# Watching" not in out
    assert max(map(len, out.splitlines())) <= 60


def test_help_of_a_command() -> None:
    done = invoke("help", "queue", "check")
    assert done.output.startswith("Usage: iommuq queue check ")
    assert invoke("help", "kunit").output == invoke("kunit", "--help").output


@pytest.mark.parametrize(
    ("words", "hint"), [(["quee"], "did you mean queue?"), (["x"], "`iommuq help` lists them")]
)
def test_no_such_topic(words: list[str], hint: str) -> None:
    error = invoke("help", *words).exception
    assert str(error) == f"no topic {' '.join(words)!r} ({hint})"
    assert getattr(error, "exit_code", None) == 2


def commands(command: click.Command, path: str) -> list[str]:
    if not isinstance(command, click.Group):
        return [path]
    context = click.Context(command)
    found = {name: command.get_command(context, name) for name in command.list_commands(context)}
    return [
        each
        for name, inner in found.items()
        if inner is not None
        for each in commands(inner, f"{path} {name}")
    ]


def test_the_manual_page_has_every_command_and_is_well_formed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    text = invoke("help", "--man").output
    assert text == invoke("help", "--man").output
    assert '.TH IOMMUQ 1 "2023-11-14" ' in text
    sections = re.findall(r"^\.SS (.*)$", text, re.MULTILINE)
    assert sections == sorted(each.replace("-", "\\-") for each in commands(cli, "iommuq"))
    for option in ("\\-\\-arch", "\\-\\-no\\-known", "\\-\\-coverage\\-json", "\\-\\-json"):
        assert f"\\fB{option}" in text
    path = tmp_path / "iommuq.1"
    path.write_text(text)
    done = subprocess.run(["mandoc", "-Tlint", path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_means_something_to_troff_is_escaped() -> None:
    from iommuq.cli.commands.help import render

    @click.command(help=".first\n\n'second \\n é")
    def evil() -> None: ...

    text = render(click.Group("iommuq", help="x", commands={"evil": evil}))
    assert "\n\\&.first\n" in text
    assert "\n\\&'second \\en \\[u00E9]\n" in text


@pytest.fixture
def shell_path(tmp_path: Path) -> str:
    """Return a PATH with ``iommuq`` in front, as it is installed."""
    program = tmp_path / "bin" / "iommuq"
    program.parent.mkdir()
    words = shlex.join([sys.executable, "-m", "iommuq"])
    program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT}/tools exec {words} "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return f"{program.parent}:{os.environ['PATH']}"


# How each shell is made to complete a line, its first argument, and to print the words.
_SHELLS = {
    "bash": """
eval "$(iommuq completion bash)"
COMP_WORDS=($1) COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_iommuq_completion iommuq
printf '%s\\n' "${COMPREPLY[@]}"
""",
    "fish": "iommuq completion fish | source; complete -C $argv[1]",
    # zsh completes only where somebody types, so what its function calls is replaced.
    "zsh": """
compdef() { : }
compadd() { print -l -- ${(P)@[-1]} }
_describe() { print -l -- ${(P)3} }
eval "$(iommuq completion zsh)"
words=(${=1}) CURRENT=${#words}
_iommuq_completion
""",
}


@pytest.mark.parametrize("shell", list(_SHELLS))
def test_completion_in_a_shell(shell: str, shell_path: str) -> None:
    assert shutil.which(shell), f"{shell} is in tools/packages.txt"
    bare = {"bash": "--norc", "fish": "--no-config", "zsh": "-f"}[shell]
    zeroth = [] if shell == "fish" else [shell]
    done = subprocess.run(
        [shell, bare, "-c", _SHELLS[shell], *zeroth, "iommuq kunit 6.1"],
        env={**os.environ, "PATH": shell_path, "IOMMUQ_ROOT": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    found = {re.split(r"[\t:]", line)[0] for line in done.stdout.splitlines() if line}
    assert found == {"6.1", "6.12"}, done


@pytest.mark.parametrize(
    ("words", "incomplete", "expected"),
    [
        ([], "kun", {"kunit"}),
        (["kunit", "6.12", "--at"], "basel", {"baseline"}),
        (["selftest", "6.12", "--on"], "", {"um", "qemu"}),
        (["help"], "muta", {"mutants"}),
        (["completion"], "", {"bash", "zsh", "fish"}),
        (["queue"], "che", {"check", "check-mail"}),
    ],
)
def test_what_is_completed(words: list[str], incomplete: str, expected: set[str]) -> None:
    asked = ShellComplete(cli, {}, "iommuq", "_IOMMUQ_COMPLETE")
    assert {item.value for item in asked.get_completions(words, incomplete)} == expected


def test_completion_says_nothing_where_there_is_no_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from iommuq.cli.completion import bases, patches

    monkeypatch.setenv("IOMMUQ_ROOT", str(tmp_path))
    context, parameter = click.Context(cli), click.Option(["--at"])
    assert bases(context, parameter, "") == patches(context, parameter, "") == []
    assert capfd.readouterr() == ("", "")


def test_the_command_line_loads_no_more_than_it_needs() -> None:
    """Every command, and every Tab, waits for what is imported before it is known."""
    code = (
        "import sys, iommuq.cli.main;"
        "heavy = {'iommuq.build.image', 'iommuq.suites.kunit', 'pydantic'};"
        "print(*sorted(heavy & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
