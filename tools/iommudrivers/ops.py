# SPDX-License-Identifier: GPL-2.0-only
"""Find the drivers of a program: each ``struct iommu_ops``, and its domains."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass

from tree_sitter import Node

from iommudrivers.engine import Engine
from iommudrivers.expressions import Expressions
from iommudrivers.initialisers import Fields, Setting, braces_of, read_list, read_variable
from iommudrivers.program import Program, Unit, Variable
from iommudrivers.values import Kind, Place
from iommuq.queue.csource import descend

#: Types of domains in the table, by macro.
TYPES = {
    "IOMMU_DOMAIN_BLOCKED": "blocked",
    "IOMMU_DOMAIN_IDENTITY": "identity",
    "IOMMU_DOMAIN_UNMANAGED": "unmanaged",
    "IOMMU_DOMAIN_DMA": "dma",
    "IOMMU_DOMAIN_DMA_FQ": "dma-fq",
    "IOMMU_DOMAIN_SVA": "sva",
    "IOMMU_DOMAIN_PLATFORM": "platform",
    "IOMMU_DOMAIN_NESTED": "nested",
}
#: Fields of the operations with a domain.
DOMAINS = ("identity_domain", "blocked_domain", "release_domain", "default_domain")
_OPS = "struct iommu_ops"
_DEFINED = re.compile(rb"struct[ \t]+iommu_ops\b[^;{}()]*=")


@dataclass(frozen=True)
class Ops:
    """The operations of a driver.

    :ivar fields: their values in the definition.
    :ivar changes: fields that are set at run time: field, value and place.
    """

    driver: str
    variable: Variable
    fields: Fields
    changes: tuple[tuple[str, str, Place], ...] = ()

    @property
    def unit(self) -> Unit:
        """Their file."""
        return self.variable.unit

    @property
    def place(self) -> Place:
        """The place of their definition."""
        return Place(self.variable.unit.path, self.variable.line)


@dataclass(frozen=True)
class Domain:
    """A domain that is a variable.

    :ivar key: its name in the engine.
    :ivar kind: its type, a key of `TYPES`; empty if unknown.
    :ivar attach: its attach callback; None without one.
    :ivar problem: why its type or callback is unknown.
    """

    name: str
    key: str
    place: Place
    kind: str = ""
    attach: Setting | None = None
    problem: str = ""


def find_ops(program: Program) -> list[Ops]:
    """Return the operations of all drivers, by path."""
    found = []
    for path, text in program.files.items():
        if not _DEFINED.search(text):
            continue
        unit = program.unit(path)
        for variable in unit.variables.values():
            kind = " ".join(variable.kind.split())
            if kind == _OPS and braces_of(variable.node) is not None:
                fields = read_variable(program, variable)
                changes = tuple(
                    (name, words, place)
                    for owner, name, words, place in _changes(program, unit)
                    # Without a known owner: it may be of any driver.
                    if owner == variable.name or owner not in unit.variables
                )
                found.append(Ops(_title(path), variable, fields, changes))
    return found


def _title(path: str) -> str:
    """Return the usual name of the driver of a file."""
    folder, stem = posixpath.split(posixpath.splitext(path)[0])
    parts = folder.split("/")
    if parts[0] == "arch" and len(parts) > 1:
        return parts[1]
    if stem == "selftest":
        return f"{parts[-1]} {stem}"
    return parts[-1] if stem == "iommu" else stem


def _changes(program: Program, unit: Unit) -> Iterator[tuple[str, str, str, Place]]:
    """Yield assignments to a field with a domain: owner, field, value and place."""
    for path in program.driver_files(unit.path):
        if not path.endswith(".c") or not any(
            re.search(rb"(?:\.|->)" + name.encode() + rb"[ \t]*=[^=]", program.files[path])
            for name in DOMAINS
        ):
            continue
        other = program.unit(path)
        for node in descend(other.source.root):
            if node.type != "assignment_expression":
                continue
            left, right = (node.child_by_field_name(each) for each in ("left", "right"))
            if left is None or right is None or left.type != "field_expression":
                continue
            owner, member = (left.child_by_field_name(each) for each in ("argument", "field"))
            if owner is not None and member is not None and other.of(member) in DOMAINS:
                place = Place(path, other.line(node))
                yield other.of(owner), other.of(member), other.words(right), place


def find_domains(engine: Engine) -> dict[str, Domain]:
    """Find the variables that are domains, and register them in the engine.

    :return: the domains by key.
    """
    program, found = engine.program, {}
    for path, text in program.files.items():
        if not path.endswith(".c") or b"iommu_domain" not in text or b"iommu_ops" not in text:
            continue
        unit = program.unit(path)
        for domain, member in _domains_in(engine, unit):
            found[domain.key] = domain
            engine.objects[path, domain.name] = (domain.key, member)
    return found


def _domains_in(engine: Engine, unit: Unit) -> Iterator[tuple[Domain, str]]:
    program = engine.program
    for name, variable in unit.variables.items():
        if braces_of(variable.node) is None:
            continue
        fields = read_variable(program, variable)
        if " ".join(variable.kind.split()) == "struct iommu_domain":
            yield _domain(engine, unit, name, variable.line, fields), ""
            continue
        for setting in fields.settings:
            if setting.node.type != "initializer_list":
                continue
            inner = read_list(program, setting.unit, setting.node)
            kind = inner.get("type")
            if kind is not None and kind.text in TYPES:
                yield _domain(engine, unit, name, variable.line, inner), setting.name
    for name, node in _without_value(unit):
        if name not in unit.variables:
            domain, member = _set_up_later(engine, unit, name, node)
            if domain is not None:
                yield domain, member


def _domain(engine: Engine, unit: Unit, name: str, line: int, fields: Fields) -> Domain:
    kind, ops = fields.get("type"), fields.get("ops")
    domain = Domain(name, f"{unit.path} {name}", Place(unit.path, line))
    problem = "" if kind is not None and kind.text in TYPES else "its type is not known"
    attach = None
    if ops is None:
        problem = problem or "it is given no ops where it is defined"
    else:
        attach = attach_of(engine.program, ops)
    known = kind.text if kind is not None and kind.text in TYPES else ""
    if known:
        engine.types[domain.key] = type_number(engine, unit, known)
    return Domain(name, domain.key, domain.place, known, attach, problem)


def attach_of(program: Program, ops: Setting) -> Setting | None:
    """Return the attach callback of the domain operations that a field is set to."""
    node = ops.node
    if braces_of(node) is None:
        name = ops.text.removeprefix("&").strip()
        variable = program.variable(ops.unit, name) if name.isidentifier() else None
        if variable is None:
            return None
        return read_variable(program, variable).get("attach_dev")
    return read_list(program, ops.unit, node).get("attach_dev")


def type_number(engine: Engine, unit: Unit, name: str) -> int:
    """Return the number of a type of domains; -1 if unknown."""
    macro = engine.program.macro(unit, name)
    if macro is not None:
        for each in Expressions(engine, unit).expand(*macro, ()):
            if each.kind is Kind.INT:
                return each.number
    return -1


def _without_value(unit: Unit) -> Iterator[tuple[str, Node]]:
    """Yield the static structures without an initialiser."""
    for node in unit.source.root.named_children:
        if node.type != "declaration":
            continue
        words = [unit.of(each) for each in node.children if each.type == "storage_class_specifier"]
        kind = node.child_by_field_name("type")
        if "static" not in words or kind is None or kind.type != "struct_specifier":
            continue
        for each in node.children_by_field_name("declarator"):
            if each.type == "identifier":
                yield unit.of(each), node


def _set_up_later(engine: Engine, unit: Unit, name: str, node: Node) -> tuple[Domain | None, str]:
    """Return the domain in a variable, if a function sets its type."""
    kind = attach = None
    member = ""
    for function in unit.source.functions:
        if name.encode() not in unit.source.of(function.node):
            continue
        pointers = dict(_pointers(unit, function.body, name))
        for each in descend(function.body):
            if each.type != "assignment_expression":
                continue
            left, right = (each.child_by_field_name(side) for side in ("left", "right"))
            if left is None or right is None or left.type != "field_expression":
                continue
            owner, field = (left.child_by_field_name(side) for side in ("argument", "field"))
            if owner is None or field is None:
                continue
            words = unit.of(owner)
            at = pointers.get(words)
            if at is None and (words == name or words.startswith(f"{name}.")):
                at = words.removeprefix(name).removeprefix(".")
            if at is None:
                continue
            if unit.of(field) == "type" and unit.of(right) in TYPES:
                kind, member = unit.of(right), at
            if unit.of(field) == "ops":
                place = Place(unit.path, unit.line(each))
                ops = Setting("ops", unit.words(right), right, unit, place)
                attach = attach_of(engine.program, ops)
    if kind is None:
        return None, ""
    key = f"{unit.path} {name}"
    engine.types[key] = type_number(engine, unit, kind)
    return Domain(name, key, Place(unit.path, unit.line(node)), kind, attach), member


def _pointers(unit: Unit, body: Node, name: str) -> Iterator[tuple[str, str]]:
    """Yield the variables of a function that point to another, or to a member of it."""
    for node in descend(body):
        if node.type != "init_declarator":
            continue
        value = node.child_by_field_name("value")
        inner = node.child_by_field_name("declarator")
        while inner is not None and inner.type != "identifier":
            inner = inner.child_by_field_name("declarator")
        if value is None or inner is None:
            continue
        words = unit.of(value).removeprefix("&")
        if value.type == "pointer_expression" and re.fullmatch(
            rf"{re.escape(name)}(\.\w+)?", words
        ):
            yield unit.of(inner), words.removeprefix(name).removeprefix(".")
