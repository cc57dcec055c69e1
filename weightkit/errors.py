"""The exception tree. An exception means "I could not do what you asked"; a Finding means "I looked, and saw this".

WeightkitError(message, hint)
+-- UsageError              an argument or option that makes no sense                   exit 2
+-- ConfigError             a train_config.json that cannot be read as what it claims   exit 3
+-- FormatError             a file that cannot be read                                  exit 3
|   +-- UnknownFormat       no format recognises it
|   +-- CorruptFile         a format recognises it, its bytes contradict themselves
|   +-- UnsafeContent       it holds something that another loader would execute        exit 4
|   +-- NotDenseError       a tensor that is listed only: sparse, quantized, nested, meta
|   +-- LimitExceeded       reading on would cost more than a limit allows              exit 5
+-- RuleError               a rule set contradicts itself                               exit 1
+-- PlanError  (.report)    unaccounted, collisions, ambiguities, shape conflicts       exit 1
+-- WriteError              OUT is refused, or writing failed; nothing is left          exit 6
+-- SyncError               weights could not be handed over                            exit 1
|   +-- UncoveredRead (.names)  act() reads tensors that nobody sends
|   +-- NeedsNotMet (.report)   the learner offers less than the actor needs
|   +-- StaleVersion        an older version came after a newer one
|   +-- StaleWeights        the weights that an actor acts with are older than it may act with
|   +-- IncompleteUpdate    a transfer ended before all of it was there
|   +-- PinMismatch         a tensor that is never sent differs on the two sides
|   +-- UnsyncedRead (.name)    act() reads a tensor that no probe had shown, and nobody syncs
|   +-- ActsDifferently     the actor has the learner's weights, and other actions
|   +-- PublishRefused      what was to be published is not finite or has changed shape
+-- TransportError          the connection                                              exit 1
    +-- Disconnected
    +-- AddressInUse
    +-- TransportTimeout
    +-- Unauthenticated
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from weightkit.core.plan import Plan
    from weightkit.core.report import Report


class WeightkitError(Exception):
    """What went wrong, and in ``hint`` what to do about it.

    ``exit_code`` is what the command line ends with, ``code`` the finding that stands for the error in ``--json``.
    """

    exit_code = 1
    code = "WK900"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message


class UsageError(WeightkitError):
    """An argument or option that makes no sense."""

    exit_code = 2


class UnmatchedPattern(UsageError):
    """A pattern that matches nothing: a typing error must not look like a decision."""

    code = "WK206"


class ConfigError(WeightkitError):
    """A configuration that cannot be read as what it claims to be; the message carries the address of the value."""

    code = "WK403"
    exit_code = 3


class FormatError(WeightkitError):
    """A file that cannot be read."""

    code = "WK100"
    exit_code = 3


class UnknownFormat(FormatError):
    """No format recognises the file."""

    code = "WK101"


class CorruptFile(FormatError):
    """A format recognises the file, but its bytes contradict themselves."""

    code = "WK102"


class UnsafeContent(FormatError):
    """The file holds something that another loader would execute."""

    code = "WK103"
    exit_code = 4


class NotDenseError(FormatError):
    """A tensor that cannot be read as a dense array: sparse, quantized, nested, or on the meta device."""

    code = "WK109"


class LimitExceeded(FormatError):
    """Reading on would cost more than a limit allows; the hint names what raises the limit."""

    code = "WK105"
    exit_code = 5


class RuleError(WeightkitError):
    """A mapping that is malformed, or whose rules contradict themselves."""

    exit_code = 3


class PlanError(WeightkitError):
    """A conversion that does not account for every tensor. ``report`` holds all findings.

    ``attempt`` is the plan as far as it came, for showing only: it does not hold, and None where there is none.
    """

    def __init__(self, message: str, *, report: Report, hint: str = "", attempt: Plan | None = None) -> None:
        super().__init__(message, hint=hint)
        self.report = report
        self.attempt = attempt


class WriteError(WeightkitError):
    """The output is refused, or writing failed; nothing is left behind."""

    exit_code = 6


class SyncError(WeightkitError):
    """Weights could not be handed over."""


class UncoveredRead(SyncError):
    """``act()`` reads tensors that nobody sends. ``names`` are all their canonical names, sorted."""

    def __init__(self, names: Iterable[str], *, aliases: Mapping[str, str] | None = None, hint: str = "") -> None:
        self.names: tuple[str, ...] = tuple(sorted(names))
        firsts = sorted({(aliases or {}).get(name, name) for name in self.names})
        count = f"{len(firsts)} tensor{'' if len(firsts) == 1 else 's'}"
        others = f" (under {len(self.names)} names)" if len(firsts) < len(self.names) else ""
        super().__init__(f"act() reads {count} that nobody sends{others}: {', '.join(firsts)}", hint=hint)


class NeedsNotMet(SyncError):
    """The learner offers less than the actor needs. ``report`` names every tensor."""

    def __init__(self, message: str, *, report: Report, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.report = report


class StaleVersion(SyncError):
    """An older version came after a newer one."""


class StaleWeights(SyncError):
    """The weights that an actor acts with are older than it may act with."""


class IncompleteUpdate(SyncError):
    """A transfer ended before all of it was there, or its digests do not match."""


class PinMismatch(SyncError):
    """A tensor that is never sent differs on the two sides."""

    code = "WK308"


class UnsyncedRead(SyncError):
    """``act()`` has come to a tensor, called ``name``, that no probe had shown it to read, and nobody syncs."""

    code = "WK316"

    def __init__(self, message: str, *, name: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.name = name


class ActsDifferently(SyncError):
    """The actor holds the learner's weights and gives other actions: its code, or what it holds besides, is other."""

    code = "WK314"


class PublishRefused(SyncError):
    """What was to be published is not finite, or has changed its shape; the last good version stays."""


class TransportError(WeightkitError):
    """The connection failed."""


class Disconnected(TransportError):
    """The peer went away."""


class AddressInUse(TransportError):
    """Another process listens on the address already."""


class TransportTimeout(TransportError):
    """Nobody answered in time."""


class Unauthenticated(TransportError):
    """The peer did not prove who it is."""
