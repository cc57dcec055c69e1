"""Checkpoints in shards: the index is believed in nothing that the shards do not bear out."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings

from unit.formats.pickles import archive, dict_with
from weightkit.cli.main import main
from weightkit.core.report import Severity
from weightkit.errors import CorruptFile, FormatError, LimitExceeded, UnknownFormat, UnsafeContent
from weightkit.formats import Limits, detect, open_checkpoint

INDEX, TORCH_INDEX = "model.safetensors.index.json", "pytorch_model.bin.index.json"
STATE = {
    "embed.weight": torch.arange(12, dtype=torch.float32).reshape(3, 4),
    "layers.0.bias": torch.ones(5, dtype=torch.bfloat16),
    "layers.0.weight": torch.zeros(2, 2, dtype=torch.float64),
    "step": torch.tensor(7),
}
PAYLOAD = b"cos\nsystem\n(X\x04\x00\x00\x00truetR"


def write(
    folder: Path,
    shards: dict[str, dict[str, torch.Tensor]],
    *,
    weight_map: object = None,
    index: str = INDEX,
    save: Callable[..., None] = safetensors.torch.save_file,
    **metadata: object,
) -> Path:
    """The shards and their index, as transformers writes them unless told otherwise."""
    for name, state in shards.items():
        save(state, folder / name)
    if weight_map is None:
        weight_map = {tensor: name for name, state in shards.items() for tensor in state}
    total = sum(tensor.numel() * tensor.element_size() for state in shards.values() for tensor in state.values())
    document = {"metadata": {"total_size": total, **metadata}, "weight_map": weight_map}
    (folder / index).write_text(json.dumps(document, indent=2))
    return folder / index


def halves(ending: str = "safetensors") -> dict[str, dict[str, torch.Tensor]]:
    """STATE in two shards."""
    names = list(STATE)
    return {
        f"model-0000{number}-of-00002.{ending}": {name: STATE[name] for name in part}
        for number, part in ((1, names[:2]), (2, names[2:]))
    }


def refused(path: Path, said: str) -> FormatError:
    """The error of opening ``path``, which must match ``said``."""
    with pytest.raises(FormatError, match=said) as error:
        open_checkpoint(path)
    return error.value


def test_safetensors_shards_are_one_checkpoint_by_index_and_by_folder(tmp_path: Path) -> None:
    index = write(tmp_path, halves())
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    reference = {
        name: value for file in halves() for name, value in safetensors.torch.load_file(tmp_path / file).items()
    }
    for path, name in ((index, "sharded_index"), (tmp_path, "sharded_dir")):
        found = open_checkpoint(path)
        assert (found.format, found.verdict, found.root, found.findings) == (name, None, "", ())
        assert list(found.state) == list(STATE)
        for tensor, value in reference.items():
            assert found.read(tensor).tobytes() == value.reshape(-1).view(torch.uint8).numpy().tobytes()
        assert found.metadata["total_size"] == 12 * 4 + 5 * 2 + 4 * 8 + 8
    assert open_checkpoint(tmp_path).metadata["config"] == {"model_type": "bert"}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.text("ab.é", min_size=1, max_size=6), st.integers(0, 3), min_size=1, max_size=8))
def test_whatever_way_tensors_are_spread_each_reads_from_its_shard(
    tmp_path_factory: pytest.TempPathFactory, spread: dict[str, int]
) -> None:
    folder = tmp_path_factory.mktemp("spread")
    shards: dict[str, dict[str, torch.Tensor]] = {}
    for number, (name, shard) in enumerate(spread.items()):
        shards.setdefault(f"s{shard}.safetensors", {})[name] = torch.full((2,), float(number))
    found = open_checkpoint(write(folder, shards))
    assert sorted(found.state) == sorted(spread)
    assert [found.read(name)[0] for name in spread] == list(range(len(spread)))


@pytest.mark.parametrize("zipped", [True, False])
def test_torch_shards_keep_their_aliases_in_both_layouts(zipped: bool, tmp_path: Path) -> None:
    shared = torch.arange(4.0)
    shards = {"pytorch_model-00001-of-00002.bin": {"a": shared, "b": shared}, "pytorch_model-00002-of-00002.bin": STATE}

    def save(state: object, path: Path) -> None:
        torch.save(state, path, _use_new_zipfile_serialization=zipped)

    found = open_checkpoint(write(tmp_path, shards, index=TORCH_INDEX, save=save))
    assert found.verdict == "data"
    assert found.state.aliases == {"b": "a"}
    for name, value in torch.load(tmp_path / "pytorch_model-00002-of-00002.bin", weights_only=True).items():
        assert found.read(name).tobytes() == value.reshape(-1).view(torch.uint8).numpy().tobytes()
    assert [finding.code for finding in found.findings] == []  # total_size counts the shared tensor twice


def test_a_payload_in_a_shard_is_named_with_its_shard(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    safetensors.torch.save_file({"good": torch.ones(2)}, tmp_path / "good.safetensors")
    (tmp_path / "bad.bin").write_bytes(archive(dict_with(PAYLOAD)))
    index = write(tmp_path, {}, weight_map={"good": "good.safetensors", "w": "bad.bin"}, total_size=None)
    found = open_checkpoint(index)
    assert found.verdict == "unsafe"
    payloads = [finding.message for finding in found.findings if finding.code == "WK103"]
    assert payloads
    assert all("bad.bin" in message and "os.system" in message for message in payloads)
    np.testing.assert_array_equal(found.read("good"), [1, 1])
    for path in (index, tmp_path):
        with pytest.raises(SystemExit) as end:
            main(["inspect", str(path)])
        assert end.value.code == 4
        assert "bad.bin" in "".join(capsys.readouterr())


def test_a_bare_pickle_in_place_of_a_shard_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.bin").write_bytes(b"\x80\x02" + PAYLOAD + b".")
    with pytest.raises(UnsafeContent, match=r"bad\.bin.*os\.system"):
        open_checkpoint(write(tmp_path, {}, weight_map={"w": "bad.bin"}))
    (tmp_path / "bad.bin").write_bytes(b"nothing at all")
    refused(tmp_path / INDEX, r"bad\.bin: no weights that are read here")


@pytest.mark.parametrize(
    "name", ["../x.safetensors", "/etc/passwd", "a/b.safetensors", "..", ".", "", "a\\b", "a\0b", "~/x/"]
)
def test_a_shard_with_a_name_that_leads_elsewhere_is_refused(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    safetensors.torch.save_file(STATE, tmp_path / "x.safetensors")
    index = write(folder, {}, weight_map=dict.fromkeys(STATE, name))
    assert "plain name" in refused(index, "refers to the file").message


def test_a_shard_that_is_a_link_or_no_file_is_refused(tmp_path: Path) -> None:
    safetensors.torch.save_file(STATE, tmp_path / "outside.safetensors")
    folder = tmp_path / "inner"
    folder.mkdir()
    index = write(folder, {}, weight_map=dict.fromkeys(STATE, "s.safetensors"))
    refused(index, r"no such file; .*index\.json refers to it")
    os.symlink("../outside.safetensors", folder / "s.safetensors")
    refused(index, "symbolic link")
    (folder / "s.safetensors").unlink()
    (folder / "s.safetensors").mkdir()
    refused(index, "regular file")
    os.symlink(INDEX, folder / "link.index.json")
    (folder / "s.safetensors").rmdir()
    os.link(tmp_path / "outside.safetensors", folder / "s.safetensors")
    assert len(open_checkpoint(folder / "link.index.json").state) == len(STATE)  # the user may name a link


def test_an_index_in_a_folder_is_not_followed_where_it_is_a_link(tmp_path: Path) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    write(tmp_path, halves())
    os.symlink(f"../{INDEX}", folder / INDEX)
    refused(folder, "symbolic link")


def test_a_tensor_in_another_shard_than_the_index_says_is_refused(tmp_path: Path) -> None:
    first, second = halves()
    names = list(STATE)
    swapped = {names[0]: second, names[1]: first, names[2]: second, names[3]: second}
    error = refused(write(tmp_path, halves(), weight_map=swapped), r"00002.*not in it.*embed\.weight")
    assert isinstance(error, CorruptFile)
    only_first = dict.fromkeys(names[:3], first) | {names[3]: second}
    refused(write(tmp_path, halves(), weight_map=only_first), r"00001.*not in it.*layers\.0\.weight")
    extra = {first: STATE, second: {name: STATE[name] for name in names[2:]}}
    listed = dict.fromkeys(names[:2], first) | dict.fromkeys(names[2:], second)
    refused(write(tmp_path, extra, weight_map=listed), r"00001.*holds the tensor .*says it lies in")


def test_a_tensor_that_the_index_does_not_list_is_refused(tmp_path: Path) -> None:
    kept = {name: shard for shard, state in halves().items() for name in state if name != "step"}
    refused(write(tmp_path, halves(), weight_map=kept), "'step'.*does not list it")


def test_an_unlisted_second_name_is_refused_in_a_torch_shard_and_not_in_safetensors_metadata(tmp_path: Path) -> None:
    shared = torch.ones(2)
    torch.save({"a": shared, "b": shared}, tmp_path / "s.bin")
    refused(write(tmp_path, {}, weight_map={"a": "s.bin"}), "'b'.*does not list it")
    safetensors.torch.save_file({"a": shared}, tmp_path / "s.safetensors", metadata={"b": "a"})
    found = open_checkpoint(write(tmp_path, {}, weight_map={"a": "s.safetensors"}))
    assert found.state.aliases == {"b": "a"}


def test_a_listed_tensor_that_is_missing_is_refused(tmp_path: Path) -> None:
    listed = {name: shard for shard, state in halves().items() for name in state}
    listed["gone"] = next(iter(halves()))
    refused(write(tmp_path, halves(), weight_map=listed), "not in it: 'gone'")


def test_two_shards_that_differ_in_case_only_are_refused(tmp_path: Path) -> None:
    shards = {"A.safetensors": {"a": torch.ones(1)}, "a.safetensors": {"b": torch.ones(1)}}
    refused(write(tmp_path, shards), "differ only in case")


def test_a_total_that_is_not_the_shards_is_a_warning(tmp_path: Path) -> None:
    found = open_checkpoint(write(tmp_path, halves(), total_size=5))
    (finding,) = found.findings
    assert (finding.code, finding.severity, finding.subject) == ("WK102", Severity.WARNING, "total_size")
    assert open_checkpoint(write(tmp_path, halves(), total_size="many")).findings == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"weight_map": {"a": "s", "a": "t"}}', "'a' stands twice"),
        ('{"weight_map": {"a": "s"}, "weight_map": {}}', "'weight_map' stands twice"),
        ('{"weight_map": []}', "expected the object 'weight_map'"),
        ('{"weight_map": {"a": 1}}', "expected the name of a file"),
        ('{"weight_map": {"a": ["s"]}}', "expected the name of a file"),
        ('{"weight_map": {}}', "lists no tensor"),
        ('{"weight_map": {"a": "\\ud800"}}', "no file can have this name|refers to it"),
        ('{"metadata": 1, "weight_map": {"a": "s"}}', "its metadata is no JSON object"),
        ("{", "not JSON"),
        ('{"weight_map": NaN}', "NaN is not JSON"),
        ('{"a": ' + "[" * 100_000, "nested more than"),
        ('{"a": ' + "9" * 5000 + "}", "digits"),
        ("{}", "expected the object 'weight_map'"),
    ],
)  # fmt: skip
def test_an_index_that_lies_or_is_no_index_is_refused(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / INDEX
    path.write_text(text)
    assert refused(path, said).message.isprintable()


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32-be", "utf-8-sig", "latin-1"])
def test_an_index_in_another_encoding_is_refused_and_no_codec_imported(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / INDEX
    path.write_bytes('{"weight_map": {"é": "s"}}'.encode(encoding))
    with pytest.raises(FormatError):
        open_checkpoint(path)


def test_a_huge_index_and_too_many_tensors_over_all_shards_cost_a_limit(tmp_path: Path) -> None:
    index = write(tmp_path, halves())
    for limits, said in (
        (Limits(json_bytes=100), "json_bytes=100"),
        (Limits(tensors=3), "tensors=3"),
        (Limits(header_bytes=300), "header_bytes=300"),
    ):
        with pytest.raises(LimitExceeded, match=said):
            open_checkpoint(index, limits)
    assert len(open_checkpoint(index, Limits(tensors=4, header_bytes=2000)).state) == 4


def test_damage_to_an_index_ends_in_a_format_error(tmp_path: Path) -> None:
    index = write(tmp_path, halves())
    whole = index.read_bytes()
    for position in range(0, len(whole), 7):
        for damaged in (whole[:position], whole[:position] + b"\x00" + whole[position + 1 :]):
            index.write_bytes(damaged)
            with pytest.raises(FormatError):
                open_checkpoint(index)


def test_one_file_beside_a_config_is_a_folder_with_one_shard(tmp_path: Path) -> None:
    safetensors.torch.save_file(STATE, tmp_path / "model.safetensors")
    with pytest.raises(UnknownFormat):
        open_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text('{"architectures": ["BertModel"]}')
    found = open_checkpoint(tmp_path)
    assert (found.format, found.path, set(found.state)) == ("sharded_dir", str(tmp_path), set(STATE))
    assert found.metadata["config"] == {"architectures": ["BertModel"]}
    torch.save(STATE, tmp_path / "pytorch_model.bin")
    (finding,) = open_checkpoint(tmp_path).findings
    assert finding.severity is Severity.INFO
    assert "pytorch_model.bin" in finding.message


def test_an_index_of_safetensors_goes_before_one_of_torch(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "all.bin")
    write(tmp_path, {}, weight_map=dict.fromkeys(STATE, "all.bin"), index=TORCH_INDEX)
    write(tmp_path, halves())
    found = open_checkpoint(tmp_path)
    assert found.verdict is None
    assert [(finding.severity, finding.subject) for finding in found.findings] == [(Severity.INFO, TORCH_INDEX)]


def test_several_unusual_indices_are_not_guessed_between(tmp_path: Path) -> None:
    write(tmp_path, halves(), index="one.safetensors.index.json")
    assert detect(tmp_path).name == "sharded_dir"
    assert len(open_checkpoint(tmp_path).state) == len(STATE)
    write(tmp_path, halves(), index="two.safetensors.index.json")
    assert "one.safetensors.index.json" in refused(tmp_path, "2 indices").hint


def test_json_that_is_no_index_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UnknownFormat, match="text"):
        open_checkpoint(tmp_path / "config.json")
