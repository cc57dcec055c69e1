"""Which net is meant: from a train_config.json, from what a file is recognised as, from ``--set``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from weightkit.architectures import architecture_named, known_architectures
from weightkit.architectures.base import Architecture
from weightkit.core.jsonio import parse_json
from weightkit.core.section import Section
from weightkit.core.text import printable
from weightkit.errors import ConfigError, UsageError

DEFAULT_CONFIG = "train_config.json"


def read_train_config(path: str | Path) -> Section:
    """The root of a train_config.json. Raises ConfigError for a file that is missing, no JSON or no object."""
    path = Path(path)
    shown = printable(str(path))
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{shown}: there is no such file", hint="give the path of a train_config.json") from None
    except IsADirectoryError:
        raise ConfigError(f"{shown}: is a directory", hint=f"did you mean {shown}/{DEFAULT_CONFIG}?") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{shown}: cannot be read: {error}") from None
    try:
        document = parse_json(text, origin=shown)
    except ValueError as error:
        raise ConfigError(str(error), hint="a train_config.json is one JSON object") from None
    if not isinstance(document, dict):
        raise ConfigError(f"{shown}: expected a JSON object, found {type(document).__name__}")
    return Section(document, shown)


def architecture_of_config(root: Section) -> Architecture:
    """The architecture that ``policy.type`` names. Raises ConfigError where none is called so."""
    policy = root.section("policy")
    kind = policy.text("type")
    known = known_architectures()
    if kind not in known:
        raise ConfigError(
            f"{policy.where('type')}: no architecture is called {kind!r}", hint=f"known: {', '.join(known)}"
        )
    return architecture_named(kind)


def configured(
    config_path: str | Path | None, arch: str | None, settings: Mapping[str, str]
) -> tuple[Architecture, Any]:
    """Architecture and configuration for a verb that needs no checkpoint. Raises UsageError that says what to type."""
    if config_path is None and arch is None and Path(DEFAULT_CONFIG).is_file():
        config_path = DEFAULT_CONFIG
    named = None if arch is None else architecture_named(arch)
    if config_path is not None:
        root = read_train_config(config_path)
        architecture = architecture_of_config(root)
        if arch is not None and arch != architecture.name:
            where = f"{root.origin} @ $.policy.type"
            raise ConfigError(f"{where}: expected {arch!r} for --arch, found {architecture.name!r}")
        config = architecture.config_from_train_config(root)
    elif named is not None:
        architecture = named
        config = architecture.default_config()
    else:
        raise UsageError(
            f"there is no {DEFAULT_CONFIG} here, so it is not known which net is meant",
            hint="give --config_path outputs/hilserl_drqv2/train_config.json, or --arch drqv2",
        )
    return architecture, architecture.configure(config, settings) if settings else config


def parse_settings(items: Mapping[str, str] | Iterable[str] | None) -> dict[str, str]:
    """``KEY=VALUE`` texts as a dict. Raises UsageError for a text without ``=``."""
    if items is None:
        return {}
    if isinstance(items, Mapping):
        return {str(key): str(value) for key, value in items.items()}
    settings = {}
    for item in items:
        key, sign, value = item.partition("=")
        if not sign or not key:
            raise UsageError(f"--set {item!r}: expected KEY=VALUE", hint="for example --set cameras=front,wrist")
        settings[key] = value
    return settings
