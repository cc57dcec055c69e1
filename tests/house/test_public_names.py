"""The names that users rely on are there, and naming them costs nothing."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import weightkit
from weightkit.errors import WeightkitError

CONTRACT = (
    "load_policy",
    "inspect",
    "convert",
    "read_set",
    "make_manifest",
    "prove_coverage",
    "Publisher",
    "Subscriber",
)


@pytest.mark.parametrize("name", weightkit.__all__)
def test_every_public_name_resolves(name: str) -> None:
    assert getattr(weightkit, name) is not None


def test_the_public_names_are_listed_once_and_shown_by_dir() -> None:
    assert len(set(weightkit.__all__)) == len(weightkit.__all__)
    assert set(weightkit.__all__) <= set(dir(weightkit))


@pytest.mark.parametrize("name", CONTRACT)
def test_the_contracts_names_are_public(name: str) -> None:
    assert name in weightkit.__all__
    assert callable(getattr(weightkit, name))


def test_every_error_is_public_and_one_of_ours() -> None:
    from weightkit import errors

    for name, found in vars(errors).items():
        if isinstance(found, type) and issubclass(found, WeightkitError):
            assert name in weightkit.__all__
            assert getattr(weightkit, name) is found


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        weightkit.no_such_name  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("inspect", ["path"]),
        (
            "convert",
            ["source", "to", "from_", "config", "set", "adapt", "drop", "allow_missing", "allow_lossy", "out", "force"],
        ),
        ("load_policy", ["path", "device"]),
        ("read_set", ["policy", "act", "probes"]),
        ("prove_coverage", ["policy", "act", "probes", "manifest"]),
        ("Publisher", ["policy", "manifest", "act", "probes", "bind"]),
        ("Subscriber", ["policy", "address", "act", "probes", "actor_id"]),
    ],
)
def test_the_contracts_parameters_are_there_in_its_order(name: str, parameters: list[str]) -> None:
    found = [p for p in inspect.signature(getattr(weightkit, name)).parameters if p != "self"]
    assert [p for p in found if p in parameters] == parameters


def test_importing_weightkit_imports_neither_torch_nor_numpy_nor_grpc() -> None:
    code = (
        "import sys, weightkit, weightkit.errors, weightkit.core.report\n"
        "weightkit.Report, weightkit.PlanError, weightkit.StateSpec, weightkit.SyncManifest\n"
        "print(sorted({'torch', 'numpy', 'grpc', 'google', 'click', 'rich', 'ml_dtypes'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_version_is_the_distributions() -> None:
    from importlib.metadata import version

    assert weightkit.__version__ == version("weightkit")
