# SPDX-License-Identifier: GPL-2.0-only
"""The tests in the sources, with their preprocessor conditions; nothing is built."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from iommuq.build.workspace import Workspace
from iommuq.firmware import scenario
from iommuq.suites.kunit import SPLAT_CASE
from iommuq.suites.selftest import BUILDS, ENDS, KERNEL, Suite, load_suites
from iommuq.system.errors import VerdictError
from iommuq.system.files import cache_dir
from iommuq.system.git.objects import Objects
from iommuq.system.temporary import temporary_folder

#: The file of the checks of a whole KUnit kernel, relative to the checkout.
KUNIT_WHOLE = Path("kunit/overlay.toml")
#: The same for the userspace suites; also for the suites of the kernel tree.
SELFTEST_WHOLE = Path("selftests/suites.toml")

#: Folders of KUnit suites, and the option that those of each need; empty: none.
KUNIT_FOLDERS = {"kunit": "", "explore": "CONFIG_IOMMU_SIM"}

_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*|(\"(?:\\.|[^\"\\\n])*\")", re.DOTALL)
_DIRECTIVE = re.compile(r"\s*#\s*(if|ifdef|ifndef|elif|else|endif)\b\s*(.*)")
_INCLUDE = re.compile(r'\s*#\s*include\s+"([^"]+)"')
_CASES = re.compile(r"\bstruct kunit_case\s+(\w+)\s*\[\]\s*=\s*\{(.*?)\n\};", re.DOTALL)
_CASE = re.compile(r"\bKUNIT_CASE\w*\(\s*(\w+)")
_SUITE = re.compile(r"\bstruct kunit_suite\s+\w+\s*=\s*\{(.*?)\n\};", re.DOTALL)
_SUITE_NAME = re.compile(r'\.name\s*=\s*"([^"]+)"')
_SUITE_CASES = re.compile(r"\.test_cases\s*=\s*(\w+)")
# TEST_F(fixture, name), TEST_F_TIMEOUT(fixture, name, seconds), TEST(name), and similar macros.
_TEST = re.compile(r"^TEST\w*\(\s*(\w+)\s*(?:,\s*(\w+))?", re.MULTILINE)
_VARIANT = re.compile(r"^FIXTURE_VARIANT_ADD\(\s*(\w+)\s*,\s*(\w+)\s*\)", re.MULTILINE)


@dataclass(frozen=True)
class Found:
    """A test in a source.

    :ivar test: its name in results.
    :ivar line: its line, from 1; 0 without one.
    :ivar condition: its preprocessor conditions; may be empty.
    """

    test: str
    line: int = 0
    condition: str = ""


def kunit_cases(path: Path, option: str = "") -> list[Found]:
    """Return the cases of a file, in order.

    :param option: what the kernel must have for the file.
    """
    text = _plain(path)
    arrays = {match[1]: match for match in _CASES.finditer(text)}
    outer = " && ".join(filter(None, (option, _included_under(path))))
    under = _conditions(text)
    found = []
    for match in _SUITE.finditer(text):
        name, cases = _SUITE_NAME.search(match[1]), _SUITE_CASES.search(match[1])
        array = arrays.get(cases[1]) if cases else None
        if name is None or array is None:
            continue
        for case in _CASE.finditer(text, array.start(2), array.end(2)):
            line = text.count("\n", 0, case.start()) + 1
            condition = " && ".join(filter(None, (outer, under[line - 1])))
            found.append(Found(f"{name[1]}.{case[1]}", line, condition))
    return found


def kunit_whole() -> list[Found]:
    """Return the checks of a whole KUnit kernel."""
    return [Found(SPLAT_CASE)]


def program_cases(suite: str, text: str) -> list[Found]:
    """Return the tests in the source *text* of a program that uses kselftest_harness.h."""
    text = _blank(text)
    variants: dict[str, list[str]] = {}
    for match in _VARIANT.finditer(text):
        variants.setdefault(match[1], []).append(match[2])
    under = _conditions(text)
    found = []
    for match in _TEST.finditer(text):
        # Without a fixture the harness uses the name "global".
        fixture, test = (match[1], match[2]) if match[2] else ("global", match[1])
        line = text.count("\n", 0, match.start()) + 1
        for variant in variants.get(fixture, [""]):
            name = ".".join(filter(None, (suite, fixture, variant, test)))
            found.append(Found(name, line, under[line - 1]))
    return found


def own_programs(root: Path) -> dict[Path, Suite]:
    """Return the programs of the project: source and suite."""
    return {
        root / "selftests/iommu" / f"{suite.name}.c": suite
        for suite in load_suites(root)
        if suite.source == "project"
    }


def selftest_whole(root: Path, base: str, at: str | None) -> list[Found]:
    """Return the tests that are not in a source of the project.

    :param base: the base whose sources are searched, if they are in the cache.
    :param at: the step of its queue; None for the last.
    """
    suites = load_suites(root)
    found = [Found(SPLAT_CASE)]
    found += [Found(f"{suite.name}.{what}") for suite in suites for what in (BUILDS, ENDS)]
    texts = _tree_sources([s for s in suites if s.source == "kernel"], base, at)
    for suite in suites:
        if suite.name in texts:
            # Not of this checkout: the place in it would say nothing.
            for each in program_cases(suite.name, texts[suite.name]):
                found.append(Found(each.test, 0, each.condition))
    return found


def _tree_sources(suites: Sequence[Suite], base: str, at: str | None) -> dict[str, str]:
    """Return the sources of the programs in the tree; none if the base is not fetched."""
    if not (cache_dir() / "bases" / base / "repo.git").is_dir():
        return {}
    workspace = Workspace.open(base)
    try:
        tree = workspace.step(at).tree
    except VerdictError:
        # The run reports the patch that does not apply.
        return {}
    with temporary_folder("inventory") as folder:
        store = Objects(workspace.base.git_dir, folder)
        texts = {suite.name: store.read_file(tree, f"{KERNEL}/{suite.name}.c") for suite in suites}
    return {name: text.decode("utf-8", "replace") for name, text in texts.items() if text}


def checks(name: str) -> list[Found]:
    """Return the checks of a firmware scenario, on each of its machines."""
    one = scenario.load_scenario(name)
    return [Found(one.test(on, check)) for on in one.machines for check in one.checks(on)]


def everything(lane: str, root: Path, base: str, at: str | None) -> Iterator[Found]:
    """Yield all tests of a lane: ``kunit``, ``selftest`` or ``firmware``."""
    if lane == "kunit":
        yield from kunit_whole()
        for folder, option in KUNIT_FOLDERS.items():
            for path in sorted((root / folder).rglob("*.c")):
                yield from kunit_cases(path, option)
    elif lane == "selftest":
        yield from selftest_whole(root, base, at)
        for path, suite in own_programs(root).items():
            yield from program_cases(suite.name, path.read_text("utf-8", "replace"))
    else:
        for name in scenario.names():
            yield from checks(name)


def _plain(path: Path) -> str:
    return _blank(path.read_text("utf-8", "replace"))


def _blank(text: str) -> str:
    """Return a source with blanks for comments; line numbers are kept."""
    return _COMMENT.sub(lambda m: m[1] or re.sub(r"[^\n]", " ", m[0]), text)


def _conditions(text: str) -> list[str]:
    """Return the preprocessor conditions of each line of a source."""
    stack: list[str] = []
    found = []
    for line in text.split("\n"):
        match = _DIRECTIVE.match(line)
        if match:
            word, rest = match[1], " ".join(match[2].split())
            if word == "endif" and stack:
                stack.pop()
            elif word in ("else", "elif") and stack:
                stack[-1] = f"!({stack[-1]})" + (f" && {rest}" if rest else "")
            elif word in ("if", "ifdef", "ifndef"):
                stack.append({"if": "", "ifdef": "", "ifndef": "!"}[word] + rest)
        found.append(" && ".join(stack))
    return found


def _included_under(path: Path) -> str:
    """Return the conditions of the #include of a file in its folder."""
    for other in sorted(path.parent.glob("*.c")):
        text = _plain(other)
        for line, condition in zip(text.split("\n"), _conditions(text), strict=True):
            match = _INCLUDE.match(line)
            if match and match[1] == path.name:
                return condition
    return ""
