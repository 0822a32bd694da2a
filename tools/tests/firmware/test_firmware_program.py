# SPDX-License-Identifier: GPL-2.0-only
"""The program of the guest, run here: it compiles, reads scripts, and survives its steps."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import pytest

from iommuq.firmware import program
from iommuq.firmware.scenario import ACTIONS
from iommuq.guests import uml
from iommuq.system import toolchain
from iommuq.system.errors import UserError
from iommuq.system.run import Completed, run

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="no compiler")


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the program."""
    with pytest.MonkeyPatch.context() as patch:
        where = tmp_path_factory.mktemp("steps")
        patch.setenv("IOMMUQ_CACHE_DIR", str(where / "cache"))
        patch.setenv("IOMMUQ_STATE_DIR", str(where / "state"))
        built = program.build()
        # Kept, and not built again.
        before = built.stat().st_mtime_ns
        assert program.build() == built
        assert built.stat().st_mtime_ns == before
        return built


@pytest.mark.parametrize("where", [program, uml])
def test_two_threads_that_need_what_is_compiled(
    monkeypatch: pytest.MonkeyPatch, where: ModuleType
) -> None:
    both = threading.Barrier(2, timeout=60)

    def compiler(argv: Sequence[str | Path], **_: object) -> None:
        both.wait()
        Path(argv[argv.index("-o") + 1]).touch()
        both.wait()

    monkeypatch.setattr(toolchain, "run", compiler)
    make = program.build if where is program else uml.environment
    with ThreadPoolExecutor(2) as executor:
        first, second = executor.submit(make), executor.submit(make)
        assert first.result() == second.result()


def do(steps: Path, tmp_path: Path, *lines: str, limit: str = "10") -> Completed:
    script = tmp_path / "script"
    script.write_text("".join(f"{line}\n" for line in lines))
    return run([steps, script, limit], cwd=tmp_path, timeout=30, check=False)


def test_it_knows_every_step_of_the_scenarios(steps: Path, tmp_path: Path) -> None:
    # With too many words, each says how many it takes, and does nothing.
    lines = ["\t".join([name, *(["x"] * 5)]) for name in ACTIONS]
    said = do(steps, tmp_path, *lines).output.splitlines()
    assert said == [
        *(
            f"step {number} MALFORMED {name} takes {len(kinds)} words"
            for number, (name, kinds) in enumerate(ACTIONS.items())
        ),
        "end",
    ]


def test_what_it_does_not_know_is_malformed(steps: Path, tmp_path: Path) -> None:
    done = do(steps, tmp_path, "jump", "", "driver", "exists\t/")
    assert done.output.splitlines() == [
        "step 0 MALFORMED there is no such step",
        "step 1 MALFORMED there is no such step",
        "step 2 MALFORMED driver takes 1 words",
        "step 3 yes /",
        "end",
    ]
    assert done.returncode == 0


def test_devices_that_are_not_there(steps: Path, tmp_path: Path) -> None:
    device = "ffff:ff:1f.7"
    lines = [
        f"present\t{device}",
        f"driver\t{device}",
        f"type\t{device}",
        f"region\t{device}\t0",
        f"claim\tgroup\t{device}",
        f"release\t{device}",
        f"map\t{device}\t0\t1000",
        f"dma\t{device}\t0",
        f"dma-mapped\t{device}\t0",
        f"remove\t{device}",
        f"together\t{device}\t{device}",
        f"enable\t{device}",
    ]
    said = do(steps, tmp_path, *lines).output.splitlines()
    words = [line.split()[2] for line in said[:-1]]
    assert words == [
        *("no", "none", "ENOENT", "ENOENT", "ENOENT", "ok", "UNCLAIMED", "ENODEV", "UNMAPPED"),
        *("ENOENT", "no", "ENOENT"),
    ]


def test_a_device_that_is_not_there_is_neither_switched_nor_moved(
    steps: Path, tmp_path: Path
) -> None:
    device = "ffff:ff:1f.7"
    lines = [f"switch\t{device}\tidentity\t0\ttype", f"renumber\t{device}\t20"]
    said = do(steps, tmp_path, *lines).output.splitlines()
    words = [line.split()[2] for line in said[:-1]]
    # Without /dev/mem it does not come to the device.
    assert words[0] in ("ENODEV", "ENOENT", "EPERM", "EACCES")
    assert words[1] == "ENOENT"


def test_pages_are_not_counted_for_a_device_that_is_not_there(steps: Path, tmp_path: Path) -> None:
    said = do(steps, tmp_path, "removals\tffff:ff:1f.7\t0x1").output.splitlines()
    # The counter is for root, and newer than some kernels.
    assert said[0].split()[2] in ("ENOENT", "UNSEEN")


def test_nothing_fails_in_a_function_that_is_not_there(steps: Path, tmp_path: Path) -> None:
    said = do(steps, tmp_path, "fail\tno_such_function\t1", "failed").output.splitlines()
    assert [line.split()[2] for line in said[:-1]] == ["UNSEEN", "UNSEEN"]


def test_a_step_that_never_returns_is_told_of(steps: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    way = f"../../../..{tmp_path}/fifo"
    done = do(steps, tmp_path, "present\tx", f"table\t{way}", "present\tx", limit="1")
    assert done.output.splitlines() == ["step 0 no", "step 1 HANG no answer within 1 s"]
    assert done.returncode == 1


def test_a_table_is_dumped(steps: Path, tmp_path: Path) -> None:
    (tmp_path / "table").write_bytes(bytes(range(70)))
    said = do(steps, tmp_path, f"table\t../../../..{tmp_path}/table").output.splitlines()
    assert said == [
        "bytes 0 " + bytes(range(64)).hex(),
        "bytes 0 " + bytes(range(64, 70)).hex(),
        "step 0 ok 70 bytes",
        "end",
    ]


def test_a_script_that_is_missing(steps: Path, tmp_path: Path) -> None:
    done = run([steps, tmp_path / "nosuch"], cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert done.output == ""


def test_it_compiles_without_a_warning(tmp_path: Path) -> None:
    code = [path for path in program.sources() if path.suffix == ".c"]
    flags = ["-Wall", "-Wextra", "-Werror", "-O2", "-D_GNU_SOURCE"]
    run(["gcc", *flags, "-o", tmp_path / "steps", *code], cwd=tmp_path, timeout=60)


def test_a_source_that_does_not_compile_is_the_user_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "patches").mkdir()
    where = tmp_path / "selftests/firmware"
    where.mkdir(parents=True)
    (where / "steps.c").write_text("int main(void) { return }\n")
    monkeypatch.setenv("IOMMUQ_ROOT", str(tmp_path))
    with pytest.raises(UserError, match="does not compile"):
        program.build()
