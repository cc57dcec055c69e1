"""The tripwire: whatever a parser might be led to do beyond reading is stopped as it happens, in its own thread."""

from __future__ import annotations

import _thread
import ctypes
import gc
import importlib
import json
import marshal
import os
import pickle
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import zipfile
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from torch_reference import save
from unit.formats.pickles import dict_with
from unit.formats.pickles import save as save_pickled
from weightkit.cli.main import main
from weightkit.errors import CorruptFile, WeightkitError
from weightkit.formats import _pickle_opcodes, _zip, open_checkpoint
from weightkit.formats._tripwire import TripwireError, armed
from whole_agents import save_drqv2

# A module of the standard library that nothing here imports; it is taken away again before each use.
UNUSED = "this"


def _connect() -> None:
    socket.create_connection(("127.0.0.1", 9), timeout=0.01)


MARK_CODE = marshal.dumps(compile("1", "mark", "eval"))
READY = compile("path.write_text('x')", "ready", "exec")
# What is planted -> what does it; each is given a path that does not exist, beside a file "kept" that must stay.
DEEDS: dict[str, Callable[[Path], object]] = {
    "import": lambda path: importlib.import_module(UNUSED),
    "exec of text": lambda path: exec(f"open({str(path)!r}, 'w')"),
    "exec of code": lambda path: exec(READY, {"path": path}),
    "eval": lambda path: eval("1 + 1"),
    "compile": lambda path: compile("1", "x", "eval"),
    "open to write": lambda path: path.write_text("x", encoding="utf-8"),
    "open to append": lambda path: open(path, "a"),  # noqa: SIM115
    "open to create": lambda path: open(path, "xb"),  # noqa: SIM115
    "open to read and write": lambda path: open(path.with_name("kept"), "r+"),  # noqa: SIM115
    "os.open to create": lambda path: os.open(path, os.O_CREAT | os.O_WRONLY),
    "os.open to create, to read": lambda path: os.open(path, os.O_CREAT),
    "os.open to truncate": lambda path: os.open(path.with_name("kept"), os.O_RDONLY | os.O_TRUNC),
    "a temporary file": lambda path: tempfile.TemporaryFile(dir=path.parent),  # noqa: SIM115
    "a socket": lambda path: socket.socket(),
    "a connection": lambda path: _connect(),
    "a name looked up": lambda path: socket.getaddrinfo("localhost", 80),
    "a process": lambda path: subprocess.Popen(["touch", str(path)]),
    "a shell": lambda path: os.system(f"touch '{path}'"),
    "a fork": lambda path: os._exit(0) if os.fork() == 0 else None,
    "a spawn": lambda path: os.posix_spawn("/bin/true", ["true"], {}),
    "exec of a program": lambda path: os.execv("/bin/true", ["true"]),
    "a removed file": lambda path: os.remove(path.with_name("kept")),
    "a renamed file": lambda path: os.rename(path.with_name("kept"), path),
    "a linked file": lambda path: os.symlink(path.with_name("kept"), path),
    "a folder": lambda path: os.mkdir(path),
    "a removed tree": lambda path: shutil.rmtree(path.parent),
    "a changed mode": lambda path: os.chmod(path.with_name("kept"), 0o777),
    "a variable of the environment": lambda path: os.putenv("WEIGHTKIT_TEST", "1"),
    "a shared library": lambda path: ctypes.CDLL(None),
    "memory by its address": lambda path: ctypes.string_at(id(path), 1),
    "marshal": lambda path: marshal.loads(MARK_CODE),
    "a class found by pickle": lambda path: pickle.loads(b"ccollections\nOrderedDict\n."),
    "a signal to oneself": lambda path: os.kill(os.getpid(), 0),
    "a trace function": lambda path: sys.settrace(None),
}
if sys.version_info >= (3, 12):  # before, the start of a thread was no event
    DEEDS["a thread"] = lambda path: _thread.start_new_thread(path.write_text, ("x",))
