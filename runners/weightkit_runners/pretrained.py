"""A policy that starts from a checkpoint: converted, accounted for, or refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weightkit.core.report import Report
from weightkit.errors import ConfigError, PlanError
from weightkit.verbs.conversion import Conversion
from weightkit.verbs.convert import conversion_report
from weightkit.verbs.plan_conversion import plan_conversion
from weightkit_runners.config import RunConfig
from weightkit_runners.process import log, log_report

if TYPE_CHECKING:
    from weightkit_runners.checkpoints import SavedTraining

LOUD_START_STDDEV = 0.3


def build_policy(config: RunConfig) -> Any:
    """The run's net with fresh values, on its device. Raises ConfigError for a device that is not there."""
    import torch

    torch.manual_seed(config.seed)
    try:
        device = torch.device(config.device)
        if device.type == "meta":
            raise RuntimeError("a meta device holds no values")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"{config.path} @ $.policy.device: {config.device!r}: {str(error).splitlines()[0]}") from None
    try:
        return config.architecture.build(config.net).to(device)
    except (RuntimeError, MemoryError) as error:
        raise ConfigError(f"{config.path} @ $.policy: this net cannot be built: {str(error).splitlines()[0]}") from None


def prepare_policy(
    config: RunConfig,
    pretrained: str | Path | None,
    *,
    adapt: tuple[str, ...] = (),
    drop: tuple[str, ...] = (),
    allow_missing: tuple[str, ...] = (),
) -> Any:
    """The policy to train: from pretrained weights where there are any, its report logged; else fresh, and said so.

    Raises PlanError where the checkpoint leaves a gap.
    """
    from weightkit_runners.updates import begin_fresh

    policy = build_policy(config)
    begin_fresh(policy, config)
    path = Path(pretrained) if pretrained else config.pretrained_path
    origin = "--pretrained" if pretrained else config.pretrained_origin
    if path is None:
        log.info("[LEARNER] No pretrained weights: the policy starts from fresh values (seed %d).", config.seed)
        return policy
    log.info("[LEARNER] Pretrained weights: %s (from %s)", path, origin)
    load_logged(policy, config, path, adapt=adapt, drop=drop, allow_missing=allow_missing)
    start = config.exploration.schedule.at(config.exploration.start_step)
    if config.architecture.name == "drqv2" and start > LOUD_START_STDDEV:
        log.warning(
            "[LEARNER] Exploration starts at stddev %.2f: actors will look random although their weights are right. "
            "Set policy.exploration_start_step or policy.stddev_schedule, or watch them with weightkit-actor --eval.",
            start,
        )
    return policy


def resumed_policy(config: RunConfig, saved: SavedTraining) -> Any:
    """The policy of a checkpoint, whole: nothing of it keeps a fresh value. Raises PlanError, ConfigError."""
    log.info("[LEARNER] Going on from %s, after %d updates.", saved.path, saved.learner_step)
    policy = build_policy(config)
    plain = replace(config, adapt=(), drop=(), allow_missing=())
    load_logged(policy, plain, saved.policy, only_refusals=True)
    return policy


def load_logged(
    policy: Any,
    config: RunConfig,
    path: str | Path,
    *,
    adapt: tuple[str, ...] = (),
    drop: tuple[str, ...] = (),
    allow_missing: tuple[str, ...] = (),
    only_refusals: bool = False,
) -> None:
    """Put the checkpoint's weights into the policy, with the conversion's report in the log.

    Raises PlanError where there is a gap.
    """
    from weightkit.reporting.convert import convert_text
    from weightkit.verbs.convert import refusal_report

    try:
        conversion, report = plan_pretrained(config, path, adapt=adapt, drop=drop, allow_missing=allow_missing)
    except PlanError as error:
        log_report(convert_text, refusal_report(error, path, config.architecture.name))
        raise
    if not only_refusals:
        log_report(convert_text, report)
    load_pretrained(policy, conversion)


def plan_pretrained(
    config: RunConfig,
    path: str | Path,
    *,
    adapt: tuple[str, ...] = (),
    drop: tuple[str, ...] = (),
    allow_missing: tuple[str, ...] = (),
) -> tuple[Conversion, Report]:
    """The conversion of ``path`` into the run's net, with the configuration's own choices and further ones.

    Raises PlanError with every tensor that is not accounted for: a gap stops the run.
    """
    conversion = plan_conversion(
        path,
        to=config.architecture.name,
        config=config.net,
        adapt=(*config.adapt, *adapt),
        drop=(*config.drop, *drop),
        allow_missing=(*config.allow_missing, *allow_missing),
    )
    return conversion, conversion_report(conversion, out=None)


def load_pretrained(policy: Any, conversion: Conversion) -> None:
    """Put converted weights into the run's net; names that were left out on purpose keep their fresh values."""
    from weightkit.torch_state import load_state

    load_state(policy, dict(conversion.arrays()), leave=frozenset(conversion.plan.left_out))
