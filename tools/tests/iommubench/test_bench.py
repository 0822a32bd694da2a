# SPDX-License-Identifier: GPL-2.0-only
"""Tests of `iommuq bench`, but for the measuring itself: that takes a kernel and an hour."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import pytest

import toy
from iommubench import bench
from iommubench.bench import Measure
from iommuq.bases.sources import Base
from iommuq.queue.model import load_queue
from iommuq.queue.steps import make_steps
from iommuq.system.errors import CommandFailed


def record(base: str, **measures: tuple[float, float]) -> str:
    return json.dumps({"time": 1.0, "base": base, "version": "6", "measures": measures}) + "\n"


def test_a_slow_down_is_seen(tmp_path: Path) -> None:
    history = tmp_path / "bench.jsonl"
    history.write_text(
        record("6.12", cold=(1, 2), again=(1, 10))
        + record("6.12", cold=(2, 2))
        + record("6.12", cold=(1, 2))
        + record("7.3", cold=(90, 1))
    )
    earlier = bench.earlier_ratios(history, "6.12")
    assert earlier == {"cold": 0.5, "again": 0.1}
    lines = list(
        bench.table(
            [
                Measure("cold", 13.1, 20.0, 0.7),
                Measure("again", 1.2, 10.0, limit=1.0),
                Measure("new", 1.0, 1.0),
            ],
            earlier,
        )
    )
    assert lines[1].split() == [
        "cold",
        "13.1",
        "s",
        "20.0",
        "s",
        "0.66",
        "0.70",
        "0.50",
        "slower",
        "than",
        "before",
    ]
    assert lines[2].split() == ["again", "1.2", "s", "10.0", "s", "0.12", "1", "s", "0.10"]
    assert lines[3].split() == ["new", "1.0", "s", "1.0", "s", "1.00"]


@pytest.mark.parametrize(
    "line",
    ["", "{", "[]", "7", '{"base": "6.12"}', record("6.12", cold=(1, 0))]
    + [record("6.12").replace("{}", each) for each in ('{"a": 1}', '{"a": ["x", 1]}', "[1]")],
)
def test_damaged_history_is_left_out(tmp_path: Path, line: str) -> None:
    history = tmp_path / "bench.jsonl"
    assert bench.earlier_ratios(history, "6.12") == {}
    history.write_text(f"{line}\n{record('6.12', cold=(1, 4))}\x00\xff")
    assert bench.earlier_ratios(history, "6.12") == {"cold": 0.25}


def test_synthetic_patches_apply_one_on_top_of_the_other(
    toy_base: Base, queue_maker: toy.QueueMaker
) -> None:
    queue_maker.three()
    text = (queue_maker.work / toy.IOMMU_C).read_text()
    for number in (1, 2, 3):
        name = f"bench/{number:04}-bench-line.patch"
        queue_maker.add(name, bench.synthetic_patch(text, number).encode())
    steps = make_steps(toy_base, load_queue(queue_maker.folder, "6.12"), None)
    assert len({step.tree for step in steps}) == len(steps) == 6
    last = toy.git("show", f"{steps[-1].commit}:{toy.IOMMU_C}", cwd=toy_base.git_dir)
    added = "\n".join(f"/* Bench {number} */" for number in (3, 2, 1))
    assert last == text.replace("\n", f"\n{added}\n", 1).rstrip("\n")


@pytest.mark.parametrize(
    ("script", "good"),
    [
        ("echo FAIL: 6.12: 1 finding; exit 1", True),
        ("echo FAIL: 6.12: 1 finding; exit 3", False),
        ("exit 1", False),
    ],
)
def test_what_did_not_run_is_no_measure(tmp_path: Path, script: str, good: bool) -> None:
    """An end in a tenth of a second would look like a good one."""
    site = bench._Site("6.12", tmp_path, tmp_path, tmp_path, {}, tmp_path, tmp_path / "log")
    with nullcontext() if good else pytest.raises(CommandFailed, match="exit status"):
        site._time(["sh", "-c", script], ": 6.12: ", cwd=tmp_path)
