"""The documentation names only what is there: paths, tests, finding codes, keys, layers, messages."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from locations import ROOT
from weightkit.core.report import CODES
from weightkit.formats import FORMATS, Limits
from weightkit.shape_ops import ADAPTER_FORMS

PAGES = (*sorted((ROOT / "docs").glob("*.md")), ROOT / "SECURITY.md", ROOT / "CHANGELOG.md")
FOLDERS = ("weightkit/", "runners/", "schemas/", "tests/", "docs/", "fixtures/", "benchmarks/", ".ci/")
CODE = re.compile(r"`([^`\n]+)`")
PLACE = re.compile(r"(?P<path>[\w./-]+?)(?:::?(?P<name>[\w.]+))?")
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)(?:#[^)]*)?\)")
EXIT_CODES = (0, 1, 2, 3, 4, 5, 6, 70, 130)


def spans(text: str) -> list[str]:
    """What stands in backticks, fenced blocks left out."""
    return CODE.findall(re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))


def defined(source: str) -> set[str]:
    """Names of functions, classes and constants in a Python file."""
    return set(re.findall(r"^\s*(?:async def|def|class)\s+(\w+)", source, re.MULTILINE)) | set(
        re.findall(r"^([A-Za-z_]\w*)\s*(?::[^=\n]+)?=", source, re.MULTILINE)
    )


@cache
def suite() -> frozenset[str]:
    """Every test function of the suite."""
    return frozenset(
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    )


def problems(text: str) -> Iterator[str]:
    """What the page names in backticks and the repository does not have."""
    for span in spans(text):
        if re.fullmatch(r"test_\w+", span) and span not in suite():
            yield f"no test is called {span}"
        found = PLACE.fullmatch(span)
        if found is None or not span.startswith(FOLDERS):
            continue
        path = ROOT / found["path"]
        if not path.exists():
            yield f"there is no {found['path']}"
        elif found["name"] and set(found["name"].split(".")) - defined(path.read_text(encoding="utf-8")):
            yield f"{found['path']} defines no {found['name']}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_path_and_test_that_a_page_names_exists(page: Path) -> None:
    assert not list(problems(page.read_text(encoding="utf-8")))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_between_pages_leads_somewhere(page: Path) -> None:
    targets = LINK.findall(page.read_text(encoding="utf-8"))
    assert not [target for target in targets if not (page.parent / target).exists()]


@pytest.mark.parametrize(
    "text",
    ["`tests/laws/test_043.py`", "`weightkit/digest.py:no_such`", "`test_that_nobody_wrote`", "`docs/none.md`"],
)
def test_the_check_sees_what_is_not_there(text: str) -> None:
    assert list(problems(text))


def test_every_finding_code_is_explained_once_and_no_other() -> None:
    page = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| (WK\d{3}) \|", page, re.MULTILINE) == list(CODES)


def test_every_exit_code_is_explained() -> None:
    page = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")
    assert tuple(map(int, re.findall(r"^\| (\d+) \|", page, re.MULTILINE))) == EXIT_CODES


def test_every_format_adapter_and_message_is_explained() -> None:
    formats, mapping, wire = (
        spans((ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8"))
        for name in ("formats", "mapping", "wire-protocol")
    )
    messages = re.findall(
        r"^(?:message|service|  rpc) (\w+)", (ROOT / "schemas/proto/weightkit/wire/v1/sync.proto").read_text(), re.M
    )
    assert not set(FORMATS) - set(formats)
    assert not set(ADAPTER_FORMS) - set(mapping)
    assert not set(messages) - {"Sync"} - set(wire)


def test_every_limit_is_explained_with_its_default() -> None:
    page = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| ([\d,]+) \|", page, re.MULTILINE)
    assert {name: int(value.replace(",", "")) for name, value in rows} == Limits().as_dict()


def test_every_key_of_the_templates_is_explained() -> None:
    explained = set(spans((ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")))
    explained |= {key.rsplit(".", 1)[-1] for key in explained}

    def unexplained(values: dict[str, object], below: str = "") -> Iterator[str]:
        for key, value in values.items():
            if isinstance(value, dict) and not key.endswith("features"):
                yield from unexplained(value, f"{below}{key}.")
            elif f"{below}{key}" not in explained and key not in explained:
                yield f"{below}{key}"

    for template in (ROOT / "runners/weightkit_runners/templates").glob("*.json"):
        assert not list(unexplained(json.loads(template.read_text(encoding="utf-8"))))


def fence(kind: str) -> str:
    """The first block of this kind on the architecture's page."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    found = re.search(rf"^```{kind}\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


def test_the_layers_are_those_that_are_checked() -> None:
    checked = re.search(r"^layers = \[\n(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.DOTALL | re.MULTILINE)
    assert checked is not None
    assert fence("layers").splitlines() == re.findall(r'"([^"]+)"', checked[1])


def test_the_tree_is_the_one_on_disk() -> None:
    folders: list[str] = []
    named: set[str] = set()
    for line in fence("").splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        for name in line.split("#")[0].split():
            named.add("/".join([*folders[:depth], name.rstrip("/")]))
            if name.endswith("/"):
                folders[depth:] = [name.rstrip("/")]
    assert not sorted(path for path in named if not (ROOT / path).exists())
    sources = [*(ROOT / "weightkit").rglob("*.py"), *(ROOT / "runners/weightkit_runners").rglob("*.py")]
    modules = {path.relative_to(ROOT).as_posix() for path in sources if not path.name.startswith("__")}
    assert not sorted(module for module in modules - named if "/wire/" not in module)


def test_the_robot_of_the_configuration_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    from weightkit_runners.envs import make_env
    from weightkit_runners.envs.base import IMAGE_PREFIX

    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    found = re.search(r"^```python my_robot.py\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert found is not None
    (tmp_path / "my_robot_of_the_docs.py").write_text(found[1])
    monkeypatch.syspath_prepend(tmp_path)
    env = make_env("my_robot_of_the_docs:MyRobot", cameras=("front",), image_size=(8, 8), max_episode_steps=2, port="x")
    first = env.reset(0)
    assert {key: value.shape for key, value in first.items()} == dict(env.features)
    assert first[f"{IMAGE_PREFIX}front"].dtype == np.uint8
    ends = [env.step(np.zeros(env.action_dim, np.float32))[2:4] for _ in range(2)]
    assert ends == [(False, False), (False, True)]
    env.close()
