# SPDX-License-Identifier: GPL-2.0-only
"""Give the parsers of untrusted bytes inputs that they have not seen: `make fuzz`.

Each parser reads the kept inputs, large shapes of them, and then what atheris makes of them.
What is found is kept in tools/tests/data/fuzz/PARSER/finds, and reported with the command that
repeats it.  Exit codes: 0 nothing found, 1 found, 2 bad argument, 3 the machine, 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shlex
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from fuzzed import CORPUS, PARSERS, Parser
from guarded import Find
from iommuq.system.errors import (
    EXIT_INFRA,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_VERDICT,
    CommandTimeout,
    InfraError,
    IommuqError,
    UserError,
)
from iommuq.system.files import cache_dir
from iommuq.system.run import describe_status, run, tail

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
#: Names a directory with tables of real machines, as in /sys/firmware/acpi/tables.
TABLES = "IOMMUQ_FUZZ_TABLES"
# Seconds that a child may take besides its time; of the time of a parser, the share of shapes;
# the most seconds for a parser.
_MORE, _SHAPES = 180.0, 0.25
_MOST = 7 * 24 * 3600.0


@dataclass
class Tally:
    """What was done with a parser.

    :ivar lines: of the package, that the inputs reach.
    :ivar finds: their number; each was printed, with the command that repeats it.
    """

    parser: Parser
    inputs: int = 0
    lines: int = 0
    finds: int = 0
    done: bool = False

    def take(self, event: dict[str, Any]) -> None:
        """Count an event of a child."""
        if "find" in event:
            place = Path(event["path"])
            if place.is_relative_to(ROOT):
                place = place.relative_to(ROOT)
            how = f"--only {self.parser.name} --repeat {shlex.quote(str(place))}"
            self.finds += 1
            print(f"{Find(**event['find'])}\n  tools/bootstrap fuzz {how}", flush=True)
            return
        self.inputs = event["inputs"]
        self.lines = event.get("lines", 0)
        self.done = "parser" in event


@contextmanager
def _environment() -> Iterator[dict[str, str]]:
    """Yield the variables for a child, whose files go into a directory of their own."""
    with tempfile.TemporaryDirectory(prefix="iommuq-fuzz-") as folder:
        paths = [str(HERE), str(ROOT / "tools"), str(ROOT / "tools/tests/support")]
        yield {
            "TMPDIR": folder,
            "IOMMUQ_CACHE_DIR": f"{folder}/cache",
            "PYTHONPATH": os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")]),
            "PYTHONHASHSEED": "0",
        }


def _child(words: Sequence[str], tally: Tally, timeout: float) -> None:
    """Run a child to its end.

    :raises CommandTimeout: it did not end in time.
    :raises InfraError: it ended without a last word.
    """
    with _environment() as environment:
        done = run(
            [sys.executable, "-P", str(HERE / "child.py"), *words],
            cwd=ROOT,
            env=environment,
            on_line=lambda line: tally.take(json.loads(line)) if line.startswith("{") else None,
            timeout=timeout,
            check=False,
            watched=True,
        )
    if done.returncode != 0 or not tally.done:
        how = "killed" if done.returncode == -signal.SIGKILL else describe_status(done.returncode)
        raise InfraError(f"{words[0]} {words[1]}: {how}", hint=tail(done.stderr, 1))


def given(parser: Parser, verb: str, seconds: float, *seeds: Path) -> Tally:
    """Let a child give inputs to a parser.

    :param verb: ``shapes`` or ``mutate``; see child.py.
    :raises InfraError: the child was killed, or could not begin.
    """
    tally, folder = Tally(parser), cache_dir() / "fuzz" / parser.name
    folder.mkdir(parents=True, exist_ok=True)
    last = folder / "input"
    last.unlink(missing_ok=True)
    words = [verb, str(seconds), str(folder), parser.name, *map(str, seeds)]
    try:
        _child(words, tally, seconds + _MORE)
    except InfraError as error:
        # A parser that does not return, or that brings Python down, has said nothing itself.
        data = _last_input(last)
        if data is None or error.what.endswith(": killed"):
            raise
        place = folder if verb == "shapes" else CORPUS / parser.name / "finds"
        place.mkdir(parents=True, exist_ok=True)
        path = place / sha256(data).hexdigest()[:12]
        path.write_bytes(data)
        kind = "Hang" if isinstance(error, CommandTimeout) else "Crash"
        tally.take({"find": Find(parser.name, kind, "?", error.what).fields(), "path": str(path)})
    finally:
        last.unlink(missing_ok=True)
    return tally


def _last_input(path: Path) -> bytes | None:
    data = path.read_bytes() if path.exists() else b""
    length = int.from_bytes(data[:8], "little")
    return data[8 : 8 + length] if length else None


def _seeds(parser: Parser) -> list[Path]:
    folder = CORPUS / parser.name
    found = [path for path in (*folder.glob("*"), *folder.glob("finds/*")) if path.is_file()]
    tables = os.environ.get(TABLES)
    if tables and parser.name in ("dmar", "ivrs", "iort", "acpi"):
        for path in sorted(filter(Path.is_file, Path(tables).iterdir())):
            with path.open("rb") as file:
                kind = file.read(4).decode("latin-1").lower()
            found += [path] if kind == parser.name or parser.name == "acpi" else []
    return found


def fuzz(parsers: Sequence[Parser], seconds: float) -> int:
    """Fuzz parsers one after the other, and print a line for each; return the exit code."""
    finds = 0
    for parser in parsers:
        large = given(parser, "shapes", seconds * _SHAPES)
        made = given(parser, "mutate", seconds * (1 - _SHAPES), *_seeds(parser))
        found = large.finds + made.finds
        finds += found
        print(
            f"{parser.name:8} {large.inputs + made.inputs:9} inputs"
            f" {(large.inputs + made.inputs) / seconds:7.0f}/s"
            f" {made.lines:5} lines {found:3} finds",
            flush=True,
        )
    verdict = "FAIL" if finds else "PASS"
    print(f"{verdict}: {len(parsers)} parsers, {finds} finds")
    return EXIT_VERDICT if finds else EXIT_OK


def chosen(names: Sequence[str]) -> list[Parser]:
    """Return the parsers with these names; without names all of them.

    :raises UserError: there is none with a name.
    """
    known = {parser.name: parser for parser in PARSERS}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(f"no parser {unknown[0]!r}", hint=f"there are {', '.join(known)}")
    return [known[name] for name in names] or list(PARSERS)


def main(arguments: Sequence[str]) -> int:
    """Do what the command line says, and return the exit code."""
    reader = argparse.ArgumentParser(prog="fuzz", description=(__doc__ or "").split("\n")[0])
    reader.add_argument("--seconds", type=float, default=60.0, help="for each parser (60)")
    reader.add_argument("--only", action="append", default=[], metavar="PARSER")
    reader.add_argument("--repeat", type=Path, metavar="FILE", help="read one input again")
    told = reader.parse_args(arguments)
    try:
        if told.repeat:
            return _repeated(chosen(told.only), told.repeat)
        parsers = chosen(told.only)
        if not 0 < told.seconds <= _MOST:
            raise UserError(f"--seconds {told.seconds:g}: not between 0 and {_MOST:g}")
        if importlib.util.find_spec("atheris") is None:
            raise InfraError("atheris is not installed", hint="`tools/bootstrap fuzz` installs it")
        return fuzz(parsers, told.seconds)
    except KeyboardInterrupt:
        print(f"interrupted; finds are in {CORPUS}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except IommuqError as error:
        print(f"fuzz: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"fuzz: {error}", file=sys.stderr)
        return EXIT_INFRA


def _repeated(parsers: Sequence[Parser], path: Path) -> int:
    if len(parsers) != 1:
        raise UserError("--repeat needs one parser", hint="--only names it")
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    words = ["repeat", parsers[0].name, str(path.resolve())]
    with _environment() as environment:
        argv = [sys.executable, "-P", str(HERE / "child.py"), *words]
        done = run(argv, cwd=ROOT, env=environment, check=False)
    print((done.output or done.stderr).rstrip())
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
