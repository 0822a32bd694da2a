# SPDX-License-Identifier: GPL-2.0-only
"""What reports mean, and which are none."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from iommuq.guests import channel
from iommuq.guests.channel import Channel, Transcript
from iommuq.system import logtext

WHOLE = b"""iommuq 1
0 begin 1.50
0 |TAP version 13
0 |
0 |0 end 0 9.99
0 end 3 2.75
1 missing /dev/iommu
2 begin 3.00
2 |bad \xff\x00 bytes
2 limit
2 left
2 end 137 9.00
done 3
"""


def take(data: bytes) -> Transcript:
    transcript = Transcript()
    transcript.feed(data)
    transcript.close()
    return transcript


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_whole_report_in_pieces_of_any_size(size: int) -> None:
    transcript = Transcript()
    for at in range(0, len(WHOLE), size):
        assert not transcript.whole
        transcript.feed(WHOLE[at : at + size])
    transcript.close()
    assert transcript.whole
    first, second, third = transcript.suites
    # What a program writes is never taken for what init says.
    assert first.output == ["TAP version 13", "", "0 end 0 9.99"]
    assert (first.status, first.begin, first.end) == (3, 1.5, 2.75)
    assert second.missing == "/dev/iommu"
    assert second.status is None
    assert third.output == ["bad \\xff\x00 bytes"]
    assert (third.expired, third.left, third.status) == (True, True, 137)


def test_no_part_of_a_report_is_a_whole_one() -> None:
    for size in range(len(WHOLE)):
        assert not take(WHOLE[:size]).whole, WHOLE[:size]


def test_carriage_returns_are_not_part_of_it() -> None:
    transcript = take(WHOLE.replace(b"\n", b"\r\n"))
    assert transcript.whole
    assert transcript.suites[0].output[0] == "TAP version 13"


@pytest.mark.parametrize(
    "data",
    [
        b"hello\n",
        b"iommuq 2\n",
        b"0 begin 1.0\n",
        b"iommuq 1\n\n",
        b"iommuq 1\n1 begin 1.0\n",
        b"iommuq 1\n0 begin soon\n",
        b"iommuq 1\n0 |text\n",
        b"iommuq 1\n0 begin 1.0\n1 |text\n",
        b"iommuq 1\n0 begin 1.0\n1 begin 2.0\n",
        b"iommuq 1\n0 begin 1.0\n0 end 0\n",
        b"iommuq 1\n0 begin 1.0\n0 end x 2.0\n",
        b"iommuq 1\n0 begin 1.0\n0 end 0 2.0\n0 |late\n",
        b"iommuq 1\n0 begin 1.0\n0 end 0 2.0\n0 end 1 2.0\n",
        b"iommuq 1\n0 begin 1.0\ndone 1\n",
        b"iommuq 1\ndone 1\n",
        b"iommuq 1\ndone\n",
        b"iommuq 1\ndone 0\nmore\n",
        b"iommuq 1\ndone 0\nmo",
        b"iommuq 1\n0 dance\n",
        WHOLE.replace(b"0 |\n", b"\x00\x00\n"),
    ],
)
def test_what_makes_no_sense_is_no_report(data: bytes) -> None:
    transcript = take(data)
    assert transcript.garbled
    assert not transcript.whole


def test_a_guest_that_cannot_be_set_up_says_why() -> None:
    transcript = take(b"iommuq 1\nbroken no huge pages\nbroken the runner ended with 1\n")
    assert transcript.broken == "no huge pages"
    assert not transcript.whole
    assert not transcript.garbled


def test_what_was_broken_is_not_whole_at_its_end() -> None:
    assert not take(b"iommuq 1\nbroken no huge pages\ndone 0\n").whole


def test_a_suite_that_cannot_be_killed() -> None:
    transcript = take(b"iommuq 1\n0 begin 1.0\n0 stuck\nbroken the runner ended with 1\n")
    assert transcript.suites[0].stuck
    assert not transcript.suites[0].over
    assert not transcript.whole


@pytest.mark.parametrize(("limit", "most"), [("OUTPUT_LIMIT", 40), ("LINES_LIMIT", 4)])
def test_a_report_without_end_is_none(
    monkeypatch: pytest.MonkeyPatch, limit: str, most: int
) -> None:
    monkeypatch.setattr(channel, limit, most)
    transcript = Transcript()
    for line in (b"iommuq 1\n0 begin 1.0\n", *[b"0 |1234567\n"] * 9, b"0 end 0 2.0\ndone 1\n"):
        transcript.feed(line)
    transcript.close()
    assert transcript.flooded
    assert not transcript.whole
    assert not transcript.garbled
    assert len(transcript.suites[0].output) <= 2


def test_a_long_line_is_cut_and_marked() -> None:
    long = b"0 |" + b"x" * 50_000
    transcript = take(b"iommuq 1\n0 begin 1.0\n" + long + b"\n0 |short\n0 end 0 2.0\ndone 1\n")
    assert transcript.whole
    cut, short = transcript.suites[0].output
    left_out = len(long) - logtext.LINE
    assert cut == "x" * (logtext.LINE - 3) + f"… {left_out} bytes left out"
    assert short == "short"


@pytest.mark.parametrize(
    "data",
    [
        b"iommuq 1\n0 begin 1.0\n0 |" + b"x" * (15 << 20),
        b"iommuq 1\n0 begin 1.0\n" + b"0 |x\n" * 190_000,
        b"iommuq 1\n" + b"".join(b"%d missing x\n" % n for n in range(190_000)),
    ],
    ids=["no line ends", "short lines", "suites"],
)
def test_a_report_takes_linear_time(data: bytes) -> None:
    begin = time.thread_time()
    transcript = Transcript()
    for at in range(0, len(data), 4096):
        transcript.feed(data[at : at + 4096])
    assert not transcript.flooded
    assert time.thread_time() < begin + 5


def test_limits_are_checked_while_a_guest_writes_without_end(tmp_path: Path) -> None:
    ticks: list[bool] = []
    stop = threading.Event()

    def tick(transcript: Transcript) -> None:
        ticks.append(transcript.flooded)
        if transcript.flooded:
            stop.set()

    with Channel(tmp_path / "fifo", tick) as reader, reader.path.open("wb", buffering=0) as file:
        file.write(b"iommuq 1\n0 begin 1.0\n")
        deadline = time.monotonic() + 20
        while not stop.is_set() and time.monotonic() < deadline:
            file.write(b"0 |" + b"x" * 4000 + b"\n")
    assert ticks[-1]


def test_the_fifo_is_read_to_its_end(tmp_path: Path) -> None:
    ticked = threading.Event()
    with Channel(tmp_path / "fifo", lambda _: ticked.set()) as reader:
        with reader.path.open("wb", buffering=0) as file:
            # More than a pipe holds: who writes must not wait for the end of the block.
            file.write(b"iommuq 1\n0 begin 1.0\n")
            for _ in range(40_000):
                file.write(b"0 |" + b"x" * 60 + b"\n")
            file.write(b"0 end 0 2.0\ndone 1\n")
        assert ticked.wait(5)
    assert reader.transcript.whole
    assert len(reader.transcript.suites[0].output) == 40_000


def test_nobody_ever_writes(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count, not paths
    with Channel(tmp_path / "fifo", lambda _: None) as reader:
        pass
    assert not reader.transcript.whole
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
