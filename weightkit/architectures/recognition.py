"""What a file's tensors were found to be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from weightkit.core.report import Finding


@dataclass(frozen=True, slots=True)
class Recognition:
    """What a file's tensors are.

    ``config`` is None where the tensors are recognised but cannot be used; ``findings`` says why.
    ``evidence`` are the sentences that speak for it, ``confidence`` says whether anything had to be assumed.
    ``options`` are the layout's own settings as found, ``beside`` is what goes along with the policy into any layout
    (JSON values): its processors' statistics, the project's own configuration.
    """

    architecture: str
    layout: str
    title: str
    confidence: Literal["certain", "likely"]
    evidence: tuple[str, ...]
    config: Any = None
    findings: tuple[Finding, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    beside: Mapping[str, object] = field(default_factory=dict)
