"""What an adversary found: payloads without a call that is not listed, and small files that cost much.

Most objects here call through their own attributes: a loader finds ``append`` or ``__setstate__`` on the instance.
"""

from __future__ import annotations

import base64
import io
import json
import pickletools
import struct
import types
import warnings
from _compat_pickle import IMPORT_MAPPING
from collections.abc import Iterator
from typing import Any

import cloudpickle
import torch

from corpus.case import CODE, EXPRESSION, LIMIT, MALFORMED, MARK, MODULE, OK, UNSAFE, Case, hostile, live
from corpus.legacy import stream
from corpus.npy import npy
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
IDENTITIES = ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist", "restore_type_tag")
TOUCH = b"(" + value("touch") + value(MARK) + b"e"
PAYLOAD = call("os.mkdir", MARK)
NESTED = pickled(PAYLOAD)
FLOATS = struct.pack("<2f", 1.5, -2.0)
Payload = tuple[str, Raw, int, tuple[str, ...], dict[str, bytes]]


def space(**state: Any) -> Raw:
    """A plain object with these attributes."""
    return build(newobj(SPACE), state)


ANNOTATED = space(__annotations__={"x": EXPRESSION})  # get_type_hints evaluates it
REBORN = call("copyreg._reconstructor", named(SPACE), named("builtins.object"), None)


def dropped(thing: bytes) -> Raw:
    """It is made, and None is what is left."""
    return Raw(thing + b"0N")


def applied(path: str, arguments: Raw) -> Raw:
    """REDUCE with arguments that are computed."""
    return Raw(named(path) + arguments + b"R")


def by_tuple(path: str, *arguments: Any) -> Raw:
    """REDUCE with arguments that a call makes a tuple of."""
    return applied(path, call("builtins.tuple", list(arguments)))


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
    imports = "torch.nn.attention._fa4._fa4_import_module"
    yield "imports", build(space(__setstate__=named(imports)), "evil"), 2, (imports, SPACE), MODULE
    module = "torch.nn.modules.module.Module"
    held = {"_parameters": {}, "_buffers": {}, "_modules": {"append": named(LOADS)}}
    yield "module", Raw(build(newobj(module), held) + value(NESTED) + b"a"), 2, (module,), {}
    modules = "torch.nn.modules.container.ModuleList"
    moves = {"_modules": {}, "add_module": named("setuptools._distutils.file_util.move_file")}
    yield (
        "module-list",
        Raw(build(newobj(modules), moves) + value(f"./{MARK}") + b"a"),
        2,
        ("ModuleList", "move_file"),
        {"0": b"x"},
    )
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
    of_type = call("builtins.type", named("typing.List"))
    yield "class-by-type", Raw(build(of_type, dies) + b"0" + alias + b"0N"), 2, ("builtins.type", HINTS), {}


def _of_arguments() -> Iterator[Payload]:
    """Listed functions call methods of what they are given, or are given what nobody looked at."""
    keys, reborn = space(keys=named(BUILDS)), build(REBORN, {"keys": named(BUILDS)})
    for kind, held in (("plain", keys), ("reborn", reborn)):
        yield f"keys-{kind}", dropped(call("collections.OrderedDict", held)), 2, ("OrderedDict", BUILDS), SETUP
        yield f"keys-computed-{kind}", dropped(by_tuple("collections.OrderedDict", held)), 2, ("OrderedDict",), SETUP
    makes = "torch._utils._rebuild_parameter"
    yield "detach", dropped(call(makes, space(detach=named(BUILDS)), True, no_hooks())), 2, (makes, BUILDS), SETUP
    generator = "numpy.random._pickle.__generator_ctor"
    random = "numpy.random._pickle.__randomstate_ctor"
    for path in (generator, random):
        yield f"{path[21:]}-calls", call(path, NESTED, named(LOADS)), 2, (path, LOADS), {}
        yield f"{path[21:]}-computed", by_tuple(path, NESTED, named(LOADS)), 2, (path, LOADS), {}
    ini = {"pytest.ini": b"[pytest]\naddopts = -p evil\n", "evil.py": f"{CODE}\nraise SystemExit".encode()}
    tests = named("numpy.random.test")
    yield "generator-tests-numpy", call(generator, "MT19937", tests), 2, (generator, "numpy.random.test"), ini
    deep = "torch._tensor._rebuild_from_type_v2"
    yield "from-type-computed", by_tuple(deep, named(LOADS), named("builtins.int"), (NESTED,), {}), 2, (deep, LOADS), {}


