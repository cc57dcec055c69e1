"""The layout ``lerobot-sac``: `SACPolicy` of LeRobot 0.4, a folder of config.json and model.safetensors."""

from __future__ import annotations

from collections.abc import Mapping as NameMap
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from weightkit.architectures.base import Conventions, Folder
from weightkit.architectures.recognition import Recognition
from weightkit.architectures.sac.config import SACConfig
from weightkit.architectures.sac.lerobot import (
    COMPILED,
    LEROBOT,
    as_written,
    fitted_to_lerobot,
    looks_split,
    recognised,
    with_early_names,
    without_temperature,
)
from weightkit.core.names import parse_template
from weightkit.core.rule import Mapping, Spelling
from weightkit.core.tensor import StateSpec, TensorSpec, spec
from weightkit.mapping_file import read_mapping

if TYPE_CHECKING:
    from weightkit.core.checkpoint import Checkpoint

_COMPILE = "use_torch_compile"


class LeRobotSAC:
    """The layout ``lerobot-sac``."""

    name = "lerobot-sac"
    architecture = "sac"
    title = "LeRobot 0.4 SAC"
    options: NameMap[str, str] = {
        _COMPILE: "true writes the names of critics that torch.compile wrapped; false by default, unlike LeRobot's",
        "processors": "false leaves out the pre- and postprocessor that came along; true by default",
    }

    def conventions(self, config: SACConfig) -> Conventions:
        return LEROBOT

    def recognise(self, checkpoint: Checkpoint, settings: NameMap[str, str]) -> Recognition | None:
        config = checkpoint.metadata.get("config")
        stated = config if isinstance(config, dict) and config.get("type") == "sac" else None
        if (isinstance(config, dict) and stated is None) or (stated is None and looks_split(checkpoint.state)):
            return None
        compiled = any(name.startswith("critic_ensemble._orig_mod.") for name in checkpoint.state)
        found = recognised(self, checkpoint, settings, stated, stated_critics=True)
        if found is None or not compiled:
            return found
        evidence = (*found.evidence, "names critic_ensemble._orig_mod.*: critics that torch.compile wrapped")
        return replace(found, evidence=evidence, options={_COMPILE: "true"})

    def mapping(self, config: SACConfig, options: NameMap[str, str] | None = None) -> Mapping:
        """Without ``options``: rules that read every spelling there is. With them: those names that are written."""
        from weightkit.architectures.sac.lerobot_documents import flag

        compiled = flag(options or {}, _COMPILE, False)
        early = config.vision_encoder == "resnet10_symmetric"
        found = _mapping(config.shared_encoder, config.learned_temperature, early, compiled)
        if options is None:
            return found
        return as_written(found, discrete=config.num_discrete_actions > 0, compiled=compiled)

    def fitted(self, config: SACConfig) -> SACConfig:
        return fitted_to_lerobot(self.name, config)

    def extras(self, config: SACConfig, options: NameMap[str, str]) -> NameMap[str, TensorSpec]:
        from weightkit.architectures.sac.lerobot_documents import flag

        flag(options, _COMPILE, False)
        return {} if config.learned_temperature else {"log_alpha": spec("float32", 1)}

    def folder(
        self, config: SACConfig, names: StateSpec, options: NameMap[str, str], beside: NameMap[str, object]
    ) -> Folder:
        from weightkit.architectures.sac.lerobot_documents import processors_to_write, sac_document
        from weightkit.architectures.sac.lerobot_processors import came_along

        carried = came_along(beside)
        documents, statistics = processors_to_write(config, carried, options)
        compiled = any(name.startswith("critic_ensemble._orig_mod.") for name in names)  # LeRobot wants both to agree
        policy = sac_document(config, carried, compiled=compiled)
        return Folder({"model.safetensors": names.unique()}, {"config.json": policy, **documents}, statistics)


@lru_cache(maxsize=16)
def _mapping(shared: bool, temperature: bool, early: bool, compiled: bool) -> Mapping:
    found = read_mapping(Path(__file__).with_name("lerobot-sac.toml" if shared else "lerobot-sac-separate.toml"))
    if not temperature:
        found = without_temperature(found)
    if early:
        found = with_early_names(found)
    if compiled:
        rules = tuple(
            replace(rule, sources=tuple(parse_template(_wrapped(each.text)) for each in rule.sources))
            for rule in found.rules
        )
        found = replace(found, name=f"{found.name}-compiled", rules=rules)
    # the critics' own encoder has one of two first names; the other spellings stand for whichever the file has
    twins = tuple(
        Spelling(each.name, parse_template(_wrapped(each.of.text)), each.why)
        for each in found.spellings
        if each.of.text.startswith(COMPILED) and "image_enc_layers" not in each.of.text
    )
    return replace(found, spellings=(*found.spellings, *twins))


def _wrapped(template: str) -> str:
    first, _, rest = template.partition(".")
    return f"{first}._orig_mod.{rest}" if template.startswith(COMPILED) else template


LAYOUT = LeRobotSAC()
