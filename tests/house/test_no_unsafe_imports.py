"""The source of weightkit and of its runners never imports what executes or unpacks a file behind its back."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import weightkit
import weightkit_runners

SOURCE = Path(weightkit.__file__).parent
RUNNERS = Path(weightkit_runners.__file__).parent
FORBIDDEN = {"pickle", "_pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "zipfile", "tarfile"}


def imported(tree: ast.AST) -> set[str]:
    """Top-level names of the modules that ``tree`` imports, also through import_module and __import__."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
        elif isinstance(node, ast.Call) and isinstance(node.func, (ast.Name, ast.Attribute)):
            name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            if name in ("import_module", "__import__") and node.args and isinstance(node.args[0], ast.Constant):
                found.add(str(node.args[0].value).split(".")[0])
    return found


def test_no_source_file_imports_an_unpickler_or_an_unpacker() -> None:
    guilty = {
        str(path): sorted(names)
        for path in (*SOURCE.rglob("*.py"), *RUNNERS.rglob("*.py"))
        if (names := imported(ast.parse(path.read_text(encoding="utf-8"))) & FORBIDDEN)
    }
    assert not guilty


@pytest.mark.parametrize(
    "mutant", ["import pickle", "from zipfile import ZipFile", "def f():\n    import marshal", "__import__('pickle')"]
)
def test_the_check_sees_every_way_to_import(mutant: str) -> None:
    assert imported(ast.parse(mutant)) & FORBIDDEN


def test_importing_the_formats_imports_neither_torch_nor_numpy() -> None:
    code = (
        "import sys\n"
        "from weightkit.formats import FORMATS, format_named\n"
        "[format_named(name) for name in FORMATS]\n"
        "print(sorted({'torch', 'numpy', 'ml_dtypes', 'pickle', 'zipfile'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=SOURCE.parent)
    assert found.stdout.strip() == "[]"
