"""facebookresearch/drqv2: its snapshot holds the whole agent; a state_dict of the same names is read too.

Source: drqv2.py and train.py of that repository.
"""

from __future__ import annotations

from collections.abc import Mapping as NameMap
from dataclasses import replace
from pathlib import Path

from weightkit.architectures.base import Conventions, Folder
from weightkit.architectures.drqv2.config import DrQV2Config
from weightkit.architectures.drqv2.inference import Stated, UnusableError, infer, native_names
from weightkit.architectures.recognition import Recognition
from weightkit.core.checkpoint import Checkpoint
from weightkit.core.report import Finding, Report, Severity
from weightkit.core.rule import Mapping
from weightkit.core.tensor import StateSpec, TensorSpec
from weightkit.errors import PlanError, UsageError
from weightkit.mapping_file import read_mapping

_FIRST = "encoder.convnet.0.weight"
_SNAPSHOT_KEYS = ("timer", "_global_step", "_global_episode")


class FbDrQV2:
    """The layout ``fb-drqv2``."""

    name = "fb-drqv2"
    architecture = "drqv2"
    title = "facebookresearch DrQ-v2"
    options: NameMap[str, str] = {}

    def conventions(self, config: DrQV2Config) -> Conventions:
        usual = (config.image_height, config.image_width, config.encoder_channels, config.num_downsample_convs,
                 config.num_post_downsample_convs, len(set(config.mlp_nodes))) == (84, 84, 32, 1, 3, 1)  # fmt: skip
        return Conventions(
            "0..255",
            "uint8 0..255, which the encoder divides by 255; one camera, frames stacked on channels, oldest first",
            "none",
            "tanh of the mean in -1..1, the range of the environment's own wrapper",
            stock="" if usual else "it is for images of 84x84, four convolutions of 32 channels and one hidden width",
        )

    def mapping(self, config: DrQV2Config, options: NameMap[str, str] | None = None) -> Mapping:
        del config, options
        return read_mapping(Path(__file__).with_name(f"{self.name}.toml"))

    def fitted(self, config: DrQV2Config) -> DrQV2Config:
        problems = [
            (len(config.cameras) > 1, "cameras", f"it has one camera, the policy {len(config.cameras)}"),
            (config.state_dim > 0, "state_dim", "its net sees pixels only, the policy a state too"),
            (config.time_dim > 0, "time_dim", "its critics see no time"),
            (config.num_atoms > 1, "num_atoms", "its critics are not distributional"),
            (config.num_critics != 2, "num_critics", f"it has two critics, the policy {config.num_critics}"),
            (len(config.mlp_nodes) != 2, "mlp_nodes", f"its nets have two hidden layers, found {config.mlp_nodes}"),
        ]
        wrong = [
            Finding("WK204", Severity.ERROR, key, message, "convert to a layout that has it: `weightkit layouts`")
            for holds, key, message in problems
            if holds
        ]
        if wrong:
            message = f"{self.name} cannot express this policy: {'; '.join(finding.message for finding in wrong)}"
            raise PlanError(message, report=Report("plan", tuple(wrong), exit_code=1))
        return replace(config, shared_critic_trunk=True)

    def extras(self, config: DrQV2Config, options: NameMap[str, str]) -> dict[str, TensorSpec]:
        return {}

    def folder(
        self, config: DrQV2Config, names: StateSpec, options: NameMap[str, str], beside: NameMap[str, object]
    ) -> Folder:
        raise UsageError(f"{self.name}: this project keeps an agent in one file", hint="-o agent.pt")

    def recognise(self, checkpoint: Checkpoint, settings: NameMap[str, str]) -> Recognition | None:
        state = checkpoint.state
        if _FIRST not in state or "actor.trunk.0.weight" not in state:
            return None
        evidence = ["tensors encoder.convnet.*, actor.trunk.*, actor.policy.*"]
        if "critic.Q1.0.weight" in state and "critic.trunk.0.weight" in state:
            evidence.append("one critic.trunk for critic.Q1 and critic.Q2")
        keys = [key for key in _SNAPSHOT_KEYS if any(k == key or k.startswith(f"{key}.") for k in checkpoint.metadata)]
        if keys:
            evidence.append(f"a drqv2 snapshot's keys {', '.join(keys)}")
        config: DrQV2Config | None = None
        findings: list[Finding] = []
        stated = Stated(num_downsample_convs=1, shared_critic_trunk=True, assumed={"num_downsample_convs": 1})
        try:
            parallel = next((name for name in state if name.startswith("critic.QS.")), None)
            if parallel is not None:
                message = "critics in one stacked layer (DenseParallel, critic.QS), a variant of the project"
                raise UnusableError(parallel, f"{message} that drqv2 does not read", "inspect lists its tensors")
            native = native_names(state, self.mapping(None), ("cam0",))  # type: ignore[arg-type]
            config, findings, sentence = infer(native, ("cam0",), stated, settings)
            evidence.append(sentence)
        except UnusableError as error:
            findings = [error.finding]
        return Recognition("drqv2", self.name, self.title, "likely", tuple(evidence), config, tuple(findings))


LAYOUT = FbDrQV2()