def _optimizers() -> Iterator[Payload]:
    """torch's own ``__setstate__`` calls ``state["state"].get(p, [])``."""
    adam = "torch.optim.adam.Adam"
    group = [{"params": [MARK]}]
    for kind, held in (("plain", space(get=named(WRITES))), ("reborn", build(REBORN, {"get": named(WRITES)}))):
        state = {"defaults": {}, "state": held, "param_groups": group}
        pairs = [(key, Raw(value(part))) for key, part in state.items()]
        yield f"adam-{kind}", build(newobj(adam), state), 2, (adam,), {}
        yield f"adam-{kind}-ordered", build(newobj(adam), call("collections.OrderedDict", pairs)), 2, (adam,), {}
        made = call("copyreg._reconstructor", named(adam), named("builtins.object"), None)
        yield f"adam-{kind}-reconstructed", build(made, state), 2, (adam, "_reconstructor"), {}


def _old_names() -> Iterator[Payload]:
    """Names of Python 2, which unpicklers translate before protocol 3."""
    state = {"_index": {"a": (1, 2)}, "_modified": True, "_bakfile": "nonex", "_dirfile": MARK, "_datfile": "x"}
    for protocol in (0, 2):
        made = build(newobj("dumbdbm._Database"), {**state, "_mode": 0o600})
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

            def forward(self, x):  # type: ignore[no-untyped-def]
                return x + self.w

        file = io.BytesIO()
        torch.jit.save(torch.jit.script(Runs()), file)
    return file.getvalue()


def _by_value() -> Raw:
    """A function that leaves the mark whatever it is given, as cloudpickle writes it."""
    code = next(
        part for part in compile(f"def f(*given, **named): {CODE}", "x", "exec").co_consts if hasattr(part, "co_code")
    )
    made = cloudpickle.dumps(types.FunctionType(code, {"__name__": "__main__", "__builtins__": __builtins__}, "f"))
    ends = [*(found[2] for found in pickletools.genops(made)), len(made)]
    kept = [
        made[start:end]
        for (opcode, _, start), end in zip(pickletools.genops(made), ends[1:], strict=True)
        if opcode.name not in ("PROTO", "FRAME", "STOP")
    ]
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
    members = {
        "data": json.dumps(data).encode(),
        "policy.pth": archive(pickled({"w": Raw(b"N")}), {}),
        "_stable_baselines3_version": b"2.3.0",
    }
    return zipped([Member(name, held) for name, held in members.items()])


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
    room = 150 << 20
    swallowed = b"B" + struct.pack("<I", room)
    bomb = b"\x80\x02" + swallowed
    yield "inflated-pickle", "model.pt", lambda: zipped(
        [Member(PICKLE, bomb + bytes(room) + b".", 8), Member("archive/version", b"3\n")]
    ), BOUNDED  # fmt: skip
    yield "inflated-array", "a.npz", lambda: zipped(
        [Member("a.npy", npy("|O", (1,), bomb + bytes(room) + b"."), 8)]
    ), (*BOUNDED, UNSAFE)  # fmt: skip
    inner = pickled({"w": tensor(storage(numel=40 << 20), shape=(40 << 20,))})
    yield "inflated-policy", "model.zip", lambda: zipped(
        [Member("data", b"{}"), Member("policy.pth", archive(inner, {"data/0": bytes(160 << 20)}), 8)]
    ), BOUNDED  # fmt: skip
    yield "stacked-pickles", "stack.pkl", b"\x80\x02N." + b"N." * 400_000, (*BOUNDED, UNSAFE)
    yield "stacked-behind-a-stream", "stack.pt", stream() + b"N." * 300_000, (*BOUNDED, UNSAFE)
    yield "named-300000-times", "model.pt", archive(b"\x80\x02N0" + b"cos\nsystem\n0" * 300_000 + b"N."), (UNSAFE,)
    yield "escapes", "model.pkl", b"\x80\x02S'" + b"\\x" * 2_000_000 + b"'\n.", BOUNDED
    yield "escapes-of-u", "model.pkl", b"\x80\x02V" + b"\\u1" * 1_000_000 + b"\n.", BOUNDED
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
    many = b"".join(tensor() + b"}" + text("a") + b"Ns" for _ in range(3000))
    yield "tensors-as-keys", "model.pt", archive(b"\x80\x02}(" + many + b"u."), BOUNDED
    numbers = b"".join(text(f"k{n}") + b"K\x01" for n in range(300_000))
    yield "many-numbers", "model.pt", archive(pickled({"w": tensor()})[:-2] + numbers + b"u."), BOUNDED
    for shape in ((1 << 62,) * 64, (1 << 31,) * 3, ((1 << 63) - 1,) * 2):
        content = archive(pickled({"w": tensor(shape=shape, strides=(0,) * len(shape))}))
        yield f"shape-{len(shape)}-times-2-to-the-{shape[0].bit_length()}", "model.pt", content, (MALFORMED, LIMIT)


