"""``weightkit-actor``: acts in an environment with a learner's weights, and sends it what happens."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from weightkit.architectures.probes import probes
from weightkit.cli import options
from weightkit.cli.main import run_command
from weightkit.cli.output import emit
from weightkit.core.report import Report
from weightkit.core.version import WeightVersion
from weightkit.errors import TransportTimeout
from weightkit.sync.staleness import Freshness, OnStale, StaleGuard
from weightkit.transports.base import OPEN, Access
from weightkit_runners.config import RunConfig, prepare_output, read_run_config
from weightkit_runners.environment import RunEnv, make_run_env
from weightkit_runners.episodes import Episode, policy_act, run_episodes, successes
from weightkit_runners.metrics import Metrics
from weightkit_runners.process import (
    limit_threads,
    log,
    log_findings,
    start_logging,
    stop_on_sigterm,
    version_row,
)
from weightkit_runners.replay import ACTION, NEXT, REWARD, TERMINATED
from weightkit_runners.rollout import episodes_text

SEND_EVERY_STEPS = 10
FLUSH_TIMEOUT_S = 5.0
SAY_WAITING_EVERY_S = 5.0
LOOK_AT_STOP_EVERY_S = 0.5
ANY_AGE = Freshness()


class _StoppedError(Exception):
    """SIGTERM came while there was nothing to act with yet."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@options.config_path
@options.set_values
@click.option("--learner", metavar="HOST:PORT", help="The learner's address instead of the configuration's.")
@click.option("--name", default=lambda: f"actor-{os.getpid()}", help="What the learner calls this actor.")
@click.option("--eval", "evaluate", is_flag=True, help="Act without exploration noise and send nothing.")
@click.option("--hold-version", is_flag=True, help="Keep the first weights: take no later version.")
@click.option("--episodes", type=click.IntRange(min=1), metavar="N", help="End after N episodes.")
@click.option("--seed", type=click.IntRange(min=0), help="The first episode's seed instead of the configuration's.")
@click.option("--max-age", type=float, metavar="S", help="Weights published longer ago than S seconds are stale.")
@click.option("--max-lag", type=int, metavar="N", help="Weights more than N versions behind are stale.")
@click.option(
    "--on-stale",
    type=click.Choice(["warn", "hold", "stop"]),
    default="warn",
    help="Act on stale weights and say so, hold still until newer ones come, or end with exit code 1.",
)
@options.access
@options.as_json
def command(
    config_path: str | None,
    set_values: tuple[str, ...],
    learner: str | None,
    name: str,
    evaluate: bool,
    hold_version: bool,
    episodes: int | None,
    seed: int | None,
    max_age: float | None,
    max_lag: int | None,
    on_stale: OnStale,
    access: Access,
    as_json: bool,
) -> None:
    """Act with a learner's weights. Nothing moves before verified weights are there; there is no fall-back."""
    if config_path is None:
        raise click.UsageError("give --config_path, such as outputs/hilserl_drqv2/train_config.json")
    start_logging()
    stop = stop_on_sigterm()

    def make() -> Report:
        config = read_run_config(config_path, set_values)
        prepare_output(config)
        limit_threads(config.torch_threads or 1)
        log_findings(config, "ACTOR")
        first_seed = config.seed if seed is None else seed
        address = learner or config.link.address
        freshness = Freshness(max_age, max_lag, on_stale)
        if hold_version and on_stale == "hold":
            raise click.UsageError("--hold-version takes no newer weights: --on-stale hold would hold still for ever")
        with Actor(config, address=address, name=name, access=access, hold=hold_version, freshness=freshness) as actor:
            if not actor.wait_for_weights(stop):
                done = []
            elif evaluate:
                done = actor.evaluate(range(first_seed, first_seed + (episodes or 10)), stop)
            else:
                done = actor.collect(first_seed, stop, episodes=episodes)
        facts = {"actor": name, "episodes": [episode.to_dict() for episode in done]}
        return Report("actor", config.findings, facts)

    emit("actor", as_json, make, episodes_text)


