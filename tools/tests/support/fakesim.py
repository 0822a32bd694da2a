#!/usr/bin/env -S python3 -S -E
# SPDX-License-Identifier: GPL-2.0-only
"""Stand in for a kernel with the simulated IOMMU: a small model, with a bug by its name.

It is started as a kernel is, by a link whose name says what is wrong with it.  It answers on
file descriptor 4 what it reads from 3, prints on standard output, and adds its process id to
``pids`` beside the link.
"""

from __future__ import annotations

import os
import re
import struct
import sys
import time

FOLDER, NAME = os.path.split(sys.argv[0])
HEADER = "../../../explore/drivers/iommu/tests/iommu_sim.h"
SPLAT = "WARNING: CPU: 0 PID: 1 at drivers/iommu/iommu.c:12 iommu_toy_unbind+0x5c/0x2e0\n"
KASAN = "BUG: KASAN: slab-use-after-free in iommu_toy_unbind+0x5c/0x2e0\n"
HELLO = struct.pack("<4I", 0x4D495349, 4, 16, 8 + 9 + 3 + 2 * 12 + 4 * 16)
NOT_NOW, BUSY = 1, -16
PRESENT, GROUPED, BOUND, USED = 1, 2, 8, 128


def kinds() -> list[str]:
    """Return the names of the operations by number."""
    here = os.path.dirname(os.path.realpath(__file__))  # noqa: PTH120
    with open(os.path.join(here, HEADER), encoding="utf-8") as file:  # noqa: PTH118, PTH123
        found = re.search(r"enum iommu_sim_kind \{(.*?)\}", file.read(), re.DOTALL)
    assert found is not None
    return [name.lower() for name in re.findall(r"SIM_(\w+)", found[1])]


def say(text: str) -> None:
    """Print on the console."""
    os.write(1, text.encode())


def remember(name: str) -> int:
    """Count in a file beside the link, over all boots; return the number."""
    path = f"{FOLDER}/{name}"
    with open(path, "ab") as file:  # noqa: PTH123
        file.write(b".")
        return file.tell()


class Model:
    """Devices, groups and owners, as far as the tests need them."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Return to the state after boot."""
        self.devices = [dict.fromkeys(("flags", "group", "regions", "reach"), 0) for _ in range(4)]
        self.claimed = [0, 0]
        self.was_bound = [False, False]
        self.splats = 0

    def members(self, group: int) -> list[dict[str, int]]:
        """Return the devices of a group that are plugged in."""
        return [d for d in self.devices if d["flags"] & PRESENT and d["group"] == group]

    def do(self, kind: str, dev: int, group: int, types: int) -> int:
        """Carry out an operation."""
        device = self.devices[dev]
        flags = device["flags"]
        if kind == "end":
            self.clear()
        elif kind == "add" and not flags:
            regions = int(types & 3 == 1)
            device.update(flags=USED | PRESENT | GROUPED, group=group)
            device.update(regions=regions, reach=regions)
        elif kind == "remove" and flags & PRESENT:
            device["flags"] = USED
        elif kind == "rescan" and flags & USED and not flags & PRESENT:
            device["flags"] = USED | PRESENT | GROUPED
        elif kind == "bind" and flags & PRESENT and not flags & BOUND:
            if self.claimed[device["group"]]:
                return BUSY
            device["flags"] |= BOUND
        elif kind == "unbind" and flags & BOUND:
            device["flags"] &= ~BOUND
            self.was_bound[device["group"]] = True
            self.unbound()
        elif kind == "claim_group" and self.members(group) and not self.claimed[group]:
            if any(each["flags"] & BOUND for each in self.members(group)):
                return BUSY
            self.claimed[group] = 1
            self.claim(group)
        elif kind == "release_group" and self.claimed[group]:
            self.claimed[group] = 0
        else:
            return NOT_NOW
        return 0

    def claim(self, group: int) -> None:
        """Do what the bugs of a claim do."""
        hurt = self.was_bound[group] and any(d["regions"] for d in self.members(group))
        # The second once in its life, so that no find repeats.
        lost = hurt and (NAME == "loses" or (NAME == "flaky" and remember("flakes") == 1))
        if lost:
            for each in self.members(group):
                each["reach"] = 0

    def unbound(self) -> None:
        """Do what the bugs of an unbind do."""
        if NAME == "dies":
            os._exit(7)
        if NAME == "hangs":
            time.sleep(600)
        if NAME == "splats":
            say(SPLAT)
            self.splats = 1
        if NAME in ("crashes", "crashes_once"):
            say(KASAN)
            os._exit(1)

    def state(self, ret: int) -> bytes:
        """Return the struct with the state."""
        user = bytes(3)
        groups = b""
        for number in range(2):
            members = self.members(number)
            count = self.claimed[number] + sum(bool(d["flags"] & BOUND) for d in members)
            domain = 2 if self.claimed[number] else 3 + number
            groups += bytes(
                [bool(members), domain, 3 + number, 3, 0, self.claimed[number], count, len(members)]
            ) + bytes([0, self.claimed[number], 0, 7])
        devices = b""
        for each in self.devices:
            owned = self.claimed[each["group"]]
            hw = (2 if owned else 3 + each["group"]) if each["flags"] & PRESENT else 0
            devices += bytes([each["flags"], each["group"], hw, hw, 0, 0, 0, 0])
            devices += bytes([each["regions"], each["reach"], 0, 0, 0, 0, 0, 0])
        head = bytes([0, 0, self.splats, 0, 0, 0, 0, 0, 0])
        return struct.pack("<iI", ret, 7) + head + user + groups + devices


def read(size: int) -> bytes:
    """Read so many bytes; end with the host."""
    data = b""
    while len(data) < size:
        piece = os.read(3, size - len(data))
        if not piece:
            os._exit(0)
        data += piece
    return data


def main() -> None:
    """Serve, until the host ends it."""
    with open(f"{FOLDER}/pids", "a", encoding="utf-8") as file:  # noqa: PTH123
        file.write(f"{os.getpid()}\n")
    if os.fork() == 0:
        # As the helpers of UML, which are of its group.
        with open(f"{FOLDER}/pids", "a", encoding="utf-8") as file:  # noqa: PTH123
            file.write(f"{os.getpid()}\n")
        time.sleep(600)
    say(f"[    0.000000] {NAME} boots\n")
    if NAME == "exits" or (NAME == "crashes_once" and remember("boots") > 1):
        say("[    0.000001] no memory\n")
        os._exit(2)
    if NAME == "mute":
        time.sleep(600)
    os.write(4, b"x" * len(HELLO) if NAME == "garbage" else HELLO)
    names = kinds()
    model = Model()
    while True:
        (count,) = struct.unpack("<I", read(4))
        for _ in range(count):
            kind, dev, group, _, _, types = struct.unpack("<6B10x", read(16))
            model.splats = 0
            answer = model.state(model.do(names[kind], dev, group, types))
            if NAME == "short" and names[kind] == "bind":
                answer = answer[:-1]
            os.write(4, answer)
            if NAME == "crashes_late" and names[kind] == "bind":
                say(KASAN)
                os._exit(1)


if __name__ == "__main__":
    main()
