"""Factories for ``weightkit verify-sync --policy lerobot_sac_sync:factory``: LeRobot's SAC, acting as its actor does.

``LEROBOT_POLICY`` names a folder that ``SACPolicy.from_pretrained`` loads; without it a small policy is made. Nothing
is read from ``sys.argv``, so a test, the command line and another program can all import this file.
"""

import os

import lerobot_imports  # noqa: F401
import torch
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.policies.sac.configuration_sac import ActorNetworkConfig, CriticNetworkConfig, SACConfig
from lerobot.policies.sac.modeling_sac import SACPolicy


def act(policy, observation):
    """What the actor hands to its robot (``act_with_policy`` in lerobot/rl/actor.py): a sample, in eval mode."""
    return policy.select_action(batch=observation)


def act_on_the_mean(policy, observation):
    """The same without noise, which LeRobot's actor never does."""
    with torch.no_grad():
        return torch.tanh(policy.actor(observation)[2])


def probes(policy, count=4):
    """Observations as the actor's processors make them: one entry a batch, images in 0..1."""
    random = torch.Generator().manual_seed(0)
    shapes = {key: feature.shape for key, feature in policy.config.input_features.items()}
    return [{key: torch.rand(1, *shape, generator=random) for key, shape in shapes.items()} for _ in range(count)]


def config(**changes):
    """Two cameras and a state; every width is its own, so that no two layers can be taken for each other."""
    small = {
        "image_encoder_hidden_dim": 8,
        "image_embedding_pooling_dim": 3,
        "latent_dim": 12,
        "actor_network_kwargs": ActorNetworkConfig(hidden_dims=[9, 8]),
        "critic_network_kwargs": CriticNetworkConfig(hidden_dims=[11, 10]),
        "discrete_critic_network_kwargs": CriticNetworkConfig(hidden_dims=[7, 6]),
        "use_torch_compile": False,
    }
    return SACConfig(
        input_features={
            "observation.images.front": PolicyFeature(FeatureType.VISUAL, (3, 64, 64)),
            "observation.images.wrist": PolicyFeature(FeatureType.VISUAL, (3, 64, 64)),
            "observation.state": PolicyFeature(FeatureType.STATE, (5,)),
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (2,))},
        dataset_stats=None,
        **{**small, **changes},
    )


def made(seed=0, **changes):
    """A policy as the actor has it, how it acts, and observations."""
    torch.manual_seed(seed)
    folder = os.environ.get("LEROBOT_POLICY")
    policy = SACPolicy.from_pretrained(folder) if folder else SACPolicy(config(**changes))
    return policy.eval(), act, probes(policy)


def factory(seed=0):
    """LeRobot's default: one encoder for actor and critics."""
    return made(seed)


def separate(seed=0):
    """An encoder for the actor and one for the critics."""
    return made(seed, shared_encoder=False)


def discrete(seed=0):
    """A gripper that opens and closes as the discrete critic says."""
    return made(seed, num_discrete_actions=3)


def discrete_separate(seed=0):
    """A gripper whose critic sees with the critics' encoder, which is not the actor's."""
    return made(seed, num_discrete_actions=3, shared_encoder=False)


def compiled(seed=0):
    """Critics that torch.compile wraps, which is LeRobot's default; acting runs none of them."""
    return made(seed, use_torch_compile=True)


def on_the_mean(seed=0):
    """The deterministic variant of the first."""
    policy, _, observations = made(seed)
    return policy, act_on_the_mean, observations
