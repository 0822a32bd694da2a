# SPDX-License-Identifier: GPL-2.0-only
"""docs/git.md names every place that runs git itself, and no other."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator

from iommuq.system.files import project_root

#: What runs git: of this package, and a program of that name.
_RUNNERS = {"git", "_git", "tree_git", "person", "_inside", "run", "pipeline"}
#: Words that git has, too, in modules that mean something else.
_OTHERS = {("bases/sources.py", "commit"), ("build/directory.py", "config")}


def _first_words(tree: ast.Module) -> Iterator[str]:
    """Yield the first words of what may be the arguments of git."""
    for node in ast.walk(tree):
        words: list[ast.expr] = []
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            words = [*node.args] if name in _RUNNERS else []
        elif isinstance(node, (ast.Tuple, ast.List)):
            words = [*node.elts]
        flat = [
            each
            for word in words
            for each in (
                word.value.elts
                if isinstance(word, ast.Starred) and isinstance(word.value, ast.Tuple)
                else [word]
            )
        ]
        texts = [each.value for each in flat if isinstance(each, ast.Constant)]
        yield from (text for text in texts[:6] if isinstance(text, str))


def _commands() -> set[str]:
    done = subprocess.run(["git", "--list-cmds=main"], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def _in_code() -> set[tuple[str, str]]:
    tools = project_root() / "tools"
    commands = _commands()
    found = set()
    for path in [*tools.glob("iommuq/**/*.py"), *tools.glob("iommudrivers/**/*.py")]:
        text = path.read_text(encoding="utf-8")
        if re.search(r"system\.git|\bgit\(|\"git\"|_git\(|\bperson\(", text):
            name = str(path.relative_to(tools)).removeprefix("iommuq/")
            found |= {(name, word) for word in _first_words(ast.parse(text)) if word in commands}
    assert found >= _OTHERS, "one of them is gone"
    return found - _OTHERS


def _in_page() -> set[tuple[str, str]]:
    page = (project_root() / "docs/git.md").read_text(encoding="utf-8")
    found = set()
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `"):
            modules = re.findall(r"`([\w/]+\.py)`", cells[1])
            found |= {(each, word) for each in modules for word in re.findall(r"`(\S+)`", cells[0])}
    return found


def test_the_page_names_every_call() -> None:
    code, page = _in_code(), _in_page()
    assert len(code) > 30
    assert code - page == set(), "add them to docs/git.md"
    assert page - code == set(), "docs/git.md names calls that are gone"


def test_modules_exist() -> None:
    for name, _ in _in_page():
        tools = project_root() / "tools"
        assert (tools / "iommuq" / name).is_file() or (tools / name).is_file()
