"""load_in_lerobot.py FOLDER OBSERVATIONS.npz OUT.npz: lerobot's own SACPolicy loads FOLDER and acts.

Prints a JSON object: what its loader calls missing and unexpected.
"""

import json
import sys

import lerobot_imports  # noqa: F401
import numpy as np
import torch
from lerobot.policies.sac.modeling_sac import SACPolicy
from safetensors.torch import load_model

folder, observations, out = sys.argv[1:]
torch.manual_seed(1)
policy = SACPolicy.from_pretrained(folder, strict=True)  # raises where a key is missing or unexpected
fresh = SACPolicy(policy.config)
missing, unexpected = load_model(fresh, f"{folder}/model.safetensors", strict=False)
observation = {key: torch.from_numpy(value) for key, value in np.load(observations).items()}
policy.eval()
with torch.no_grad():
    means = policy.actor(observation)[2]
    action = torch.tanh(means)
    values = policy.critic_forward(observation, action, use_target=False)
    targets = policy.critic_forward(observation, action, use_target=True)
    found = {"mean": means, "action": action, "q": values, "q_target": targets}
    if policy.config.num_discrete_actions is not None:
        found["discrete_q"] = policy.discrete_critic(observation)
np.savez(out, **{key: value.numpy() for key, value in found.items()})
sys.stdout.write(json.dumps({"missing": sorted(missing), "unexpected": sorted(unexpected)}) + "\n")
