"""A finding's weight is one of three, and each is one object."""

from __future__ import annotations

import copy
import json
import pickle

import pytest

from weightkit.core.report import Severity


@pytest.mark.parametrize("severity", [Severity.INFO, Severity.WARNING, Severity.ERROR])
def test_a_severity_is_found_by_its_value_and_stays_itself(severity: Severity) -> None:
    assert Severity(severity.value) is severity
    assert copy.deepcopy(severity) is severity
    assert pickle.loads(pickle.dumps(severity)) is severity
    assert getattr(Severity, severity.name) is severity
    assert json.dumps(severity) == json.dumps(severity.value)
    assert type(severity.value) is str
    assert repr(severity) == f"Severity.{severity.name}"


@pytest.mark.parametrize("value", ["", "Error", "fatal"])
def test_there_is_no_other_severity(value: str) -> None:
    with pytest.raises(ValueError, match="is not a valid Severity"):
        Severity(value)