def _not_run() -> Iterator[tuple[str, Raw]]:
    """What must be unsafe though no harmless payload is at hand: the same tricks with what does no visible harm."""
    unknown = named("nowhere.run")
    yield "keys-of-an-unknown", dropped(call("collections.OrderedDict", space(keys=unknown)))
    yield (
        "to-of-an-object",
        dropped(call("torch._utils._rebuild_device_tensor_from_cpu_tensor", space(to=unknown), 1, "cpu", False)),
    )
    yield (
        "state-of-a-module",
        dropped(build(call("torch.jit._pickle.build_intlist", named("pathlib.os")), {"sep": "E"})),
    )
    counter = call("torch.jit._pickle.build_intlist", named("collections.Counter"))
    yield "patched-container", dropped(build(counter, (None, {"most_common": named("builtins.list")})))
    yield "factory-in-a-state", build(call("collections.defaultdict", None), (None, {"default_factory": unknown}))
    yield "factory-computed", by_tuple("collections.defaultdict", named(LOADS))
    opener = "fsspec.implementations.local.LocalFileOpener"
    yield "opens-a-file", build(newobj(opener), {"mode": "r+b", "path": "x", "autocommit": True, "loc": 0})
    generic = build(newobj("typing._GenericAlias"), {"__origin__": named(SPACE)})
    yield "class-by-alias", dropped(build(generic, (None, {"__del__": unknown})))
    place = ("storage", named("torch.FloatStorage"), "1", space(startswith=unknown), 2)
    yield "location-with-methods", dropped(persistent(place))
    for old in sorted({name.partition(".")[0] for name in IMPORT_MAPPING}):
        yield f"old-{old}", build(newobj(f"{old}.Thing"), {"x": 1})
    for path in ("anydbm.open", "torchgen.gen.main", "functorch.vmap", "pkg_resources.run_script", "enum.bltins"):
        yield f"calls-{path}", build(space(__setstate__=named(path)), "x")


def cases() -> Iterator[Case]:
    """All of them."""
    for part in (_on_instances, _laundered, _of_arguments, _optimizers, _old_names):
        for name, payload, protocol, said, beside in part():
            content = archive(beside_a_tensor(payload, protocol))
            yield live(f"attack{part.__name__}-{name}", "model.pt", content, *said, beside=beside)
    yield live("attack-torchscript-setstate", "model.pt", _torchscript, "TorchScript")
    for name, content, said in _agents():
        yield live(f"attack-agent-{name}", "a.zip", _agent(content), *said, loader="sb3", beside=MODULE)
    for name, filename, made, exits in _costly():
        yield hostile(f"attack-costs-{name}", filename, made, *exits)
    for name, payload in _not_run():
        yield hostile(f"attack-unsafe-{name}", "model.pt", archive(beside_a_tensor(payload)), *EITHER)
