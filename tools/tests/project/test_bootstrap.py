# SPDX-License-Identifier: GPL-2.0-only
"""tools/bootstrap on machines that are made up: nothing real is installed.

Its PATH has the few harmless programs that it uses, and fakes of the others that
record how they are called.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import time
import tomllib
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from iommuq.system.run import Completed, run

ROOT = Path(__file__).parents[3]
HARMLESS = "awk cat dirname env find flock grep ls make mkdir rm sh sha256sum sleep true"

FAKES = {
    # Knows what the file "installed" lists.
    "dpkg-query": """
        shift 3
        for name; do ! grep -qx "$name" "$M/installed" || echo "installed $name"; done
        """,
    "apt-get": """
        echo "apt-get $(id -u) $DEBIAN_FRONTEND $*" >>"$M/calls"
        shift 2
        [ ! -f "$M/no-$1" ] || { printf 'E: cannot %s\\nE: gave up\\n' "$1"; exit 100; }
        [ "$1" = install ] || exit 0
        shift 3
        for name; do echo "$name" >>"$M/installed"; done
        """,
    "id": 'echo "${FAKE_UID:-$(cat "$M/uid")}"',
    "sudo": """
        [ -f "$M/sudoer" ] || exit 1
        [ "$1" != -n ] || shift
        FAKE_UID=0 exec "$@"
        """,
    "python3": """
        case $1 in
        -c) [ ! -f "$M/old" ] ;;
        -V) echo "Python $(cat "$M/old")" ;;
        -m) echo "venv" >>"$M/calls"
            mkdir -p "$3/bin"
            cat "$M/bin/venv-python" >"$3/bin/python"
            "$M/x" "$3/bin/python" ;;
        esac
        """,
    "venv-python": """
        case $1$2 in
        -V) cat "$M/version" ;;
        -cimport*) [ ! -f "$M/no-atheris" ] ;;
        */fuzz.py*)
            shift
            echo "fuzz.py $*" >>"$M/calls" ;;
        -mpip)
            echo "pip $*" >>"$M/calls"
            [ ! -f "$M/slow" ] || sleep "$(cat "$M/slow")"
            [ ! -f "$M/killed" ] || kill -KILL 0
            [ ! -f "$M/no-pip" ] || { echo "ERROR: cannot pip"; exit 1; }
            [ "${7##*/}" != requirements-fuzz.txt ] || [ -f "$M/no-wheel" ] || rm -f "$M/no-atheris"
            for name in iommuq ruff mypy lint-imports; do
                cat "$M/bin/tool" >"${0%/*}/$name" && "$M/x" "${0%/*}/$name"
            done ;;
        -mpytest)
            echo "pytest $*" >>"$M/calls"
            [ ! -f "$M/pytest-$4$5" ] || exit "$(cat "$M/pytest-$4$5")" ;;
        esac
        """,
    "tool": """
        echo "${0##*/} $*" >>"$M/calls"
        echo "MAKEFLAGS=${MAKEFLAGS-unset}"
        [ ! -f "$M/no-${0##*/}" ]
        """,
}


class Machine:
    """A machine with a checkout; what a file in `folder` says is how it behaves."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checkout = folder / "a checkout"
        self.bin = folder / "bin"
        (self.checkout / "tools").mkdir(parents=True)
        self.bin.mkdir()
        for name in (
            "Makefile",
            "pyproject.toml",
            "requirements.txt",
            "tools/bootstrap",
            "tools/packages.txt",
        ):
            shutil.copy(ROOT / name, self.checkout / name)
        for name in HARMLESS.split():
            real = shutil.which(name)
            assert real, f"{name} is not installed"
            (self.bin / name).symlink_to(real)
        for name, text in FAKES.items():
            self.fake(name, text)
        # chmod +x, under a name that bootstrap does not use.
        chmod = shutil.which("chmod")
        self.set("x", f'#!/bin/sh\nexec {chmod} +x "$1"\n').chmod(0o755)
        self.set("version", "Python 3.11.2")
        self.set("uid", "1000")
        self.set("installed", "\n".join(packages("test")) + "\n")
        self.set("calls", "")

    def fake(self, name: str, text: str) -> None:
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def set(self, name: str, text: str = "") -> Path:
        path = self.folder / name
        path.write_text(text)
        return path

    def lacks(self, *names: str) -> None:
        self.set("installed", "".join(f"{n}\n" for n in packages("test") if n not in names))

    def calls(self) -> list[str]:
        """Return the calls since the last look."""
        lines = (self.folder / "calls").read_text().splitlines()
        self.set("calls")
        return lines

    def bootstrap(self, *args: str, **env: str) -> Completed:
        return self.run(str(self.checkout / "tools/bootstrap"), *args, **env)

    def run(self, *argv: str, **env: str) -> Completed:
        variables = {
            "PATH": str(self.bin),
            "M": str(self.folder),
            "IOMMUQ_STATE_DIR": str(self.folder / "state"),
            **env,
        }
        return run(argv, cwd=self.folder, env=variables, check=False, timeout=60)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.delenv("DEBIAN_FRONTEND", raising=False)
    return Machine(tmp_path)


