"""``weightkit-learner``: trains a policy on what actors send, and serves its weights to them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import click

from weightkit.architectures.probes import probes
from weightkit.cli import options
from weightkit.cli.main import run_command
from weightkit.core.group import Group
from weightkit.core.version import WeightVersion
from weightkit.transports.base import OPEN, Access
from weightkit_runners.checkpoints import JOURNAL_FOLDER, SavedTraining, find_training, going_on, save_training
from weightkit_runners.config import RunConfig, prepare_output, read_run_config
from weightkit_runners.display import Display
from weightkit_runners.intake import Intake
from weightkit_runners.metrics import Metrics, sync_row
from weightkit_runners.numbering import VersionNumbers
from weightkit_runners.pretrained import prepare_policy, resumed_policy
from weightkit_runners.process import limit_threads, log, log_findings, start_logging, stop_on_sigterm, version_row
from weightkit_runners.transitions import transition_spec

DRAIN_TIMEOUT_S = 5.0
LEAST_WAIT_S = 0.05
JOURNAL_BYTES = 2 << 30


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@options.config_path
@options.set_values
@click.option("--pretrained", type=click.Path(), metavar="FILE", help="Start from this checkpoint.")
@options.adapt
@options.drop
@options.allow_missing
@click.option(
    "--resume", type=click.Path(), metavar="DIR", help="Go on from this run's last checkpoint, or from this one."
)
@click.option("--anew", is_flag=True, help="Begin anew in a folder that holds an earlier run.")
@click.option("--show-config", is_flag=True, help="Print the configuration, defaults filled in, and do nothing else.")
@click.option("--bind", metavar="HOST:PORT", help="Listen here instead of where the configuration says.")
@options.access
@click.option(
    "--make-certs", type=click.Path(), metavar="DIR", help="Write certificates for --tls into DIR, and do nothing else."
)
@click.option("--host", "hosts", multiple=True, metavar="NAME", help="With --make-certs: a name actors connect to.")
def command(
    config_path: str | None,
    set_values: tuple[str, ...],
    resume: str | None,
    anew: bool,
    show_config: bool,
    bind: str | None,
    access: Access,
    make_certs: str | None,
    hosts: tuple[str, ...],
    pretrained: str | None,
    **choices: tuple[str, ...],
) -> None:
    """Train a policy on what actors send, and serve its weights to them."""
    if make_certs is not None:
        from weightkit.transports.certificates import make_certificates

        click.echo(make_certificates(make_certs, hosts).how_to_use())
        return
    if hosts:
        raise click.UsageError("--host goes with --make-certs DIR")
    if config_path is None and resume is None:
        raise click.UsageError("give --config_path, such as outputs/hilserl_drqv2/train_config.json, or --resume DIR")
    config = read_run_config(config_path or find_training(str(resume)).train_config, set_values)
    if show_config:
        click.echo(json.dumps(config.document, indent=2))
        return
    start_logging()
    stop = stop_on_sigterm()
    prepare_output(config)
    limit_threads(config.torch_threads, leave=1)
    log_findings(config, "LEARNER")
    saved = going_on(config, resume=resume, anew=anew)
    policy = resumed_policy(config, saved) if saved else prepare_policy(config, pretrained, **choices)
    with Learner(config, policy, bind=bind or config.link.address, access=access, saved=saved) as learner:
        learner.run(stop)


class Learner:
    """A policy in training behind one address. Raises UncoveredRead before it listens.

    What it accepts from actors stands in a journal of at most ``journal_bytes`` under the output folder, and is in the
    replay again when a learner goes on there. ``saved``: the checkpoint to go on from. Raises WriteError where another
    learner has the folder open.
    """

    def __init__(
        self,
        config: RunConfig,
        policy: Any,
        *,
        bind: str,
        access: Access = OPEN,
        saved: SavedTraining | None = None,
        groups: tuple[Group, ...] | None = None,
        journal_bytes: int = JOURNAL_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        from weightkit.sync.grouping import make_manifest
        from weightkit.sync.publisher import Publisher
        from weightkit_runners.training import Training

        self.config = config
        self._clock = clock
        chosen = {g.name: (g.transfer.value, g.why) for g in groups or config.architecture.groups(config.net)}
        manifest = make_manifest(policy, chosen, architecture=config.architecture.name)
        with ExitStack() as opened:
            folder, tensorboard = config.output_dir, config.tensorboard
            self._metrics = opened.enter_context(Metrics(folder / "metrics.jsonl", tensorboard=tensorboard))
            self._sync_metrics = opened.enter_context(Metrics(folder / "sync.jsonl", tensorboard=tensorboard))
            self._versions = opened.enter_context(Metrics(folder / "learner_versions.jsonl"))
            self.training = opened.enter_context(closing(Training(policy, config)))
            self.intake = Intake(transition_spec(config), folder / JOURNAL_FOLDER, capacity_bytes=journal_bytes)
            opened.callback(self.intake.close)
            if saved is not None:
                self.training.load_state(saved.optimizers(), learner_step=saved.learner_step)
            self.intake.restore(self.training, newest=config.replay.online_capacity)
            if config.replay.demonstrations is not None:
                self.training.demonstrate(config.replay.demonstrations, transition_spec(config))
            self._numbers = VersionNumbers(folder, resume=saved is not None)
            self.publisher = opened.enter_context(
                Publisher(
                    policy,
                    manifest,
                    act=lambda net, observation: net.act(observation),
                    probes=probes(config.architecture.inputs(config.net)),
                    bind=bind,
                    services=[self.intake.receiver.service],
                    access=access,
                    run_id=self._numbers.run_id,
                    first_counter=self._numbers.first,
                    optimizers=self.training.update.optimizers.values(),
                )
            )
            self._opened = opened.pop_all()
        self._pushed_step = self._saved_step = -1
        self._pushed_at = 0.0

    @property
    def address(self) -> str:
        """Where actors connect to."""
        return self.publisher.address

    def run(self, stop: threading.Event) -> None:
        """Serve and train until ``online_steps`` updates are done or ``stop`` is set; the last weights are sent."""
        config, training = self.config, self.training
        log.info("[LEARNER] Listening on %s, run %s", self.address, self.publisher.run_id[:8])
        self.push()
        if not training.is_ready():
            log.info("[LEARNER] Waiting for %d transitions before learning.", config.online_step_before_learning)
        with closing(Display(config.online_steps)) as display:
            while not stop.is_set() and training.learner_step < config.online_steps:
                ready = training.is_ready()
                self.intake.move(training, wait_s=0.0 if ready else max(config.link.queue_get_timeout_s, LEAST_WAIT_S))
                if ready:
                    metrics = training.step()
                    if training.learner_step % config.log_freq == 0:
                        self._log(metrics)
                    if config.save_checkpoint and training.learner_step % config.save_freq == 0:
                        self.save()
                    if self._clock() - self._pushed_at >= config.link.push_every_s:
                        self.push()
                display.show(training, self.publisher)
        if training.learner_step > self._pushed_step:
            self.push()
        self._await_actors()
        self.intake.stop()
        self.intake.move(training, wait_s=0.0)  # what was accepted is part of the run
        if config.save_checkpoint and training.learner_step > self._saved_step:
            self.save()
        refused = self.intake.status()["refused"]
        log.info("[LEARNER] Done after %d updates on %d transitions (%d refused).",
                 training.learner_step, training.env_step, refused)  # fmt: skip

    def push(self) -> WeightVersion:
        """Publish the weights as they are."""
        started = time.perf_counter()
        self._numbers.reserve(self.publisher.next_counter)
        version = self.publisher.publish(self.training.learner_step)
        publish_ms = (time.perf_counter() - started) * 1e3
        state = self.publisher.state()
        self._sync_metrics.write(version.counter, sync_row(state, publish_ms, self.intake.status()))
        self._pushed_step, self._pushed_at = self.training.learner_step, self._clock()
        log.info("[LEARNER] Published weights v%d (learner step %d), root %s",
                 version.counter, version.learner_step, state.root)  # fmt: skip
        self._versions.write(version.counter, version_row(version, state.root))
        return version

    def save(self) -> Path:
        """Write a checkpoint that a learner can go on from, and point ``last`` at it."""
        path = save_training(self.training, self.config)
        self._saved_step = self.training.learner_step
        log.info("[LEARNER] Saved %s", path)
        return path

    def _log(self, metrics: dict[str, float]) -> None:
        training = self.training
        there = training.replay.counts()
        kept = {"replay": there.online, "offline": there.offline, "interventions": there.interventions}
        row = {"transitions": training.env_step, **metrics, **training.episodes.row(), **kept}
        values = "  ".join(f"{name} {value:.4g}" for name, value in row.items())
        log.info("[LEARNER] step %d  %s", training.learner_step, values)
        self._metrics.write(training.learner_step, {"learner_step": training.learner_step, **row})

    def _await_actors(self) -> None:
        """Let connected actors take the last version, for a while."""
        state = self.publisher.state()
        for actor in state.actors:
            if actor.connected:
                self.publisher.wait_acked(actor.actor_id, state.counter, timeout_s=DRAIN_TIMEOUT_S)

    def close(self) -> None:
        """Stop listening."""
        self.intake.stop()
        self._opened.close()

    def __enter__(self) -> Learner:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def main() -> None:
    """Run ``weightkit-learner`` and exit."""
    run_command(command, "weightkit-learner")


if __name__ == "__main__":
    main()
