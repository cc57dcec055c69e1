"""``weightkit-learner``: trains a policy on what actors send, and serves its weights to them."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import numpy as np

from weightkit.architectures.probes import probes
from weightkit.cli import options
from weightkit.cli.main import run_command
from weightkit.core.group import Group
from weightkit.core.version import WeightVersion
from weightkit.errors import PlanError
from weightkit.transports.base import OPEN, Access
from weightkit_runners.checkpoints import save_policy
from weightkit_runners.config import RunConfig, prepare_output, read_run_config
from weightkit_runners.experience import BatchRefused, ExperienceBatch, ExperienceReceiver, SinkClosed
from weightkit_runners.experience.journal import ExperienceJournal
from weightkit_runners.metrics import Metrics, sync_row
from weightkit_runners.process import (
    limit_threads,
    log,
    log_findings,
    log_report,
    start_logging,
    stop_on_sigterm,
    version_row,
)
from weightkit_runners.replay import ReplayBuffer, check_transition, transition_specs

LOUD_START_STDDEV = 0.3
DRAIN_TIMEOUT_S = 5.0
LEAST_WAIT_S = 0.05
JOURNAL_BYTES = 2 << 30
JOURNAL_FOLDER = "experience"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@options.config_path
@options.set_values
@click.option("--pretrained", type=click.Path(), metavar="FILE", help="Start from this checkpoint.")
@options.adapt
@options.drop
@options.allow_missing
@click.option("--bind", metavar="HOST:PORT", help="Listen here instead of where the configuration says.")
@options.access
@click.option(
    "--make-certs", type=click.Path(), metavar="DIR", help="Write certificates for --tls into DIR, and do nothing else."
)
@click.option("--host", "hosts", multiple=True, metavar="NAME", help="With --make-certs: a name actors connect to.")
def command(
    config_path: str | None,
    set_values: tuple[str, ...],
    pretrained: str | None,
    adapt: tuple[str, ...],
    drop: tuple[str, ...],
    allow_missing: tuple[str, ...],
    bind: str | None,
    access: Access,
    make_certs: str | None,
    hosts: tuple[str, ...],
) -> None:
    """Train a policy on what actors send, and serve its weights to them."""
    if make_certs is not None:
        from weightkit.transports.certificates import make_certificates

        click.echo(make_certificates(make_certs, hosts).how_to_use())
        return
    if hosts:
        raise click.UsageError("--host goes with --make-certs DIR")
    if config_path is None:
        raise click.UsageError("give --config_path, such as outputs/hilserl_drqv2/train_config.json")
    start_logging()
    stop = stop_on_sigterm()
    config = read_run_config(config_path, set_values)
    prepare_output(config)
    limit_threads(config.torch_threads, leave=1)
    log_findings(config, "LEARNER")
    policy = prepare_policy(config, pretrained, adapt=adapt, drop=drop, allow_missing=allow_missing)
    with Learner(config, policy, bind=bind or config.link.address, access=access) as learner:
        learner.run(stop)


def prepare_policy(
    config: RunConfig,
    pretrained: str | Path | None,
    *,
    adapt: tuple[str, ...] = (),
    drop: tuple[str, ...] = (),
    allow_missing: tuple[str, ...] = (),
) -> Any:
    """The policy to train: from pretrained weights where there are any, its report logged; else fresh, and said so.

    Raises PlanError where the checkpoint leaves a gap.
    """
    from weightkit.reporting.convert import convert_text
    from weightkit.verbs.convert import refusal_report
    from weightkit_runners.pretrained import build_policy, load_pretrained, plan_pretrained

    policy = build_policy(config)
    path = Path(pretrained) if pretrained else config.pretrained_path
    origin = "--pretrained" if pretrained else config.pretrained_origin
    if path is None:
        log.info("[LEARNER] No pretrained weights: the policy starts from fresh values (seed %d).", config.seed)
        return policy
    log.info("[LEARNER] Pretrained weights: %s (from %s)", path, origin)
    try:
        conversion, report = plan_pretrained(config, path, adapt=adapt, drop=drop, allow_missing=allow_missing)
    except PlanError as error:
        log_report(convert_text, refusal_report(error, path, config.architecture.name))
        raise
    log_report(convert_text, report)
    load_pretrained(policy, conversion)
    start = config.exploration.schedule.at(config.exploration.start_step)
    if start > LOUD_START_STDDEV:
        log.warning(
            "[LEARNER] Exploration starts at stddev %.2f: actors will look random although their weights are right. "
            "Set policy.exploration_start_step or policy.stddev_schedule, or watch them with weightkit-actor --eval.",
            start,
        )
    return policy


class Learner:
    """A policy, its replay buffer and its update, behind one address. Raises UncoveredRead before it listens.

    What it accepts from actors stands in a journal of at most ``journal_bytes`` under the output folder, and is in the
    replay buffer again when a learner starts with that folder. Raises WriteError where another learner has it open.
    """

    def __init__(
        self,
        config: RunConfig,
        policy: Any,
        *,
        bind: str,
        access: Access = OPEN,
        groups: tuple[Group, ...] | None = None,
        journal_bytes: int = JOURNAL_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        from weightkit.sync.grouping import make_manifest
        from weightkit.sync.publisher import Publisher
        from weightkit_runners.updates import make_update

        self.config = config
        self.policy = policy
        self.replay = ReplayBuffer(config.online_buffer_capacity)
        self.learner_step = 0
        self._transition_specs = transition_specs(config)
        self.update = make_update(policy, config)
        self._clock = clock
        self._random = np.random.default_rng(config.seed)
        self._incoming: queue.Queue[Any] = queue.Queue(maxsize=64)
        self._closing = threading.Event()
        chosen = {g.name: (g.transfer.value, g.why) for g in groups or config.architecture.groups(config.net)}
        manifest = make_manifest(policy, chosen, architecture=config.architecture.name)
        with ExitStack() as opened:
            folder, tensorboard = config.output_dir, config.tensorboard
            self._metrics = opened.enter_context(Metrics(folder / "metrics.jsonl", tensorboard=tensorboard))
            self._sync_metrics = opened.enter_context(Metrics(folder / "sync.jsonl", tensorboard=tensorboard))
            self._versions = opened.enter_context(Metrics(folder / "learner_versions.jsonl"))
            self.journal = opened.enter_context(
                ExperienceJournal(folder / JOURNAL_FOLDER, capacity_bytes=journal_bytes)
            )
            self._restore()
            self.receiver = ExperienceReceiver(self._accept, check=self._check, journal=self.journal)
            self.publisher = opened.enter_context(
                Publisher(
                    policy,
                    manifest,
                    act=lambda net, observation: net.act(observation),
                    probes=probes(config.architecture.inputs(config.net)),
                    bind=bind,
                    services=[self.receiver.service],
                    access=access,
                    optimizers=self.update.optimizers.values(),
                )
            )
            self._opened = opened.pop_all()
        self._pushed_step = -1
        self._pushed_at = 0.0

    @property
    def address(self) -> str:
        """Where actors connect to."""
        return self.publisher.address

    @property
    def refused(self) -> int:
        """Transitions of actors that were not this run's."""
        return int(self.receiver.status()["refused"])

    def run(self, stop: threading.Event) -> None:
        """Serve and train until ``online_steps`` updates are done or ``stop`` is set; the last weights are sent."""
        config = self.config
        log.info("[LEARNER] Listening on %s, run %s", self.address, self.publisher.run_id[:8])
        self.push()
        said_waiting = False
        while not stop.is_set() and self.learner_step < config.online_steps:
            ready = len(self.replay) >= config.online_step_before_learning
            self.drain(wait_s=0.0 if ready else max(config.link.queue_get_timeout_s, LEAST_WAIT_S))
            if not ready:
                if not said_waiting:
                    log.info(
                        "[LEARNER] Waiting for %d transitions before learning.", config.online_step_before_learning
                    )
                    said_waiting = True
                continue
            metrics = self.step()
            if self.learner_step % config.log_freq == 0:
                self._log(metrics)
            if config.save_checkpoint and self.learner_step % config.save_freq == 0:
                self.save()
            if self._clock() - self._pushed_at >= config.link.push_every_s:
                self.push()
        if self.learner_step > self._pushed_step:
            self.push()
        self._await_actors()
        self._closing.set()
        self.drain(wait_s=0.0)  # what was accepted is part of the run
        if config.save_checkpoint and self.learner_step:
            self.save()
        log.info(
            "[LEARNER] Done after %d updates on %d transitions (%d refused).",
            self.learner_step,
            self.replay.added,
            self.refused,
        )

    def step(self) -> dict[str, float]:
        """One update: ``utd_ratio`` batches from the replay buffer."""
        count, size = self.config.update.utd_ratio, self.config.update.batch_size
        batches = [self.replay.sample(size, self._random) for _ in range(count)]
        metrics = self.update.update(batches, env_step=self.replay.added, learner_step=self.learner_step)
        self.learner_step += 1
        return metrics

    def push(self) -> WeightVersion:
        """Publish the weights as they are."""
        started = time.perf_counter()
        version = self.publisher.publish(self.learner_step)
        publish_ms = (time.perf_counter() - started) * 1e3
        state = self.publisher.state()
        self._sync_metrics.write(version.counter, sync_row(state, publish_ms, self.receiver.status()))
        self._pushed_step, self._pushed_at = self.learner_step, self._clock()
        log.info(
            "[LEARNER] Published weights v%d (learner step %d), root %s", version.counter, self.learner_step, state.root
        )
        self._versions.write(version.counter, version_row(version, state.root))
        return version

    def drain(self, *, wait_s: float) -> int:
        """Move what actors have sent into the replay buffer; waits up to ``wait_s`` where nothing is there."""
        moved = 0
        try:
            batch = self._incoming.get(timeout=wait_s) if wait_s else self._incoming.get_nowait()
            while True:
                self.replay.add(batch.transitions)
                moved += len(batch.transitions)
                batch = self._incoming.get_nowait()
        except queue.Empty:
            return moved

    def save(self) -> Path:
        """Write the policy as a checkpoint folder and point ``last`` at it."""
        path = save_policy(self.policy, self.config, self.learner_step)
        log.info("[LEARNER] Saved %s", path)
        return path

    def _restore(self) -> None:
        """Fill the replay buffer with the newest transitions of the journal."""
        strange = 0
        for kept in self.journal.read(newest=self.replay.capacity):
            try:
                batch = kept.decode()
                self._check(batch)
            except (BatchRefused, ValueError) as error:
                strange += kept.count
                why = str(error)
            else:
                self.replay.add(batch.transitions)
        if strange:
            log.warning("[LEARNER] Left out %d transitions of another configuration in %s: %s",
                        strange, self.journal.folder, why)  # fmt: skip
        if len(self.replay):
            log.info("[LEARNER] Restored %d transitions from %s", len(self.replay), self.journal.folder)

    def _check(self, batch: ExperienceBatch) -> None:
        """Refuse transitions that are not this run's: one actor with another configuration must not end the training of
        the others."""
        if self._closing.is_set():
            raise SinkClosed("the learner is closing")
        try:
            for transition in batch.transitions:
                check_transition(transition, self._transition_specs)
        except ValueError as error:
            raise BatchRefused(str(error)) from None

    def _accept(self, batch: ExperienceBatch) -> None:
        """Take a batch that stands in the journal; waits while the learner is busy, which holds that actor back."""
        while not self._closing.is_set():
            try:
                self._incoming.put(batch, timeout=0.2)
            except queue.Full:
                continue
            return
        raise SinkClosed("the learner is closing")

    def _log(self, metrics: dict[str, float]) -> None:
        values = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        log.info("[LEARNER] step %d  transitions %d  %s", self.learner_step, self.replay.added, values)
        row = {"learner_step": self.learner_step, "transitions": self.replay.added, **metrics}
        self._metrics.write(self.learner_step, row)

    def _await_actors(self) -> None:
        """Let connected actors take the last version, for a while."""
        status = self.publisher.status()
        counter, actors = status["counter"], status["actors"]
        assert isinstance(counter, int)
        assert isinstance(actors, dict)
        for actor_id, actor in actors.items():
            if actor["connected"]:
                self.publisher.wait_acked(actor_id, counter, timeout_s=DRAIN_TIMEOUT_S)

    def close(self) -> None:
        """Stop listening."""
        self._closing.set()
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
