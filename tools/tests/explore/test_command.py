# SPDX-License-Identifier: GPL-2.0-only
"""``iommuq explore`` as a user calls it, on a script in place of a kernel."""

from __future__ import annotations

import datetime
import json
import shlex
import shutil
from dataclasses import replace
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
from iommuq.explore import campaign, known, run, store, write
from iommuq.explore.campaign import Plan
from iommuq.explore.drivers.finds import DriverFind
from iommuq.explore.drivers.steps import Step
from iommuq.explore.exceptions import Exceptions, Known
from iommuq.explore.finds import Find
from iommuq.explore.guest import GuestDied
from iommuq.explore.known import Row, defects
from iommuq.explore.operations import Operation
from iommuq.explore.plans import Wanted
from iommuq.explore.play import Seen
from iommuq.explore.rules import choose
from iommuq.explore.rules.model import Breach
from iommuq.system import run as processes
from iommuq.system.errors import InfraError, UserError
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
def exceptions() -> Exceptions:
    """Return the list of the base; a test may choose another one."""
    return Exceptions()


@pytest.fixture
def asked() -> list[Wanted]:
    """Return what was asked for, so far."""
    return []


@pytest.fixture
def explored(
    sims: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    exceptions: Exceptions,
    asked: list[Wanted],
) -> Path:
    """Let the command explore a script; nothing of it may be left at the end."""

    def plans_of(wanted: Wanted) -> list[Plan]:
        asked.append(wanted)
        one = Plan(
            fakeguest.kernel(sims, name),
            choose(wanted.without),
            exceptions,
            wanted.seconds,
            wanted.seed,
            None,
            sims / "log",
            wanted.base,
            wanted.at or "a/0001",
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
    # To shorten a find may take all the time on a machine that has much to do.
    assert set(kinds) - {"progress"} == {"find", "end"}
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
    assert "  step: 7.3 a/0001" in out
    again = next(line for line in out if line.startswith("  again: "))
    assert Path(again.split()[-1]).is_file()
    assert out[-1].startswith("FAIL: 7.3 a/0001: ")


@pytest.mark.parametrize("name", ["flaky"])
@pytest.mark.parametrize("as_json", [False, True])
def test_a_find_that_does_not_repeat(explored: Path, *, as_json: bool) -> None:
    """It is told with its log and kept apart; it is no failure, but the last line has it."""
    store.keep("7.3", FIND)
    done = call("7.3", "--for", "0.3s", *(["--json"] if as_json else []))
    fakeguest.assert_gone(explored)
    assert done.return_value == 0
    log = explored / "log"
    if as_json:
        find = next(each for each in lines(done) if each["event"] == "find")
        assert (find["seen"], find["repeats"], find["log"]) == ("sometimes", False, str(log))
        assert Path(find["file"]).parent.name == "flaky"
        assert lines(done)[-1]["flaky"] == 1
        return
    out = done.stdout.splitlines()
    assert out[0] == "FLAKY: device 0 does not reach its direct region"
    assert f"  log: {log}" in out
    assert out[-1].startswith("PASS: 7.3 a/0001: ")
    assert out[-1].endswith(", 0 finds, 1 flaky")


@pytest.mark.parametrize(
    ("error", "code"), [(KeyboardInterrupt(), 130), (GuestDied("x", hint="y", console=()), 3)]
)
@pytest.mark.parametrize("as_json", [False, True])
def test_a_find_in_hand_at_the_end(
    explored: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
    *,
    as_json: bool,
) -> None:
    """It is told as what it is, and tried first the next time."""

    def end(*_args: Any, **_more: Any) -> None:
        raise error

    monkeypatch.setattr(campaign, "shortest", end)
    store.keep("7.3", FIND)
    words = ["explore", "7.3", "--for", "9s", *(["--json"] if as_json else [])]
    # Only so the output of a command that raises is kept.
    done = CliRunner().invoke(cli, words)
    fakeguest.assert_gone(explored)
    once = [each for each in store.kept("7.3") if each.seed == 0 and each != FIND]
    if as_json:
        find, last = (each for each in lines(done) if each["event"] != "progress")
        assert (find["seen"], find["repeats"]) == ("once", False)
        assert (last["event"], last["unsettled"], last["exit"]) == ("end", 1, code)
        assert last.get("error") == ("x" if code == 3 else None)
        assert store.read(Path(find["file"])).operations == LOSES
        assert Path(find["file"]).parent.name == "unsettled"
    else:
        out = done.stdout.splitlines()
        assert out[0] == "SEEN ONCE: device 0 does not reach its direct region"
        assert any(line.startswith("  not repeated yet: ") for line in out)
        assert f"  log: {explored / 'log'}" in out
        said = [line for line in out if line.startswith("not to its end: ")]
        assert said[0].endswith(", 0 finds, 1 not repeated yet")
    assert len(once) == 1


def test_a_process_that_lost_its_guest(explored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --jobs it is an error, too, with exit code 3; what the other finds is told."""
    event = run._event(Wanted("7.3", None, 9.0, 0), FIND, Seen.ALWAYS, Path("/log"), None)

    def child(argv: list[str], *, on_line: Any, **_more: Any) -> Any:
        good = argv[argv.index("--seed") + 1] == "1"
        end = {"exit": 1} if good else {"exit": 3, "error": "guest lost: x", "hint": "full log: /1"}
        for each in ([event] if good else []) + [{"event": "end", **end}]:
            on_line(json.dumps(each))
        return SimpleNamespace(returncode=end["exit"], stderr="")

    assert explored
    monkeypatch.setattr(processes, "run", child)
    with pytest.raises(InfraError, match=r"process 1 of 2: guest lost: x \(full log: /1\)"):
        call("7.3", "--jobs", "2")
    done = CliRunner().invoke(cli, ["explore", "7.3", "--jobs", "2"])
    assert done.stdout.startswith("FAIL: device 0 does not reach its direct region\n")
    assert "not to its end: " in done.stdout


@pytest.mark.parametrize("name", ["good"])
def test_a_good_kernel_passes(explored: Path) -> None:
    """The exit code is 0, and the verdict is PASS."""
    done = call("7.3", "--for", "0.3s", "--empty")
    fakeguest.assert_gone(explored)
    assert done.return_value == 0
    assert done.stdout.startswith("PASS: 7.3 a/0001: ")
    assert done.stdout.count("\n") == 1


@pytest.mark.parametrize("name", ["good"])
def test_json_lines_of_a_good_kernel(explored: Path) -> None:
    """About once a second the numbers are printed, and at the end."""
    done = call("7.3", "--for", "1.6s", "--json")
    fakeguest.assert_gone(explored)
    progress, end = lines(done)
    assert (progress["event"], end["event"], end["exit"]) == ("progress", "end", 0)
    assert 0 < progress["operations"] <= end["operations"]
    assert (end["finds"], end["flaky"], end["unsettled"]) == (0, 0, 0)


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
    assert end == {
        "event": "end",
        "finds": len(finds),
        "others": [],
        "left_out": [],
        "exit": done.return_value,
    }
    assert [each["signature"] for each in finds] == ([] if without else [FIND.signature])


@pytest.mark.parametrize(
    "exceptions",
    [
        Exceptions(),
        Exceptions(known=(Known(("*claim_group",), "r", "s", datetime.date(2100, 1, 1)),)),
    ],
    ids=["new", "known"],
)
@pytest.mark.parametrize("own", [False, True])
def test_the_find_alone_decides(explored: Path, exceptions: Exceptions, *, own: bool) -> None:
    """What else does not hold is passed over, and named, whether it is known or not."""
    find = replace(FIND, breach=replace(FIND.breach, rule="isolation.lazy"))
    if own:
        find = replace(FIND, operations=(Operation("remove"), *LOSES))
    path = store.keep("7.3", find)
    done = call("7.3", "--replay", str(path), "--json")
    fakeguest.assert_gone(explored)
    assert done.return_value == (1 if own else 0)
    end = lines(done)[-1]
    assert end["others"] == ([] if own else [FIND.signature])
    # The first device is not there yet.
    assert end["left_out"] == ([1] if own else [])
    said = next(line for line in done.stderr.splitlines() if "7.3 a/0001: " in line)
    also = f"; also {FIND.signature}{' (known)' if exceptions.known else ''}"
    assert said.startswith("FAIL: " if own else "PASS: ")
    assert said.endswith("; could not be carried out: 1" if own else also)


@pytest.mark.parametrize(
    ("base", "words", "at"),
    [
        ("7.3", [], "a/0001"),
        ("7.3", ["--at", "a/0002"], "a/0002"),
        # It has another queue.
        ("6.12", [], None),
        ("7.3", ["--kernel", "linux-image-amd64"], None),
    ],
)
def test_the_step_of_a_find(
    explored: Path, asked: list[Wanted], base: str, words: list[str], at: str | None
) -> None:
    """It is replayed on the step that it was found on, unless another one is named."""
    path = store.keep("7.3", FIND)
    call(base, "--replay", str(path), *words)
    fakeguest.assert_gone(explored)
    assert [each.at for each in asked] == [at]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "--at a/0001"),
        ({"light": True, "without": ("iova", "regions.lost")},
         "--at a/0001 --light --without iova --without regions.lost"),
        ({"kernel": "some where/bzImage"}, "--kernel 'some where/bzImage'"),
    ],
)  # fmt: skip
def test_the_command_that_repeats_a_find(options: dict[str, Any], words: str) -> None:
    """It has all that the kernel and the rules depend on."""
    wanted = replace(Wanted("7.3", None, 1.0, 0, on="q35-intel"), **options)
    find = DriverFind(
        Breach("isolation.memory", "x", ""), (Step("look"),), "q35-intel", "mixed",
        base="bzImage", step="a/0001",
    )  # fmt: skip
    path = store.keep(wanted.place, find)
    event = run._event(wanted, find, Seen.ALWAYS, Path("/log"), path)
    assert event["again"] == f"iommuq explore 7.3 {words} --replay {shlex.quote(str(path))}"
    assert run.find_lines(event)[-1] == f"  again: {event['again']}"


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


# The table of known defects.


def row(times: int) -> Row:
    """Return what so many seeds have found."""
    return Row(defects()[0], "7.3", "a/0001", ((1.0, 2),) * times, "regions.lost after rescan")


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the page of a project that has an old one."""
    (tmp_path / "patches").mkdir()
    monkeypatch.setenv("IOMMUQ_ROOT", str(tmp_path))
    path = tmp_path / known.PAGE
    path.parent.mkdir(parents=True)
    path.write_text("old")
    return path


@pytest.mark.parametrize(
    ("time", "times", "written"),
    [("5s", 0, False), ("5s", 2, False), ("5s", 3, True), ("10m", 0, True), ("1h", 2, True)],
)
def test_a_page_that_says_nothing_is_not_written(
    page: Path, monkeypatch: pytest.MonkeyPatch, time: str, times: int, *, written: bool
) -> None:
    """What was not found in a short time may be found in the usual one."""
    monkeypatch.setattr(
        known, "search", lambda wanted, _limit: [row(times)][wanted.base != "7.3" :]
    )
    done = call("7.3", "--known", "--for", time)
    assert done.return_value == (0 if times == 3 else 1)
    assert f"{times} of 3" in done.stdout or times == 3
    assert (page.read_text() != "old") == written
    assert ("stays as it is" in done.stderr) == (not written)


def test_known_defects_take_the_time_that_they_take(
    page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table is not made with a number of operations."""
    monkeypatch.setattr(known, "search", lambda _wanted, _limit: [])
    with pytest.raises(UserError, match="--operations is not for --known"):
        call("7.3", "--known", "--operations", "5")
    assert page.read_text() == "old"


def test_known_defects_of_drivers_are_looked_for_with_a_light_kernel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The core needs none: its guests are fast, and `--light` is not for them."""
    asked: list[Wanted] = []

    def plans_of(wanted: Wanted) -> list[Plan]:
        asked.append(wanted)
        raise UserError("asked")

    monkeypatch.setattr(known, "plans_of", plans_of)
    for on in ("", "q35-amd"):
        one = replace(defects()[0], on=on)
        monkeypatch.setattr(known, "defects", lambda one=one: (one,))
        with pytest.raises(UserError, match="asked"):
            known.search(Wanted("7.3", None, 1.0, 1))
    assert [(each.on, each.light) for each in asked] == [("", False), ("q35-amd", True)]