def packages(group: str) -> list[str]:
    """Return the packages of packages.txt from the first group to this one."""
    names: list[str] = []
    for block in (ROOT / "tools/packages.txt").read_text().split("\n[")[1:]:
        head, *lines = block.splitlines()
        names += [line.split()[0] for line in lines if line and line[0] != "#"]
        if head == f"{group}]":
            return names
    raise AssertionError(f"no group {group}")


def test_second_time_does_nothing(machine: Machine) -> None:
    assert machine.bootstrap("env").returncode == 0
    first = machine.calls()
    assert first[0] == "venv"
    install, lock = "pip -m pip install --no-input", "--require-hashes"
    own = machine.checkout / ".venv/setuptools.txt"
    assert first[1:] == [
        f"{install} {lock} -r {own}",
        f"{install} {lock} --no-build-isolation -r requirements.txt",
        f"{install} --no-deps --no-build-isolation -e .",
    ]
    names = [line.split()[0] for line in own.read_text().splitlines()]
    assert names[0].startswith("setuptools==")
    assert {name.partition(":")[0] for name in names[1:]} == {"--hash=sha256"}
    again = machine.bootstrap("env")
    assert (again.returncode, again.output, again.stderr) == (0, "", "")
    assert machine.calls() == []


def test_root_installs_only_what_is_missing(machine: Machine) -> None:
    machine.set("uid", "0")
    machine.lacks("flex", "bc")
    assert machine.bootstrap("env").returncode == 0
    lock = "-o DPkg::Lock::Timeout=300"
    assert machine.calls()[:2] == [
        f"apt-get 0 noninteractive {lock} update",
        f"apt-get 0 noninteractive {lock} install -y --no-install-recommends flex bc",
    ]


def test_user_installs_through_sudo(machine: Machine) -> None:
    machine.set("sudoer")
    machine.lacks("flex")
    assert machine.bootstrap("env").returncode == 0
    calls = machine.calls()
    assert [call.split()[:3] for call in calls[:2]] == [["apt-get", "0", "noninteractive"]] * 2
    assert calls[1].endswith(" flex")


@pytest.mark.parametrize("sudo", [True, False])
def test_without_rights_prints_the_line(machine: Machine, sudo: bool) -> None:
    machine.lacks("flex", "bc")
    if not sudo:
        (machine.bin / "sudo").unlink()
    done = machine.bootstrap("run")
    assert done.returncode == 3
    assert done.output == "sudo apt-get install -y --no-install-recommends flex bc\n"
    assert len(done.stderr.splitlines()) == 1
    assert machine.calls() == []


@pytest.mark.parametrize(
    ("command", "group"),
    [("doctor", "venv"), ("run", "run"), ("bench", "run"), ("test", "test"), ("fuzz", "run")],
)
def test_asks_for_no_more_than_the_command_needs(
    machine: Machine, command: str, group: str
) -> None:
    machine.set("installed")
    done = machine.bootstrap(command)
    assert done.output.split()[5:] == packages(group)


