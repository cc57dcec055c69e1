"""write_sb3.py KIND OUT.zip OUTPUTS.npz: stable-baselines3 makes a SAC agent, saves it and acts."""

import sys

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import SAC

kind, out, outputs = sys.argv[1:]
torch.manual_seed(3)
random = np.random.default_rng(3)


class Nothing(gym.Env):
    """Spaces and no world."""

    def __init__(self) -> None:
        if kind == "cnn":
            self.observation_space = spaces.Box(0, 255, (3, 40, 44), np.uint8)
        else:
            self.observation_space = spaces.Box(-np.inf, np.inf, (7,), np.float32)
        low, high = (-1.0, 1.0) if kind != "mlp_scaled" else ([-2.0, 0.0, 1.0], [2.0, 0.5, 4.0])
        self.action_space = spaces.Box(
            np.array(low, np.float32) * np.ones(3, np.float32), np.array(high, np.float32) * np.ones(3, np.float32)
        )

    def reset(self, *, seed=None, options=None):
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 0.0, False, False, {}


arguments = (
    {"policy_kwargs": {"net_arch": {"pi": [24, 16], "qf": [20, 12, 8]}, "n_critics": 3}} if kind == "mlp_deep" else {}
)
if kind == "cnn":
    arguments = {"policy_kwargs": {"net_arch": [16]}}
agent = SAC("CnnPolicy" if kind == "cnn" else "MlpPolicy", Nothing(), buffer_size=10, **arguments)
with torch.no_grad():
    for parameter in agent.policy.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.05)
agent.save(out)
if kind == "cnn":
    observation = random.integers(0, 256, (4, 3, 40, 44)).astype(np.uint8)
else:
    observation = random.standard_normal((4, 7)).astype(np.float32)
action, _ = agent.predict(observation, deterministic=True)
squashed = agent.policy.scale_action(action)
with torch.no_grad():
    seen = agent.policy.obs_to_tensor(observation)[0]
    values = torch.cat(agent.critic(seen, torch.from_numpy(squashed)), dim=1).T
np.savez(outputs, observation=observation, action=action, squashed=squashed, q=values.numpy(),
         low=agent.action_space.low, high=agent.action_space.high)  # fmt: skip
