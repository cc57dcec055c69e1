"""The DrQ-v2 policy of the devlogs' LeRobot fork: RoboBase's modules inside a LeRobot policy."""

from __future__ import annotations

from collections.abc import Mapping as NameMap
from dataclasses import replace
from pathlib import Path

from weightkit.architectures.base import Conventions, Folder
from weightkit.architectures.drqv2.config import DrQV2Config, from_policy_section
from weightkit.architectures.drqv2.inference import Stated, UnusableError, infer, native_names
from weightkit.architectures.recognition import Recognition
from weightkit.core.checkpoint import Checkpoint
from weightkit.core.report import Finding
from weightkit.core.rule import Mapping
from weightkit.core.section import Section
from weightkit.core.tensor import StateSpec, TensorSpec, spec
from weightkit.errors import ConfigError
from weightkit.mapping_file import read_mapping

CONFIG = "lerobot_config"
"""Where LeRobot's own config.json goes along beside a policy."""


class LeRobotDrQV2:
    """The layout ``lerobot-drqv2``."""

    name = "lerobot-drqv2"
    architecture = "drqv2"
    title = "LeRobot fork's DrQ-v2"
    options: NameMap[str, str] = {}

    def conventions(self, config: DrQV2Config) -> Conventions:
        return Conventions(
            "0..255",
            "0..255, which the encoder divides by 255",
            "as the robot's driver gives it, in its own units" if config.state_dim else "none",
            "tanh of the mean in -1..1; the robot's own range is not in the file",
            "LeRobot's processors hand out images of 0..1 and this encoder divides by 255: multiply by 255 before it, "
            "or the policy sees black",
        )

    def mapping(self, config: DrQV2Config, options: NameMap[str, str] | None = None) -> Mapping:
        del config, options
        return read_mapping(Path(__file__).with_name(f"{self.name}.toml"))

    def fitted(self, config: DrQV2Config) -> DrQV2Config:
        return replace(config, shared_critic_trunk=False)

    def extras(self, config: DrQV2Config, options: NameMap[str, str]) -> dict[str, TensorSpec]:
        return {"log_alpha": spec("float32", 1)}

    def folder(
        self, config: DrQV2Config, names: StateSpec, options: NameMap[str, str], beside: NameMap[str, object]
    ) -> Folder:
        carried = beside.get(CONFIG)
        document = {**(carried if isinstance(carried, dict) else {}), **_lerobot_config(config)}
        return Folder({"model.safetensors": tuple(names.unique())}, {"config.json": document})

    def recognise(self, checkpoint: Checkpoint, settings: NameMap[str, str]) -> Recognition | None:
        """By its names, which are RoboBase's with critics registered twice and a log_alpha; by its config.json."""
        state = checkpoint.state
        document = checkpoint.metadata.get("config")
        ours = isinstance(document, dict) and document.get("type") == "drqv2" and "input_features" in document
        if any(name.endswith(".hidden_state") for name in state):
            return None
        if not ours and "log_alpha" not in state and not any(name.startswith("critic_ensemble.") for name in state):
            return None
        evidence = ["tensors encoder.convs_per_cam.*, actor.actor_model.* as RoboBase's, without hidden_state"]
        if "log_alpha" in state:
            evidence.append("a log_alpha, which DrQ-v2 does not use")
        towers = {name.split(".")[2] for name in state if name.startswith("encoder.convs_per_cam.")}
        cameras = tuple(f"cam{index}" for index in range(len(towers)))
        config: DrQV2Config | None = None
        findings: list[Finding] = []
        try:
            stated = _stated(document, checkpoint.path, evidence) if ours and isinstance(document, dict) else Stated()
            native = native_names(state, self.mapping(None), cameras)  # type: ignore[arg-type]
            config, findings, sentence = infer(native, cameras, stated, settings)
            evidence.append(sentence)
        except UnusableError as error:
            findings = [error.finding]
        beside = {CONFIG: document} if ours else {}
        sure = ours and config is not None
        return Recognition(
            "drqv2",
            self.name,
            self.title,
            "certain" if sure else "likely",
            tuple(evidence),
            config,
            tuple(findings),
            beside=beside,
        )


def _stated(document: dict[str, object], origin: str, evidence: list[str]) -> Stated:
    """What a LeRobot config.json says of the net."""
    try:
        config = from_policy_section(Section(document, origin, "$.config"))
    except ConfigError as error:
        raise UnusableError("config", error.message, error.hint) from None
    evidence.append("its config.json is of the policy type drqv2")
    return Stated(
        cameras=config.cameras,
        frame_stack=config.frame_stack,
        image_size=(config.image_height, config.image_width),
        num_downsample_convs=config.num_downsample_convs,
        fusion=config.fusion,
        value_limit=config.value_limit,
        value_transform=config.value_transform,
    )


def _lerobot_config(config: DrQV2Config) -> dict[str, object]:
    """The policy section of a LeRobot config that describes this net."""
    channels = config.frame_stack * config.image_channels
    inputs: dict[str, object] = {
        f"observation.images.{camera}": {"type": "VISUAL", "shape": [channels, config.image_height, config.image_width]}
        for camera in config.cameras
    }
    if config.state_dim:
        inputs["observation.state"] = {"type": "STATE", "shape": [config.frame_stack * config.state_dim]}
    if config.time_dim:
        inputs["observation.time"] = {"type": "STATE", "shape": [config.time_dim]}
    shared = {"cameras", "image_height", "image_width", "image_channels", "state_dim", "action_dim", "time_dim"}
    widths = {key: value for key, value in config.to_dict().items() if key not in shared}
    return {
        **widths,
        "input_features": inputs,
        "output_features": {"action": {"type": "ACTION", "shape": [config.action_dim]}},
    }


LAYOUT = LeRobotDrQV2()