def test_apt_that_fails(machine: Machine) -> None:
    machine.set("uid", "0")
    machine.set("no-update")
    machine.set("no-install")
    machine.lacks("flex")
    done = machine.bootstrap("run")
    assert done.returncode == 3
    *_, what, hint = done.stderr.splitlines()
    assert what == "bootstrap: apt-get could not install them: E: cannot install"
    assert str(machine.folder / "state/logs/bootstrap.log") in hint
    assert not any(call.startswith("pip") for call in machine.calls())
    (machine.folder / "no-install").unlink()
    assert machine.bootstrap("run").returncode == 0


def test_old_lists_do_if_they_cannot_be_renewed(machine: Machine) -> None:
    machine.set("uid", "0")
    machine.set("no-update")
    machine.lacks("flex")
    assert machine.bootstrap("run").returncode == 0


def test_other_distributions_hear_which_commands(machine: Machine) -> None:
    (machine.bin / "dpkg-query").unlink()
    done = machine.bootstrap("run")
    assert done.returncode == 3
    missing = "git xz gcc flex bison bc perl"
    assert done.stderr == f"bootstrap: this is not Debian; please install: {missing}\n"
    for name in missing.split():
        machine.fake(name, "")
    assert machine.bootstrap("run").returncode == 0
    (machine.bin / "flex").unlink()
    assert machine.bootstrap("run").returncode == 3


def test_old_python(machine: Machine) -> None:
    machine.set("old", "3.9.2")
    done = machine.bootstrap("env")
    assert done.returncode == 3
    assert "Python 3.9.2; install Python 3.11" in done.stderr


def test_pip_that_fails_is_tried_again(machine: Machine) -> None:
    flag = machine.set("no-pip")
    done = machine.bootstrap("env")
    assert done.returncode == 3
    assert "ERROR: cannot pip" in done.stderr
    flag.unlink()
    machine.calls()
    assert machine.bootstrap("env").returncode == 0
    assert len(machine.calls()) == 4


def test_interrupted_venv_is_made_anew(machine: Machine) -> None:
    machine.bootstrap("env")
    leftover = machine.checkout / ".venv/leftover"
    leftover.touch()
    machine.calls()
    # Another Python comes, is interrupted, and goes: what is there fits neither.
    machine.set("version", "Python 3.13.1")
    flag = machine.set("killed")
    assert machine.bootstrap("env").returncode == -signal.SIGKILL
    machine.set("version", "Python 3.11.2")
    flag.unlink()
    assert machine.bootstrap("env").returncode == 0
    assert [call.split()[0] for call in machine.calls()] == [
        "venv",
        "pip",
        "venv",
        "pip",
        "pip",
        "pip",
    ]
    assert not leftover.exists()


def test_two_at_once(machine: Machine) -> None:
    machine.set("slow", "1")
    with ThreadPoolExecutor() as pool:
        first = pool.submit(machine.bootstrap, "env")
        deadline = time.monotonic() + 10
        while "pip" not in (machine.folder / "calls").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        second = pool.submit(machine.bootstrap, "env")
    assert first.result().returncode == second.result().returncode == 0
    assert "waiting for another" in second.result().stderr
    assert [call.split()[0] for call in machine.calls()] == ["venv", "pip", "pip", "pip"]


def test_lock_is_not_held_by_what_it_ends_in(machine: Machine) -> None:
    machine.bootstrap("env")
    (machine.checkout / ".venv/bin/iommuq").write_text("#!/bin/sh\n[ ! -e /proc/self/fd/9 ]\n")
    machine.lacks("flex")
    machine.set("uid", "0")
    assert machine.bootstrap("run").returncode == 0
    assert machine.calls(), "the way through the lock was not taken"


