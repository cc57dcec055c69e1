"""What an adversary found: payloads without a call that is not listed, and small files that cost much.

Most objects here call through their own attributes: a loader finds ``append`` or ``__setstate__`` on the instance.
"""

from __future__ import annotations

import base64
import io
import json
import pickletools
import struct
import warnings
from _compat_pickle import IMPORT_MAPPING
from collections.abc import Iterator
from typing import Any

import cloudpickle
import torch

from corpus.case import CODE, EXPRESSION, LIMIT, MALFORMED, MARK, MODULE, OK, UNSAFE, Case, hostile, live
from corpus.legacy import stream
from corpus.live_gadgets import NESTED
from corpus.npy import npy, npz
from corpus.opcodes import (
    Raw,
    beside_a_tensor,
    build,
    call,
    named,
    newobj,
    no_hooks,
    persistent,
    pickled,
    storage,
    tensor,
    text,
    value,
)  # fmt: skip
from corpus.rawzip import PICKLE, Member, archive, zipped
from corpus.safetensors_cases import safetensors

EITHER = (MALFORMED, UNSAFE)
BOUNDED = (OK, MALFORMED, LIMIT)
SPACE = "argparse.Namespace"
HINTS = "typing.get_type_hints"
LOADS = "cloudpickle.loads"
WRITES = "setuptools._distutils.file_util.write_file"  # of a name and lines
SPAWNS = "setuptools._distutils.spawn.spawn"
BUILDS = "setuptools.build_meta.get_requires_for_build_sdist"  # without arguments: runs the setup.py beside it
SETUP = {"setup.py": CODE.encode()}
IMPORTS = "torch.nn.attention._fa4._fa4_import_module"
MAKES = "torch._utils._rebuild_parameter"
ADAM = "torch.optim.adam.Adam"
UNKNOWN = named("nowhere.run")
NEEDED = ("setuptools", "torch.nn.attention._fa4")
IDENTITIES = ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist", "restore_type_tag")
TOUCH = b"(" + value("touch") + value(MARK) + b"e"
Payload = tuple[str, Raw, int, tuple[str, ...], dict[str, bytes]]


def space(**state: Any) -> Raw:
    """A plain object with these attributes."""
    return build(newobj(SPACE), state)


ANNOTATED = space(__annotations__={"x": EXPRESSION})  # get_type_hints evaluates it
REBORN = call("copyreg._reconstructor", named(SPACE), named("builtins.object"), None)


def dropped(thing: bytes) -> Raw:
    """It is made, and None is what is left."""
    return Raw(thing + b"0N")


def by_tuple(path: str, *arguments: Any) -> Raw:
    """REDUCE with arguments that a call makes a tuple of."""
    return Raw(named(path) + call("builtins.tuple", list(arguments)) + b"R")


def _on_instances() -> Iterator[Payload]:
    """The loader looks a method up on the instance, whose attributes an earlier state has written."""
    hints, both = named(HINTS), (HINTS, SPACE)
    yield "setstate", build(space(__setstate__=hints), ANNOTATED), 2, both, {}
    yield "append", Raw(space(append=hints) + ANNOTATED + b"a"), 2, both, {}
    yield "extend", Raw(space(extend=named(SPAWNS)) + TOUCH), 2, (SPAWNS, SPACE), {}
    simple = build(newobj("types.SimpleNamespace"), {"append": hints})
    yield "append-simple", Raw(simple + ANNOTATED + b"a"), 2, (HINTS, "SimpleNamespace"), {}
    yield "add", Raw(space(add=hints) + b"(" + ANNOTATED + b"\x90"), 4, both, {}
    yield "setstate-unknown", build(space(__setstate__=named(LOADS)), NESTED), 2, (LOADS, SPACE), {}
    yield "append-unknown", Raw(space(append=named(LOADS)) + value(NESTED) + b"a"), 2, (LOADS, SPACE), {}
    yield "imports", build(space(__setstate__=named(IMPORTS)), "evil"), 2, (IMPORTS, SPACE), MODULE
    module = "torch.nn.modules.module.Module"
    held = {"_parameters": {}, "_buffers": {}, "_modules": {"append": named(LOADS)}}
    yield "module", Raw(build(newobj(module), held) + value(NESTED) + b"a"), 2, (module,), {}
    modules = "torch.nn.modules.container.ModuleList"
    moves = {"_modules": {}, "add_module": named("setuptools._distutils.file_util.move_file")}
    listed = Raw(build(newobj(modules), moves) + value(f"./{MARK}") + b"a")
    yield "module-list", listed, 2, ("ModuleList", "move_file"), {"0": b"x"}
    users = build(newobj("collections.UserList"), {"data": space(extend=named(SPAWNS))})
    yield "user-list", Raw(users + TOUCH), 2, ("UserList",), {}


