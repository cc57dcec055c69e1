"""Inventory and manifest: every tensor is found once, named once, and in one group."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from strategies import SMALL_DRQV2, drqv2_groups, drqv2_policy
from weightkit.arena import Arena
from weightkit.core.group import Transfer
from weightkit.core.jsonio import parse_json
from weightkit.errors import SyncError, UsageError
from weightkit.sync.grouping import make_manifest
from weightkit.sync.inventory import Inventory, Item, inventory


class Everything(nn.Module):
    """One tensor of every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(3, 4)
        self.head = nn.Linear(4, 3)
        self.head.requires_grad_(False)
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("grid", torch.ones(3), persistent=False)
        self.mean = torch.zeros(3)
        self.scale = np.ones(3, np.float32)
        self.stages = [torch.ones(2), {"low": torch.zeros(1)}]
        self.shadow = [self.encoder.weight]  # the same tensor as a registered one: no name of its own


def test_every_kind_of_tensor_is_found_under_its_dotted_path() -> None:
    kinds = {item.name: item.kind for item in inventory(Everything())}
    assert kinds == {
        "count": "buffer",
        "grid": "non-persistent buffer",
        "mean": "attribute",
        "scale": "numpy attribute",
        "stages.0": "attribute",
        "stages.1.low": "attribute",
        "encoder.weight": "parameter",
        "encoder.bias": "parameter",
        "head.weight": "parameter",
        "head.bias": "parameter",
    }


def test_what_needs_no_gradient_is_frozen() -> None:
    frozen = {item.name for item in inventory(Everything()) if item.frozen}
    assert {"head.weight", "head.bias", "count"} <= frozen
    assert not {"encoder.weight", "encoder.bias"} & frozen


def test_the_second_name_of_a_tensor_is_an_alias_of_the_first() -> None:
    policy = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    policy[1].weight = policy[0].weight
    assert {i.name: i.alias_of for i in inventory(policy) if i.alias_of} == {"1.weight": "0.weight"}


def test_compiled_modules_keep_their_plain_names() -> None:
    policy = nn.ModuleDict({"encoder": nn.Linear(2, 2)})
    wrapper = nn.Module()
    wrapper.add_module("_orig_mod", policy)
    assert [item.name for item in inventory(wrapper)] == ["encoder.weight", "encoder.bias"]


def test_a_key_may_be_copied_from_the_state_dict_of_a_wrapped_policy() -> None:
    wrapper = nn.Module()
    wrapper.module = nn.ModuleDict({"encoder": nn.Linear(2, 2), "critic": nn.Linear(2, 1)})
    for groups in ({"module": "send"}, {"module.encoder": "send", "critic": "hold"}):
        manifest = make_manifest(wrapper, groups)  # type: ignore[arg-type]
        assert set(manifest.by_name) == {
            f"{part}.{kind}" for part in ("encoder", "critic") for kind in ("weight", "bias")
        }
        assert "encoder.weight" in manifest.names(Transfer.SEND)


def test_a_read_only_array_is_refused() -> None:
    policy = nn.Module()
    policy.scale = np.broadcast_to(np.float32(1), (3,))  # type: ignore[assignment]
    with pytest.raises(SyncError, match="scale"):
        inventory(policy)


def test_the_longest_key_wins_and_a_key_ends_at_a_dot() -> None:
    policy = nn.ModuleDict({"actor": nn.Linear(1, 1), "actor_target": nn.Linear(1, 1)})
    manifest = make_manifest(policy, {"actor": "send", "actor.bias": ("hold", "why not"), "actor_target": "pin"})
    assert {e.name: e.group for e in manifest.entries} == {
        "actor.weight": "actor",
        "actor.bias": "actor.bias",
        "actor_target.weight": "actor_target",
        "actor_target.bias": "actor_target",
    }
    assert manifest.names(Transfer.SEND) == ("actor.weight",)
    assert manifest.groups[1].why == "why not"
    assert [bool(group.why) for group in manifest.groups] == [
        False,
        True,
        True,
    ]  # what stays says why, or that none was given


def test_uncovered_tensors_are_named() -> None:
    with pytest.raises(SyncError, match=r"count.*grid.*mean"):
        make_manifest(Everything(), {"encoder": "send", "head": "send", "scale": "send", "stages": "send"})


