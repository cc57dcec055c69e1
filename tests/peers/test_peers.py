"""Real peers, where they are installed: `tests/peers/make_environment.sh .venv-peers`, or WEIGHTKIT_PEERS_PYTHON."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import weightkit as wk
from locations import ROOT, SHARED, needs_shared
from weightkit.architectures.probes import probes

PROGRAMS = Path(__file__).parent / "programs"
PYTHON = Path(os.environ.get("WEIGHTKIT_PEERS_PYTHON") or ROOT / ".venv-peers" / "bin" / "python")
REAL = SHARED / "real" / "lerobot044_sac_shared"
SAC = ROOT / "fixtures" / "peers" / "sac"

pytestmark = pytest.mark.skipif(
    not PYTHON.exists(), reason="no peers: ./dev peers makes an environment with stable-baselines3 and lerobot 0.4.4"
)


def run(program: str, *words: object) -> str:
    done = typed(PROGRAMS / program, *words)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def typed(*words: object) -> subprocess.CompletedProcess[str]:
    """The peers' python with ``words``; weightkit is importable there too."""
    path = os.pathsep.join([str(PROGRAMS), str(ROOT), str(ROOT / "runners")])
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    command = [str(PYTHON), *map(str, words)]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=240, check=False)


def verify_sync(variant: str, *words: object) -> dict[str, Any]:
    """The report of ``weightkit verify-sync`` about LeRobot's own SAC, acting as LeRobot's actor does."""
    done = typed("-m", "weightkit", "verify-sync", "--policy", f"lerobot_sac_sync:{variant}", "--json", *words)
    report: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == report["exit_code"], done.stderr[-4000:]
    return report


def unsent(report: dict[str, Any]) -> set[str]:
    return {finding["subject"] for finding in report["findings"] if finding["code"] == "WK301"}


def below(module: str, names: Iterable[str]) -> set[str]:
    """What ``names`` are called in ``module``."""
    return {name.removeprefix(f"{module}.") for name in names if name.startswith(f"{module}.")}


@pytest.mark.parametrize("kind", ["mlp", "mlp_scaled", "mlp_deep", "cnn"])
def test_what_stable_baselines3_writes_acts_as_it_predicts(kind: str, tmp_path: Path) -> None:
    run("write_sb3.py", kind, tmp_path / "agent.zip", tmp_path / "outputs.npz")
    recorded = np.load(tmp_path / "outputs.npz")
    wk.convert(tmp_path / "agent.zip", to="sac", out=tmp_path / "policy")
    for source in (tmp_path / "agent.zip", tmp_path / "policy"):
        policy = wk.load_policy(source)
        key = f"observation.images.{policy.cameras[0]}" if kind == "cnn" else "observation.state"
        observation = {key: recorded["observation"]}
        action = policy.act(observation).numpy()
        assert float(abs(action - recorded["squashed"]).max()) < 1e-5
        low, high = recorded["low"], recorded["high"]
        assert float(abs(low + (action + 1) / 2 * (high - low) - recorded["action"]).max()) < 1e-5 * float(high.max())
        values = policy.q_values(observation, recorded["squashed"]).numpy()
        assert float(abs(values - recorded["q"]).max()) < 1e-5


def sources() -> list[Any]:
    """Policies of LeRobot; one of them also with the names of torch.compile, since building that takes a while."""
    folders = [path for path in sorted(SAC.glob("lerobot0*")) if path.is_dir()]
    found = [pytest.param(path, False, id=path.name) for path in folders]
    found += [pytest.param(path, True, id=f"{path.name}-again") for path in folders if "compiled" in path.name]
    return [pytest.param(REAL, False, id="real", marks=needs_shared), *found]


@pytest.mark.parametrize(("source", "compiled"), sources())
def test_what_is_written_for_lerobot_is_loaded_by_it_with_nothing_missing_and_acts_the_same(
    source: Path, compiled: bool, tmp_path: Path
) -> None:
    settings = {"use_torch_compile": str(compiled).lower()}
    wk.convert(source, to="sac", out=tmp_path / "native")
    wk.convert(tmp_path / "native", to="lerobot-sac", set=settings, out=tmp_path / "lerobot")
    policy = wk.load_policy(tmp_path / "native")
    from weightkit.architectures import architecture_named

    seen = dict(probes(architecture_named("sac").inputs(policy.config), kinds=("moving",))[0])
    keys = json.loads((tmp_path / "lerobot" / "config.json").read_text(encoding="utf-8"))["input_features"]
    images = [key for key in keys if key.startswith("observation.image")]
    theirs = {key: value for key, value in seen.items() if not key.startswith("observation.image")}
    for key, camera in zip(images, policy.cameras, strict=True):
        theirs[key] = seen[f"observation.images.{camera}"].astype(np.float32) / 255
    np.savez(tmp_path / "observations.npz", **theirs)
    said = run("load_in_lerobot.py", tmp_path / "lerobot", tmp_path / "observations.npz", tmp_path / "out.npz")
    found = json.loads(said.splitlines()[-1])
    assert found == {"missing": [], "unexpected": []}
    computed = np.load(tmp_path / "out.npz")
    action = policy.act(seen).numpy()[:, : computed["action"].shape[1]]
    assert float(abs(action - computed["action"]).max()) < 1e-5
    assert float(abs(policy.q_values(seen, computed["action"]).numpy() - computed["q"]).max()) < 1e-5
    assert float(abs(policy.target_q_values(seen, computed["action"]).numpy() - computed["q_target"]).max()) < 1e-5


