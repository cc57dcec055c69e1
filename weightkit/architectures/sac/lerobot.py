"""What LeRobot's two layouts of SAC have in common: recognition, conventions, what they cannot express."""

from __future__ import annotations

from collections.abc import Mapping as NameMap
from dataclasses import replace
from typing import Protocol

from weightkit.architectures.base import Conventions
from weightkit.architectures.recognition import Recognition
from weightkit.architectures.sac.config import SACConfig
from weightkit.architectures.sac.lerobot_inference import CNN, CRITIC_ENCODERS, ENCODER, RESNET, Seen, infer
from weightkit.architectures.sac.lerobot_processors import gathered
from weightkit.core.checkpoint import Checkpoint
from weightkit.core.names import parse_template
from weightkit.core.report import Finding, Report, Severity
from weightkit.core.rule import Fate, Mapping, Rule, Spelling
from weightkit.core.tensor import StateSpec
from weightkit.errors import PlanError

LEROBOT = Conventions(
    pixels="0..1",
    images="float 0..1, RGB, which 0.4's actor does not normalise",
    state="observation.state as recorded, in the robot driver's units; 0.4's actor does not normalise it",
    action="tanh(mean) in (-1, 1); a discrete action is an index behind it. 0.4 samples when it acts",
)
COMPILED = ("critic_ensemble.", "critic_target.")
"""What LeRobot 0.4 hands to torch.compile."""
NO_CRITICS = "critics, their targets and the temperature are not here: later versions keep them with the algorithm"
LEROBOT_LATER = replace(
    LEROBOT,
    images="float 0..1, RGB, before the preprocessor normalises them by its statistics",
    state="observation.state as recorded, before the preprocessor normalises it by its statistics",
    action="tanh(mean) in (-1, 1), then the postprocessor; a discrete action is an index behind it",
    trap="LeRobot's later actor passes what it sees through the preprocessor's statistics and actions through the "
    "postprocessor's, 0.4's does neither, and weightkit's nets do not: the same weights see inputs of another scale",
)


class Named(Protocol):
    """What a layout is called."""

    name: str
    title: str


def recognised(
    layout: Named,
    checkpoint: Checkpoint,
    settings: NameMap[str, str],
    policy: NameMap[str, object] | None,
    *,
    stated_critics: bool,
) -> Recognition | None:
    """What a checkpoint with LeRobot's names is; ``policy`` is the policy's configuration where it is there."""
    seen = Seen(checkpoint.state, policy, settings)
    if "actor.mean_layer.weight" not in seen or "actor.network.net.0.weight" not in seen:
        return None
    config = infer(seen, stated_critics=stated_critics)
    beside, odd = gathered(checkpoint)
    if config is not None and "critic_ensemble.critics.0.output_layer.weight" not in seen:
        seen.note("critic", NO_CRITICS, "give the folder that holds `algorithm` too, or go without: --allow-missing")
    return Recognition(
        "sac",
        layout.name,
        layout.title,
        "certain" if policy is not None and config is not None else "likely",
        tuple(_evidence(seen, policy, config)),
        config,
        (*seen.findings, *odd),
        beside=beside,
    )


def _evidence(seen: Seen, policy: NameMap[str, object] | None, config: SACConfig | None) -> list[str]:
    found = []
    if policy is not None:
        found.append(f"config.json of a LeRobot policy of type {policy.get('type')!r}")
    heads = [name for name in ("mean_layer", "std_layer") if f"actor.{name}.weight" in seen]
    found.append(f"tensors actor.network.net.* and actor.{{{', '.join(heads)}}}")
    encoder = "LeRobot's CNN" if CNN in seen else "ResNet-10" if RESNET in seen else ""
    if encoder:
        found.append(f"the layers of {encoder} below {ENCODER}.image_encoder")
    tied = [name for name in seen.state.aliases if name.startswith(CRITIC_ENCODERS)]
    if tied:
        found.append(f"{len(tied)} names of the critics' encoder share a tensor with another name")
    if config is not None:
        images = (
            f"{len(config.cameras)} cameras of {config.image_height}x{config.image_width}, " if config.cameras else ""
        )
        widths = list(config.actor_hidden_dims)
        found.append(f"shapes of {images}state {config.state_dim}, {config.action_dim} actions, MLP {widths}")
    return found