def _laundered() -> Iterator[Payload]:
    """The state is given to a class, or to an object with a state, that a listed function has given back."""
    dies = (None, {"__del__": named(HINTS)})
    for name in IDENTITIES:
        path = f"torch.jit._pickle.{name}"
        given = call(path, named(SPACE), *(("x",) if name == "restore_type_tag" else ()))
        yield f"class-by-{name}", Raw(build(given, dies) + b"0" + ANNOTATED + b"0N"), 2, (path, HINTS), {}
        mapping = build(call("collections.OrderedDict"), {"append": named(LOADS)})
        for kind, held in (("dict", mapping), ("reborn", build(REBORN, {"append": named(LOADS)}))):
            given = call(path, held, *(("x",) if name == "restore_type_tag" else ()))
            yield f"{kind}-by-{name}", Raw(given + value(NESTED) + b"a"), 2, (path, LOADS), {}
    alias = build(newobj("typing._SpecialGenericAlias"), {"__annotations__": {"x": EXPRESSION}})
    of_type = build(call("builtins.type", named("typing.List")), dies)
    yield "class-by-type", Raw(of_type + b"0" + alias + b"0N"), 2, ("builtins.type", HINTS), {}


def _of_arguments() -> Iterator[Payload]:
    """Listed functions call methods of what they are given, or are given what nobody looked at."""
    keys, reborn = space(keys=named(BUILDS)), build(REBORN, {"keys": named(BUILDS)})
    for kind, held in (("plain", keys), ("reborn", reborn)):
        yield f"keys-{kind}", dropped(call("collections.OrderedDict", held)), 2, ("OrderedDict", BUILDS), SETUP
        yield f"keys-computed-{kind}", dropped(by_tuple("collections.OrderedDict", held)), 2, ("OrderedDict",), SETUP
    yield "detach", dropped(call(MAKES, space(detach=named(BUILDS)), True, no_hooks())), 2, (MAKES, BUILDS), SETUP
    for kind in ("generator", "randomstate"):
        path = f"numpy.random._pickle.__{kind}_ctor"
        yield f"{kind}-calls", call(path, NESTED, named(LOADS)), 2, (path, LOADS), {}
        yield f"{kind}-computed", by_tuple(path, NESTED, named(LOADS)), 2, (path, LOADS), {}
    ini = {"pytest.ini": b"[pytest]\naddopts = -p evil\n", "evil.py": f"{CODE}\nraise SystemExit".encode()}
    tests = named("numpy.random.test")
    yield "random-state-tests-numpy", call(path, "MT19937", tests), 2, (path, "numpy.random.test"), ini
    deep = by_tuple("torch._tensor._rebuild_from_type_v2", named(LOADS), named("builtins.int"), (NESTED,), {})
    yield "from-type-computed", deep, 2, ("_rebuild_from_type_v2", LOADS), {}


def _of_states() -> Iterator[Payload]:
    """Optimizers call ``state["state"].get(p, [])``; a database, named as Python 2 did, writes when it is deleted."""
    for kind, held in (("plain", space(get=named(WRITES))), ("reborn", build(REBORN, {"get": named(WRITES)}))):
        state = {"defaults": {}, "state": held, "param_groups": [{"params": [MARK]}]}
        pairs = [(key, Raw(value(part))) for key, part in state.items()]
        yield f"adam-{kind}", build(newobj(ADAM), state), 2, (ADAM,), {}
        yield f"adam-{kind}-ordered", build(newobj(ADAM), call("collections.OrderedDict", pairs)), 2, (ADAM,), {}
        made = call("copyreg._reconstructor", named(ADAM), named("builtins.object"), None)
        yield f"adam-{kind}-reconstructed", build(made, state), 2, (ADAM, "_reconstructor"), {}
    state = {"_index": {"a": (1, 2)}, "_modified": True, "_bakfile": "nonex", "_dirfile": MARK, "_datfile": "x"}
    made = build(newobj("dumbdbm._Database"), {**state, "_mode": 0o600})
    for protocol in (0, 2):
        yield f"dumbdbm-{protocol}", dropped(made), protocol, ("dumbdbm", "dbm.dumb"), {}


