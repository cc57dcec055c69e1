"""The learner's side: weights go out in whole, hashed, numbered versions."""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict, replace
from types import TracebackType

from torch import Tensor, nn

from weightkit.arena import Arena, Packed
from weightkit.core.group import Transfer
from weightkit.core.manifest import SyncManifest
from weightkit.core.version import WeightVersion
from weightkit.digest import root_digest
from weightkit.errors import PublishRefused
from weightkit.sync.golden import GoldenProbe
from weightkit.sync.handshake import pin_digests
from weightkit.sync.inventory import Inventory
from weightkit.sync.proof import Optimizers, judge, raise_for
from weightkit.sync.read_set import Act, Probes, checked, trace
from weightkit.sync.service import SyncService
from weightkit.sync.snapshots import Snapshot
from weightkit.torch_state import spec_of, storage_identity
from weightkit.transports import serve
from weightkit.transports.base import OPEN, Access, Service, Status


class Publisher:
    """Serves the weights of ``policy`` to actors, from construction until ``close``.

    ``optimizers``: all that train the policy; what they hold must be sent where ``act()`` reads it. ``golden``: send
    with every version what ``act()`` does on the first probe, so that an actor sees whether its code does the same;
    left out, with the reason in ``report``, where ``act()`` draws random numbers or its observation is no plain data.
    ``run_id`` and ``first_counter``: those of a run that goes on, where no number may be given twice.

    Raises UncoveredRead where ``act()`` reads a tensor that ``manifest`` does not send (NeedsNotMet where the manifest
    does not fit for another reason), AddressInUse, UsageError for a plain-text bind beyond this machine.
    """

    def __init__(
        self,
        policy: nn.Module,
        manifest: SyncManifest,
        *,
        act: Act,
        probes: Probes,
        bind: str = "127.0.0.1:0",
        services: tuple[Service, ...] | list[Service] = (),
        run_id: str | None = None,
        first_counter: int = 1,
        access: Access = OPEN,
        heartbeat_s: float = 1.0,
        optimizers: Optimizers = (),
        golden: bool = True,
    ) -> None:
        probes = checked(policy, act, probes)
        traced = trace(policy, act, probes)
        report = judge(traced, manifest, optimizers=optimizers)
        raise_for(report)
        self._golden = GoldenProbe(policy, act, probes[0], traced, manifest) if golden else None
        self.report = (
            report if self._golden is None else report.replace(findings=report.findings + self._golden.findings)
        )
        self.manifest = manifest
        self.run_id = run_id or uuid.uuid4().hex
        self._counter = first_counter - 1
        self._publishing = threading.Lock()
        self._packer = ThreadPoolExecutor(1, "weightkit pack")
        self._inventory = Inventory(policy)
        own = self._inventory.by_name()
        probe = b"" if self._golden is None else self._golden.observation
        self._service = SyncService(
            manifest,
            self.run_id,
            pin_digests(own, manifest),
            heartbeat_s=heartbeat_s,
            probe=probe,
            shared=access.shared_memory,
        )
        self._server = serve(bind, self._service, services=tuple(services), access=access)

    @property
    def address(self) -> str:
        """Where actors connect to."""
        return self._server.address

    @property
    def next_counter(self) -> int:
        """The counter that the next version gets."""
        return self._counter + 1

    def publish(self, learner_step: int = 0) -> WeightVersion:
        """Copy the policy's SEND tensors as they are now and offer them as the next version.

        The caller keeps the policy still while this runs (the optimizer's lock). Actors are served by other threads.
        Raises PublishRefused, and keeps offering the last good version, for NaN, infinity, or a tensor whose dtype or
        shape is not the manifest's.
        """
        with self._publishing:
            try:
                own = self._as_announced()
                slot = self._service.blank()
                packed, golden = self._packed(slot.arena, own)
                _check_finite(packed.spoiled)
            except PublishRefused:
                self._service.refused += 1
                raise
            self._counter += 1
            version = WeightVersion(self.run_id, self._counter, learner_step)
            self._service.offer(Snapshot(version, slot, packed.digests, root_digest(packed.digests), golden))
            return version

    def _packed(self, arena: Arena, own: dict[str, Tensor]) -> tuple[Packed, bytes]:
        """The policy in ``arena``, and what it does on the golden probe.

        At once: ``act()`` writes nothing that is sent (WK306). The user's code runs on the caller's thread.
        """
        if self._golden is None:
            return arena.pack(own), b""
        packing = self._packer.submit(arena.pack, own)
        try:
            golden = self._golden.action()
        finally:
            wait([packing])  # whoever holds the policy still for us may let go when we return
        return packing.result(), golden

    def _as_announced(self) -> dict[str, Tensor]:
        """The policy's tensors, which are still laid out, and pinned, as the manifest says."""
        own = self._inventory.by_name()
        for name in self.manifest.names(Transfer.SEND):
            wanted, tensor = self.manifest.by_name[name].spec, own.get(name)
            if tensor is None or spec_of(tensor) != wanted:
                found = "nothing" if tensor is None else str(spec_of(tensor))
                raise PublishRefused(
                    f"{name}: the manifest says {wanted}, the policy now has {found}; the last version stays",
                    hint="a policy must not change its layout while it is published: restart with a new manifest",
                )
        apart = [
            f"{entry.name} and {entry.alias_of}"
            for entry in self.manifest.entries
            if entry.alias_of is not None
            and self.manifest.transfer_of(entry.group) is Transfer.SEND
            and not (entry.name in own and storage_identity(own[entry.name]) == storage_identity(own[entry.alias_of]))
        ]
        if apart:
            raise PublishRefused(
                f"one tensor when the learner started, and two now; the last version stays: {', '.join(apart)}",
                hint="only the first would be sent: tie them again, or restart with a new manifest",
            )
        pins = pin_digests(own, self.manifest)
        moved = sorted(name for name, digest in self._service.pins.items() if pins.get(name) != digest)
        if moved:
            raise PublishRefused(
                f"pinned, but changed since the learner started; the last version stays: {', '.join(moved)}",
                hint="a pinned tensor never travels, so actors would not follow: freeze it, or give its group 'send'",
            )
        return own

    def state(self) -> Status:
        """How learner and actors stand, with everything that is counted."""
        status = self._service.status()
        return replace(status, counts={**status.counts, **self._server.counts()})

    def status(self) -> dict[str, object]:
        """`state` as JSON values, the actors by name."""
        document = asdict(self.state())
        actors = document.pop("actors")
        return {**document, "actors": {actor.pop("actor_id"): actor for actor in actors}}

    def wait_acked(self, actor_id: str, counter: int, *, timeout_s: float) -> bool:
        """Wait until an actor acts with version ``counter`` or a later one; whether it did in time."""
        return self._service.wait_until(
            lambda status: any(a.actor_id == actor_id and a.acked >= counter for a in status.actors), timeout_s
        )

    def close(self) -> None:
        """End every session and stop listening."""
        self._service.close()
        self._server.close()
        self._packer.shutdown()

    def __enter__(self) -> Publisher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _check_finite(spoiled: tuple[str, ...]) -> None:
    if spoiled:
        raise PublishRefused(
            f"not finite, so not published; the last version stays: {', '.join(spoiled)}",
            hint="training has diverged: look at the losses before the last good version",
        )