@pytest.mark.parametrize("groups", [{"": "send"}, {"enc": "send"}, {"encoder.weigh": "send"}])
def test_a_key_that_matches_nothing_is_an_error(groups: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        make_manifest(nn.ModuleDict({"encoder": nn.Linear(1, 1)}), {"encoder": "send", **groups})


def test_an_unknown_transfer_is_an_error() -> None:
    with pytest.raises(UsageError, match="sned"):
        make_manifest(nn.Linear(1, 1), {"weight": "sned", "bias": "send"})


def tied() -> nn.ModuleDict:
    policy = nn.ModuleDict({"encoder": nn.Linear(2, 2), "critic": nn.ModuleDict({"q": nn.Linear(2, 1)})})
    policy["critic"]["encoder"] = policy["encoder"]  # type: ignore[index, operator]
    return policy


def test_an_encoder_shared_with_a_held_critic_is_sent_once() -> None:
    manifest = make_manifest(tied(), {"encoder": "send", "critic": "hold"})
    assert manifest.names(Transfer.SEND) == ("encoder.weight", "encoder.bias")
    assert manifest.by_name["critic.encoder.weight"].alias_of == "encoder.weight"


def test_the_longest_key_holds_every_name_of_a_tensor() -> None:
    manifest = make_manifest(tied(), {"encoder": "send", "critic": "hold", "critic.encoder": "hold"})
    assert manifest.names(Transfer.SEND) == ()


def test_a_tensor_that_is_both_sent_and_pinned_is_an_error() -> None:
    with pytest.raises(SyncError, match="pins"):
        make_manifest(tied(), {"encoder": "send", "critic": "pin"})


def test_views_that_overlap_share_a_group() -> None:
    policy = nn.Module()
    flat = torch.zeros(10)
    policy.register_buffer("whole", flat)
    policy.register_buffer("part", flat[2:5])
    manifest = make_manifest(policy, {"whole": "hold", "part": "send"})
    assert manifest.names(Transfer.SEND) == ("whole", "part")


def test_an_arena_gives_back_what_was_packed() -> None:
    policy = Everything()
    manifest = make_manifest(policy, {name: "send" for name, _ in vars(policy)["_modules"].items()} | {
        "count": "send", "grid": "send", "mean": "send", "scale": "send", "stages": "send"})  # fmt: skip
    arena = Arena(manifest)
    own = {item.name: item.tensor for item in inventory(policy)}
    arena.pack(own)
    assert all(torch.equal(arena.tensor(name), own[name]) for name in arena.names)
    with pytest.raises(ValueError, match="outside"):
        arena.write(arena.nbytes - 1, b"ab")


def test_a_manifest_is_what_its_schema_says() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = parse_json((Path(__file__).parents[3] / "schemas/json/manifest.v1.schema.json").read_bytes(), origin="it")
    policy = drqv2_policy(SMALL_DRQV2, 0)
    jsonschema.validate(make_manifest(policy, drqv2_groups(policy), architecture="drqv2").to_dict(), schema)


# ---- the inventory that is kept


class Kept(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        self.register_buffer("count", torch.zeros(2))
        self.plain = torch.zeros(3)
        self.table = np.zeros(3)
        self.nets = [nn.Linear(1, 1)]
        self.caches: dict[str, Any] = {"a": [torch.zeros(1)]}
        self.steps = 0


def tie(m: Kept) -> None:
    m.inner[1].weight.data = m.inner[0].weight.data


CHANGES: dict[str, Callable[[Kept], object]] = {
    "a parameter": lambda m: setattr(m.inner[0], "weight", nn.Parameter(torch.ones(2, 2))),
    "its storage": lambda m: setattr(m.inner[0].weight, "data", torch.ones(2, 2)),
    "two tied by their storage": tie,
    "a module": lambda m: m.inner.__setitem__(1, nn.Linear(2, 2)),
    "a buffer": lambda m: setattr(m, "count", torch.ones(2)),
    "a new buffer": lambda m: m.inner[1].register_buffer("late", torch.ones(1)),
    "a plain attribute": lambda m: setattr(m, "plain", torch.ones(3)),
    "a new attribute": lambda m: setattr(m.inner[0], "late", torch.ones(1)),
    "an array": lambda m: setattr(m, "table", np.ones(3)),
    "a net in a plain list": lambda m: m.nets.append(nn.Linear(1, 1)),
    "a parameter of a net in a plain list": lambda m: setattr(m.nets[0], "weight", nn.Parameter(torch.ones(1, 1))),
    "a tensor deep in containers": lambda m: m.caches["a"].append(torch.ones(1)),
    "nothing but a number": lambda m: setattr(m, "steps", 1),
}


@pytest.mark.parametrize("change", CHANGES)
def test_an_inventory_that_is_kept_is_always_that_of_now(change: str) -> None:
    policy = Kept()
    kept = Inventory(policy)
    first = kept.items()
    assert kept.items() is first
    CHANGES[change](policy)

    def described(items: tuple[Item, ...]) -> list[tuple[object, ...]]:
        return [(i.name, id(i.tensor) if i.kind != "numpy attribute" else 0, i.kind, i.alias_of) for i in items]

    assert described(kept.items()) == described(inventory(policy))
    assert (kept.items() is first) == (change == "nothing but a number")
    assert kept.by_name().keys() == {item.name for item in inventory(policy)}


def test_looking_again_takes_no_second_inventory(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = Kept()
    kept = Inventory(policy)
    kept.items()
    monkeypatch.setattr("weightkit.sync.inventory.inventory", lambda policy: pytest.fail("made again"))
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(1)
    assert kept.items()
