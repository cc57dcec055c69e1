"""A policy that starts from a checkpoint: converted, accounted for, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from weightkit.core.report import Report
from weightkit.errors import ConfigError
from weightkit.verbs.conversion import Conversion
from weightkit.verbs.convert import conversion_report
from weightkit.verbs.plan_conversion import plan_conversion
from weightkit_runners.config import RunConfig


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