# An error that is swallowed on the way is raised at the end all the same.
WAYS = ("openly", "swallowed", "swallowed twice")


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """A good checkpoint, and a file beside it that must stay."""
    (tmp_path / "kept").write_text("kept", encoding="utf-8")
    path = tmp_path / "good.pt"
    torch.save({"a": torch.ones(2), "b": {1, 2}}, path)
    return path


@pytest.fixture
def without_unused() -> Iterator[None]:
    """The unused module is not imported, before and after."""
    sys.modules.pop(UNUSED, None)
    yield
    sys.modules.pop(UNUSED, None)


def plant(monkeypatch: pytest.MonkeyPatch, deed: Callable[[], object], way: str = "openly") -> list[str]:
    """Let the machine do ``deed`` wherever a pickle names a class; returns what happened, as it happens."""
    original = _pickle_opcodes.judge_ref
    happened: list[str] = []

    def judge(ref: Any) -> Any:
        happened.append("reached")
        if way == "openly":
            deed()
            happened.append("done")
        for _ in range({"swallowed": 1, "swallowed twice": 2}.get(way, 0)):
            with suppress(BaseException):
                deed()
                happened.append("done")
        return original(ref)

    monkeypatch.setattr(_pickle_opcodes, "judge_ref", judge)
    return happened