class Actor:
    """A policy of its own that is kept at the learner's newest verified version, in an environment."""

    def __init__(
        self,
        config: RunConfig,
        *,
        address: str,
        name: str,
        access: Access = OPEN,
        hold: bool = False,
        freshness: Freshness = ANY_AGE,
        make_env: Callable[[RunConfig], RunEnv] = make_run_env,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        from weightkit.sync.subscriber import Subscriber
        from weightkit_runners.pretrained import build_policy

        self.config = config
        self.address = address
        self.name = name
        self.access = access
        self.hold = hold
        self._guard = StaleGuard(freshness, clock=clock)
        self._clock = clock
        with ExitStack() as opened:
            folder = config.output_dir
            self._metrics = opened.enter_context(
                Metrics(folder / f"{name}_metrics.jsonl", tensorboard=config.tensorboard)
            )
            self._versions = opened.enter_context(Metrics(folder / f"{name}_versions.jsonl"))
            self.env = make_env(config)
            opened.callback(self.env.close)
            self.policy = build_policy(config).eval()
            self.subscriber = opened.enter_context(
                Subscriber(
                    self.policy,
                    address,
                    act=lambda net, observation: net.act(observation),
                    probes=probes(config.architecture.inputs(config.net)),
                    actor_id=name,
                    access=access,
                    simulated=self.env.simulated,
                )
            )
            self._opened = opened.pop_all()
        self.env_step = 0
        self._random = np.random.default_rng(config.seed)

    def wait_for_weights(self, stop: threading.Event) -> bool:
        """Block until verified weights are in the policy; False where ``stop`` was set before they came.

        Raises TransportTimeout at the deadline, NeedsNotMet where the learner offers too little.
        """
        deadline = self.config.link.first_weights_timeout_s
        log.info("[ACTOR] Waiting for initial parameters from Learner...")
        due = self._clock()

        def still_waiting() -> None:
            if stop.is_set():
                raise _StoppedError
            nonlocal due
            if self._clock() < due:
                return
            due = self._clock() + SAY_WAITING_EVERY_S
            trouble = self.subscriber.status()["trouble"]
            log.info("[ACTOR] ...no weights from %s yet (%s); giving up after %g s", self.address, trouble, deadline)

        try:
            self.subscriber.wait_for_first(
                timeout_s=deadline, on_waiting=still_waiting, waiting_every_s=LOOK_AT_STOP_EVERY_S
            )
        except _StoppedError:
            log.info("[ACTOR] Stopped before any weights came.")
            return False
        except TransportTimeout as error:
            raise TransportTimeout(
                f"no verified weights from the learner at {self.address} within {deadline:g} s; the robot did not move",
                hint=error.hint or "start weightkit-learner with the same --config_path, or check --learner HOST:PORT",
            ) from None
        self._applied(initial=True)
        return True

    def take_new_weights(self) -> None:
        """At a step boundary: swap in a newer version if a verified one has come."""
        if not self.hold and self.subscriber.poll() is not None:
            self._applied()

    def ready(self, stop: threading.Event) -> bool:
        """At a step boundary: newer weights swapped in, and fresh enough to act with; False where ``stop`` was set.

        Raises StaleWeights where weights that are too old end the run.
        """
        self.take_new_weights()
        while not self._guard.may_act(self.subscriber.age_s, self.subscriber.lag):
            if stop.wait(LOOK_AT_STOP_EVERY_S / 10):
                return False
            self.take_new_weights()
        return not stop.is_set()

    def evaluate(self, seeds: range, stop: threading.Event) -> list[Episode]:
        """Episodes without exploration noise; nothing is sent. New weights come in between episodes."""
        done: list[Episode] = []
        for seed in seeds:
            if not self.ready(stop):
                break
            done += run_episodes(self.env, policy_act(self.policy), [seed], on_episode=_log_episode)
        log.info("[ACTOR] %d of %d episodes succeeded.", successes(done), len(done))
        return done

    def collect(self, first_seed: int, stop: threading.Event, *, episodes: int | None = None) -> list[Episode]:
        """Episodes with scheduled exploration noise, every transition sent with the version it was acted with."""
        from weightkit_runners.experience import ExperienceSender

        done: list[Episode] = []
        sender = ExperienceSender(self.address, self.name, access=self.access)
        try:
            while not stop.is_set() and (episodes is None or len(done) < episodes):
                done.append(self._episode(first_seed + len(done), sender, stop))
                _log_episode(done[-1])
                self._measure(done[-1], sender.counts().to_dict())
        finally:
            counts = sender.close(drain_timeout_s=FLUSH_TIMEOUT_S)
            self._metrics.write(self.env_step, {"env_step": self.env_step, "closed": True, **counts.to_dict()})
            log.info("[ACTOR] transitions: %d produced = %d accepted + %d pending + %d dropped",
                     counts.produced, counts.accepted, counts.pending, counts.dropped)  # fmt: skip
        return done

    def _episode(self, seed: int, sender: Any, stop: threading.Event) -> Episode:
        observation = self.env.reset(seed)
        pending: list[dict[str, NDArray[Any]]] = []
        total, steps, ended, success = 0.0, 0, False, False
        version = self.subscriber.version

        def send(acted_with: WeightVersion | None) -> None:
            if pending:
                assert acted_with is not None
                sender.send(pending, acted_with)
                pending.clear()

        while not ended and self.ready(stop):
            due = self._clock() + (1.0 / self.config.env.fps if self.config.env.fps else 0.0)
            if self.subscriber.version != version:  # a batch carries one version: the one it was acted with
                send(version)
            version = self.subscriber.version
            assert version is not None
            action = self._explore(observation, version.learner_step)
            after, reward, terminated, truncated, info = self.env.step(action)
            pending.append(_transition(observation, action, reward, terminated, after))
            observation, ended, success = after, terminated or truncated, bool(info.get("success", False))
            total, steps, self.env_step = total + reward, steps + 1, self.env_step + 1
            if len(pending) >= SEND_EVERY_STEPS:
                send(version)
            stop.wait(max(0.0, due - self._clock()))
        send(version)
        return Episode(seed, success, steps, total, "")

    def _explore(self, observation: dict[str, NDArray[Any]], learner_step: int) -> NDArray[Any]:
        exploration = self.config.exploration
        mean = policy_act(self.policy)(observation)
        stddev = exploration.stddev(env_step=self.env_step, learner_step=learner_step)
        noise = self._random.normal(0.0, stddev, mean.shape)
        moved: NDArray[Any] = np.clip(mean + noise, -1.0, 1.0).astype(np.float32)
        return moved

    def _measure(self, episode: Episode, balance: dict[str, Any]) -> None:
        """An episode, the weights that it ended with, and what became of its transitions, as one row."""
        weights = self.subscriber.status()
        kept = ("run_id", "counter", "lag", "age_s", "path", "received", "discarded", "stale", "repaired", "reconnects")
        row = {"env_step": self.env_step, **episode.to_dict(), **{key: weights[key] for key in kept}, **balance}
        self._metrics.write(self.env_step, row)

    def _applied(self, *, initial: bool = False) -> None:
        version = self.subscriber.version
        assert version is not None
        if "encoder" in self.subscriber.groups_applied:
            log.info("[ACTOR] Loaded encoder parameters from Learner.")
        if initial:
            log.info("[ACTOR] Loaded initial parameters from Learner.")
        root = self.subscriber.root
        log.info(
            "[ACTOR] Acting with weights v%d (learner step %d), root %s", version.counter, version.learner_step, root
        )
        self._versions.write(version.counter, version_row(version, root))

    def close(self) -> None:
        """Disconnect and free the environment."""
        self._opened.close()

    def __enter__(self) -> Actor:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _transition(
    observation: dict[str, NDArray[Any]],
    action: NDArray[Any],
    reward: float,
    terminated: bool,
    after: dict[str, NDArray[Any]],
) -> dict[str, NDArray[Any]]:
    return {
        **{key: value[0] for key, value in observation.items()},
        **{NEXT + key: value[0] for key, value in after.items()},
        ACTION: action,
        REWARD: np.float32(reward).reshape(()),
        TERMINATED: np.asarray(terminated),
    }


def _log_episode(episode: Episode) -> None:
    word = "reached the goal" if episode.success else "did not reach the goal"
    log.info("[ACTOR] episode %d %s in %d steps", episode.seed, word, episode.steps)


def main() -> None:
    """Run ``weightkit-actor`` and exit."""
    run_command(command, "weightkit-actor")


if __name__ == "__main__":
    main()
