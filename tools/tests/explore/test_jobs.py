# SPDX-License-Identifier: GPL-2.0-only
"""Several processes of one exploration: how their finds become one, and how they end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from iommuq.explore import run
from iommuq.explore.campaign import Outcome, Plan
from iommuq.explore.exceptions import Exceptions
from iommuq.explore.finds import Find
from iommuq.explore.operations import Operation
from iommuq.explore.plans import Wanted
from iommuq.explore.play import Seen
from iommuq.explore.rules.model import Breach
from iommuq.system import run as processes
from iommuq.system.errors import InfraError

WANTED = Wanted("7.3", None, 60.0, 1, jobs=2)
PLAN = Plan(Path("/image"), (), Exceptions(), 60.0, 1, None, Path("/log"), "7.3", "a/0001")
FIND = Find(
    Breach("regions.lost", "device 0 does not reach its direct region", "state.ret == 0"),
    (Operation("add", b=1), Operation("bind")),
    base="7.3",
    step="a/0001",
)
OTHER = Find(FIND.breach, FIND.operations[:1], base="7.3", step="a/0001")
NUMBERS = {"operations": 5, "sequences": 2, "boots": 1, "seconds": 1.5, "blocks": 0}


def told(find: Find, seen: Seen) -> dict[str, Any]:
    """Return what a process prints of a find."""
    return run._event(WANTED, find, seen, Path("/log"), None)


def end(code: int, **more: str) -> dict[str, Any]:
    """Return what a process prints last."""
    return {"event": "end", "exit": code, **NUMBERS, **more}


class Processes:
    """Stand in for two processes: each prints its lines, the first one's first."""

    def __init__(
        self, first: Sequence[dict[str, Any]], second: Sequence[dict[str, Any]], **codes: Any
    ) -> None:
        self.lines = {"1": first, "2": second}
        self.codes = codes
        self.first = threading.Event()

    def __call__(self, argv: Sequence[str], *, on_line: Any, **_more: Any) -> Any:
        """Be one of them, by its seed."""
        seed = argv[[*argv].index("--seed") + 1]
        if seed == "2":
            assert self.first.wait(10)
        for line in self.lines[seed]:
            on_line(json.dumps(line))
        self.first.set()
        last = self.lines[seed][-1] if self.lines[seed] else {}
        code = self.codes.get("code", last.get("exit", 0)) if seed == "1" else last["exit"]
        return SimpleNamespace(returncode=code, stderr=self.codes.get("stderr", ""))


def explored(monkeypatch: pytest.MonkeyPatch, children: Any) -> tuple[Outcome, list[Any], str]:
    """Explore with some processes; return what comes of it, what is told, and the error."""
    monkeypatch.setattr(processes, "run", children)
    monkeypatch.setattr(run, "progress", Quiet())
    outcome, events, error = Outcome(), list[dict[str, Any]](), ""
    try:
        run.run_all(WANTED, [PLAN], outcome, events.append)
    except InfraError as raised:
        error = str(raised)
    return outcome, events, error


class Quiet:
    """The progress without a terminal."""

    count = staticmethod(lambda number, name: f"{number} {name}s")

    @contextlib.contextmanager
    def task(self, *_args: Any, **_more: Any) -> Iterator[Any]:
        """Show nothing."""
        yield SimpleNamespace(update=lambda **_more: None)


def test_one_that_repeats_replaces_a_flaky_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever process was first: what one calls flaky may repeat for another."""
    for first, second in ((Seen.SOMETIMES, Seen.ALWAYS), (Seen.ALWAYS, Seen.SOMETIMES)):
        children = Processes([told(FIND, first), end(0)], [told(FIND, second), end(1)])
        outcome, events, error = explored(monkeypatch, children)
        assert (outcome.finds, outcome.flaky, error) == ([FIND], [], "")
        assert events[-1]["repeats"] is True
        assert len(events) == (2 if first is Seen.SOMETIMES else 1)


@pytest.mark.parametrize(
    ("lines", "more", "error"),
    [
        (
            [end(3, error="guest lost: no memory", hint="full log: /logs/1")],
            {},
            "process 1 of 2: guest lost: no memory (full log: /logs/1)",
        ),
        ([end(130)], {}, "process 1 of 2 was interrupted"),
        (
            [],
            {"code": 2, "stderr": "built\niommuq: no base\n  (there is 7.3)\n"},
            "process 1 of 2 ended before its time: exit status 2 (iommuq: no base (there is 7.3))",
        ),
        ([end(0)], {"code": -9}, "process 1 of 2 ended before its time: killed by SIGKILL"),
    ],
    ids=["lost", "interrupted", "not-begun", "killed"],
)
def test_a_process_that_could_not_go_on(
    monkeypatch: pytest.MonkeyPatch, lines: list[dict[str, Any]], more: dict[str, Any], error: str
) -> None:
    """It is an error that says which, and why; the other goes on, and its finds are told."""
    children = Processes(lines, [told(FIND, Seen.ALWAYS), end(1)], **more)
    outcome, events, raised = explored(monkeypatch, children)
    assert raised == error
    assert outcome.finds == [FIND]
    assert [each["signature"] for each in events] == [FIND.signature]


CHILD = """
import json, signal, sys, time
first, last, stubborn = map(json.loads, sys.argv[1:])
def end(*_):
    if not stubborn:
        for line in last:
            print(json.dumps(line), flush=True)
        sys.exit(130)
signal.signal(signal.SIGTERM, end)
print(json.dumps(first), flush=True)
while True:
    time.sleep(600)
"""


@pytest.mark.parametrize("stubborn", [False, True])
def test_ctrl_c_ends_all(monkeypatch: pytest.MonkeyPatch, *, stubborn: bool) -> None:
    """Each tells what it has in hand, and is killed if that takes too long."""
    monkeypatch.setattr(run, "progress", Quiet())
    monkeypatch.setattr(run, "_LAST_WORDS", 1.0 if stubborn else 30.0, raising=False)
    main = threading.main_thread()
    assert threading.current_thread() is main
    real, pids, events = processes.run, list[int](), list[dict[str, Any]]()

    def child(argv: Sequence[str], *, on_start: Any = None, **more: Any) -> Any:
        mine = FIND if "1" in argv[[*argv].index("--seed") + 1] else OTHER
        words = (told(mine, Seen.SOMETIMES), [told(mine, Seen.ONCE), end(130)], stubborn)

        def started(pid: int) -> None:
            pids.append(pid)
            if on_start is not None:
                on_start(pid)

        script = [sys.executable, "-c", CHILD, *map(json.dumps, words)]
        return real(script, on_start=started, **more)

    def emit(event: dict[str, Any]) -> None:
        events.append(event)
        if len(events) == WANTED.jobs:
            assert main.ident is not None
            signal.pthread_kill(main.ident, signal.SIGINT)

    monkeypatch.setattr(processes, "run", child)
    begin, outcome = time.monotonic(), Outcome()
    with pytest.raises(KeyboardInterrupt):
        run.run_all(WANTED, [PLAN], outcome, emit)
    assert time.monotonic() - begin < 20
    assert len(pids) == 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    in_hand = [] if stubborn else sorted([FIND, OTHER], key=str)
    assert sorted(outcome.unsettled, key=str) == in_hand
    assert len(events) == 2 + len(in_hand)
