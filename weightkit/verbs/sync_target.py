"""The policy that a sync verb is about: a known architecture's, or one that the user's own code builds."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weightkit.architectures.probes import probes as make_probes
from weightkit.core.group import Group
from weightkit.core.jsonio import parse_json
from weightkit.core.manifest import SyncManifest
from weightkit.core.report import Finding, Severity
from weightkit.errors import ConfigError, FormatError, UsageError, WeightkitError
from weightkit.formats import open_checkpoint
from weightkit.verbs.configure import configured

if TYPE_CHECKING:
    from torch import nn

    from weightkit.sync.read_set import Trace


_OWN_STATE = "act() reads and writes it: taken for each actor's own state; delete this waiver if it is not (BatchNorm)"


@dataclass(frozen=True)
class SyncTarget:
    """A policy, how it acts, observations to trace it on, and the architecture's own groups (none for user code).

    ``source``: the file that the observations are from, None for the policy's own.
    """

    name: str
    policy: nn.Module
    act: Callable[[Any, Any], Any]
    probes: list[Mapping[str, Any]]
    groups: tuple[Group, ...]
    findings: tuple[Finding, ...] = ()
    source: str | Path | None = None

    @cached_property
    def traced(self) -> Trace:
        """What ``act()`` reads and writes. Raises ConfigError, naming the probes, where it fails."""
        from weightkit.sync.read_set import trace

        try:
            with redirect_stdout(sys.stderr):  # stdout is for the report
                return trace(self.policy, self.act, self.probes)
        except WeightkitError:
            raise
        except (Exception, SystemExit) as error:
            what = f"the observations of {self.source}" if self.source is not None else "the probes"
            raise ConfigError(
                f"{self.name}: act() fails on {what}: {type(error).__name__}: {_words(error)}",
                hint="probes are observations as the policy takes them: one array per key, axis 0 = batch",
            ) from error

    def default_manifest(self, *, waive: bool = False) -> SyncManifest:
        """The architecture's groups; for a user's policy the top-level modules, sent where ``act()`` reads them.

        ``waive``: what ``act()`` reads and writes is held and waived, for its author to look at.
        """
        from weightkit.sync.grouping import make_manifest

        if self.groups:
            names = [f"{name}." for name in self.policy.state_dict()]
            present = [g for g in self.groups if any(name.startswith(f"{g.name}.") for name in names)]
            spec = {g.name: (g.transfer.value, g.why) for g in present}
            return make_manifest(self.policy, spec, architecture=self.name)
        traced = self.traced
        reads, own = traced.reads, traced.reads & traced.writes if waive else frozenset[str]()
        keys: dict[str, tuple[str, str]] = {}
        for item in traced.items:
            if item.name in own:
                keys[item.name] = ("hold", _OWN_STATE)
                continue
            key = item.name.split(".", 1)[0]
            if item.name in reads and item.alias_of is None:  # another name of a tensor goes where the first one goes
                keys[key] = ("send", "read by act() on the probes")
            else:
                keys.setdefault(key, ("hold", "not read by act() on the probes"))
        return make_manifest(self.policy, keys, architecture=self.name, waivers=dict.fromkeys(sorted(own), _OWN_STATE))


def sync_target(
    *,
    arch: str | None,
    policy: str | None,
    config_path: str | Path | None,
    settings: Mapping[str, str],
    probes: str | Path | None = None,
) -> SyncTarget:
    """What ``--arch``, ``--policy``, ``--config_path``, ``--set`` and ``--probes`` mean together."""
    if policy is not None:
        if arch is not None or config_path is not None or settings:
            raise UsageError("--policy builds the net itself: leave out --arch, --config_path and --set")
        return _from_factory(policy, probes)
    architecture, config = configured(config_path, arch, settings)
    found = read_probes(probes) if probes is not None else make_probes(architecture.inputs(config))
    net = architecture.build(config).eval()
    findings: tuple[Finding, ...] = ()
    if config_path is None and arch is not None:
        message = f"no --config_path was given: this is {arch}'s default configuration" + (
            f" with {', '.join(settings)} set" if settings else ""
        )
        findings = (Finding("WK404", Severity.INFO, arch, message, "give --config_path train_config.json"),)
    return SyncTarget(architecture.name, net, _act, list(found), architecture.groups(config), findings, probes)


def _act(policy: Any, observation: Any) -> Any:
    return policy.act(observation)


def read_probes(path: str | Path) -> list[Mapping[str, Any]]:
    """The observations in an ``.npz`` file, one array per observation key, axis 0 = batch: one probe."""
    checkpoint = open_checkpoint(Path(path))
    if checkpoint.format != "npz":
        raise FormatError(f"{path}: probes are an .npz file, found {checkpoint.format}")
    observation = {name: checkpoint.read(name) for name in checkpoint.state}
    sizes = {name: array.shape[:1] for name, array in observation.items()}
    if not observation or len(set(sizes.values())) != 1 or () in sizes.values():
        raise FormatError(
            f"{path}: expected one array per observation key with one batch size on axis 0, found {sizes}"
        )
    return [observation]


def _from_factory(text: str, probes: str | Path | None) -> SyncTarget:
    from weightkit.sync.read_set import checked

    module_name, sign, attribute = text.partition(":")
    if not sign:
        raise UsageError(f"--policy {text!r}: expected pkg.mod:factory")
    if "" not in sys.path:
        sys.path.insert(0, "")
    with _running_user_code(text, "importing it"):
        factory = getattr(import_module(module_name), attribute)
    with _running_user_code(text, "factory()"):
        built = factory()
    if not isinstance(built, tuple) or len(built) != 3:
        raise UsageError(
            f"--policy {text!r}: factory() must return (policy, act, probes), found {type(built).__name__}"
        )
    policy, act, own = built
    with _running_user_code(text, "reading its probes"):
        found = read_probes(probes) if probes is not None else checked(policy, act, own)
    return SyncTarget(text, policy, act, found, (), source=probes)


@contextmanager
def _running_user_code(text: str, what: str) -> Iterator[None]:
    """Whatever the user's code raises, an exit included, is an error about it; what it prints is no report."""
    try:
        with redirect_stdout(sys.stderr):
            yield
    except WeightkitError:
        raise
    except (Exception, SystemExit) as error:
        hint = "it is imported from the current folder or sys.path" if isinstance(error, ImportError) else ""
        raise UsageError(
            f"--policy {text!r}: {what} raised {type(error).__name__}: {_words(error)}", hint=hint
        ) from error


def _words(error: BaseException) -> str:
    return str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)


def read_manifest(path: str | Path) -> SyncManifest:
    """The manifest in a JSON file. Raises ConfigError with the address of what does not fit."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read: {error.strerror}", hint="write one: weightkit manifest -o M.json"
        ) from None
    try:
        return SyncManifest.from_dict(parse_json(content, origin=str(path)), origin=str(path))
    except ValueError as error:
        raise ConfigError(str(error)) from None
