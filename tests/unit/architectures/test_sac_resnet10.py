"""A pretrained ResNet-10 from a local file into a policy's vision backbones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sac_configs import SMALL, of_arrays, random_arrays
from weightkit.architectures.sac.architecture import ARCHITECTURE
from weightkit.core.tensor import StateSpec
from weightkit.errors import PlanError


def resnet_names(form: str) -> dict[str, str]:
    """Native name below the backbone -> the port's name, by the port's own modules."""
    conv, norm = (".conv" if form != "plain" else ""), (".group_norm" if form == "samepad_gn" else "")
    found = {"stem.conv.weight": "embedder.0.weight"}
    for kind in ("weight", "bias"):
        found[f"stem.norm.{kind}"] = f"embedder.1{norm}.{kind}"
    for block in range(4):
        theirs = f"encoder.stages.{block}"
        for number in (1, 2):
            found[f"blocks.{block}.conv{number}.weight"] = f"{theirs}.conv{number}{conv}.weight"
            for kind in ("weight", "bias"):
                found[f"blocks.{block}.norm{number}.{kind}"] = f"{theirs}.norm{number}{norm}.{kind}"
        if block:
            found[f"blocks.{block}.shortcut.0.weight"] = f"{theirs}.shortcut.0{conv}.weight"
            for kind in ("weight", "bias"):
                found[f"blocks.{block}.shortcut.1.{kind}"] = f"{theirs}.shortcut.1{norm}.{kind}"
    return found


@pytest.mark.parametrize("form", ["plain", "samepad", "samepad_gn"])
def test_a_local_resnet10_fills_every_backbone_and_another_form_is_refused(form: str) -> None:
    from weightkit.architectures.sac.resnet10 import load_backbone

    kind = "resnet10_symmetric" if form == "plain" else "resnet10"
    config = replace(SMALL, vision_encoder=kind, resnet_widths=(4, 8, 12, 16), shared_encoder=False)
    native = ARCHITECTURE.spec(config)
    names = resnet_names(form)
    shapes = {theirs: native[f"encoder.backbone.{ours}"] for ours, theirs in names.items()}
    checkpoint = of_arrays(random_arrays(StateSpec(shapes), 0))
    policy = ARCHITECTURE.build(config)
    filled = load_backbone(policy, checkpoint)
    state = policy.state_dict()
    assert set(filled) == {name for name in state if ".backbone." in name}
    for ours, theirs in names.items():
        for encoder in ("encoder", "critic_encoder"):
            np.testing.assert_array_equal(state[f"{encoder}.backbone.{ours}"].numpy(), checkpoint.read(theirs))
    assert not any(p.requires_grad for p in policy.encoder.backbone.parameters())  # type: ignore[union-attr]
    other = replace(config, vision_encoder="resnet10" if form == "plain" else "resnet10_symmetric")
    with pytest.raises(PlanError, match="vision_encoder"):
        load_backbone(ARCHITECTURE.build(other), checkpoint)
    with pytest.raises(PlanError):
        load_backbone(ARCHITECTURE.build(replace(config, resnet_widths=(8, 16, 24, 32))), checkpoint)