def looks_split(state: StateSpec) -> bool:
    """Whether bare tensors are those of the split: 0.4 always has critics and a temperature beside the actor."""
    if any("_orig_mod" in name for name in state):
        return False
    if "critic_ensemble.critics.0.output_layer.weight" in state or "log_alpha" in state:
        separate = any(name.startswith(("encoder_critic.", "discrete_critic.encoder.")) for name in state.unique())
        return separate and not any(name.startswith("critic_ensemble.encoder.") for name in state)
    return True


def fitted_to_lerobot(layout: str, config: SACConfig) -> SACConfig:
    """The configuration of the same function that LeRobot can hold. Raises PlanError that says what it cannot."""
    wants = {
        "mlp": ("layernorm_silu", "its hidden layers are Linear, LayerNorm and SiLU"),
        "target_encoder": ("critic", "its critics' targets read the critics' encoder, they have no copy of their own"),
        "image_normalization": ("none", "its policy normalises no images: give the statistics to its preprocessor"),
    }
    if config.state_dim or config.environment_dim:
        wants["state_encoder"] = ("latent", "its states go through a trunk of their own")
    problems = []
    for name, (wanted, why) in wants.items():
        if getattr(config, name) != wanted:
            problems.append((name, f"LeRobot cannot hold {name} {getattr(config, name)!r}: {why}"))
    if config.vision_encoder == "nature":
        problems.append(("vision_encoder", "LeRobot has no NatureCNN: its encoders are a CNN of its own and ResNet-10"))
    if not config.cameras and not config.state_dim:
        problems.append(("state_dim", "LeRobot wants a camera or observation.state beside the environment's state"))
    if problems:
        findings = tuple(Finding("WK201", Severity.ERROR, name, message) for name, message in problems)
        raise PlanError(
            f"{layout}: {'; '.join(message for _, message in problems)}",
            report=Report("plan", findings, exit_code=1),
            hint="keep it in the native layout: --to sac",
        )
    frames = config.frame_stack
    return replace(
        config,
        state_encoder="latent",
        features_dim=512,
        frame_stack=1,
        image_channels=frames * config.image_channels if config.cameras else config.image_channels,
        state_dim=frames * config.state_dim,
    )


def without_temperature(mapping: Mapping) -> Mapping:
    """The same for a net whose temperature is no tensor: LeRobot always has one."""
    why = "the net's temperature is fixed, not learned"
    rules = (replace(r, targets=(), fate=Fate.DROP, why=why) if r.id == "log-alpha" else r for r in mapping.rules)
    return replace(mapping, rules=tuple(rules))


def with_early_names(mapping: Mapping) -> Mapping:
    """The same with the names of the ResNet-10 whose convolutions and norms were not wrapped yet."""

    def early(rule: Rule) -> Rule:
        return replace(rule, sources=tuple(parse_template(_early(each.text)) for each in rule.sources))

    spellings = (each for each in mapping.spellings if "group_norm" not in each.of.text)
    return replace(mapping, rules=tuple(early(rule) for rule in mapping.rules), spellings=tuple(spellings))


def _early(name: str) -> str:
    if "image_enc_layers" not in name:
        return name
    return name.replace(".group_norm.", ".").replace(".conv.", ".")


def as_written(mapping: Mapping, *, discrete: bool, compiled: bool) -> Mapping:
    """The same with the second names that LeRobot's own modules have, and none that only other versions' files have.

    ``discrete``: with a discrete head; ``compiled``: with critics that torch.compile wrapped.
    """

    def is_theirs(each: Spelling) -> bool:
        if "group_norm" in each.of.text or (each.name.text.startswith("discrete_critic") and not discrete):
            return False
        wrapped = ("_orig_mod" in text for text in (each.name.text, each.of.text) if text.startswith(COMPILED))
        return all(each == compiled for each in wrapped)

    return replace(mapping, spellings=tuple(each for each in mapping.spellings if is_theirs(each)))
