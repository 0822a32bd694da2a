# SPDX-License-Identifier: GPL-2.0-only
"""How long things took the last time, to say how long they will take.

An estimate is worth no error: what cannot be read is unknown, what cannot be written is
forgotten.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from statistics import median

from iommuq.system.files import state_dir

FILE = "durations.json"
#: Entries that are kept, the newest.
MOST = 4000


def load() -> dict[str, float]:
    """Return seconds by name: ``<what>/<which>``."""
    try:
        data = json.loads(_path().read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(data, dict):
        return {}
    return {
        name: float(value)
        for name, value in data.items()
        if isinstance(value, int | float) and math.isfinite(value) and value >= 0
    }


def expect(past: Mapping[str, float], name: str) -> float | None:
    """Say how long something will take, in seconds; None if nobody knows.

    What was never seen takes as long as others of its kind.
    """
    if name in past:
        return past[name]
    kind = name.rpartition("/")[0] + "/"
    same = [seconds for other, seconds in past.items() if other.startswith(kind)]
    return median(same) if same else None


def save(new: Mapping[str, float]) -> None:
    """Remember how long things took."""
    if not new:
        return
    kept = load()
    for name, seconds in new.items():
        # At the end of the file, where the newest are.
        kept.pop(name, None)
        kept[name] = round(seconds, 3)
    text = json.dumps(dict(list(kept.items())[-MOST:]), indent=0)
    path = _path()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{FILE}.", dir=path.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).replace(path)


def _path() -> Path:
    return state_dir() / FILE