@pytest.mark.parametrize("name", ["pyproject.toml", "requirements.txt"])
def test_venv_follows_the_files_it_is_made_from(machine: Machine, name: str) -> None:
    machine.bootstrap("env")
    machine.calls()
    with (machine.checkout / name).open("a") as file:
        file.write("# changed\n")
    machine.bootstrap("env")
    assert len(machine.calls()) == 4


def test_venv_follows_python_and_the_place(machine: Machine) -> None:
    machine.bootstrap("env")
    machine.calls()
    machine.set("version", "Python 3.13.1")
    machine.bootstrap("env")
    assert len(machine.calls()) == 4
    # The scripts in .venv name the place, so a copy must not use them.
    machine.checkout = machine.checkout.rename(machine.folder / "moved")
    machine.bootstrap("env")
    assert len(machine.calls()) == 4


def test_another_place_for_the_venv(machine: Machine) -> None:
    precious = machine.folder / "home"
    precious.mkdir()
    (precious / "thesis").touch()
    done = machine.bootstrap("env", IOMMUQ_VENV=str(precious))
    assert done.returncode == 2
    assert [path.name for path in precious.iterdir()] == ["thesis"]
    assert machine.bootstrap("env", IOMMUQ_VENV="relative").returncode == 0
    assert (machine.folder / "relative/bin/iommuq").exists()
    assert not (machine.checkout / ".venv").exists()


def test_run_hands_over(machine: Machine) -> None:
    done = machine.bootstrap("run", "6.12", "two words")
    assert machine.calls()[-1] == "iommuq run 6.12 two words"
    assert done.returncode == 0
    machine.set("no-iommuq")
    assert machine.bootstrap("run").returncode == 1


CHECKS = ["ruff check", "ruff format --check", "mypy ", "lint-imports --no-logo"]
PLAIN = "pytest -m pytest -n 4 --dist worksteal -m not real"


def test_checks_come_before_the_tests(machine: Machine) -> None:
    assert machine.bootstrap("test", "-k", "x").returncode == 0
    real = "pytest -m pytest -m real and not full -k x"
    assert machine.calls()[4:] == [*CHECKS, f"{PLAIN} -k x", real]
    assert machine.bootstrap("check-all").returncode == 0
    assert machine.calls() == [*CHECKS, PLAIN, "pytest -m pytest -m real", "fuzz.py "]
    assert machine.bootstrap("check-all", "-k", "x").returncode == 0
    assert not any("fuzz" in call for call in machine.calls())
    assert machine.bootstrap("check").returncode == 0
    assert machine.calls() == [*CHECKS, f"{PLAIN} and not hostile"]
    for name in ("mypy", "lint-imports"):
        machine.set(f"no-{name}")
        assert machine.bootstrap("test").returncode == 1
        assert not any("pytest" in call for call in machine.calls())


def test_fuzz_installs_what_it_needs(machine: Machine) -> None:
    assert machine.bootstrap("env").returncode == 0
    machine.set("no-atheris")
    machine.calls()
    assert machine.bootstrap("fuzz", "--only", "dmar").returncode == 0
    [pip, fuzzer] = machine.calls()
    assert pip.startswith("pip -m pip install --no-input --require-hashes -r ")
    assert pip.endswith("/requirements-fuzz.txt")
    assert fuzzer == "fuzz.py --only dmar"


@pytest.mark.parametrize("word", ["no-pip", "no-wheel"])
def test_no_fuzzer_for_this_machine(machine: Machine, word: str) -> None:
    assert machine.bootstrap("env").returncode == 0
    machine.set("no-atheris")
    machine.set(word)
    done = machine.bootstrap("fuzz")
    assert done.returncode == 3
    assert "atheris" in done.stderr.splitlines()[-1]
    done = machine.bootstrap("check-all")
    assert done.returncode == 0
    assert done.stderr.splitlines()[-1] == "bootstrap: skipped: the fuzzer"
    assert not any(call.startswith("fuzz") for call in machine.calls())


