"""``weightkit-actor``: acts in an environment with a learner's weights, and sends it what happens."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import Any

import click

from weightkit.architectures.probes import probes
from weightkit.cli import options
from weightkit.cli.main import run_command
from weightkit.cli.output import emit
from weightkit.core.report import Report
from weightkit.sync.staleness import Freshness, OnStale
from weightkit.transports.base import OPEN, Access
from weightkit_runners.collecting import Collector
from weightkit_runners.config import RunConfig, prepare_output, read_run_config
from weightkit_runners.environment import RunEnv, make_run_env
from weightkit_runners.episodes import Episode, log_episode, policy_act, run_episodes, successes
from weightkit_runners.exploring import explorer
from weightkit_runners.interventions import make_source
from weightkit_runners.metrics import Metrics
from weightkit_runners.process import limit_threads, log, log_findings, start_logging, stop_on_sigterm
from weightkit_runners.rollout import episodes_text
from weightkit_runners.weights import FollowedWeights

FLUSH_TIMEOUT_S = 5.0
ANY_AGE = Freshness()


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@options.config_path
@options.set_values
@click.option("--learner", metavar="HOST:PORT", help="The learner's address instead of the configuration's.")
@click.option("--name", default=lambda: f"actor-{os.getpid()}", help="What the learner calls this actor.")
@click.option("--eval", "evaluate", is_flag=True, help="Act without exploration noise and send nothing.")
@click.option("--hold-version", is_flag=True, help="Keep the first weights: take no later version.")
@click.option("--episodes", type=click.IntRange(min=1), metavar="N", help="End after N episodes.")
@click.option("--seed", type=click.IntRange(min=0), help="The first episode's seed instead of the configuration's.")
@click.option("--intervene", metavar="NAME", help="Let keyboard, gamepad, expert or package.module:factory take over.")
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
    intervene: str | None,
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
            if not actor.weights.wait(stop, timeout_s=config.link.first_weights_timeout_s):
                done = []
            elif evaluate:
                done = actor.evaluate(range(first_seed, first_seed + (episodes or 10)), stop)
            else:
                done = actor.collect(first_seed, stop, episodes=episodes, intervene=intervene)
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
        self.address, self.name, self.access = address, name, access
        self._clock = clock
        with ExitStack() as opened:
            folder = config.output_dir
            self._metrics = opened.enter_context(
                Metrics(folder / f"{name}_metrics.jsonl", tensorboard=config.tensorboard)
            )
            versions = opened.enter_context(Metrics(folder / f"{name}_versions.jsonl"))
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
            self.weights = FollowedWeights(
                self.subscriber, address, versions, freshness=freshness, hold=hold, clock=clock
            )
            self._opened = opened.pop_all()
        self.env_step = 0

    def evaluate(self, seeds: range, stop: threading.Event) -> list[Episode]:
        """Episodes without exploration noise; nothing is sent. New weights come in between episodes."""
        done: list[Episode] = []
        for seed in seeds:
            if self.weights.current(stop) is None:
                break
            done += run_episodes(self.env, policy_act(self.policy), [seed], on_episode=log_episode)
        log.info("[ACTOR] %d of %d episodes succeeded.", successes(done), len(done))
        return done

    def collect(
        self, first_seed: int, stop: threading.Event, *, episodes: int | None = None, intervene: str | None = None
    ) -> list[Episode]:
        """Episodes with exploration, every transition sent; ``intervene`` names who may take over."""
        from weightkit_runners.experience import ExperienceSender

        done: list[Episode] = []
        with ExitStack() as opened:
            source = None
            if intervene is not None:
                options = self.config.interventions
                source = opened.enter_context(closing(make_source(intervene, self.env.action_dim, **options)))
            sender = ExperienceSender(self.address, self.name, access=self.access)
            opened.callback(self._finish, sender)
            collector = Collector(
                self.config, self.env, explorer(self.policy, self.config), self.weights.current, sender,
                source=source, clock=self._clock,
            )  # fmt: skip
            while not stop.is_set() and (episodes is None or len(done) < episodes):
                done.append(collector.episode(len(done), first_seed + len(done), stop))
                log_episode(done[-1])
                self.env_step = collector.env_step
                rate = collector.interventions / max(1, collector.env_step)
                self._measure(done[-1], {**sender.counts().to_dict(), "intervention_rate": rate})
        return done

    def _finish(self, sender: Any) -> None:
        counts = sender.close(drain_timeout_s=FLUSH_TIMEOUT_S)
        self._metrics.write(self.env_step, {"env_step": self.env_step, "closed": True, **counts.to_dict()})
        log.info("[ACTOR] transitions: %d produced = %d accepted + %d pending + %d dropped",
                 counts.produced, counts.accepted, counts.pending, counts.dropped)  # fmt: skip

    def _measure(self, episode: Episode, balance: dict[str, Any]) -> None:
        """An episode, the weights that it ended with, and what became of its transitions, as one row."""
        weights = self.subscriber.status()
        kept = ("run_id", "counter", "lag", "age_s", "path", "received", "discarded", "stale", "repaired", "reconnects")
        row = {"env_step": self.env_step, **episode.to_dict(), **{key: weights[key] for key in kept}, **balance}
        self._metrics.write(self.env_step, row)

    def close(self) -> None:
        """Disconnect and free the environment."""
        self._opened.close()

    def __enter__(self) -> Actor:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def main() -> None:
    """Run ``weightkit-actor`` and exit."""
    run_command(command, "weightkit-actor")


if __name__ == "__main__":
    main()
