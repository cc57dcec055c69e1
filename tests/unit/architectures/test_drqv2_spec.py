"""DrQ-v2 by arithmetic: specs, recognition by names and shapes, configurations read from files."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from locations import SHARED, needs_shared
from robobase_files import cfg_of, robobase_spec, robobase_table, second_name
from strategies import SMALL_DRQV2, drqv2_config, drqv2_configs
from weightkit.architectures import recognise
from weightkit.architectures.drqv2.architecture import ARCHITECTURE
from weightkit.architectures.drqv2.config import DrQV2Config
from weightkit.architectures.drqv2.layouts.robobase_drqv2 import LAYOUT as ROBOBASE
from weightkit.architectures.probes import probes
from weightkit.architectures.recognition import Recognition
from weightkit.core.axes import FRAMES
from weightkit.core.checkpoint import Checkpoint
from weightkit.core.section import Section
from weightkit.core.tensor import StateSpec, spec
from weightkit.engine.planning import make_plan
from weightkit.errors import ConfigError, UsageError

LAW = settings(deadline=None, max_examples=60, database=None)
WITH_NETS = settings(deadline=None, max_examples=15, database=None)
MAPPING = ROBOBASE.mapping(ARCHITECTURE.default_config())
SMALL = drqv2_config(SMALL_DRQV2)
DEVLOG = DrQV2Config(
    cameras=("front",), image_channels=3, image_height=84, image_width=84, frame_stack=3, state_dim=18, action_dim=4
)
KEYS = SHARED / "facts" / "keys"
TABLES = sorted(KEYS.glob("robobase_*.json"))


def opened(state: StateSpec, metadata: dict[str, object] | None = None) -> Checkpoint:
    """A checkpoint without bytes: recognition and planning must not want any."""

    def read(name: str) -> np.ndarray:
        raise AssertionError(f"{name} was read")

    return Checkpoint("snapshot.pt", "torch_zip", "agent", state, metadata or {}, read, "data")


def recognised(state: StateSpec, metadata: dict[str, object] | None = None, **settings: str) -> Recognition:
    found = recognise(opened(state, metadata), settings)
    assert found is not None
    return found


# ---- the spec


@WITH_NETS
@given(drqv2_configs())
def test_the_spec_by_arithmetic_is_that_of_the_net(config: DrQV2Config) -> None:
    from weightkit.torch_state import state_spec

    of_the_net = state_spec(ARCHITECTURE.build(config))
    assert list(ARCHITECTURE.spec(config).tensors.items()) == list(of_the_net.tensors.items())
    assert of_the_net.aliases == {}


@WITH_NETS
@given(drqv2_configs())
def test_the_acting_path_is_what_a_net_without_critics_holds(config: DrQV2Config) -> None:
    actor_only = ARCHITECTURE.build(config, with_critic=False)
    assert set(actor_only.state_dict()) == ARCHITECTURE.acting_path(ARCHITECTURE.spec(config))
    assert ARCHITECTURE.target(config).acting == set(actor_only.state_dict())


@pytest.mark.parametrize(("frames", "parameters"), [(3, 30_368), (1, 28_640)])
def test_the_encoder_of_the_devlogs_has_these_parameters(frames: int, parameters: int) -> None:
    state = ARCHITECTURE.spec(replace(DEVLOG, frame_stack=frames))
    assert state.only(name for name in state if name.startswith("encoder.")).numel == parameters


@pytest.mark.parametrize(
    ("changes", "encoder", "actor", "critic", "total"),
    [
        ({}, 30_368, 2_055_676, 4_111_858, 10_309_760),
        ({"frame_stack": 1}, 28_640, 2_053_876, 4_108_258, 10_299_032),
        ({"mlp_nodes": (1024, 1024)}, 30_368, 3_120_124, 6_242_290, 15_635_072),
        ({"cameras": ("front", "wrist")}, 60_736, 4_015_676, 8_031_858, 20_140_128),
        ({"frame_stack": 1, "state_dim": 54}, 28_640, 2_055_676, 4_111_858, 10_308_032),
        (
            {"state_dim": 0, "action_dim": 12, "mlp_nodes": (1024, 1024), "shared_critic_trunk": True},
            30_368, 3_074_274, 4_190_424, 30_368 + 3_074_274 + 2 * 4_190_424,
        ),
    ],
)  # fmt: skip
def test_each_net_has_the_parameters_that_were_counted_in_the_original(
    changes: dict[str, Any], encoder: int, actor: int, critic: int, total: int
) -> None:
    state = ARCHITECTURE.spec(replace(DEVLOG, **changes))
    by_group: dict[str, int] = {}
    for name in state.unique():
        by_group[ARCHITECTURE.group_of(name)] = by_group.get(ARCHITECTURE.group_of(name), 0) + state[name].numel
    assert by_group == {"encoder": encoder, "actor": actor, "critic": critic, "critic_target": critic}
    assert sum(by_group.values()) == total


def test_the_net_of_the_devlogs_has_these_parameters() -> None:
    state = ARCHITECTURE.spec(DEVLOG)
    by_group: dict[str, int] = {}
    for name in state:
        group = ARCHITECTURE.group_of(name)
        by_group[group] = by_group.get(group, 0) + state[name].numel
    assert by_group == {"encoder": 30_368, "actor": 2_055_676, "critic": 4_111_858, "critic_target": 4_111_858}
    assert state.numel == 10_309_760


@LAW
@given(drqv2_configs())
def test_what_stacks_frames_are_first_convolutions_and_state_trunks_with_whole_frames(config: DrQV2Config) -> None:
    target = ARCHITECTURE.target(config)
    heads = ["actor", *(f"{c}.qs.{q}" for c in ("critic", "critic_target") for q in range(config.num_critics))]
    trunks = {f"{head}.state_trunk.0.weight" for head in heads} if config.state_dim else set()
    stacked = {name: axis for name, (axis,) in target.axes.items() if axis.blocks[0][0].name == FRAMES}
    assert set(stacked) == {f"encoder.{camera}.0.weight" for camera in config.cameras} | trunks
    for name, axis in stacked.items():
        single = config.state_dim if name in trunks else config.image_channels
        assert axis.find(FRAMES) == (0, 0)
        assert [factor.size for factor in axis.blocks[0]] == [config.frame_stack, single]


@LAW
@given(drqv2_configs())
def test_what_is_said_of_an_axis_is_as_long_as_the_axis(config: DrQV2Config) -> None:
    target = ARCHITECTURE.target(config)
    for name, axes in target.axes.items():
        for axis in axes:
            assert target.state[name].shape[axis.axis] == axis.size


@LAW
@given(drqv2_configs())
def test_every_name_belongs_to_a_declared_group_in_both_layouts(config: DrQV2Config) -> None:
    groups = {group.name for group in ARCHITECTURE.groups(config)}
    for name, goal in robobase_table(config).items():
        assert ARCHITECTURE.group_of(name) == ARCHITECTURE.group_of(goal)
        assert ARCHITECTURE.group_of(second_name(name) or name) == ARCHITECTURE.group_of(goal)
        assert ARCHITECTURE.group_of(goal) in groups


@LAW
@given(drqv2_configs())
def test_a_configuration_survives_json(config: DrQV2Config) -> None:
    document = json.loads(json.dumps(config.to_dict()))
    assert DrQV2Config.from_section(Section(document, "config.json")) == config


@WITH_NETS
@given(drqv2_configs())
def test_probes_are_what_the_net_can_act_on(config: DrQV2Config) -> None:
    net = ARCHITECTURE.build(config).eval()
    for probe in probes(ARCHITECTURE.inputs(config)):
        assert net.act(probe).shape == (2, config.action_dim)


# ---- recognition


@LAW
@given(drqv2_configs(), st.booleans())
def test_a_file_with_its_cfg_is_recognised_without_an_assumption_but_names_and_channels(
    config: DrQV2Config, twice: bool
) -> None:
    config = replace(config, cameras=tuple(f"cam{i}" for i in range(len(config.cameras))))
    found = recognised(
        robobase_spec(config, twice=twice), {"cfg": cfg_of(config)}, image_channels=str(config.image_channels)
    )
    assert found.config == config
    assert (found.layout, found.confidence) == ("robobase-drqv2", "certain")
    assert {finding.subject for finding in found.findings} == {"cameras"}


@LAW
@given(drqv2_configs())
def test_a_file_without_cfg_gives_what_its_shapes_say_and_names_what_was_assumed(config: DrQV2Config) -> None:
    config = replace(
        config, num_downsample_convs=1, num_post_downsample_convs=1, image_height=12, image_width=12, image_channels=3
    )
    found = recognised(robobase_spec(config))
    assert found.confidence == "likely"
    if config.fusion != "flatten":  # which of average and sum it is no shape tells
        assert found.config is None
        assert [(f.code, f.subject) for f in found.findings] == [("WK108", "fusion")]
        return
    assert found.config == replace(config, cameras=tuple(f"cam{i}" for i in range(len(config.cameras))))
    assert {finding.subject for finding in found.findings} == {
        "cameras",
        "image_channels",
        "image_size",
        "num_downsample_convs",
        "frame_stack",
    } | ({"value_limit"} if config.num_atoms > 1 else set())
    assert {finding.code for finding in found.findings} == {"WK108"}


@LAW
@given(drqv2_configs(), st.data())
def test_settings_answer_every_question_that_weights_leave_open(config: DrQV2Config, data: st.DataObject) -> None:
    settings = {
        "cameras": ",".join(config.cameras),
        "image_channels": str(config.image_channels),
        "image_size": f"{config.image_height}x{config.image_width}",
        "num_downsample_convs": str(config.num_downsample_convs),
        "fusion": config.fusion,
        "value_limit": str(config.value_limit),
        "value_transform": str(config.value_transform).lower(),
    }
    found = recognised(robobase_spec(config), {"cfg": {"frame_stack": config.frame_stack}}, **settings)
    assert found.config == config
    assert found.findings == ()


def test_an_oblong_image_is_a_question_not_a_guess() -> None:
    oblong = replace(SMALL, image_height=21, image_width=11)
    found = recognised(robobase_spec(oblong))
    assert found.config is None
    errors = [f for f in found.findings if f.severity.value == "error"]
    assert [f.subject for f in errors] == ["image_size"]
    assert "--set image_size=" in errors[0].hint


@pytest.mark.parametrize("height", [83, 84])
def test_a_square_image_is_taken_as_even_and_the_other_size_is_said(height: int) -> None:
    found = recognised(robobase_spec(replace(DEVLOG, image_height=height, image_width=height)))
    assert (found.config.image_height, found.config.image_width) == (84, 84)
    note = next(f for f in found.findings if f.subject == "image_size")
    assert "84x84" in note.message
    assert "83" in note.message


def test_two_cameras_are_named_in_tower_order() -> None:
    found = recognised(robobase_spec(SMALL), {"cfg": cfg_of(SMALL)}, cameras="wrist,front")
    assert found.config.cameras == ("wrist", "front")
    plan = make_plan(robobase_spec(SMALL), ARCHITECTURE.target(found.config), MAPPING)
    pairs = [(step.sources[0], step.targets[0]) for step in plan.steps]
    towers = {name.split(".")[2]: goal.split(".")[1] for name, goal in pairs if goal.startswith("encoder.")}
    assert towers == {"0": "wrist", "1": "front"}


@pytest.mark.parametrize("cameras", ["front", "a,b,c"])
def test_another_number_of_camera_names_than_towers_is_refused(cameras: str) -> None:
    with pytest.raises(UsageError, match="2 camera towers"):
        recognised(robobase_spec(SMALL), {"cfg": cfg_of(SMALL)}, cameras=cameras)


def test_unnamed_cameras_are_called_cam0_and_cam1_and_the_report_says_so() -> None:
    found = recognised(robobase_spec(SMALL), {"cfg": cfg_of(SMALL)})
    assert found.config.cameras == ("cam0", "cam1")
    note = next(f for f in found.findings if f.subject == "cameras")
    assert "cam0, cam1" in note.message
    assert "--set cameras=" in note.hint


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"colour": "red"}, "unknown key"),
        ({"camera": "front"}, "did you mean 'cameras'"),
        ({"image_size": "big"}, "not a value of image_size"),
        ({"mlp_nodes": "256;256"}, "not a value of mlp_nodes"),
        ({"frame_stack": "3.0"}, "not a value of frame_stack"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(settings: dict[str, str], what: str) -> None:
    with pytest.raises(UsageError) as refused:
        recognised(robobase_spec(SMALL), **settings)
    assert what in str(refused.value)


@pytest.mark.parametrize("key", ["image_channels", "num_downsample_convs", "frame_stack", "action_dim"])
@pytest.mark.parametrize("value", ["0", "-1", "99999"])
def test_a_setting_out_of_range_is_refused_or_leaves_no_configuration(key: str, value: str) -> None:
    try:
        found = recognised(robobase_spec(SMALL), **{key: value})
    except UsageError:
        return
    if key in ("image_channels", "num_downsample_convs"):
        assert found.config is None or getattr(found.config, key) == int(value)


@pytest.mark.parametrize("state", [StateSpec({}), StateSpec({"w": spec("float32", 2)})])
def test_other_tensors_are_not_taken_for_drqv2(state: StateSpec) -> None:
    assert recognise(opened(state)) is None


def test_a_file_that_weightkit_wrote_is_known_by_its_configuration() -> None:
    found = recognised(ARCHITECTURE.spec(SMALL), {"config": SMALL.to_dict(), "weightkit_version": "0.1.0"})
    assert (found.layout, found.confidence, found.config, found.findings) == ("drqv2", "certain", SMALL, ())


# ---- tables of RoboBase's own names


def table_of(name: str) -> StateSpec:
    entries = json.loads((KEYS / name).read_text(encoding="utf-8"))
    return StateSpec(
        {key: spec(entry["dtype"], *entry["shape"]) for key, entry in entries.items()},
        {key: entry["alias_of"] for key, entry in entries.items() if entry["alias_of"]},
    )


@needs_shared
@pytest.mark.parametrize("name", [path.name for path in TABLES])
def test_every_name_that_robobase_writes_is_accounted_for(name: str) -> None:
    state = table_of(name)
    found = recognised(state)
    assert found.config is not None
    assert found.config.image_height == 84
    plan = make_plan(state, ARCHITECTURE.target(found.config), MAPPING)
    assert len(plan.steps) + len(plan.dropped) + len(plan.second_names) == len(state)
    assert [name for step in plan.steps for name in step.targets] == list(ARCHITECTURE.spec(found.config))
    assert all(name.endswith(".hidden_state") for name in plan.dropped)
    assert len(plan.second_names) == 15
    assert plan.op_class == "BIJ"
    assert found.config.frame_stack == (1 if "fs1" in name else 3)
    assert len(found.config.cameras) == (2 if "2cam" in name else 1)


@needs_shared
def test_a_distributional_critic_is_read_and_what_its_atoms_mean_is_said_to_be_assumed() -> None:
    found = recognised(table_of("robobase_drqv2_1cam_fs3_distcritic.json"))
    assert found.config is not None
    assert found.config.num_atoms == 251
    assert "value_limit" in {finding.subject for finding in found.findings if finding.code == "WK108"}
    told = recognised(table_of("robobase_drqv2_1cam_fs3_distcritic.json"), value_limit="100", value_transform="false")
    assert (told.config.value_limit, told.config.value_transform) == (100.0, False)


# ---- train_config.json


def document(**policy: Any) -> dict[str, Any]:
    """The devlogs' configuration, its policy section edited; a value None takes a key out."""
    settings = {
        "type": "drqv2",
        "frame_stack": 3,
        "input_features": {
            "observation.images.front": {"type": "VISUAL", "shape": [9, 84, 84]},
            "observation.state": {"type": "STATE", "shape": [54]},
        },
        "output_features": {"action": {"type": "ACTION", "shape": [4]}},
        **policy,
    }
    features = {
        "observation.images.front": {"type": "VISUAL", "shape": [3, 84, 84]},
        "observation.state": {"type": "STATE", "shape": [18]},
        "action": {"type": "ACTION", "shape": [4]},
    }
    return {"policy": {k: v for k, v in settings.items() if v is not None}, "env": {"features": features}}