def _torchscript() -> bytes:
    """A scripted module whose ``__setstate__`` makes a file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")

        class Runs(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.register_buffer("w", torch.zeros(2))
                self.training = True

            @torch.jit.export
            def __getstate__(self):  # type: ignore[no-untyped-def]
                return (self.w, self.training)

            @torch.jit.export
            def __setstate__(self, state: tuple[torch.Tensor, bool]):  # type: ignore[no-untyped-def]
                self.training = state[1]
                self.w = state[0] + torch.from_file("ran", True, 4).sum()

        file = io.BytesIO()
        torch.jit.save(torch.jit.script(Runs()), file)
    return file.getvalue()


def _by_value() -> Raw:
    """A function that leaves the mark whatever it is given, as cloudpickle writes it."""
    made = cloudpickle.dumps(eval(f"lambda *given, **named: {EXPRESSION}", {"__name__": "__main__"}))
    found = [(opcode.name, start) for opcode, _, start in pickletools.genops(made)]
    ends = [*(start for _, start in found[1:]), len(made)]
    framing = ("PROTO", "FRAME", "STOP")
    kept = [made[start:end] for (name, start), end in zip(found, ends, strict=True) if name not in framing]
    return Raw(b"".join(kept))


def _agents() -> Iterator[tuple[str, bytes, tuple[str, ...]]]:
    """Objects as Stable-Baselines3 keeps them in ``data``: what cloudpickle makes may be made, and not be called."""
    made = _by_value()
    module = "cloudpickle.cloudpickle"
    yield "setstate", pickled(build(space(__setstate__=made), 5), 4), (SPACE,)
    simple = build(newobj("types.SimpleNamespace"), {"__setstate__": made})
    yield "setstate-simple", pickled(build(simple, 5), 4), ("SimpleNamespace",)
    yield "subimport", pickled(call(f"{module}.subimport", "evil"), 4), ("subimport",)
    skeleton = f"{module}._make_skeleton_class"
    yield "metaclass", pickled(call(skeleton, made, "T", (), {}, None, None), 4), ("_make_skeleton_class",)
    changed = call(f"{module}._class_setstate", named(SPACE), ({"__del__": made}, {}))
    yield "class-setstate", pickled(Raw(changed + b"0" + newobj(SPACE) + b"0N"), 4), ("_class_setstate",)


def _agent(content: bytes) -> bytes:
    data = {"policy_class": {":type:": "x", ":serialized:": base64.b64encode(content).decode()}}
    policy = Member("policy.pth", archive(pickled({"w": Raw(b"N")}), {}))
    return zipped([Member("data", json.dumps(data).encode()), policy, Member("_stable_baselines3_version", b"2.3.0")])


def _costly() -> Iterator[tuple[str, str, Any, tuple[int, ...]]]:
    """Small files that ask for much: name, file name, content, what may be answered."""
    empty = {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}
    for prefix, count in (("_orig_mod.", 7000), ("module.", 20_000), ("a.", 5000), ("a.", 200_000)):
        yield f"prefix-{prefix}{count}", "m.safetensors", safetensors({prefix * count + "w": empty}, b""), BOUNDED
    dotted = {f"{n}." + "a." * 2000 + "w": empty for n in range(200)}
    yield "dotted-names", "m.safetensors", safetensors(dotted, b""), BOUNDED
    again = b"".join(text(f"{n:x}") + b"h\x01" for n in range(60_000))
    names = b"\x80\x02}(" + text("a") + tensor() + b"q\x01" + text("k" * 4000) + b"}(" + again + b"uu."
    yield "names-multiply", "model.pt", archive(names), BOUNDED
    bomb, room = b"\x80\x02B" + struct.pack("<I", 150 << 20), 150 << 20
    yield "inflated-pickle", "model.pt", lambda: zipped(
        [Member(PICKLE, bomb + bytes(room) + b".", 8), Member("archive/version", b"3\n")]
    ), BOUNDED  # fmt: skip
    yield "inflated-array", "a.npz", lambda: npz(
        {"a": npy("|O", (1,), bomb + bytes(room) + b".")}, method=8
    ), (*BOUNDED, UNSAFE)  # fmt: skip
    inner = pickled({"w": tensor(storage(numel=40 << 20), shape=(40 << 20,))})
    yield "inflated-policy", "model.zip", lambda: zipped(
        [Member("data", b"{}"), Member("policy.pth", archive(inner, {"data/0": bytes(160 << 20)}), 8)]
    ), BOUNDED  # fmt: skip
    yield "stacked-pickles", "stack.pkl", b"\x80\x02N." + b"N." * 400_000, (*BOUNDED, UNSAFE)
    yield "stacked-behind-a-stream", "stack.pt", stream() + b"N." * 300_000, (*BOUNDED, UNSAFE)
    yield "named-300000-times", "model.pt", archive(b"\x80\x02N0" + b"cos\nsystem\n0" * 300_000 + b"N."), (UNSAFE,)
    for opcode, escape in ((b"S'", b"\\x"), (b"V", b"\\u1")):
        escapes = b"\x80\x02" + opcode + escape * 1_500_000 + opcode[1:] + b"\n."
        yield f"escapes{len(escape)}", "model.pkl", escapes, BOUNDED
    for path in ("omegaconf.C", "m.C", "collections.OrderedDict", "collections.deque"):
        for count, more in ((20_000, b""), (50_000, text("_val") + b"N")):
            pairs = b"}(" + b"".join(text(f"{n:x}") + b"N" for n in range(count)) + more + b"u"
            made = newobj(path) + pairs + b"b"
            if path == "collections.OrderedDict":
                made = call(path) + pairs[1:]
            elif path == "collections.deque":
                made = call(path, []) + b"(" + b"N" * count + b"e"
            content = b"\x80\x02" + made + b"q\x01](" + b"h\x01" * count + b"e."
            yield f"{path}-{count}-times", "model.pkl", content, BOUNDED
    held = Raw(b"}(" + b"".join(text(f"{n:x}") + b"N" for n in range(50_000)) + b"u")
    shared = b"\x80\x02}(" + text("w") + tensor(metadata=[held]) + b"q\x01" + text("l") + b"](" + b"h\x01" * 50_000
    yield "metadata-50000-times", "model.pt", archive(shared + b"eu."), BOUNDED
    keys = b"\x80\x02(" + text("k" * 240) + b"q\x02" + b"h\x02" * 15 + b"tq\x01}("
    keys += b"".join(b"(h\x01" + value(n) + b"tN" for n in range(100_000)) + b"u."
    yield "tuples-as-keys", "model.pkl", keys, BOUNDED
    many = (tensor() + b"}" + text("a") + b"Ns") * 3000
    yield "tensors-as-keys", "model.pt", archive(b"\x80\x02}(" + many + b"u."), BOUNDED
    numbers = {f"k{n}": 1 for n in range(300_000)}
    yield "many-numbers", "model.pt", archive(pickled({"w": tensor(), **numbers})), BOUNDED
    for shape in ((1 << 62,) * 64, (1 << 31,) * 3, ((1 << 63) - 1,) * 2):
        content = archive(pickled({"w": tensor(shape=shape, strides=(0,) * len(shape))}))
        yield f"shape-{len(shape)}-times-2-to-the-{shape[0].bit_length()}", "model.pt", content, (MALFORMED, LIMIT)


def _not_run() -> Iterator[tuple[str, Raw]]:
    """What must be unsafe though no harmless payload is at hand: the same tricks with what does no visible harm."""
    yield "keys-of-an-unknown", dropped(call("collections.OrderedDict", space(keys=UNKNOWN)))
    moved = "torch._utils._rebuild_device_tensor_from_cpu_tensor"
    yield "to-of-an-object", dropped(call(moved, space(to=UNKNOWN), 1, "cpu", False))
    for path in ("pathlib.os", "collections.Counter"):
        given = call("torch.jit._pickle.build_intlist", named(path))
        yield f"state-of-{path}", dropped(build(given, (None, {"most_common": named("builtins.list")})))
    yield "factory-in-a-state", build(call("collections.defaultdict", None), (None, {"default_factory": UNKNOWN}))
    yield "factory-computed", by_tuple("collections.defaultdict", named(LOADS))
    opener = "fsspec.implementations.local.LocalFileOpener"
    yield "opens-a-file", build(newobj(opener), {"mode": "r+b", "path": "x", "autocommit": True, "loc": 0})
    generic = build(newobj("typing._GenericAlias"), {"__origin__": named(SPACE)})
    yield "class-by-alias", dropped(build(generic, (None, {"__del__": UNKNOWN})))
    place = ("storage", named("torch.FloatStorage"), "1", space(startswith=UNKNOWN), 2)
    yield "location-with-methods", dropped(persistent(place))
    for old in sorted({name.partition(".")[0] for name in IMPORT_MAPPING}):
        yield f"old-{old}", build(newobj(f"{old}.Thing"), {"x": 1})
    for path in ("anydbm.open", "torchgen.gen.main", "functorch.vmap", "pkg_resources.run_script", "enum.bltins"):
        yield f"calls-{path}", build(space(__setstate__=named(path)), "x")


def cases() -> Iterator[Case]:
    """All of them."""
    for part in (_on_instances, _laundered, _of_arguments, _of_states):
        for name, payload, protocol, said, beside in part():
            content = archive(beside_a_tensor(payload, protocol))
            needs = next((module for module in NEEDED if module.encode() in payload), "")
            yield live(f"attack{part.__name__}-{name}", "model.pt", content, *said, beside=beside, needs=needs)
    yield live("attack-torchscript-setstate", "model.pt", _torchscript, "TorchScript")
    for name, content, said in _agents():
        yield live(f"attack-agent-{name}", "a.zip", _agent(content), *said, loader="sb3", beside=MODULE)
    for name, filename, made, exits in _costly():
        yield hostile(f"attack-costs-{name}", filename, made, *exits)
    for name, payload in _not_run():
        exits = EITHER if name.startswith("location") else (UNSAFE,)
        yield hostile(f"attack-unsafe-{name}", "model.pt", archive(beside_a_tensor(payload)), *exits)
