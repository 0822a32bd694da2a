# SPDX-License-Identifier: GPL-2.0-only
"""Fetch the mails of a series of the toy kernel, and look at what comes of it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

import toy
from iommuq.mail.review import fetch as fetching
from iommuq.mail.review import fetch_worker
from iommuq.mail.review.fetch import Posted
from iommuq.queue.parse import read_mails
from iommuq.system import run as runs
from iommuq.system.errors import UserError
from seriesmaker import Series

#: What the patches of `two_patches` add.
WANTED = [b"+\tint ret = 40;", b"+\tint ret = 50;"]


def b4_in_process(where: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let b4 run in our own process, in a directory of its own.

    :return: a directory to put patches into.
    """
    folder = where / "mails"
    folder.mkdir()
    work = where / "cwd"
    work.mkdir()
    monkeypatch.chdir(work)

    def in_process(_argv: Sequence[str], *, stdin: str, **_options: Any) -> runs.Completed:
        request = json.loads(stdin)
        try:
            answer = fetch_worker.collect(request, Path(request["folder"]))
        except fetch_worker.Refused as error:
            answer = error.answer
        return runs.Completed((), 0, json.dumps(answer), "", 0.0)

    monkeypatch.setattr(fetching, "read", in_process)
    return folder


def two_patches(where: Path, toy_work: Path) -> Series:
    """Return a series of two patches with a cover letter."""
    made = Series(toy.QueueMaker(folder=where / "none", work=toy_work))
    made.cover(2, "What it is for.\n\nbase-commit: 0123456789abcdef0123456789abcdef01234567\n")
    made.patch(1, 2, {toy.IOMMU_C: ("int ret = 4;", "int ret = 40;")})
    made.patch(2, 2, {toy.IOMMU_C: ("int ret = 5;", "int ret = 50;")}, subject="toy: Count")
    return made


def get(inbox: Path, path: Path, **options: Any) -> Posted:
    return fetching.fetch(str(path), inbox, **{"offline": True, **options})


def refused(inbox: Path, path: Path, **options: Any) -> UserError:
    with pytest.raises(UserError) as caught:
        get(inbox, path, **options)
    assert "\n" not in str(caught.value)
    return caught.value


def changes(posted: Posted) -> list[bytes]:
    """Return the lines that each patch adds, as the rest of the project reads the mails."""
    added = re.compile(rb"^\+[^+].*$", re.M)
    return [b"".join(added.findall(each.diff)) for each in read_mails(posted.mails)]


def alone(series: Series) -> EmailMessage:
    """Return the first patch as one that was posted alone."""
    message = series.mails[1]
    subject = str(message["Subject"]).replace(" 1/2", "")
    message.replace_header("Subject", subject)
    for name in ("In-Reply-To", "References"):
        del message[name]
    return message


def text(message: EmailMessage) -> bytes:
    payload = message.get_payload(decode=True)
    assert isinstance(payload, bytes)
    return payload
