"""Calls that leave the mark through torch, numpy and what comes with them; and live objects without any such call."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from corpus.case import CODE, EXPRESSION, MARK, MODULE, OK, SHELL, UNSAFE, Case, hostile, live
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
    pickled,
    stacked,
    tensor,
    value,
)
from corpus.rawzip import archive

NESTED = pickled(call("os.mkdir", MARK))
HUBCONF = {"hubconf.py": f"def entry():\n    {CODE}\n".encode()}
DEEP = "torch._tensor._rebuild_from_type_v2"


def plain() -> Iterator[tuple[Any, ...]]:
    """``(path, *arguments)`` of single calls into torch, numpy and others."""
    yield "torch.storage._load_from_bytes", NESTED
    yield "torch.save", {}, MARK
    yield "torch.from_file", MARK, True, 4
    yield "torch.jit.unsupported_tensor_ops.execWrapper", CODE, {}, {}
    yield "torch.utils.collect_env.run", SHELL
    yield "torch.fx.graph_module._exec_with_source", CODE, {}
    yield "torch.fx.graph_module._forward_from_src", CODE, {}
    yield "torch.utils._pytree.tree_map", named("os.mkdir"), [MARK]
    yield "torch.utils.checkpoint.checkpoint", named("os.mkdir"), MARK
    yield "torch.utils.data.datapipes.utils.decoder.basichandlers", "pickle", NESTED
    yield DEEP, named("os.mkdir"), named("builtins.int"), (MARK,), {}
    yield DEEP, named(DEEP), named("torch.Tensor"), (named("os.mkdir"), named("torch.Tensor"), (MARK,), {}), {}
    yield "torch._tensor._rebuild_from_type", named("os.mkdir"), named("builtins.int"), (MARK,), {}
    yield "torch.hub._load_local", ".", "entry"
    yield "torch.hub._import_module", "evil", "evil.py"
    yield "torch._inductor.runtime.compile_tasks._reload_python_module", "evil", "evil.py"
    yield "numpy.testing._private.utils.runstring", CODE, {}
    yield "numpy.testing.runstring", CODE, {}
    yield "numpy.f2py.crackfortran.myeval", EXPRESSION, {}, {}
    yield "numpy.save", MARK, 1
    yield "numpy.savetxt", MARK, [1]
    yield "numpy.memmap", MARK, "uint8", "w+", 0, (1,)
    yield "numpy.load", "evil.npy", None, True
    yield "numpy.savez", MARK, 1
    yield "numpy.lib.format.open_memmap", MARK, "w+", "uint8", (1,)
    yield "numpy.distutils.exec_command.exec_command", SHELL
    yield "cloudpickle.loads", NESTED
    yield "cloudpickle.cloudpickle.subimport", "evil"
    yield "hypothesis.internal.reflection.source_exec_as_module", CODE
    yield "setuptools._distutils.spawn.spawn", ["touch", MARK]
    yield "attr._make._compile_and_eval", CODE, {}
    yield "sympy.sympify", f"__import__('os').mkdir('{MARK}')"


def computed() -> Iterator[tuple[str, Raw, int, str, str]]:
    """Callables that are results of calls into torch and numpy."""
    yield "vectorize", call(call("numpy.vectorize", named("os.mkdir")), MARK), 2, "numpy.vectorize", ""
    yield "frompyfunc", call(call("numpy.frompyfunc", named("os.mkdir"), 1, 1), MARK), 2, "numpy.frompyfunc", ""
    yield "storage-from-file", call(stacked("torch:UntypedStorage.from_file"), MARK, True, 8), 4, "from_file", ""
    yield "typed-storage-from-file", call(stacked("torch:FloatStorage.from_file"), MARK, True, 2), 4, "from_file", ""
    yield "array-tofile", call(stacked("numpy:ndarray.tofile"), call("numpy.arange", 2), MARK), 4, "ndarray.tofile", ""
    yield "hub-load-by-partial", call(
        build(
            call("functools.partial", named("builtins.print")),
            (named("torch.hub.load"), (".", "entry"), {"source": "local"}, None),
        )
    ), 2, "functools.partial", ""  # fmt: skip
    yield "load-by-partial", call(
        build(
            call("functools.partial", named("builtins.print")),
            (named("torch.load"), ("evil.pkl",), {"weights_only": False}, None),
        )
    ), 2, "functools.partial", ""  # fmt: skip
    yield "jinja-template", call(
        stacked("jinja2.environment:Template.render"),
        call("jinja2.Template", "{{ cycler.__init__.__globals__.os.mkdir('" + MARK + "') }}"),
    ), 4, "Template.render", "jinja2"  # fmt: skip
    yield "numpy-reconstruct-of-another-class", call(
        "numpy._core.multiarray._reconstruct", call("os.mkdir", MARK), (0,), b"b"
    ), 2, "os.mkdir", ""  # fmt: skip
    yield "wrapped-in-parameter", call(
        "torch._utils._rebuild_parameter", call(DEEP, named("os.mkdir"), named("builtins.int"), (MARK,), {}),
        True, no_hooks(),
    ), 2, "_rebuild_from_type_v2", ""  # fmt: skip


def without_a_call() -> Iterator[tuple[str, Raw, int, str]]:
    """NEWOBJ without arguments and a state: the class itself runs what its state says."""
    pipe = "torch.utils.data.datapipes.datapipe._IterDataPipeSerializationWrapper"
    yield "setstate-unpickles", build(newobj(pipe), (NESTED, False)), 2, pipe
    opener = "urllib.request.URLopener"
    yield "deleted-with-its-state", Raw(
        build(newobj(opener), {"_URLopener__tempfiles": [MARK], "_URLopener__unlink": named("os.mkdir")}) + b"0N"
    ), 2, "os.mkdir"  # fmt: skip
    environment = build(
        newobj("os._Environ"), {"encodekey": named("os.mkdir"), "encodevalue": named("builtins.str"), "_data": {}}
    )
    yield "setitem-calls-its-state", Raw(environment + value(MARK) + b"Ns"), 2, "os._Environ"
    yield "setitems-call-its-state", Raw(environment + b"(" + value(MARK) + b"Nu"), 2, "os._Environ"
    yield "state-of-a-listed-value", build(
        newobj("argparse.Namespace"), {"x": call("torch.device", call("os.mkdir", MARK))}
    ), 2, "os.mkdir"  # fmt: skip


def reconstructed() -> Iterator[tuple[str, Raw, int, str]]:
    """The helpers of copyreg, which make any class with any state."""
    handler = named("logging.FileHandler")
    yield "init-by-reconstructor", call("copyreg._reconstructor", handler, handler, MARK), 2, "_reconstructor"
    yield "init-by-old-name", call("copy_reg._reconstructor", handler, handler, MARK), 0, "_reconstructor"
    popen = named("subprocess.Popen")
    yield "popen-by-reconstructor", call("copyreg._reconstructor", popen, popen, ["touch", MARK]), 2, "_reconstructor"
    memmap = (named("numpy.memmap"), MARK, "uint8", "w+", 0, (1,))
    yield "by-newobj-function", call("copyreg.__newobj__", *memmap), 2, "copyreg.__newobj__"
    yield "by-newobj-ex-function", call(
        "copyreg.__newobj_ex__", named("numpy.memmap"), (MARK,), {"dtype": "uint8", "mode": "w+", "shape": 1}
    ), 2, "copyreg.__newobj_ex__"  # fmt: skip
    yield "by-newobj-ex", newobj_ex("numpy.memmap", MARK, dtype="uint8", mode="w+", shape=1), 4, "numpy.memmap"


def foreign() -> Iterator[str]:
    """Callables of other systems, other versions and nowhere: no less unlisted for not being here."""
    yield from ("nt.system", "commands.getoutput", "popen2.popen2", "__builtin__.file", "__builtin__.execfile")
    yield from ("builtins.apply", "__builtin__.reload", "__builtin__.raw_input", "win32api.WinExec", "joblib.load")
    yield from ("dill._dill._create_function", "torch.utils.model_zoo.load_url", "nowhere.at_all", "__main__.run")
    yield from ("torch._utils._rebuild_tensor_v9", "torch.Tensor", "torch.Storage", "collections.orderedDict")
    yield from ("torch._utils._rebuild_tensor_v2 ", "Torch._utils._rebuild_tensor_v2", "numpy.core.multiarray.Scalar")


def overwritten() -> Iterator[tuple[str, Raw, int, str]]:
    """BUILD on a class or a module: its attributes are overwritten, and something later calls them."""
    mkdir = call("functools.partial", named("os.mkdir"), MARK)
    yield "class-attribute", Raw(
        build(named("argparse.Namespace"), (None, {"__init__": mkdir}))
        + b"0" + call("argparse.Namespace")
    ), 2, "argparse.Namespace"  # fmt: skip
    yield "class-attribute-of-a-global", Raw(
        build(named("argparse.Namespace"), (None, {"__setstate__": named("os.mkdir")}))
        + b"0" + build(newobj("argparse.Namespace"), MARK)
    ), 2, "argparse.Namespace"  # fmt: skip
    yield "memoised-class", Raw(
        named("argparse.Namespace") + b"q\x010h\x01" + value((None, {"__setstate__": named("os.mkdir")})) + b"b0"
        + b"h\x01)\x81" + value(MARK) + b"b"
    ), 2, "argparse.Namespace"  # fmt: skip


def cases() -> Iterator[Case]:
    """All of them inside an archive of torch."""
    beside = {**MODULE, **HUBCONF, "evil.pkl": NESTED, "evil.npy": _object_array()}
    for index, (path, *arguments) in enumerate(plain()):
        content = archive(beside_a_tensor(call(path, *arguments)))
        needs = path.rpartition(".")[0]
        yield live(f"library-{index}-{path}", "model.pt", content, path, beside=beside, needs=needs)
    for name, payload, protocol, path, needs in computed():
        content = archive(beside_a_tensor(payload, protocol))
        yield live(f"library-computed-{name}", "model.pt", content, path, beside=beside, needs=needs)
    for name, payload, protocol, path in (*without_a_call(), *reconstructed(), *overwritten()):
        yield live(f"object-{name}", "model.pt", archive(beside_a_tensor(payload, protocol)), path)
    for path in foreign():
        for how, payload in (("reduce", call(path, "x")), ("obj", obj(path, "x")), ("inst", inst(path, "x"))):
            content = archive(beside_a_tensor(payload))
            yield hostile(f"foreign-{path}-{how}", "model.pt", content, UNSAFE, named=(path.partition(".")[2],))
    for path in ("antigravity.fly", "this.s", "idlelib.idle.main", "__hello__.main", "test.autotest.main"):
        content = archive(beside_a_tensor(named(path)))
        yield hostile(f"named-only-{path}", "model.pt", content, OK, UNSAFE, named=(path,))
    yield live(
        "object-as-the-whole-file", "model.pt",
        archive(pickled(build(newobj("torch.utils.data.datapipes.datapipe._IterDataPipeSerializationWrapper"),
                              (NESTED, False)))),
        "_IterDataPipeSerializationWrapper",
    )  # fmt: skip
    yield live(
        "tensor-of-a-computed-storage", "model.pt",
        archive(pickled({"w": tensor(call("torch.storage._load_from_bytes", NESTED))})), "_load_from_bytes",
    )  # fmt: skip


def _object_array() -> bytes:
    head = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
    head += b" " * (117 - len(head)) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + NESTED