@pytest.mark.usefixtures("without_unused")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("deed", DEEDS)
def test_what_a_parser_never_does_is_stopped_before_it_is_done(
    deed: str, way: str, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_checkpoint(good)
    target = good.with_name("done")
    happened = plant(monkeypatch, lambda: DEEDS[deed](target), way)
    with pytest.raises(TripwireError, match="parsing tried to do this and was stopped"):
        open_checkpoint(good)
    assert "reached" in happened
    assert "done" not in happened
    assert not target.exists()
    assert good.with_name("kept").read_text(encoding="utf-8") == "kept"
    assert UNUSED not in sys.modules
    monkeypatch.undo()
    assert list(open_checkpoint(good).state) == ["a"]


@pytest.mark.parametrize("way", WAYS)
def test_it_is_not_mistaken_for_an_error_of_the_file(way: str, good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ended the parsing may be a consequence of what was stopped, so that is what is said."""

    def deed() -> None:
        with suppress(TripwireError):
            os.mkdir(good.with_name("done"))
        raise CorruptFile("something else")

    plant(monkeypatch, deed, way)
    with pytest.raises(TripwireError, match=r"os\.mkdir"):
        open_checkpoint(good)
    assert not issubclass(TripwireError, (WeightkitError, OSError, ImportError, ValueError))


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_the_command_line_exits_70(
    as_json: bool, way: str, good: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("WEIGHTKIT_TRACEBACK", raising=False)
    words = ["inspect", str(good), *(["--json"] if as_json else [])]
    main(words)  # whatever the command imports is imported now
    capsys.readouterr()
    plant(monkeypatch, lambda: os.mkdir(good.with_name("done")), way)
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 70
    out, err = capsys.readouterr()
    if as_json:
        report = json.loads(out)
        assert report["exit_code"] == 70
        assert [finding["code"] for finding in report["findings"]] == ["WK900"]
        assert "os.mkdir" in report["findings"][0]["message"]
    else:
        assert not out
        assert "TripwireError" in err
        assert "os.mkdir" in err


def test_it_fires_in_the_archive_reader_too(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = _zip.Archive.read

    def read(self: Any, entry: Any) -> Any:
        os.mkdir(good.with_name("done"))
        return original(self, entry)

    monkeypatch.setattr(_zip.Archive, "read", read)
    with pytest.raises(TripwireError, match=r"os\.mkdir"):
        open_checkpoint(good)


def test_it_fires_for_a_file_of_no_format_that_may_be_a_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"ccollections\nOrderedDict\n)R.")
    plant(monkeypatch, lambda: os.mkdir(tmp_path / "done"))
    with pytest.raises(TripwireError):
        open_checkpoint(path)


def test_no_hook_of_somebody_else_is_added_within(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python itself swallows the error then, and leaves the hook out."""
    seen: list[str] = []
    open_checkpoint(good)
    plant(monkeypatch, lambda: sys.addaudithook(lambda event, args: seen.append(event)))
    with pytest.raises(TripwireError, match=r"sys\.addaudithook"):
        open_checkpoint(good)
    good.with_name("after").mkdir()
    assert seen == []


# ---- never on good files


def good_files(folder: Path) -> dict[str, Path]:
    """One file of every kind that is read here."""
    state = {"a": torch.ones(2, 3), "b": {"c": torch.arange(4), "d": "text"}, "half": torch.ones(2).bfloat16()}
    paths = {f"zip {number}": save(state, folder / f"zip{number}.pt", protocol=number) for number in (2, 3, 4, 5)}
    paths["legacy"] = save(state, folder / "legacy.pt", legacy=True)
    paths["unsafe"] = save_pickled(folder, dict_with(b"cos\nsystem\n(X\x04\x00\x00\x00truetR"))
    save_drqv2(folder / "agent.pt")
    save_drqv2(folder / "agent_legacy.pt", protocol=4, legacy=True)
    paths |= {"agent": folder / "agent.pt", "legacy agent": folder / "agent_legacy.pt"}
    flat = {"a": torch.ones(2, 3), "bf16": torch.ones(2).bfloat16(), "fp8": torch.ones(2).to(torch.float8_e4m3fn)}
    safetensors.torch.save_file(flat, folder / "a.safetensors", {"format": "pt", "ä": "ü"})
    np.savez(folder / "a.npz", a=np.ones(2), b=np.asfortranarray(np.ones((2, 3))), ä=np.ones(1, ">f4"))
    np.savez_compressed(folder / "b.npz", a=np.ones(2000))
    (folder / "bare.pkl").write_bytes(pickle.dumps({"mean": np.ones(3), "text": "ä", "n": 10**50}, 4))
    old = pickle.dumps({"mean": [1.5, "ä\n\\", b"\xff", 1 << 70]}, 0)
    (folder / "text.pkl").write_bytes(b"\x80\x02" + old)
    paths |= {name: folder / name for name in ("a.safetensors", "a.npz", "b.npz", "bare.pkl", "text.pkl")}
    shards = folder / "shards"
    shards.mkdir()
    weight_map = {name: f"model-{index + 1:05}-of-00003.safetensors" for index, name in enumerate(flat)}
    for name, filename in weight_map.items():
        safetensors.torch.save_file({name: flat[name]}, shards / filename)
    index = {"metadata": {"total_size": sum(each.nbytes for each in flat.values())}, "weight_map": weight_map}
    (shards / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    paths |= {"shards": shards, "index": shards / "model.safetensors.index.json"}
    for name, config in {"lerobot": '{"type": "act"}', "ours": '{"weightkit_format": 1, "note": "ä"}'}.items():
        paths[name] = folder / name
        paths[name].mkdir()
        (paths[name] / "config.json").write_text(config, encoding="utf-8")
        safetensors.torch.save_file(flat, paths[name] / "model.safetensors")
    with zipfile.ZipFile(folder / "sb3.zip", "w") as archive:
        held = b64encode(pickle.dumps(Untidy)).decode()
        archive.writestr("data", json.dumps({"gamma": 0.9, "space": {":type:": "Box", ":serialized:": held}}))
        archive.write(save(flat, folder / "policy.pth"), "policy.pth")
        archive.writestr("_stable_baselines3_version", "2.7.0")
        archive.writestr("system_info.txt", "- OS: ä\n")
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2)).eval()
    torch.jit.save(torch.jit.trace(net, torch.ones(1, 2)), folder / "script.pt")
    return paths | {"sb3.zip": folder / "sb3.zip", "script": folder / "script.pt"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_it_never_fires_on_a_good_file_of_any_kind(tmp_path: Path) -> None:
    """Each in a process in which nothing has been imported for other files; there any warning is an error too."""
    paths = good_files(tmp_path)
    names = sorted(paths)
    program = (
        "import os, sys\n"
        "from weightkit.formats import open_checkpoint\n"
        "for path in sys.argv[1:]:\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        found = open_checkpoint(path); count = len(found.state)\n"
        "        [found.read(name) for name in found.state if name not in found.not_dense]\n"
        "        print(found.format, count, flush=True); os._exit(0)\n"
        "    assert os.waitpid(child, 0)[1] == 0, path\n"
    )
    words = [sys.executable, "-X", "dev", "-W", "error", "-c", program, *(str(paths[name]) for name in names)]
    ran = subprocess.run(words, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    formats = dict(zip(names, ran.stdout.split("\n"), strict=False))
    assert formats["agent"].startswith("torch_zip")
    assert formats["legacy agent"].startswith("torch_legacy")
    assert formats["bare.pkl"].startswith("bare_pickle")
    assert formats["script"] == "torch_zip 7"
    assert formats["sb3.zip"] == "sb3_zip 3"
    assert formats["ours"] == "weightkit_dir 3"
    assert formats["index"].endswith(" 3")
    assert formats["shards"].endswith(" 3")


def test_nothing_that_the_reader_allows_itself_is_stopped(tmp_path: Path) -> None:
    """Files may be read, folders listed; nothing else of it is needed."""
    (tmp_path / "a").write_bytes(b"abc")
    with armed():
        assert (tmp_path / "a").read_bytes() == b"abc"
        descriptor = os.open(tmp_path / "a", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        os.close(descriptor)
        assert os.listdir(tmp_path) == ["a"]
        assert [entry.name for entry in os.scandir(tmp_path)] == ["a"]
        importlib.import_module("json")  # it is there already


# ---- what it leaves behind


def test_it_is_disarmed_afterwards_also_after_an_error(tmp_path: Path, good: Path) -> None:
    def failing(error: type[BaseException]) -> None:
        with armed():
            if error is TripwireError:
                os.mkdir(tmp_path / "never")
            raise error("x")

    for error in (CorruptFile, KeyboardInterrupt, TripwireError):
        with pytest.raises(error):
            failing(error)
        (tmp_path / error.__name__).mkdir()
    good.write_bytes(good.read_bytes()[:-50])
    with pytest.raises(CorruptFile):
        open_checkpoint(good)
    (tmp_path / "after").mkdir()


@pytest.mark.parametrize("collecting", [True, False])
def test_the_garbage_collector_is_as_it_was(collecting: bool, tmp_path: Path) -> None:
    was = gc.isenabled()
    try:
        (gc.enable if collecting else gc.disable)()
        with armed():
            assert not gc.isenabled()
        assert gc.isenabled() is collecting
        with pytest.raises(TripwireError):
            with armed():
                os.mkdir(tmp_path / "never")
        assert gc.isenabled() is collecting
    finally:
        (gc.enable if was else gc.disable)()


def test_armed_within_armed_stays_armed_to_the_outer_end(tmp_path: Path) -> None:
    def after_the_inner() -> None:
        with armed():
            with armed():
                pass
            assert not gc.isenabled()
            os.mkdir(tmp_path / "never")

    def swallowed_in_the_inner() -> None:
        with armed():
            with suppress(TripwireError):
                with armed():
                    os.mkdir(tmp_path / "never")

    for nested in (after_the_inner, swallowed_in_the_inner):
        with pytest.raises(TripwireError):
            nested()
    assert not (tmp_path / "never").exists()
    (tmp_path / "after").mkdir()


class Untidy:
    """Somebody else's object: it writes when it is collected, and only the collector can."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.itself = self

    def __del__(self) -> None:
        self.path.touch()


def churn() -> None:
    """Enough new containers that the collector would run if it could."""
    for _ in range(5):
        [[] for _ in range(20_000)]


def test_somebody_elses_finalizer_does_not_run_within(tmp_path: Path) -> None:
    Untidy(tmp_path / "collected")
    with armed():
        churn()
    assert not (tmp_path / "collected").exists()
    gc.collect()
    assert (tmp_path / "collected").exists()


def test_the_first_thread_to_end_does_not_switch_the_collector_on_for_the_others(tmp_path: Path) -> None:
    inside, leave = threading.Event(), threading.Event()
    left: list[bool] = []

    def other() -> None:
        with armed():
            inside.set()
            left.append(leave.wait(20))

    thread = threading.Thread(target=other)
    thread.start()
    assert inside.wait(20)
    Untidy(tmp_path / "collected")
    with armed():
        leave.set()
        while thread.is_alive():
            pass
        assert not gc.isenabled()
        churn()
    assert left == [True]
    assert gc.isenabled()
    gc.collect()


# ---- other threads


def test_other_threads_do_what_they_like_while_one_parses(good: Path, tmp_path: Path) -> None:
    """None of their deeds is disturbed, and none is counted against the file."""
    stop = threading.Event()
    parsed: list[int] = []
    failures: list[BaseException] = []
    done: dict[str, int] = {}

    def parsing() -> None:
        try:
            while not stop.is_set():
                parsed.append(len(open_checkpoint(good).state))
        except BaseException as error:
            failures.append(error)

    def doing(name: str, deed: Callable[[int], object], times: int) -> None:
        try:
            for count in range(times):
                deed(count)
                done[name] = count + 1
        except BaseException as error:
            failures.append(error)

    def importing(count: int) -> None:
        name = f"imported_while_parsing_{count}"
        (tmp_path / f"{name}.py").write_text(f"value = {count}\n", encoding="utf-8")
        importlib.invalidate_caches()
        assert importlib.import_module(name).value == count
        del sys.modules[name]

    def connecting(count: int) -> None:
        with socket.socket() as listening, socket.socket() as calling:
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            calling.connect(listening.getsockname())
            listening.accept()[0].close()

    deeds: dict[str, tuple[Callable[[int], object], int]] = {
        "imports": (importing, 10),
        "writes": (lambda count: (tmp_path / f"w{count}").write_text("x", encoding="utf-8"), 200),
        "processes": (lambda count: subprocess.run(["true"], check=True), 5),
        "sockets": (connecting, 30),
        "evaluations": (lambda count: eval(f"{count} + 1"), 200),
        "temporary folders": (lambda count: tempfile.TemporaryDirectory(dir=tmp_path).cleanup(), 30),
    }
    sys.path.insert(0, str(tmp_path))
    workers = [threading.Thread(target=doing, args=(name, *deed)) for name, deed in deeds.items()]
    parsers = [threading.Thread(target=parsing) for _ in range(2)]
    try:
        for thread in (*parsers, *workers):
            thread.start()
        for thread in workers:
            thread.join(60)
    finally:
        stop.set()
        for thread in parsers:
            thread.join(60)
        sys.path.remove(str(tmp_path))
    assert failures == []
    assert done == {name: times for name, (_, times) in deeds.items()}
    assert set(parsed) == {1}
    assert gc.isenabled()


def test_a_deed_in_one_parsing_thread_is_not_counted_against_another(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are armed at the same time; one of them does what it must not."""
    meet = threading.Barrier(2, timeout=20)
    original = _pickle_opcodes.judge_ref
    mine = threading.local()
    results: dict[str, object] = {}

    def judge(ref: Any) -> Any:
        if not mine.met:
            mine.met = True
            meet.wait()
            if mine.is_bad:
                with suppress(TripwireError):
                    os.mkdir(tmp_path / "never")
            meet.wait()
        return original(ref)

    def run(name: str, is_bad: bool) -> None:
        mine.met, mine.is_bad = False, is_bad
        try:
            results[name] = list(open_checkpoint(good).state)
        except TripwireError as error:
            results[name] = str(error)

    monkeypatch.setattr(_pickle_opcodes, "judge_ref", judge)
    threads = [threading.Thread(target=run, args=("bad", True)), threading.Thread(target=run, args=("good", False))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results["good"] == ["a"]
    assert "os.mkdir" in str(results["bad"])
    assert not (tmp_path / "never").exists()


def test_what_a_thread_does_after_parsing_is_its_own_business(good: Path, tmp_path: Path) -> None:
    def work() -> None:
        open_checkpoint(good)
        (tmp_path / "after").mkdir()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(20)
    assert (tmp_path / "after").is_dir()
