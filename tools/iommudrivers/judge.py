# SPDX-License-Identifier: GPL-2.0-only
"""Judge each driver: its domains, and whether attaching them can fail."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from iommudrivers import regions
from iommudrivers import values as v
from iommudrivers.engine import Engine
from iommudrivers.initialisers import Setting
from iommudrivers.model import Driver, How, Reason, Source, Verdict
from iommudrivers.ops import TYPES, Domain, Ops, attach_of, find_domains, find_ops, type_number
from iommudrivers.program import Program
from iommudrivers.values import Kind, Place, Value, Values

_IDENTITY, _BLOCKED = "IOMMU_DOMAIN_IDENTITY", "IOMMU_DOMAIN_BLOCKED"
_PAGING = "IOMMU_DOMAIN_UNMANAGED"
_ALLOCATE = "domain_alloc"
_ALLOCATE_PAGING = ("domain_alloc_paging_flags", "domain_alloc_paging")
_EMPTY = "the core takes an empty paging domain"


def judge_all(files: Mapping[str, bytes]) -> list[Driver]:
    """Judge the drivers of a tree.

    :param files: its sources by path, as `iommudrivers.sources.read_tree` gives them.
    """
    program = Program(files)
    engine = Engine(program)
    domains = find_domains(engine)
    return [Judge(engine, domains, ops).driver() for ops in find_ops(program)]


class Judge:
    """Judges one driver.

    :param domains: of all drivers, by key.
    """

    def __init__(self, engine: Engine, domains: Mapping[str, Domain], ops: Ops) -> None:
        self._engine = engine
        self._domains = domains
        self._ops = ops
        self._unit = ops.unit

    def driver(self) -> Driver:
        """Return the results."""
        ops = self._ops
        resv = ops.fields.get("get_resv_regions")
        name = _callback(resv) if resv else ""
        found, unknown = regions.find(self._engine.program, self._unit, name) if name else ((), ())
        return Driver(
            ops.driver,
            ops.variable.name,
            ops.place,
            tuple(self._domain("identity_domain", _IDENTITY)),
            tuple(self._domain("blocked_domain", _BLOCKED)),
            self._release(),
            self._default(),
            name,
            found,
            (*ops.fields.unknown, *unknown),
        )

    # The domains.

    def _domain(self, field: str, kind: str) -> Iterator[Source]:
        """Yield the domains of a type."""
        found = False
        for setting in self._ops.fields.all(field):
            found = True
            yield self._static(setting)
        for name, words, place in self._ops.changes:
            if name == field:
                found = True
                yield Source(How.UNDECIDED, words, place, None, ("set at run time",))
        if found:
            return
        if kind == _IDENTITY:
            own = self._ops.fields.get("domain_alloc_identity")
            if own is not None:
                yield from self._allocated(own, kind, [])
                return
        allocate = self._ops.fields.get(_ALLOCATE)
        sources: list[Source] = []
        if allocate is not None:
            number = type_number(self._engine, self._unit, kind)
            sources = list(self._allocated(allocate, kind, [v.number(number)]))
        sources = [each for each in sources if each.how is not How.NONE]
        yield from sources or (self._empty_paging() if kind == _BLOCKED else (Source(How.NONE),))

    def _empty_paging(self) -> Iterator[Source]:
        """Yield the empty paging domain that the core uses without a blocked domain."""
        found = False
        for field in (_ALLOCATE, *_ALLOCATE_PAGING):
            setting = self._ops.fields.get(field)
            if setting is None:
                continue
            number = type_number(self._engine, self._unit, _PAGING)
            given = [v.number(number)] if field == _ALLOCATE else []
            for each in self._allocated(setting, _PAGING, given):
                if each.how is How.ALLOCATED:
                    found = True
                    yield Source(
                        How.NONE, each.name, each.place, each.verdict, (_EMPTY, *each.notes)
                    )
            if found:
                return
        yield Source(How.NONE)

    def _static(self, setting: Setting) -> Source:
        """Return the domain in a field."""
        name = setting.text.removeprefix("&").strip()
        notes = [f"under {setting.condition}"] if setting.condition else []
        parts = name.split(".")
        member = ".".join(parts[1:])
        value = self._engine.object_of(setting.unit, parts[0], member)
        domain = self._domains.get(value.name) if value is not None else None
        if domain is None or value is None:
            return Source(How.UNDECIDED, name, setting.place, None, ("it is not a known variable",))
        if domain.problem:
            notes.append(domain.problem)
        if domain.attach is None:
            problem = "its attach callback was not found"
            return Source(How.STATIC, name, domain.place, None, (*notes, problem))
        verdict = self.attach(domain.attach, value)
        return Source(How.STATIC, name, domain.place, verdict, tuple(notes))

    def _allocated(self, setting: Setting, kind: str, given: Sequence[Values]) -> Iterator[Source]:
        """Yield the domains that a callback of the driver may return."""
        name = _callback(setting)
        found = self._engine.returns(setting.unit, name, given)
        starts = self._engine.program.functions(setting.unit, name)
        place = setting.place
        if starts:
            place = Place(starts[0].unit.path, starts[0].function.start)
        fails = any(each.kind in (Kind.NULL, Kind.ERRPTR) and each.place for each in found)
        known = [each for each in found if each.kind is Kind.OBJ]
        for each in sorted(known, key=lambda one: one.name):
            domain = self._domains[each.name]
            verdict = self.attach(domain.attach, each) if domain.attach else None
            yield Source(How.STATIC, domain.name, domain.place, verdict, (f"from {name}()",))
        if not any(each.kind in (Kind.PTR, Kind.ANY, Kind.POSITIVE) for each in found):
            if not known:
                yield Source(How.NONE)
            return
        note = f"{name}() can fail, too" if fails else f"{name}() never fails"
        attach = self._default_attach()
        if attach is None:
            problem = "the attach callback was not found"
            yield Source(How.ALLOCATED, name, place, None, (note, problem))
            return
        key = f"{self._ops.place} {kind}"
        self._engine.types[key] = type_number(self._engine, self._unit, kind)
        verdict = self.attach(attach, Value(Kind.OBJ, name=key))
        yield Source(How.ALLOCATED, name, place, verdict, (note,))

    def _default_attach(self) -> Setting | None:
        """Return the attach callback of domains without their own ops."""
        setting = self._ops.fields.get("default_domain_ops")
        return attach_of(self._engine.program, setting) if setting is not None else None

    def attach(self, setting: Setting, domain: Value) -> Verdict:
        """Judge an attach callback, called with a domain."""
        name = _callback(setting)
        starts = self._engine.program.functions(setting.unit, name)
        place = setting.place
        if starts:
            place = Place(starts[0].unit.path, starts[0].function.start)
        found = self._engine.returns(setting.unit, name, [frozenset({domain})])
        failures, unknown = [], []
        for each in found:
            chain = (name, *each.chain)
            if each.kind is Kind.ERRNO:
                what = f"-{each.name}" if each.name[:1] == "E" else f"error of {each.name}"
                failures.append(Reason(what, each.place, chain, each.when))
            elif each.kind is Kind.INT and each.number:
                failures.append(Reason(str(each.number), each.place, chain, each.when))
            elif each.kind is Kind.POSITIVE:
                unknown.append(Reason("a number that is not 0", each.place, chain))
            elif each.kind in (Kind.ANY, Kind.COUNT):
                unknown.append(Reason(each.name or "a number", each.place, chain))
        return Verdict(name, place, _sorted(failures), _sorted(unknown))

    # The rest of the row.

    def _release(self) -> str:
        found = []
        for setting in self._ops.fields.all("release_domain"):
            name = setting.text.removeprefix("&").strip()
            value = self._engine.object_of(setting.unit, *_parts(name))
            domain = self._domains.get(value.name) if value is not None else None
            kind = TYPES.get(domain.kind, "") if domain is not None else ""
            condition = f" under {setting.condition}" if setting.condition else ""
            found.append(f"{kind or 'undecided'} ({name}{condition})")
        found += [
            f"{words}, set at run time ({place})"
            for name, words, place in self._ops.changes
            if name == "release_domain"
        ]
        return " or ".join(found)

    def _default(self) -> str:
        """Return how the type of the default domain is chosen."""
        found = []
        for setting in self._ops.fields.all("default_domain"):
            name = setting.text.removeprefix("&").strip()
            value = self._engine.object_of(setting.unit, *_parts(name))
            domain = self._domains.get(value.name) if value is not None else None
            kind = TYPES.get(domain.kind, "") if domain is not None else ""
            found.append(f"always {kind or 'undecided'} ({name})")
        if found:
            return " or ".join(found)
        chooser = self._ops.fields.get("def_domain_type")
        if chooser is None:
            return ""
        name = _callback(chooser)
        returned = self._engine.returns(chooser.unit, name, [])
        numbers = {
            type_number(self._engine, self._unit, macro): word for macro, word in TYPES.items()
        }
        words = set()
        for each in returned:
            if each.kind is Kind.INT:
                # 0 leaves the choice to the core; it is also the number of "blocked".
                word = numbers.get(each.number, str(each.number)) if each.number else "any"
                words.add(word)
            else:
                words.add(f"undecided: {each.name}" if each.name else "undecided")
        order = ["identity", "dma", "dma-fq", "any"]
        rank = {word: number for number, word in enumerate(order)}
        listed = sorted(words, key=lambda word: (rank.get(word, len(order)), word))
        return f"{name}(): {' or '.join(listed)}"


def _parts(name: str) -> tuple[str, str]:
    first, _, rest = name.partition(".")
    return first, rest


def _callback(setting: Setting) -> str:
    return setting.text.removeprefix("&").strip()


def _sorted(reasons: Sequence[Reason]) -> tuple[Reason, ...]:
    return tuple(
        sorted(
            reasons,
            key=lambda each: (
                (each.place.path, each.place.line) if each.place else ("", 0),
                each.what,
                each.chain,
            ),
        )
    )
