"""Calls that leave the mark through the standard library, one at a time."""

from __future__ import annotations

import marshal
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from corpus.case import CODE, EXPRESSION, MARK, MODULE, SHELL, Case, live
from corpus.opcodes import Raw, beside_a_tensor, build, call, named, newobj, pickled, stacked
from corpus.rawzip import archive

TOUCH = ["touch", MARK]
NESTED = pickled(call("os.mkdir", MARK))
SEED = {"seed": b"x"}
PTH = {"evil.pth": f"import os; {CODE}".encode()}


def plain() -> Iterator[tuple[Any, ...]]:
    """``(path, *arguments)`` of single calls."""
    yield "os.popen", SHELL
    yield "posix.mkdir", MARK
    yield "os.makedirs", MARK
    yield "os.mkfifo", MARK
    yield "os.symlink", "x", MARK
    yield "os.open", MARK, 0o102
    yield "os.spawnlp", 0, "touch", "touch", MARK
    yield "os.spawnvp", 0, "touch", TOUCH
    yield "os.execvp", "touch", TOUCH
    yield "os.execlp", "touch", "touch", MARK
    yield "posix.posix_spawn", "/bin/sh", ["sh", "-c", SHELL], {"PATH": "/bin:/usr/bin"}
    yield "subprocess.Popen", TOUCH
    yield "subprocess.run", TOUCH
    yield "subprocess.call", TOUCH
    yield "subprocess.check_call", TOUCH
    yield "subprocess.check_output", TOUCH
    yield "subprocess.getoutput", SHELL
    yield "subprocess.getstatusoutput", SHELL
    yield "builtins.exec", CODE
    yield "builtins.eval", EXPRESSION
    yield "builtins.open", MARK, "w"
    yield "io.open", MARK, "w"
    yield "_io.open", MARK, "w"
    yield "io.FileIO", MARK, "w"
    yield "_pyio.open", MARK, "w"
    yield "codecs.open", MARK, "w"
    yield "tempfile.mkdtemp", "", MARK, "."
    yield "tempfile.mkstemp", "", MARK, "."
    yield "logging.FileHandler", MARK
    yield "sqlite3.connect", MARK
    yield "dbm.dumb.open", MARK, "n"
    yield "shelve.open", MARK, "n"
    yield "zipfile.ZipFile", MARK, "w"
    yield "tarfile.open", MARK, "w"
    yield "gzip.open", MARK, "wb"
    yield "bz2.open", MARK, "wb"
    yield "lzma.open", MARK, "wb"
    yield "mailbox.mbox", MARK
    yield "mailbox.Maildir", MARK
    yield "timeit.timeit", "pass", CODE
    yield "timeit.repeat", "pass", CODE
    yield "timeit.main", ["-n1", "-r1", CODE]
    yield "pydoc.pipepager", "", SHELL
    yield "cProfile.run", CODE
    yield "cProfile.runctx", CODE, {}, {}
    yield "profile.run", CODE
    yield "profile.runctx", CODE, {}, {}
    yield "pickle.loads", NESTED
    yield "_pickle.loads", NESTED
    yield "pickle._loads", NESTED
    yield "pickle.load", call("io.BytesIO", NESTED)
    yield "pty.spawn", TOUCH
    yield "uuid._get_command_stdout", "touch", MARK
    yield "_osx_support._read_output", SHELL
    yield "venv.create", MARK
    yield "dataclasses._create_fn", "f", [f"a={EXPRESSION}"], ["pass"]
    yield "collections.deque", call("builtins.map", named("builtins.exec"), [CODE])
    yield "builtins.any", call("builtins.map", named("os.mkdir"), [MARK])
    yield "functools.reduce", named("builtins.exec"), [CODE, {}]
    yield "weakref.finalize", call("argparse.Namespace"), named("os.mkdir"), MARK
    yield "atexit.register", named("os.mkdir"), MARK
    yield "shutil.make_archive", MARK, "tar", "."
    yield "typing._eval_type", call("typing.ForwardRef", EXPRESSION), {}, {}
    yield "runpy._run_code", call("builtins.compile", CODE, "x", "exec"), {}
    yield "multiprocessing.util.spawnv_passfds", b"/bin/sh", ["sh", "-c", SHELL], []
    yield "asyncio.run", call("asyncio.create_subprocess_shell", SHELL)