# ---- LeRobot's SAC, proven by weightkit


VARIANTS = ["factory", "separate", "discrete", "discrete_separate", "compiled"]
"""Factories of programs/lerobot_sac_sync.py: one encoder or two, a gripper or none, critics that are compiled."""
ENCODERS = ("actor.encoder", "encoder_actor", "encoder_critic", "critic_ensemble.encoder", "critic_target.encoder")


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_read_set_of_lerobots_actor_is_what_its_action_depends_on(variant: str) -> None:
    assert verify_sync(variant)["reads"] == json.loads(run("lerobot_pushes.py", "reads", variant))


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_lerobots_learner_sends_is_complete_and_its_actor_then_acts_the_same(variant: str, tmp_path: Path) -> None:
    run("lerobot_pushes.py", "manifest", variant, tmp_path / "manifest.json")
    report = verify_sync(variant, "--manifest", tmp_path / "manifest.json")
    assert report["ok"], report["findings"]
    run("lerobot_pushes.py", "push", variant, "stock", tmp_path / "push.pt")
    assert verify_sync(variant, "--payload", tmp_path / "push.pt")["ok"]
    arrived = json.loads(run("lerobot_pushes.py", "arrival", variant, tmp_path / "push.pt"))
    assert arrived == {"error": None, "acts_as_the_learner": True}


@pytest.mark.parametrize("variant", ["factory", "separate"])
def test_a_learner_that_keeps_the_actors_encoder_is_refused_and_its_tensors_are_named(
    variant: str, tmp_path: Path
) -> None:
    run("lerobot_pushes.py", "manifest", variant, tmp_path / "manifest.json", "actor.encoder")
    by_manifest = verify_sync(variant, "--manifest", tmp_path / "manifest.json")
    run("lerobot_pushes.py", "push", variant, "without_encoder", tmp_path / "push.pt")
    by_push = verify_sync(variant, "--payload", tmp_path / "push.pt")
    encoder = below("actor.encoder", by_push["reads"])
    assert len(encoder) == 22
    for report in (by_manifest, by_push):
        assert report["exit_code"] == 1
        assert set().union(*(below(module, unsent(report)) for module in ENCODERS)) == encoder
        assert all(name.startswith(ENCODERS) for name in unsent(report))


@pytest.mark.parametrize("variant", ["discrete", "discrete_separate"])
def test_a_gripper_whose_critic_nobody_sends_is_noticed_and_lerobots_actor_does_not(
    variant: str, tmp_path: Path
) -> None:
    run("lerobot_pushes.py", "manifest", variant, tmp_path / "manifest.json", "discrete_critic")
    report = verify_sync(variant, "--manifest", tmp_path / "manifest.json")
    own = {name for name in below("discrete_critic", report["reads"]) if not name.startswith("encoder.")}
    assert len(own) == 10
    assert report["exit_code"] == 1
    assert {f"discrete_critic.{name}" for name in own} <= unsent(report)
    assert not below("actor", unsent(report))
    run("lerobot_pushes.py", "push", variant, "without_discrete_critic", tmp_path / "push.pt")
    arrived = json.loads(run("lerobot_pushes.py", "arrival", variant, tmp_path / "push.pt"))
    assert arrived == {"error": None, "acts_as_the_learner": False}


def test_one_tensor_that_is_not_in_a_push_is_named(tmp_path: Path) -> None:
    run("lerobot_pushes.py", "push", "factory", "without_one_tensor", tmp_path / "push.pt")
    report = verify_sync("factory", "--payload", tmp_path / "push.pt")
    assert report["exit_code"] == 1
    assert {name for name in unsent(report) if not name.startswith(ENCODERS)} == {"actor.mean_layer.bias"}


# ---- LeRobot's SAC learner


@pytest.mark.parametrize(
    "variant", ["shared", "separate", "discrete", "no_backup_entropy", "ensemble", "trained_encoder"]
)
def test_our_sac_learns_from_the_losses_that_lerobots_learner_has(variant: str) -> None:
    """On one batch with the same weights, noise and critics: losses to 1e-5, gradients of each part to 1e-4."""
    found = json.loads(run("lerobot_sac_losses.py", variant).splitlines()[-1])
    assert set(found) >= {"critic", "actor", "temperature"}
    assert ("discrete_critic" in found) is (variant == "discrete")
    for name, each in found.items():
        assert each["ours"] == pytest.approx(each["theirs"], abs=1e-5), name
        assert abs(each["theirs"]) > 1e-3, "a loss of nothing shows nothing"
        assert each["our_gradient"] == pytest.approx(each["their_gradient"], rel=1e-4), name
        assert each["our_gradient"] > 0, name
