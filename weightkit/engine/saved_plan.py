"""A plan as a file, read back: nothing in it is believed before it was checked."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from weightkit.core.dtype import DTYPES
from weightkit.core.jsonio import canonical_json, parse_json
from weightkit.core.plan import SCHEMA, OpCall, Plan, SecondName, Step
from weightkit.core.tensor import StateSpec, TensorSpec
from weightkit.core.text import printable
from weightkit.engine.planning import assert_total
from weightkit.errors import CorruptFile
from weightkit.shape_ops import as_call, op_of

_TOP = (
    "schema", "mapping", "mapping_digest", "target_layout", "config", "class", "strictness", "source", "target",
    "steps", "second_names", "dropped", "left_out", "repeated",
)  # fmt: skip
_STEP = ("sources", "targets", "rule", "ops", "adapters")
_OP = ("op", "params", "class", "preserves")
_DIGEST = re.compile(r"[0-9a-f]{32}")
_ORIGIN_HINT = "write it again with `weightkit convert SRC --plan-only -o PLAN.json`"


def read_plan(text: str | bytes, *, origin: str) -> Plan:
    """The plan in a JSON document: every op known, every step giving what it says, both partitions whole.

    Raises CorruptFile with the address of what is wrong.
    """
    try:
        document = parse_json(text, origin=origin)
        plan = _Reader(origin).plan(document)
        canonical_json(plan.to_dict())
    except ValueError as error:  # no JSON, or numbers that JSON has not
        message = str(error) if str(error).startswith(origin) else f"{origin}: {error}"
        raise CorruptFile(message, hint=_ORIGIN_HINT) from None
    return plan


class _Reader:
    """Reads JSON values of the expected types; every error says where."""

    def __init__(self, origin: str) -> None:
        self.origin = origin

    def plan(self, document: object) -> Plan:
        top = self.mapping(document, "$")
        if top.get("schema") != SCHEMA:
            raise self.wrong("$.schema", f"{SCHEMA!r}", top.get("schema"))
        self.keys(top, _TOP, "$")
        source, digests = self.state(top, "source")
        target, _ = self.state(top, "target")
        steps = tuple(
            self.step(item, f"$.steps[{number}]", source, target)
            for number, item in enumerate(self.sequence(top.get("steps"), "$.steps"))
        )
        config = top.get("config")
        plan = Plan(
            mapping=self.text(top.get("mapping"), "$.mapping"),
            mapping_digest=self.text(top.get("mapping_digest"), "$.mapping_digest"),
            target_layout=self.text(top.get("target_layout"), "$.target_layout"),
            source=source,
            target=target,
            steps=steps,
            second_names=self.second_names(top, source),
            dropped=self.reasons(top, "dropped"),
            left_out=self.reasons(top, "left_out"),
            repeated=self.repeated(top, target),
            digests=digests,
            config=None if config is None else self.mapping(config, "$.config"),
        )
        try:
            assert_total(plan)
        except AssertionError as error:
            raise CorruptFile(f"{self.origin}: {error}", hint=_ORIGIN_HINT) from None
        for key, found in (("class", plan.op_class), ("strictness", plan.strictness)):
            if top[key] != found:
                raise self.wrong(f"$.{key}", f"{found!r}, as its steps are", top[key])
        made = {name for step in steps for name in step.targets}
        for name, of in plan.repeated.items():
            if of not in made:
                raise self.wrong(f"$.repeated.{name}", "a target that a step makes", of)
        return plan

    def step(self, item: object, where: str, source: StateSpec, target: StateSpec) -> Step:
        found = self.mapping(item, where)
        self.keys(found, _STEP, where)
        sources = self.names(found.get("sources"), f"{where}.sources", source)
        targets = self.names(found.get("targets"), f"{where}.targets", target)
        if not targets:
            raise self.wrong(f"{where}.targets", "at least one name", [])
        specs = source_specs = tuple(source[name] for name in sources)
        calls = []
        for number, value in enumerate(self.sequence(found.get("ops"), f"{where}.ops")):
            at = f"{where}.ops[{number}]"
            call = self.mapping(value, at)
            self.keys(call, _OP, at)
            self.text(call["preserves"], f"{at}.preserves")
            name, params = self.text(call.get("op"), f"{at}.op"), self.mapping(call.get("params"), f"{at}.params")
            try:
                op = op_of(OpCall(name, params, "BIJ", ""))
                specs = op.infer(specs)
            except ValueError as error:
                raise CorruptFile(f"{self.origin} @ {at}: {error}", hint=_ORIGIN_HINT) from None
            calls.append(as_call(op))
            said = call.get("class")
            if said != op.op_class:
                raise self.wrong(f"{at}.class", f"{op.op_class!r}, the class of {name!r}", said)
        wanted = tuple(target[name] for name in targets)
        if specs != wanted:
            expected = " and ".join(map(str, wanted))
            raise self.wrong(where, f"ops that give {expected}", " and ".join(map(str, specs)))
        adapters = tuple(self.text(each, f"{where}.adapters") for each in self.sequence(found.get("adapters"), where))
        rule = self.text(found.get("rule"), f"{where}.rule")
        return Step(sources, targets, rule, source_specs, wanted, tuple(calls), adapters)

    def state(self, top: Mapping[str, Any], key: str) -> tuple[StateSpec, dict[str, str]]:
        where = f"$.{key}"
        found = self.mapping(top.get(key), where)
        self.keys(found, ("tensors", "aliases"), where)
        tensors: dict[str, TensorSpec] = {}
        digests: dict[str, str] = {}
        for name, value in self.mapping(found.get("tensors"), f"{where}.tensors").items():
            at = f"{where}.tensors.{name}"
            entry = self.mapping(value, at)
            self.keys(entry, ("dtype", "shape", *(("digest",) if "digest" in entry else ())), at)
            dtype, shape = entry.get("dtype"), self.sequence(entry.get("shape"), f"{at}.shape")
            if not isinstance(dtype, str) or dtype not in DTYPES:
                raise self.wrong(f"{at}.dtype", "the name of an element type", dtype)
            if not all(type(size) is int and 0 <= size < 1 << 63 for size in shape):
                raise self.wrong(f"{at}.shape", "sizes", shape)
            tensors[name] = TensorSpec(DTYPES[dtype], tuple(shape))
            if "digest" in entry:
                digests[name] = self.text(entry["digest"], f"{at}.digest")
                if not _DIGEST.fullmatch(digests[name]):
                    raise self.wrong(f"{at}.digest", "32 hexadecimal digits", digests[name])
        aliases = self.texts(found.get("aliases"), f"{where}.aliases")
        for alias, of in aliases.items():
            if alias not in tensors or tensors.get(of) != tensors[alias]:
                raise self.wrong(f"{where}.aliases.{alias}", "a tensor of the same shape and dtype", of)
        try:
            return StateSpec(tensors, aliases), digests
        except ValueError as error:
            raise CorruptFile(f"{self.origin} @ {where}.aliases: {error}", hint=_ORIGIN_HINT) from None

    def second_names(self, top: Mapping[str, Any], source: StateSpec) -> dict[str, SecondName]:
        found = {}
        said = self.mapping(top.get("second_names"), "$.second_names")
        for name, value in said.items():
            at = f"$.second_names.{name}"
            entry = self.mapping(value, at)
            self.keys(entry, ("of", "why", "checked"), at)
            of, checked = self.text(entry.get("of"), f"{at}.of"), entry.get("checked")
            if of not in source or name not in source or source[of] != source[name] or of in said:
                raise self.wrong(f"{at}.of", "a source tensor of the same shape and dtype, no second name itself", of)
            if type(checked) is not bool:
                raise self.wrong(f"{at}.checked", "true or false", checked)
            if not checked and source.canonical(name) != source.canonical(of):
                raise self.wrong(f"{at}.checked", "true, since the source does not tie the two", checked)
            found[name] = SecondName(of, self.text(entry.get("why"), f"{at}.why"), checked)
        return found

    def repeated(self, top: Mapping[str, Any], target: StateSpec) -> dict[str, str]:
        found = self.texts(top.get("repeated"), "$.repeated")
        for name, of in found.items():
            if name not in target or of not in target or target[name] != target[of]:
                raise self.wrong(f"$.repeated.{name}", "a target tensor of the same shape and dtype", of)
        return found

    def names(self, value: object, where: str, state: StateSpec) -> tuple[str, ...]:
        found = tuple(self.text(name, where) for name in self.sequence(value, where))
        for name in found:
            if name not in state:
                raise self.wrong(where, "names of the document's own tensors", name)
        return found

    def reasons(self, top: Mapping[str, Any], key: str) -> dict[str, str]:
        found = self.texts(top.get(key), f"$.{key}")
        for name, why in found.items():
            if not why:
                raise self.wrong(f"$.{key}.{name}", "a reason", why)
        return found

    def keys(self, found: Mapping[str, Any], expected: Sequence[str], where: str) -> None:
        if found.keys() != set(expected):
            odd = sorted(found.keys() ^ set(expected))[0]
            message = "is missing" if odd in expected else "is unknown"
            raise CorruptFile(f"{self.origin} @ {where}: the key {printable(odd)!r} {message}", hint=_ORIGIN_HINT)

    def texts(self, value: object, where: str) -> dict[str, str]:
        return {name: self.text(text, f"{where}.{name}") for name, text in self.mapping(value, where).items()}

    def mapping(self, value: object, where: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self.wrong(where, "an object", value)
        return value

    def sequence(self, value: object, where: str) -> list[Any]:
        if not isinstance(value, list):
            raise self.wrong(where, "a list", value)
        return value

    def text(self, value: object, where: str) -> str:
        if not isinstance(value, str):
            raise self.wrong(where, "a text", value)
        return value

    def wrong(self, where: str, expected: str, found: object) -> CorruptFile:
        shown = repr(found)
        shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
        return CorruptFile(f"{self.origin} @ {where}: expected {expected}, found {shown}", hint=_ORIGIN_HINT)
