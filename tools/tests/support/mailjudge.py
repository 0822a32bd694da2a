# SPDX-License-Identifier: GPL-2.0-only
"""Review a mail as `iommuq mail review` does, up to what runs in the sandbox.

As a program it is iommuq; in place of the builds it answers that every step is fine.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iommuq.mail.review import review as reviews
from iommuq.mail.review.model import Answer, Ran
from toykernel import BASE, Project


@dataclass(frozen=True)
class Judged:
    """What iommuq says of a mail.

    :ivar seconds: of the processors, which do not depend on what else runs.
    :ivar memory: bytes of its largest process.
    """

    code: int
    out: str
    err: str
    seconds: float
    memory: int


def judge(project: Project, mbox: Path, folder: Path) -> Judged:
    """Review the mails of a file; drafts go into a new directory ``drafts`` below *folder*."""
    words = ["mail", "review", str(mbox), "--base", BASE, "--at", "baseline", "--offline"]
    words += ["--checks", "none", "--output", str(folder / "drafts")]
    package = str(Path(reviews.__file__).parents[3])
    path = f"{package}:{Path(__file__).parent}"
    with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
        process = subprocess.Popen(
            [sys.executable, "-P", __file__, *words],
            cwd=folder,
            env={**project.environment, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    texts = [(folder / name).read_bytes().decode(errors="replace") for name in ("out", "err")]
    seconds = used.ru_utime + used.ru_stime
    return Judged(process.returncode, texts[0], texts[1], seconds, used.ru_maxrss << 10)


def _fine(*arguments: Any) -> Answer:
    """Answer in place of the sandbox: every step builds and passes."""
    labels: Sequence[str] = arguments[-1]
    nothing: dict[str, Any] = dict.fromkeys(
        ("warnings", "failed", "skipped", "flaky", "unknown"), ()
    )
    ran = [
        Ran(label, "kunit", None, passed=("a.b",), messages={}, accelerator="native", **nothing)
        for label in labels
    ]
    return Answer({"kunit": "KUnit on User-mode Linux"}, "gcc 12", tuple(ran), ())


if __name__ == "__main__":
    from iommuq.__main__ import main

    reviews._run = _fine  # type: ignore[assignment]
    main()
