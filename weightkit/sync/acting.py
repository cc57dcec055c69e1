"""The actor's policy: poisoned at birth, filled with verified versions only, tried out, looked at."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from weightkit.arena import copy_tensor
from weightkit.core.group import Transfer
from weightkit.core.manifest import SyncManifest
from weightkit.digest import root_digest
from weightkit.sync.golden import TOLERANCE, GoldenTrial
from weightkit.sync.handshake import check_pins, live_digest
from weightkit.sync.inventory import Inventory, state_of
from weightkit.sync.memory import has_bytes, poison
from weightkit.sync.read_set import Act, Probes, checked, trace
from weightkit.sync.receiver import Received, verify
from weightkit.sync.tripwire import arm, disarm, warm_up
from weightkit.transports.base import Welcome

logger = logging.getLogger(__name__)
_TRIED = 2


class ActingPolicy:
    """Writes to ``policy``, on the acting thread only, and knows what it holds. Knows nothing of connections.

    Every tensor is overwritten, at once, with values that no policy holds. Pinned and waived tensors get their own
    values back with the first version; what nobody sends and no probe had shown to be read is taken away (`tripwire`).
    """

    def __init__(self, policy: nn.Module, act: Act, probes: Probes, *, golden: bool) -> None:
        self._policy, self._act = policy, act
        self._inventory = Inventory(policy)
        self._probes = checked(policy, act, probes)
        self.traced = traced = trace(policy, act, self._probes)
        self.state = state_of(traced.items)
        self._trial = GoldenTrial(policy, act, traced, like=self._probes[0])
        self._golden = golden and not self._trial.why_not
        if self._trial.why_not:
            logger.info("the golden probe is left out: %s", self._trial.why_not)
        self._original: dict[str, Tensor] | None = {i.name: i.tensor.detach().clone() for i in traced.items}
        self._at_start = {i.name: live_digest(i.tensor) for i in traced.items if has_bytes(i.tensor)}
        self._live: dict[str, str] = {}
        self.kept = False
        for item in traced.items:
            poison(item.tensor)
        if set(self.state) - traced.reads - traced.writes:
            warm_up()
        self._armed = ""
        self.only_poisoned: tuple[str, ...] = ()
        self._tried, self._tried_run = 0, ""

    def check_pins(self, welcome: Welcome) -> None:
        """Raises PinMismatch naming every pinned tensor whose bytes are not the learner's."""
        check_pins(welcome, self._original if self._original is not None else self._own())

    def take(self, received: Received, probe: bytes, *, keep: bool, try_it: bool = False) -> tuple[str, bool]:
        """Put a version in, whole, and try it out; its live root, and whether its actions were compared.

        Where that fails, whatever the reason, the version before it is put back (``keep``: there is one) if the trial
        could cost it, else the policy is poisoned again; `kept` says which. ``try_it``: on the golden probe, even if
        enough versions have been tried.
        """
        self.kept = False
        before: dict[str, Tensor] = {}
        if keep and self._will_try(received, probe, try_it):
            sent = set(received.arena.names)
            held = [i for i in self._inventory.items() if i.name in sent and has_bytes(i.tensor)]
            before = {item.name: item.tensor.detach().clone() for item in held}
        try:
            return self._apply(received), self._try_out(received, probe, try_it)
        except BaseException:
            self._live = {}
            for item in self._inventory.items():
                if item.name in before:
                    copy_tensor(before[item.name], item.tensor)
                elif not before:
                    poison(item.tensor)
            self.kept = bool(before)
            raise

    def _own(self) -> dict[str, Tensor]:
        return self._inventory.by_name()

    def _apply(self, received: Received) -> str:
        """Copy a verified version into the live tensors and hash those; the root digest."""
        manifest, begin = received.arena.manifest, received.begin
        if self._armed not in ("", manifest.manifest_id):
            disarm(self._policy, self._act)
            self._armed = ""
        own = self._own()
        if self._original is not None:
            for name in (*self._pinned(manifest), *self._waived(manifest)):
                copy_tensor(self._original[name], own[name])
        before, self._live = self._live, {}
        live = self._copied(received, own, {n for n, digest in begin.digests.items() if before.get(n) != digest})
        live |= {name: live_digest(own[name]) for name in received.arena.names if name not in live}
        spoiled = {name for name, digest in live.items() if begin.digests[name] != digest}
        if spoiled and all(before.get(name) == begin.digests[name] for name in spoiled):
            logger.warning("changed by something else than the learner, and put right: %s", ", ".join(sorted(spoiled)))
            live |= self._copied(received, own, spoiled)
        verify(live, begin)
        self._original = None
        self._live = live
        return root_digest(live)

    def _copied(self, received: Received, own: dict[str, Tensor], names: set[str]) -> dict[str, str]:
        """Copy these tensors into the policy, under all of their names; the digests of what lies there then."""
        manifest = received.arena.manifest
        sent = {g.name for g in manifest.groups if g.transfer is Transfer.SEND}
        for entry in manifest.entries:  # a second name may be a tensor of its own here: all are filled, then all hashed
            if entry.alias_of in names and entry.group in sent:
                received.arena.unpack(str(entry.alias_of), own[entry.name])
        taken = {name: received.arena.unpack(name, own[name]) for name in received.arena.names if name in names}
        return {name: digest or live_digest(own[name]) for name, digest in taken.items()}

    def _will_try(self, received: Received, probe: bytes, try_it: bool) -> bool:
        tried = self._tried if self._tried_run == received.begin.version.run_id else 0
        return self._golden and bool(probe and received.begin.golden) and (try_it or tried < _TRIED)

    def _try_out(self, received: Received, probe: bytes, try_it: bool) -> bool:
        """Take away what nobody syncs, then act once as the learner did; whether that could be compared.

        Twice in a run: the first time before anything moves, the second time because what code keeps of old weights
        shows then. Later versions bring other numbers, which digests prove, and no other code.
        """
        if not self._armed:
            self._arm(received.arena.manifest)
        if self._tried_run != received.begin.version.run_id:
            self._tried_run, self._tried = received.begin.version.run_id, 0
        if not self._will_try(received, probe, try_it):
            return False
        golden = received.begin.golden
        try:
            self._trial.check(probe, golden)
            if self._tried and self._trial.compare(probe, golden) > TOLERANCE:
                logger.warning(
                    "from where it stands act() does not do what the learner does: it goes by a history, "
                    "or it keeps something that it made of old weights"
                )
        except ValueError as error:
            logger.warning("%s", error)
            return False
        self._tried += 1
        return True

    def _arm(self, manifest: SyncManifest) -> None:
        """Make what nobody syncs raise when it is read; poisoned it stays where the policy cannot act without it."""
        covered = {e.name for e in manifest.entries if manifest.transfer_of(e.group) is not Transfer.HOLD}
        covered |= {name for name in self.state if manifest.waiver_of(name) is not None}
        names = set(self.state) - covered - self.traced.reads - self.traced.writes
        try:
            self.only_poisoned = arm(self._policy, names, self._act)
            self._trial.try_probes(self._probes)
        except Exception as error:  # it wants to look at what it does not read: at an address, at a type
            logger.warning("what nobody syncs is poisoned only, not taken away: %s", error)
            disarm(self._policy, self._act)
            self.only_poisoned = tuple(sorted(names))
        self._armed = manifest.manifest_id

    def _waived(self, manifest: SyncManifest) -> list[str]:
        return [name for name in self.state if manifest.waiver_of(name) is not None]

    def _pinned(self, manifest: SyncManifest) -> list[str]:
        pinned = {g.name for g in manifest.groups if g.transfer is Transfer.PIN}
        return [e.name for e in manifest.entries if e.group in pinned and e.name in self.state]

    def digests(self, manifest: SyncManifest) -> dict[str, str]:
        """The digests of what is sent, as it lies in the policy now."""
        own = self._own()
        return {name: live_digest(own[name]) for name in manifest.names(Transfer.SEND) if name in own}

    def at_start(self, digests: Iterable[tuple[str, str]]) -> tuple[str, ...]:
        """Which of these tensors hold what they held before any weights came."""
        return tuple(name for name, digest in digests if self._at_start.get(name) == digest)

    def poison(self) -> None:
        """Overwrite everything with values that no policy holds."""
        self._live = {}
        for item in self._inventory.items():
            poison(item.tensor)

    def scramble(self, manifest: SyncManifest) -> tuple[str, ...]:
        """Overwrite what is sent with noise; the names."""
        self._live = {}
        own, generator = self._own(), torch.Generator()
        generator.seed()
        names = tuple(name for name in manifest.names(Transfer.SEND) if own[name].numel())
        for name in names:
            copy_tensor(_noise(own[name], generator), own[name])
        return names


def _noise(like: Tensor, generator: torch.Generator) -> Tensor:
    """Numbers that have nothing to do with ``like``, finite, of its shape and type, drawn without torch's own state."""
    if like.dtype.is_floating_point or like.dtype.is_complex:
        return torch.randn(like.shape, generator=generator).to(like.dtype)
    if like.dtype is torch.bool:
        return ~like.detach().cpu()
    return torch.randint(0, 128, like.shape, generator=generator).to(like.dtype)