def parsed(root: dict[str, Any]) -> DrQV2Config:
    config = ARCHITECTURE.config_from_train_config(Section(root, "train_config.json"))
    assert isinstance(config, DrQV2Config)
    return config


def refusal(root: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as refused:
        parsed(root)
    assert refused.value.exit_code == 3
    return str(refused.value)


def test_the_devlogs_configuration_is_read() -> None:
    assert parsed(document()) == DEVLOG


def test_features_may_be_bare_lists() -> None:
    inputs = {"observation.images.front": [9, 84, 84], "observation.state": [54]}
    root = document(input_features=inputs, output_features={"action": [4]})
    root["env"]["features"] = {"observation.images.front": [3, 84, 84], "observation.state": [18]}
    assert parsed(root) == DEVLOG


def test_a_bare_images_key_is_the_one_camera() -> None:
    root = document(input_features={"observation.images": {"shape": [9, 84, 84]}, "observation.state": [54]})
    root["env"] = {}
    assert parsed(root) == replace(DEVLOG, cameras=("cam0",))


def test_several_cameras_keep_their_order() -> None:
    inputs = {f"observation.images.{name}": [9, 84, 84] for name in ("wrist", "front")}
    root = document(input_features=inputs)
    assert parsed(root).cameras == ("wrist", "front")
    assert parsed(root).state_dim == 0


def test_widths_are_read_and_hidden_dims_are_another_word_for_mlp_nodes() -> None:
    widths = {"encoder_channels": 16, "bottleneck_size": 32, "num_critics": 3, "num_post_downsample_convs": 2}
    expected = replace(DEVLOG, mlp_nodes=(64, 32), **widths)
    assert parsed(document(mlp_nodes=[64, 32], **widths)) == expected
    assert parsed(document(hidden_dims=[64, 32], **widths)) == expected


@pytest.mark.parametrize(
    ("policy", "address", "found"),
    [
        ({"frame_stack": "3"}, "$.policy.frame_stack", "'3'"),
        ({"frame_stack": 3.0}, "$.policy.frame_stack", "3.0"),
        ({"frame_stack": True}, "$.policy.frame_stack", "True"),
        ({"frame_stack": 0}, "$.policy.frame_stack", "0"),
        ({"type": "drqv3"}, "$.policy.type", "'drqv3'"),
        ({"type": 7}, "$.policy.type", "7"),
        ({"type": None}, "$.policy.type", "nothing"),
        ({"input_features": [1]}, "$.policy.input_features", "[1]"),
        ({"input_features": {}}, "$.policy.input_features", ""),
        ({"input_features": {"observation.images.front": 7}}, "$.policy.input_features.observation.images.front", "7"),
        ({"input_features": {"observation.images.front": [9, 84]}}, "observation.images.front", "[9, 84]"),
        ({"input_features": {"observation.images.front": {"shape": "9"}}}, "observation.images.front.shape", "'9'"),
        ({"input_features": {"observation.images.front": {}}}, "observation.images.front.shape", "nothing"),
        ({"input_features": {"observation.images.front": [9, 84, -1]}}, "observation.images.front", "-1"),
        ({"output_features": {}}, "$.policy.output_features.action", "nothing"),
        ({"output_features": {"action": {"shape": [4, 1]}}}, "$.policy.output_features.action.shape", "[4, 1]"),
        ({"mlp_nodes": 256}, "$.policy.mlp_nodes", "256"),
        ({"mlp_nodes": [256, 0]}, "$.policy.mlp_nodes", "0"),
        ({"mlp_nodes": [256, "x"]}, "$.policy.mlp_nodes", "'x'"),
        ({"num_critics": 0}, "$.policy.num_critics", "0"),
        ({"encoder_channels": -3}, "$.policy.encoder_channels", "-3"),
        ({"bottleneck_size": None, "num_post_downsample_convs": 60}, "$.policy", "84x84 is too small"),
    ],
)
def test_a_value_that_is_not_what_it_should_be_is_refused_at_its_address(
    policy: dict[str, Any], address: str, found: str
) -> None:
    said = refusal(document(**policy))
    assert said.startswith("train_config.json @ $.policy")
    assert address in said
    assert found in said


@pytest.mark.parametrize(
    ("key", "shape", "wanted"),
    [("observation.images.front", [3, 84, 84], "[9, 84, 84]"), ("observation.state", [18], "[54]")],
)
def test_a_shape_that_is_not_frame_stack_times_the_envs_is_refused_with_both_addresses(
    key: str, shape: list[int], wanted: str
) -> None:
    root = document()
    root["policy"]["input_features"][key]["shape"] = shape
    said = refusal(root)
    for part in (
        f"$.policy.input_features.{key}.shape",
        f"$.env.features.{key}.shape",
        wanted,
        str(shape),
        "frame_stack",
    ):
        assert part in said


def test_a_stack_that_does_not_divide_the_channels_is_refused() -> None:
    root = document(frame_stack=2)
    root["env"] = {}
    said = refusal(root)
    assert "$.policy.input_features.observation.images.front.shape" in said
    assert "$.policy.frame_stack" in said


def test_cameras_of_two_sizes_are_refused_with_both_addresses() -> None:
    said = refusal(document(input_features={"observation.images.a": [9, 84, 84], "observation.images.b": [9, 64, 64]}))
    assert "$.policy.input_features.observation.images.a" in said
    assert "$.policy.input_features.observation.images.b" in said


@pytest.mark.parametrize("camera", ["a.b", "0", "", "a b", "größe", "a\n"])
def test_a_camera_name_that_no_module_can_have_is_refused(camera: str) -> None:
    said = refusal(document(input_features={f"observation.images.{camera}": [9, 84, 84]}))
    assert said.startswith("train_config.json @ $.policy")
    assert repr(camera) in said


@pytest.mark.parametrize("camera", ["cameras", "training"])
def test_a_camera_cannot_be_called_like_what_the_encoder_sets(camera: str) -> None:
    with pytest.raises(ValueError, match=camera):
        replace(SMALL, cameras=(camera, "front"))


@pytest.mark.parametrize("camera", ["type", "half", "to", "forward", "eval", "state_dict", "cuda", "apply"])
def test_a_camera_may_be_called_like_something_that_torch_modules_have(camera: str) -> None:
    config = replace(SMALL, cameras=(camera, "front"))
    net = ARCHITECTURE.build(config).to("cpu").train().eval()
    assert set(net.state_dict()) == set(ARCHITECTURE.spec(config))
    net.load_state_dict(ARCHITECTURE.build(config).state_dict())
    for probe in probes(ARCHITECTURE.inputs(config)):
        assert net.act(probe).shape == (2, config.action_dim)
