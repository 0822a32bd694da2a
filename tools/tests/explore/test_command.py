# SPDX-License-Identifier: GPL-2.0-only
"""``iommuq explore`` as a user calls it, on a script in place of a kernel."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

import fakeguest
from iommuq.build.workspace import Workspace
from iommuq.cli.commands import explore as command
from iommuq.cli.main import cli
from iommuq.explore import run, store, write
from iommuq.explore.campaign import Plan
from iommuq.explore.exceptions import Exceptions
from iommuq.explore.finds import Find
from iommuq.explore.guest import GuestDied
from iommuq.explore.operations import Operation
from iommuq.explore.plans import Wanted
from iommuq.explore.rules import choose
from iommuq.explore.rules.model import Breach
from iommuq.system.errors import UserError
from iommuq.system.files import project_root
from simheader import ROOT

LOSES = (Operation("add", b=1), Operation("bind"), Operation("unbind"), Operation("claim_group"))
FIND = Find(
    Breach("regions.lost", "device 0 does not reach its direct region", "state.ret == 0"),
    LOSES,
    base="7.3",
    step="a/0001",
)
#: What opens the sources of a kernel; not for tests with a name that exists.
OPEN = Workspace.open


def call(*words: str) -> Result:
    """Run the command line; what it raises is raised."""
    return CliRunner().invoke(
        cli, ["explore", *words], catch_exceptions=False, standalone_mode=False
    )


@pytest.fixture(autouse=True)
def nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no command get as far as to the sources of a kernel."""

    def stop(base: str) -> Workspace:
        raise AssertionError(f"the sources of {base} were opened")

    monkeypatch.setattr(Workspace, "open", stop)


@pytest.fixture
def name() -> str:
    """Return the bug of the kernel; a test may choose another one."""
    return "loses"


