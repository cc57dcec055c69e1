"""What learners push for LeRobot's SAC, and what becomes of it in LeRobot's actor.

    lerobot_pushes.py push VARIANT KIND OUT.pt        a push as it goes over the wire
    lerobot_pushes.py manifest VARIANT OUT.json [M..] what the stock learner sends, the modules M held back
    lerobot_pushes.py arrival VARIANT PUSH.pt         the push, handed to LeRobot's actor, which has other weights
    lerobot_pushes.py reads VARIANT                   what changes the action where it is overwritten

VARIANT is a factory of lerobot_sac_sync. KIND ``stock`` is made by LeRobot 0.4.4's learner; the others are learners
that somebody wrote. ``arrival`` prints a JSON object: the error that the actor raised, or null, and whether it then
acts as the learner would. ``reads`` prints a JSON list of names.
"""

import __future__

import ast
import io
import json
import logging
import platform
import queue
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import lerobot_sac_sync
import torch
from lerobot.utils.transition import move_state_dict_to_device

import weightkit

LEROBOT = Path(find_spec("lerobot").submodule_search_locations[0])


def functions(path, *names, **needs):
    """LeRobot's own functions, without the rest of their file, which imports drivers of robots and cameras."""
    tree = ast.parse((LEROBOT / path).read_text(encoding="utf-8"))
    tree.body = [part for part in tree.body if isinstance(part, ast.FunctionDef) and part.name in names]
    assert len(tree.body) == len(names), f"{path} of this LeRobot does not define {names}"
    exec(compile(tree, path, "exec", __future__.annotations.compiler_flag, dont_inherit=True), needs)
    return [needs[name] for name in names]


to_bytes, from_bytes = functions("transport/utils.py", "state_to_bytes", "bytes_to_state_dict", io=io, torch=torch)
(last_item,) = functions(
    "rl/queue.py", "get_last_item_from_queue", platform=platform, suppress=suppress, Empty=queue.Empty
)
(push_actor_policy_to_queue,) = functions(
    "rl/learner.py",
    "push_actor_policy_to_queue",
    logging=logging,
    move_state_dict_to_device=move_state_dict_to_device,
    state_to_bytes=to_bytes,
)
(update_policy_parameters,) = functions(
    "rl/actor.py",
    "update_policy_parameters",
    logging=logging,
    move_state_dict_to_device=move_state_dict_to_device,
    bytes_to_state_dict=from_bytes,
    get_last_item_from_queue=last_item,
)


def stock(policy):
    """What LeRobot's learner sends."""
    sent = queue.Queue()
    push_actor_policy_to_queue(parameters_queue=sent, policy=policy)
    return from_bytes(sent.get())


def without_encoder(policy):
    """The learner of devlog 042, in LeRobot's names: the actor's own layers, and its encoder stays where it is."""
    whole = stock(policy)
    own = {name: tensor for name, tensor in whole["policy"].items() if not name.startswith("encoder.")}
    return {**whole, "policy": own}


KINDS = {
    "stock": stock,
    "without_encoder": without_encoder,
    "without_discrete_critic": lambda policy: {"policy": stock(policy)["policy"]},
    "without_one_tensor": lambda policy: {
        key: {name: tensor for name, tensor in tensors.items() if name != "mean_layer.bias"}
        for key, tensors in stock(policy).items()
    },
    "encoder_beside": lambda policy: {
        **without_encoder(policy),
        "encoder_actor": policy.encoder_actor.state_dict(),
    },
    "actor_as_actor": lambda policy: {"actor": policy.actor.state_dict()},
    "actor_flat": lambda policy: policy.actor.state_dict(),
    "whole_flat": lambda policy: policy.state_dict(),
    "whole_as_policy": lambda policy: {"policy": policy.state_dict()},
    "whole_as_model": lambda policy: {"model": policy.state_dict()},
    "whole_as_state_dict": lambda policy: {"state_dict": policy.state_dict()},
}


def computed(policy):
    """What the actor does on the probes, the noise the same every time, and the values by which a gripper is moved.

    The values, because the gripper follows the largest of them, which is often the same on other weights.
    """
    torch.manual_seed(3)
    observations = lerobot_sac_sync.probes(policy, 8)
    with torch.no_grad():
        found = [lerobot_sac_sync.act(policy, observation) for observation in observations]
        if policy.config.num_discrete_actions is not None:
            found += [policy.discrete_critic(observation) for observation in observations]
    return torch.cat([tensor.flatten() for tensor in found])


def arrival(variant, push):
    """What LeRobot's actor makes of a push, against the learner that it was made from."""
    learner = getattr(lerobot_sac_sync, variant)()[0]
    actor = getattr(lerobot_sac_sync, variant)(seed=1)[0]
    sent, error = queue.Queue(), None
    sent.put(Path(push).read_bytes())
    try:
        update_policy_parameters(policy=actor, parameters_queue=sent, device=torch.device("cpu"))
    except Exception as raised:
        error = f"{type(raised).__name__}: {raised}".splitlines()[0]
    return {"error": error, "acts_as_the_learner": torch.equal(computed(actor), computed(learner))}


def reads(variant):
    """Names whose numbers the action depends on, found by overwriting one tensor after the other with noise."""
    policy = getattr(lerobot_sac_sync, variant)()[0]
    found, noise, before = [], torch.Generator().manual_seed(4), computed(policy)
    for name, tensor in policy.state_dict().items():
        kept = tensor.clone()
        tensor.copy_(torch.randn(tensor.shape, generator=noise))
        if not torch.equal(computed(policy), before):
            found.append(name.replace("_orig_mod.", ""))
        tensor.copy_(kept)
    assert torch.equal(computed(policy), before)
    return sorted(found)


def manifest(policy, *held):
    """The manifest of a learner that sends what LeRobot's does, except what is ``held``."""
    groups = {name.partition(".")[0]: "hold" for name in policy.state_dict()}
    sent = {module: "send" for module in ("actor", "discrete_critic") if module in groups}
    return weightkit.make_manifest(policy, {**groups, **sent, **dict.fromkeys(held, "hold")})


def main(what, variant, *words):
    policy = getattr(lerobot_sac_sync, variant)()[0]
    if what == "push":
        kind, out = words
        Path(out).write_bytes(to_bytes(KINDS[kind](policy)))
    elif what == "manifest":
        out, *held = words
        Path(out).write_text(json.dumps(manifest(policy, *held).to_dict()), encoding="utf-8")
    else:
        found = arrival(variant, *words) if what == "arrival" else reads(variant)
        sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