@pytest.mark.parametrize(
    ("plain", "real", "code"),
    [(0, 0, 0), (1, 0, 1), (0, 1, 1), (5, 0, 0), (0, 5, 0), (5, 5, 5), (2, 0, 2), (5, 1, 1)],
)
def test_both_halves_of_the_tests_count(machine: Machine, plain: int, real: int, code: int) -> None:
    """5 is pytest's for arguments that choose no test: one half may have none."""
    machine.set("pytest-4--dist", str(plain))
    machine.set("pytest-real and not full", str(real))
    assert machine.bootstrap("test").returncode == code


def test_make_keeps_its_flags_to_itself(machine: Machine) -> None:
    done = machine.run("make", "-C", "a checkout", "-j2", "run", "ARGS=6.12 --at 0001")
    assert done.returncode == 0
    assert machine.calls()[-1] == "iommuq run 6.12 --at 0001"
    assert "MAKEFLAGS=unset" in done.output


def test_bad_command(machine: Machine) -> None:
    for args in ((), ("frobnicate",)):
        done = machine.bootstrap(*args)
        assert done.returncode == 2
        assert "usage:" in done.stderr
    assert machine.bootstrap("--help").output.startswith("usage:")
    assert machine.calls() == []


class Pin(NamedTuple):
    """An entry of the lock."""

    requirement: Requirement
    hashes: list[str]


def lock() -> list[Pin]:
    text = (ROOT / "requirements.txt").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and line[0] != "#"]
    return [
        Pin(Requirement(line.split(" --")[0]), re.findall(r"--hash=(\S+)", line)) for line in lines
    ]


def test_the_lock_has_what_the_project_asks_for() -> None:
    """Each with a version and hashes, and no registry of packages is named."""
    text = (ROOT / "requirements.txt").read_text()
    assert "://" not in text
    assert "index" not in text
    assert "uv pip compile" in text.splitlines()[1]
    pins = lock()
    for pin in pins:
        assert re.fullmatch(r"==[\w.]+", str(pin.requirement.specifier)), pin
        assert pin.hashes
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", each) for each in pin.hashes)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    asked = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    asked += project["project"]["optional-dependencies"]["dev"]
    for each in map(Requirement, asked):
        # Debian 12 has 3.11.2.
        for python in ("3.11.2", "3.13.1"):
            there = [
                str(pin.requirement.specifier).removeprefix("==")
                for pin in pins
                if canonicalize_name(pin.requirement.name) == canonicalize_name(each.name)
                and (
                    pin.requirement.marker is None
                    or pin.requirement.marker.evaluate({"python_full_version": python})
                )
            ]
            assert len(there) == 1, each
            assert there[0] in each.specifier


def wheel(folder: Path, name: str) -> str:
    """Make a package without content, and return its sha256."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        tags = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        file.writestr(f"{info}/WHEEL", tags)
        file.writestr(f"{info}/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.hostile
def test_a_package_with_another_hash(machine: Machine) -> None:
    """With pip itself: nothing of that package is installed."""
    hashes = {name: wheel(machine.folder, name) for name in ("setuptools", "toy")}
    (machine.bin / "python3").unlink()
    environment = {
        "PATH": f"{machine.bin}:{os.environ['PATH']}",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(machine.folder),
        "PIP_CONFIG_FILE": os.devnull,
    }

    def bootstrap() -> Completed:
        lines = [f"{name}==1.0 \\\n    --hash=sha256:{value}\n" for name, value in hashes.items()]
        (machine.checkout / "requirements.txt").write_text("".join(lines))
        return machine.bootstrap("env", **environment)

    def installed() -> list[str]:
        found = machine.checkout.glob(".venv/lib/python*/site-packages/toy-1.0.dist-info")
        return [path.name for path in found]

    good, hashes["toy"] = hashes["toy"], "0" * 64
    done = bootstrap()
    assert done.returncode == 3
    *_, what, hint = done.stderr.splitlines()
    assert "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES" in what
    assert str(machine.folder / "state/logs/bootstrap.log") in hint
    assert installed() == []
    hashes["toy"] = good
    # The project cannot be built with that setuptools.
    assert "DO NOT MATCH" not in bootstrap().stderr
    assert len(installed()) == 1
