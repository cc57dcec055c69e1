"""Move robot-policy weights between projects and prove that nothing on the acting path was lost.

The public names. Importing this module imports neither torch nor grpc; a name is loaded when it is first used.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as type checkers know it, without the import of typing: see core/record.py

__version__ = "0.1.0"

_PUBLIC: dict[str, str] = {
    "inspect": "weightkit.verbs.inspect",
    "diff": "weightkit.verbs.diff",
    "convert": "weightkit.verbs.convert",
    "suggest": "weightkit.verbs.suggest",
    "lint": "weightkit.verbs.lint",
    "load_policy": "weightkit.verbs.load_policy",
    "read_set": "weightkit.sync.read_set",
    "make_manifest": "weightkit.sync.grouping",
    "prove_coverage": "weightkit.sync.proof",
    "Publisher": "weightkit.sync.publisher",
    "Subscriber": "weightkit.sync.subscriber",
    "Access": "weightkit.transports.base",
    "Freshness": "weightkit.sync.staleness",
    "StaleGuard": "weightkit.sync.staleness",
    "DType": "weightkit.core.dtype",
    "TensorSpec": "weightkit.core.tensor",
    "StateSpec": "weightkit.core.tensor",
    "Checkpoint": "weightkit.core.checkpoint",
    "Group": "weightkit.core.group",
    "Transfer": "weightkit.core.group",
    "SyncManifest": "weightkit.core.manifest",
    "Plan": "weightkit.core.plan",
    "Finding": "weightkit.core.report",
    "Report": "weightkit.core.report",
    "Severity": "weightkit.core.report",
    "WeightVersion": "weightkit.core.version",
    **dict.fromkeys(
        (
            "WeightkitError",
            "UsageError",
            "UnmatchedPattern",
            "ConfigError",
            "FormatError",
            "UnknownFormat",
            "CorruptFile",
            "UnsafeContent",
            "LimitExceeded",
            "NotDenseError",
            "RuleError",
            "PlanError",
            "WriteError",
            "SyncError",
            "UncoveredRead",
            "NeedsNotMet",
            "StaleVersion",
            "StaleWeights",
            "IncompleteUpdate",
            "PinMismatch",
            "UnsyncedRead",
            "ActsDifferently",
            "PublishRefused",
            "TransportError",
            "Disconnected",
            "AddressInUse",
            "TransportTimeout",
            "Unauthenticated",
        ),
        "weightkit.errors",
    ),
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'weightkit' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


if TYPE_CHECKING:
    from weightkit.core.checkpoint import Checkpoint as Checkpoint
    from weightkit.core.dtype import DType as DType
    from weightkit.core.group import Group as Group
    from weightkit.core.group import Transfer as Transfer
    from weightkit.core.manifest import SyncManifest as SyncManifest
    from weightkit.core.plan import Plan as Plan
    from weightkit.core.report import Finding as Finding
    from weightkit.core.report import Report as Report
    from weightkit.core.report import Severity as Severity
    from weightkit.core.tensor import StateSpec as StateSpec
    from weightkit.core.tensor import TensorSpec as TensorSpec
    from weightkit.core.version import WeightVersion as WeightVersion
    from weightkit.errors import *  # noqa: F403
    from weightkit.sync.grouping import make_manifest as make_manifest
    from weightkit.sync.proof import prove_coverage as prove_coverage
    from weightkit.sync.publisher import Publisher as Publisher
    from weightkit.sync.read_set import read_set as read_set
    from weightkit.sync.staleness import Freshness as Freshness
    from weightkit.sync.staleness import StaleGuard as StaleGuard
    from weightkit.sync.subscriber import Subscriber as Subscriber
    from weightkit.transports.base import Access as Access
    from weightkit.verbs.convert import convert as convert
    from weightkit.verbs.diff import diff as diff
    from weightkit.verbs.inspect import inspect as inspect
    from weightkit.verbs.lint import lint as lint
    from weightkit.verbs.load_policy import load_policy as load_policy
    from weightkit.verbs.suggest import suggest as suggest
