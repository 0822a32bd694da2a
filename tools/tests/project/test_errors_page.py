# SPDX-License-Identifier: GPL-2.0-only
"""docs/errors.md has every message of the program, and no other."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from iommuq.system import errors

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "tools/iommuq"
PAGE = ROOT / "docs/errors.md"


def texts(node: ast.expr) -> list[str]:
    """Return what an expression may be, with … for what is not written there."""
    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.JoinedStr():
            return ["".join(text for part in node.values for text in texts(part)[:1])]
        case ast.BinOp(op=ast.Add()):
            return [left + right for left in texts(node.left) for right in texts(node.right)]
        case ast.IfExp():
            return texts(node.body) + texts(node.orelse)
        case _:
            return ["…"]


def plain(text: str) -> str:
    # Two blanks to be filled in side by side are one, and a span has no quotes of its own.
    return re.sub(r"…(\s*…)*", "…", text).replace("`", "'").strip()


def name_of(node: ast.expr) -> str:
    return str(getattr(node, "id", getattr(node, "attr", "")))


def messages() -> dict[str, str]:
    """Return the messages that are in the program, and where."""
    trees = {path: ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}
    kinds = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.IommuqError)
    }
    nodes = [(path, node) for path, tree in trees.items() for node in ast.walk(tree)]
    before: set[str] = set()
    while before != kinds:
        before = set(kinds)
        kinds |= {
            node.name
            for _, node in nodes
            if isinstance(node, ast.ClassDef) and any(name_of(base) in kinds for base in node.bases)
        }
    return {
        plain(text): f"{path.relative_to(ROOT)}:{node.lineno}"
        for path, node in nodes
        if isinstance(node, ast.Call) and name_of(node.func) in kinds and node.args
        for text in texts(node.args[0])
        if text
    }


def documented() -> list[str]:
    text = re.sub(r"\n  (?=\S)", " ", PAGE.read_text())
    heads = re.findall(r"^- ((?:`[^`]+`(?: · )?)+): \S", text, re.MULTILINE)
    assert len(heads) == len(re.findall(r"^- ", text, re.MULTILINE))
    return [span for head in heads for span in re.findall(r"`([^`]+)`", head)]


def test_every_message_has_its_cure() -> None:
    there = set(documented())
    missing = {text: where for text, where in messages().items() if text not in there}
    assert not missing, "add them to docs/errors.md, each with what to do: " + "; ".join(
        f"`{text}` ({where})" for text, where in missing.items()
    )


def test_no_message_is_of_the_past() -> None:
    there = documented()
    assert sorted(there) == sorted(set(there))
    assert not set(there) - set(messages())


def test_what_is_not_written_there_is_left_open() -> None:
    tree = ast.parse("f'{a} {b}: no `x`' + c if d else 'y'", mode="eval")
    assert [plain(text) for text in texts(tree.body)] == ["…: no 'x'…", "y"]