def with_files() -> Iterator[tuple[dict[str, bytes], str, tuple[Any, ...]]]:
    """Calls that need a file beside them: what it holds, the path, the arguments."""
    yield MODULE, "importlib.import_module", ("evil",)
    yield MODULE, "builtins.__import__", ("evil",)
    yield MODULE, "runpy.run_path", ("evil.py",)
    yield MODULE, "runpy.run_module", ("evil",)
    yield MODULE, "pydoc.importfile", ("evil.py",)
    yield MODULE, "pydoc.locate", ("evil",)
    yield MODULE, "pydoc.safeimport", ("evil",)
    yield MODULE, "pkgutil.resolve_name", ("evil",)
    yield MODULE, "py_compile.compile", ("evil.py", MARK)
    yield MODULE, "imp.load_source", ("evil", "evil.py")
    yield MODULE, "distutils.core.run_setup", ("evil.py",)
    yield SEED, "shutil.copyfile", ("seed", MARK)
    yield SEED, "shutil.move", ("seed", MARK)
    yield SEED, "os.rename", ("seed", MARK)
    yield SEED, "os.replace", ("seed", MARK)
    yield SEED, "os.link", ("seed", MARK)
    yield PTH, "site.addpackage", (".", "evil.pth", None)
    yield PTH, "site.addsitedir", (".",)


def computed() -> Iterator[tuple[str, Raw, int, str, str]]:
    """Callables that are the result of a call: name, payload, protocol, what must be named, the module needed."""
    module = call("importlib.import_module", "os")
    code = marshal.dumps(compile(CODE, "x", "exec"))
    mkdir = call("builtins.getattr", module, "mkdir")
    yield "getattr", call(mkdir, MARK), 2, "getattr", ""
    yield "getattr-of-a-listed-class", call(
        call("builtins.getattr", call("pathlib.PosixPath", MARK), "touch")
    ), 2, "getattr", ""  # fmt: skip
    yield "attrgetter", call(call(call("operator.attrgetter", "mkdir"), module), MARK), 2, "attrgetter", ""
    yield "methodcaller", call(call("operator.methodcaller", "mkdir", MARK), module), 2, "methodcaller", ""
    yield "itemgetter", call(
        call("builtins.getattr", call(call("operator.itemgetter", "os"), named("sys.modules")), "mkdir"), MARK
    ), 2, "itemgetter", ""  # fmt: skip
    yield "partial", call(call("functools.partial", named("os.mkdir"), MARK)), 2, "partial", ""
    yield "partial-by-build", call(
        build(call("functools.partial", named("builtins.print")), (named("os.mkdir"), (MARK,), {}, None))
    ), 2, "partial", ""  # fmt: skip
    yield "partial-by-newobj", call(newobj("functools.partial", named("os.mkdir"), MARK)), 2, "partial", ""
    yield "eval-of-a-lambda", call(call("builtins.eval", f"lambda: {EXPRESSION}")), 2, "eval", ""
    yield "function-of-code", call(call("types.FunctionType", call("marshal.loads", code), {})), 2, "marshal.loads", ""
    yield "code-type", call(call("types.FunctionType", _code(), {})), 2, "types.CodeType", ""
    yield "exec-of-code", call("builtins.exec", call("marshal.loads", code)), 2, "builtins.exec", ""
    yield "compile", call("builtins.exec", call("builtins.compile", CODE, "x", "exec")), 2, "builtins.compile", ""
    yield "resolve-name", call(call("pkgutil.resolve_name", "os:mkdir"), MARK), 2, "pkgutil.resolve_name", ""
    yield "locate", call(call("pydoc.locate", "os.mkdir"), MARK), 2, "pydoc.locate", ""
    yield "logging-resolve", call(call("logging.config._resolve", "os.mkdir"), MARK), 2, "logging.config._resolve", ""
    yield "dotted-attribute", call(
        call("xmlrpc.server.resolve_dotted_attribute", module, "mkdir"), MARK
    ), 2, "xmlrpc.server.resolve_dotted_attribute", ""  # fmt: skip
    yield "getattr-static", call(call("inspect.getattr_static", module, "mkdir"), MARK), 2, "getattr_static", ""
    makes = call("functools.partial", named("os.mkdir"), MARK)
    yield "type-of-three", call(
        call("builtins.type", "T", (named("builtins.dict"),), {"__init__": makes})
    ), 2, "builtins.type", ""  # fmt: skip
    yield "bound-of-ctypes", call(
        call("builtins.getattr", call("ctypes.CDLL", None), "system"), SHELL.encode()
    ), 2, "ctypes.CDLL", ""  # fmt: skip
    if sys.version_info >= (3, 11):
        yield "operator-call", call("operator.call", named("os.mkdir"), MARK), 2, "operator.call", ""
    yield "thread", call(
        stacked("threading:Thread.run"), call("threading.Thread", None, named("builtins.exec"), None, (CODE,))
    ), 4, "Thread.run", ""  # fmt: skip
    yield "bdb", call(stacked("bdb:Bdb.run"), call("bdb.Bdb"), CODE), 4, "Bdb.run", ""
    yield "trace", call(stacked("trace:Trace.run"), call("trace.Trace", 0, 0), CODE), 4, "Trace.run", ""
    yield "interpreter", call(
        stacked("code:InteractiveInterpreter.runsource"), call("code.InteractiveInterpreter"), CODE
    ), 4, "InteractiveInterpreter.runsource", ""  # fmt: skip
    yield "browser", call(
        stacked("webbrowser:GenericBrowser.open"), call("webbrowser.GenericBrowser", ["touch", "%s"]), MARK
    ), 4, "GenericBrowser.open", ""  # fmt: skip
    yield "asyncio-start", call(
        stacked("asyncio.unix_events:_UnixSubprocessTransport._start"),
        call("argparse.Namespace"), SHELL, True, None, None, None, 0,
    ), 4, "_UnixSubprocessTransport._start", ""  # fmt: skip
    yield "grammar-loads", call(
        stacked("lib2to3.pgen2.grammar:Grammar.loads"), call("lib2to3.pgen2.grammar.Grammar"), NESTED
    ), 4, "Grammar.loads", "lib2to3"  # fmt: skip
    yield "idlelib", call("idlelib.calltip.get_entity", EXPRESSION), 2, "idlelib.calltip.get_entity", "tkinter"
    yield "tcl", call(
        call("builtins.getattr", call("tkinter.Tcl"), "eval"), f"exec {SHELL}"
    ), 2, "tkinter.Tcl", "_tkinter"  # fmt: skip
    yield "distutils-spawn", call("distutils.spawn.spawn", TOUCH), 2, "distutils.spawn.spawn", "distutils"
    yield "distutils-write", call("distutils.file_util.write_file", MARK, ["x"]), 2, "write_file", "distutils"
    yield "distutils-mkpath", call("distutils.dir_util.mkpath", MARK), 2, "distutils.dir_util.mkpath", "distutils"
    yield "starmap", call("builtins.list", call("itertools.starmap", named("os.mkdir"), [(MARK,)])), 2, "starmap", ""
    yield "filter", call("builtins.list", call("builtins.filter", named("os.mkdir"), [MARK])), 2, "builtins.filter", ""
    yield "map-in-a-listed-class", call(
        "collections.OrderedDict", call("builtins.map", named("os.mkdir"), [MARK])
    ), 2, "builtins.map", ""  # fmt: skip
    yield "map-by-newobj-in-bytes", call(
        "builtins.bytes", newobj("builtins.map", named("os.mkdir"), [MARK])
    ), 2, "builtins.map", ""  # fmt: skip