@pytest.fixture
def explored(sims: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> Path:
    """Let the command explore a script; nothing of it may be left at the end."""

    def plans_of(wanted: Wanted) -> list[Plan]:
        one = Plan(
            fakeguest.kernel(sims, name),
            choose(wanted.without),
            Exceptions(),
            wanted.seconds,
            wanted.seed,
            None,
            sims / "log",
            wanted.base,
            "a/0001",
            first=() if wanted.empty else tuple(store.kept(wanted.base)),
        )
        return [one]

    monkeypatch.setattr(command, "plans_of", plans_of)
    monkeypatch.setattr(run, "plans_of", plans_of)
    return sims


def lines(done: Result) -> list[dict[str, Any]]:
    """Return the objects that were printed, one a line."""
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(each.pop("format") == run.FORMAT for each in found)
    return found


@pytest.mark.parametrize(
    "time", ["0", "0s", "0.0m", "x", "", "-1", "1d", "1e3", "nan", "10 m", "٣s"]
)
def test_a_time_that_is_none(time: str) -> None:
    """It is an error of usage, before anything is built."""
    with pytest.raises(click.BadParameter, match="is not a time like 90s, 10m or 1h"):
        call("7.3", "--for", time)


@pytest.mark.parametrize(
    ("time", "seconds"), [("90", 90.0), ("90s", 90.0), ("1.5m", 90.0), ("2h", 7200.0)]
)
def test_a_time(monkeypatch: pytest.MonkeyPatch, time: str, seconds: float) -> None:
    """Seconds, minutes and hours are taken."""
    seen: list[float] = []

    def plans_of(wanted: Wanted) -> list[Plan]:
        seen.append(wanted.seconds)
        raise UserError("enough")

    monkeypatch.setattr(command, "plans_of", plans_of)
    with pytest.raises(UserError, match="enough"):
        call("7.3", "--for", time)
    assert seen == [seconds]


@pytest.mark.parametrize("words", [("--seed", "-1"), ("--jobs", "0"), ("--jobs", "65"), ("a", "b")])
def test_bad_usage(words: tuple[str, ...]) -> None:
    """Numbers out of range and words too many are errors of usage."""
    with pytest.raises(click.UsageError):
        call("7.3", *words)


@pytest.mark.parametrize(
    "words", [("--light",), ("--light", "--on", "q35-intel", "--kernel", "linux-image-amd64")]
)
def test_only_a_kernel_that_is_built_can_be_light(words: tuple[str, ...]) -> None:
    """The simulated IOMMU has its own configuration, and a package has what it has."""
    with pytest.raises(UserError, match="--light needs --on MACHINE"):
        call("7.3", *words)


def test_a_case_needs_a_find() -> None:
    """--write without --replay is an error of the user."""
    with pytest.raises(UserError, match="--write needs --replay FILE"):
        call("7.3", "--write", "joins_late")


def test_an_unknown_rule() -> None:
    """It is told before anything is opened, with the rules that there are."""
    with pytest.raises(UserError, match=r"no rule 'regions\.none'; there are .*splats\.printed"):
        call("7.3", "--without", "regions.none")


def test_an_unknown_base(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no such base; exit code 2."""
    monkeypatch.setattr(Workspace, "open", OPEN)
    with pytest.raises(UserError) as caught:
        call("no-such-base")
    assert caught.value.exit_code == 2


def test_a_kernel_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux 6.1 has no static domains; exit code 2, and nothing is built."""
    base = SimpleNamespace(kernel="6.1.192", spec=SimpleNamespace(name="6.1"))
    old = SimpleNamespace(root=project_root(), base=base)
    monkeypatch.setattr(Workspace, "open", lambda _base: old)
    with pytest.raises(UserError, match=r"^6\.1: Linux 6\.1\.192 has no static domains") as caught:
        call("6.1", "--for", "1s")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("content", [b"", b"[]", b'{"format": 1}', b"\xff"])
def test_a_file_that_is_no_find(tmp_path: Path, content: bytes) -> None:
    """It is told by name, and no kernel is built for it."""
    path = tmp_path / "find.json"
    path.write_bytes(content)
    for words in ((), ("--write", "joins_late")):
        with pytest.raises(UserError) as caught:
            call("7.3", "--replay", str(path), *words)
        assert str(caught.value).startswith(f"{path}: ")


def test_json_lines(explored: Path) -> None:
    """Each line is an object; the find is kept, and tried first the next time."""
    store.keep("7.3", FIND)
    done = call("7.3", "--for", "1.6s", "--json")
    fakeguest.assert_gone(explored)
    assert done.return_value == 1
    found = lines(done)
    kinds = [each["event"] for each in found]
    assert set(kinds) == {"find", "progress", "end"}
    assert kinds[-1] == "end"
    assert found[-1]["exit"] == 1
    assert found[-1]["finds"] == kinds.count("find")
    first = found[kinds.index("find")]
    assert (first["rule"], first["repeats"]) == ("regions.lost", True)
    assert store.read(Path(first["file"])).operations == LOSES


def test_text(explored: Path) -> None:
    """A find is told with its sequence, and the verdict is the last line."""
    store.keep("7.3", FIND)
    done = call("7.3", "--for", "0.3s")
    fakeguest.assert_gone(explored)
    out = done.stdout.splitlines()
    assert out[0] == "FAIL: device 0 does not reach its direct region"
    assert "  4. user 1 claims group 0" in out
    again = next(line for line in out if line.startswith("  again: "))
    assert Path(again.split()[-1]).is_file()
    assert out[-1].startswith("FAIL: 7.3 a/0001: ")


@pytest.mark.parametrize("name", ["good"])
def test_a_good_kernel_passes(explored: Path) -> None:
    """The exit code is 0, and the verdict is PASS."""
    done = call("7.3", "--for", "0.3s", "--empty")
    fakeguest.assert_gone(explored)
    assert done.return_value == 0
    assert done.stdout.startswith("PASS: 7.3 a/0001: ")
    assert done.stdout.count("\n") == 1


@pytest.mark.parametrize("name", ["exits"])
def test_a_guest_that_is_lost_has_exit_code_3(explored: Path) -> None:
    """It is no verdict on the code."""
    with pytest.raises(GuestDied) as caught:
        call("7.3", "--for", "1s", "--json")
    fakeguest.assert_gone(explored)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("without", [False, True])
def test_a_find_again(explored: Path, *, without: bool) -> None:
    """The exit code tells whether the rule still does not hold."""
    path = store.keep("7.3", FIND)
    words = ("--without", "regions") if without else ()
    done = call("7.3", "--replay", str(path), "--json", *words)
    fakeguest.assert_gone(explored)
    assert done.return_value == (0 if without else 1)
    *finds, end = lines(done)
    assert end == {"event": "end", "finds": len(finds), "exit": done.return_value}
    assert [each["signature"] for each in finds] == ([] if without else [FIND.signature])


@pytest.mark.parametrize("name", ["good"])
def test_what_is_not_so_is_no_case(
    explored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A find that is not seen again is not written: a file may say anything."""
    (tmp_path / "patches").mkdir()
    monkeypatch.setenv("IOMMUQ_ROOT", str(tmp_path))
    path = store.keep("7.3", FIND)
    with pytest.raises(UserError, match="it is not so"):
        call("7.3", "--replay", str(path), "--write", "joins_late")
    fakeguest.assert_gone(explored)


def test_a_find_as_a_case(explored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is carried out again and added to the suite of the project; the file is named."""
    suite = tmp_path / write.SUITE
    suite.parent.mkdir(parents=True)
    (tmp_path / "patches").mkdir()
    shutil.copy(ROOT / write.SUITE, suite)
    monkeypatch.setenv("IOMMUQ_ROOT", str(tmp_path))
    path = store.keep("7.3", FIND)
    done = call("7.3", "--replay", str(path), "--write", "joins_late")
    fakeguest.assert_gone(explored)
    assert (done.return_value, done.stdout) == (0, f"{suite}\n")
    assert "static void explored_joins_late(struct kunit *test)" in suite.read_text()
