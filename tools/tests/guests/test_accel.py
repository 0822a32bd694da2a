# SPDX-License-Identifier: GPL-2.0-only
"""The probe of accelerators, against the real QEMU where there is one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from iommuq.guests import accel
from iommuq.system.errors import ToolMissing

needs_qemu = pytest.mark.skipif(
    shutil.which(accel.QEMU) is None, reason=f"{accel.QEMU} is not installed"
)


def fake_qemu(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> Path:
    """Put a QEMU of our own on PATH, which counts its boots."""
    count = folder / "count"
    path = folder / accel.QEMU
    path.write_text(
        f'#!/bin/sh\ncase $1 in --version) echo 1.2; exit;; esac\necho >>"{count}"\n{script}\n'
    )
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    device = folder / "kvm"
    device.touch()
    monkeypatch.setattr(accel, "DEVICE", device)
    return count


@needs_qemu
def test_tcg_boots_the_tiny_guest() -> None:
    assert accel.boot("tcg") == accel.Usability(True, "a guest booted")


@needs_qemu
def test_the_guest_is_what_ends_qemu(monkeypatch: pytest.MonkeyPatch) -> None:
    # A guest that halts keeps QEMU running, and must not pass for one that booted.
    monkeypatch.setattr(accel, "_CODE", b"\xfa\xf4")
    monkeypatch.setattr(accel, "LIMIT", 2.0)
    assert not accel.boot("tcg").usable


@pytest.mark.skipif(shutil.which("as") is None, reason="binutils is not installed")
def test_the_bytes_are_those_of_the_source(tmp_path: Path) -> None:
    source = Path(accel.__file__).with_name("longmode.S")
    for argv in (
        ["gcc", "-c", str(source), "-o", "o"],
        ["ld", "-Ttext=0", "-e", "0", "-o", "elf", "o"],
        ["objcopy", "-O", "binary", "-j", ".text", "elf", "bin"],
    ):
        subprocess.run(argv, cwd=tmp_path, check=True)
    assert (tmp_path / "bin").read_bytes() == accel._CODE


@needs_qemu
def test_an_unknown_accelerator_is_not_usable() -> None:
    verdict = accel.boot("nosuch")
    assert not verdict.usable
    assert "nosuch" in verdict.reason


def test_the_verdict_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = fake_qemu(tmp_path, monkeypatch, "exit 33")
    assert accel.kvm().usable
    assert accel.kvm().usable
    assert count.read_text() == "\n"


def test_an_abort_is_a_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_qemu(tmp_path, monkeypatch, "echo kvm: no such luck >&2; kill -ABRT $$")
    assert accel.kvm() == accel.Usability(False, "kvm: no such luck")


def test_a_hang_is_a_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_qemu(tmp_path, monkeypatch, "exec sleep 60")
    monkeypatch.setattr(accel, "LIMIT", 0.5)
    verdict = accel.kvm()
    assert not verdict.usable
    assert "hangs" in verdict.reason


def test_without_a_device_nothing_is_booted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = fake_qemu(tmp_path, monkeypatch, "exit 33")
    accel.DEVICE.unlink()
    assert not accel.kvm().usable
    assert not count.exists()


def test_without_qemu_the_tool_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_qemu(tmp_path, monkeypatch, "exit 33")
    (tmp_path / accel.QEMU).unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolMissing, match=accel.QEMU):
        accel.kvm()