def _code() -> Raw:
    code = compile(CODE, "x", "exec")
    new = sys.version_info >= (3, 11)
    return call(
        "types.CodeType", code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_nlocals,
        code.co_stacksize, code.co_flags, code.co_code, code.co_consts, code.co_names, code.co_varnames,
        code.co_filename, code.co_name, *((code.co_qualname,) if new else ()), code.co_firstlineno,
        code.co_linetable, *((code.co_exceptiontable,) if new else ()), code.co_freevars, code.co_cellvars,
    )  # fmt: skip


def inner_names(arguments: Iterable[Any]) -> list[str]:
    """What the arguments themselves name: a listed class may be fed by a call that is not listed."""
    found = [name for item in arguments if isinstance(item, Raw) for name in re.findall(rb"c([\w.]+)\n(\w+)\n", item)]
    return [b".".join(parts).decode() for parts in found]


def cases() -> Iterator[Case]:
    """All of them inside an archive of torch."""
    for path, *given in plain():
        content = archive(beside_a_tensor(call(path, *given)))
        yield live(f"call-{path}", "model.pt", content, path, *inner_names(given), needs=path.rpartition(".")[0])
    for beside, path, given in with_files():
        content = archive(beside_a_tensor(call(path, *given)))
        needs = "distutils" if path.startswith("distutils.") else path.rpartition(".")[0]  # setuptools may stand in
        yield live(f"call-{path}", "model.pt", content, path, beside=beside, needs=needs)
    for name, payload, protocol, path, needs in computed():
        yield live(f"computed-{name}", "model.pt", archive(beside_a_tensor(payload, protocol)), path, needs=needs)
