# SPDX-License-Identifier: GPL-2.0-only
"""The process that gives inputs to parsers; prints a line of JSON for each event.

``child.py shapes SECONDS FOLDER PARSER`` reads large inputs, and keeps those that failed in
FOLDER.  ``child.py mutate SECONDS FOLDER PARSER SEED...`` makes inputs with atheris; FOLDER
keeps those that reached new code.  ``child.py repeat PARSER FILE`` reads one.

The input that a parser has is in FOLDER/input, after its length: our parent reads it there if
the call does not end.
"""

from __future__ import annotations

import json
import mmap
import os
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from types import FrameType
from typing import Any

if sys.argv[1:2] == ["mutate"]:
    import atheris

    # It sees what words a parser looks for; its hook for regular expressions fails on ours.
    atheris.enabled_hooks.add("str")
    # The code that shows the fuzzer which inputs are new.
    with atheris.instrument_imports(
        include=["iommuq", "tomllib", "tarfile"], enable_loader_override=False
    ):
        import fuzzed
else:
    import fuzzed

import iommuq
from fuzzed import CORPUS, PARSERS, Parser
from guarded import Find, attempt, smaller
from shapes import shapes

_PACKAGE = str(Path(iommuq.__file__).parent)
# Bytes of a large input; seconds for making a find smaller, and for counting lines.
_SIZE = 256 << 10
_SMALLER, _COUNTING = 5.0, 20.0


def say(**fields: Any) -> None:
    """Print an event."""
    print(json.dumps(fields), flush=True)


def kept(name: str) -> list[Path]:
    """Return the inputs of a parser in the repository, the finds last."""
    folder = CORPUS / name
    paths = [*sorted(folder.glob("*")), *sorted(folder.glob("finds/*"))]
    return [path for path in paths if path.is_file()]


def report(find: Find, data: bytes, folder: Path) -> None:
    """Keep the input of a find in a directory, and print it."""
    path = folder / sha256(data).hexdigest()[:12]
    folder.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    say(find=find.fields(), path=str(path))


def stretch(parser: Parser, seconds: float, folder: Path) -> None:
    """Give a parser large shapes of what is kept for it."""
    until = time.monotonic() + seconds
    seeds = [path.read_bytes() for path in kept(parser.name) if path.parent.name != "finds"]
    seen: set[str] = set()
    inputs = 0
    for name, make in shapes(seeds, _SIZE):
        if time.monotonic() > until:
            break
        inputs += 1
        data = make()
        (folder / "input").write_bytes(len(data).to_bytes(8, "little") + data)
        find = attempt(parser, data)
        if find is not None and find.key not in seen:
            seen.add(find.key)
            report(replace(find, text=f"{name}: {find.text}"), data, folder)
    say(parser=parser.name, inputs=inputs)


def mutate(parser: Parser, seconds: float, folder: Path, seeds: list[str]) -> None:
    """Make inputs until the time is over; does not return."""
    until = time.monotonic() + seconds
    inputs, last = 0, time.monotonic()
    seen: set[str] = set()
    with (folder / "input").open("w+b") as file:
        file.truncate(8 + fuzzed.MIB)
        current = mmap.mmap(file.fileno(), 0)
    made = folder / "made"
    made.mkdir(exist_ok=True)

    def once(data: bytes) -> None:
        nonlocal inputs, last
        current[: 8 + len(data)] = len(data).to_bytes(8, "little") + data
        find = attempt(parser, data)
        inputs += 1
        if find is not None and find.key not in seen:
            seen.add(find.key)
            small = smaller(parser, data, find, _SMALLER)
            report(find, small, CORPUS / parser.name / "finds")
        now = time.monotonic()
        if now > last + 1 or now > until:
            last = now
            say(inputs=inputs)
        if now > until:
            end()

    def end() -> None:
        inputs_kept = [path.read_bytes() for path in sorted(made.iterdir()) if path.is_file()]
        inputs_kept += [Path(seed).read_bytes() for seed in seeds]
        say(parser=parser.name, inputs=inputs, lines=covered(parser, inputs_kept))
        os._exit(0)

    for seed in seeds:
        once(Path(seed).read_bytes()[: fuzzed.MIB])
    first = [str(made), *sorted({str(Path(seed).parent) for seed in seeds})]
    options = [f"-max_len={parser.size}", "-rss_limit_mb=0", "-verbosity=0", "-use_value_profile=1"]
    atheris.Setup([sys.argv[0], *options, *first], once, internal_libfuzzer=True)
    atheris.Fuzz()


def covered(parser: Parser, inputs: Iterable[bytes]) -> int:
    """Return the number of lines of the package that some inputs reach."""
    lines: set[tuple[str, int]] = set()

    def in_line(frame: FrameType, event: str, _argument: object) -> Any:
        if event == "line":
            lines.add((frame.f_code.co_filename, frame.f_lineno))
        return in_line

    def in_call(frame: FrameType, _event: str, _argument: object) -> Any:
        return in_line if frame.f_code.co_filename.startswith(_PACKAGE) else None

    until = time.monotonic() + _COUNTING
    for data in inputs:
        if time.monotonic() > until:
            break
        sys.settrace(in_call)
        try:
            attempt(parser, data, factor=10)
        finally:
            sys.settrace(None)
    return len(lines)


def main() -> int:
    """Do what the arguments say; return 1 if an input that was named failed."""
    verb, *words = sys.argv[1:]
    known = {parser.name: parser for parser in PARSERS}
    if verb == "shapes":
        stretch(known[words[2]], float(words[0]), Path(words[1]))
    elif verb == "mutate":
        seconds, folder, name, *seeds = words
        mutate(known[name], float(seconds), Path(folder), seeds)
    else:
        find = attempt(known[words[0]], Path(words[1]).read_bytes())
        print(find or f"{words[0]}: nothing wrong")
        return int(find is not None)
    return 0


if __name__ == "__main__":
    sys.exit(main())
