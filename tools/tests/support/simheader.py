# SPDX-License-Identifier: GPL-2.0-only
"""What iommu_sim.h says, for the tests that hold the Python side against it."""

from __future__ import annotations

import errno
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from iommuq.explore.wire import DMA_FQ, State

ROOT = Path(__file__).parents[3]
HEADER = ROOT / "explore/drivers/iommu/tests/iommu_sim.h"
_SIZES = {"u8": 1, "s32": 4, "u32": 4}


def code() -> str:
    """Return the header without its comments."""
    return re.sub(r"/\*.*?\*/", "", HEADER.read_text(encoding="utf-8"), flags=re.DOTALL)


def kinds() -> list[str]:
    """Return the names of ``enum iommu_sim_kind`` in order, as `operations.toml` has them."""
    found = re.search(r"enum iommu_sim_kind \{(.*?)\}", code(), re.DOTALL)
    assert found is not None
    names = re.findall(r"SIM_(\w+)", found[1])
    assert names.pop() == "KINDS"
    return [name.lower() for name in names]


def constants() -> dict[str, int]:
    """Return the numbers that have a name."""
    found = {
        name: int(value, 0)
        for name, value in re.findall(r"#define\s+(I?\w*SIM_\w+)\s+(0x[0-9a-f]+|\d+)", code())
    }
    anonymous = re.search(r"enum \{(.*?)\}", code(), re.DOTALL)
    assert anonymous is not None
    value = 0
    for name, given in re.findall(r"(SIM_\w+)(?:\s*=\s*(\d+))?", anonymous[1]):
        value = int(given) if given else value
        found[name] = value
        value += 1
    return found


def members(struct: str) -> dict[str, tuple[str, int]]:
    """Return the fields of a struct: the type, and how many there are of it; 0: no array."""
    found = re.search(rf"struct {struct} \{{(.*?)\}} __packed;", code(), re.DOTALL)
    assert found is not None
    counts = constants()
    fields = re.findall(r"((?:struct )?\w+) (\w+)(?:\[(\w+)\])?;", found[1])
    assert len(fields) == found[1].count(";")
    return {
        name: (kind, int(count) if count.isdigit() else counts.get(count, 0))
        for kind, name, count in fields
    }


def size(struct: str) -> int:
    """Return the number of bytes of a struct."""
    return sum(
        (size(kind.removeprefix("struct ")) if kind.startswith("struct") else _SIZES[kind])
        * (count or 1)
        for kind, count in members(struct).values()
    )


def holds(expect: str, state: State) -> bool:
    """Work an expression in C out for a state, with the fields that the header has."""
    names: dict[str, Any] = {
        "state": _view(state),
        "IOMMU_DOMAIN_DMA_FQ": DMA_FQ,
        "EOPNOTSUPP": errno.EOPNOTSUPP,
        **constants(),
        **{name: number for number, name in errno.errorcode.items()},
    }
    python = re.sub(r"!(?!=)", " not ", expect).replace("||", " or ").replace("&&", " and ")
    return bool(eval(python.strip(), {"__builtins__": {}}, names))


def _view(state: State) -> SimpleNamespace:
    values = list(state[: State._fields.index("user")])
    found: dict[str, Any] = {}
    for name, (_, count) in members("iommu_sim_state").items():
        found[name] = values.pop(0) if not count else None
    assert not values
    found["user"] = state.user
    found["group"] = [_fill("iommu_sim_group_state", each) for each in state.groups]
    found["dev"] = [_fill("iommu_sim_dev_state", each) for each in state.devices]
    return SimpleNamespace(**found)


def _fill(struct: str, values: tuple[int, ...]) -> SimpleNamespace:
    left = list(values)
    found: dict[str, Any] = {}
    for name, (_, count) in members(struct).items():
        found[name] = [left.pop(0) for _ in range(count)] if count else left.pop(0)
    assert not left
    return SimpleNamespace(**found)
