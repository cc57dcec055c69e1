"""``convert --report PAGE.html``: a page for every conversion that was tried, and the exit code that it has without."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import weightkit as wk
from html_pages import read_page
from robobase_files import cfg_of, robobase_state, save_robobase
from strategies import SMALL_DRQV2, drqv2_config, drqv2_policy
from weightkit.errors import PlanError, WriteError

Call = Callable[..., tuple[int, str, str]]
CONFIG = drqv2_config(SMALL_DRQV2)
POLICY = drqv2_policy(SMALL_DRQV2, 1)
SINGLE = {**SMALL_DRQV2, "frame_stack": 1}


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    return save_robobase(tmp_path / "best.pt", robobase_state(POLICY), cfg=cfg_of(CONFIG))


@pytest.fixture
def single(tmp_path: Path) -> Path:
    """A snapshot that was trained on single frames."""
    state = robobase_state(drqv2_policy(SINGLE, 3))
    return save_robobase(tmp_path / "single.pt", state, cfg=cfg_of(drqv2_config(SINGLE)))


def verdict(page: Path) -> str:
    return read_page(page.read_bytes()).one("h1").text


def states(page: Path) -> list[str]:
    table = read_page(page.read_bytes()).one("table", id="all")
    return [row.attributes["data-s"] for row in table.one("tbody").all("tr")]


def test_a_good_conversion_has_a_page_with_values_and_digests(snapshot: Path, call: Call, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    code, out, _ = call("convert", snapshot, "--to", "drqv2", "-o", tmp_path / "policy", "--report", page, "--json")
    report = json.loads(out)
    assert code == 0
    assert f"All {report['target_tensors']} tensors of drqv2 are accounted for, bit for bit." in verdict(page)
    text = page.read_text(encoding="utf-8")
    assert all(row["digest"] in text for row in report["rows"])
    assert text.count('class="sp"') == len(report["rows"])
    assert "histogram" not in out


def test_what_is_written_does_not_depend_on_the_report(snapshot: Path, tmp_path: Path) -> None:
    first = wk.convert(snapshot, to="drqv2", out=tmp_path / "a.pt")
    second = wk.convert(snapshot, to="drqv2", out=tmp_path / "b.pt", report=tmp_path / "page.html")
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()
    assert {**first.to_dict(), "out": None} == {**second.to_dict(), "out": None}


def test_the_same_conversion_makes_the_same_page(snapshot: Path, tmp_path: Path) -> None:
    pages = []
    for name in ("one.html", "two.html"):
        wk.convert(snapshot, to="drqv2", out=tmp_path / "out.pt", force=True, report=tmp_path / name)
        pages.append((tmp_path / name).read_bytes())
    assert pages[0] == pages[1]


def test_a_conversion_with_adapters_shows_what_was_adapted(single: Path, call: Call, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    arguments = ("--to", "drqv2", "--set", "frame_stack=2", "--adapt", "*=inflate:newest", "-o", tmp_path / "out.pt")
    assert call("convert", single, *arguments, "--report", page)[0] == 0
    adapted = states(page).count("adapted")
    assert adapted > 0
    assert f"{adapted} adapted" in verdict(page)


def test_a_refused_conversion_has_a_page_and_keeps_its_exit_code(single: Path, call: Call, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    arguments = ("convert", single, "--to", "drqv2", "--set", "frame_stack=2", "-o", tmp_path / "out.pt")
    without = call(*arguments)
    assert call(*arguments, "--report", page) == without
    assert without[0] == 1
    assert verdict(page).startswith("Refused: ")
    refused = states(page).count("refused")
    assert states(page)[:refused] == ["refused"] * refused
    assert refused > 0
    assert not (tmp_path / "out.pt").exists()


def test_a_plan_has_a_page(snapshot: Path, call: Call, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    plan = tmp_path / "plan.json"
    assert call("convert", snapshot, "--to", "drqv2", "--plan-only", "-o", plan, "--report", page)[0] == 0
    assert verdict(page).endswith("This is a plan: nothing was written.")
    assert 'class="sp"' not in page.read_text(encoding="utf-8")


def test_a_file_that_cannot_be_read_has_a_page_too(call: Call, tmp_path: Path) -> None:
    (tmp_path / "bad.pt").write_text("these are no weights")
    page = tmp_path / "page.html"
    arguments = ("convert", tmp_path / "bad.pt", "-o", tmp_path / "out.pt")
    code, *_ = call(*arguments, "--report", page)
    assert code == call(*arguments)[0] == 3
    assert verdict(page).startswith("Refused: ")


def test_values_that_do_not_fit_are_refused_on_a_page_that_names_the_tensor(call: Call, tmp_path: Path) -> None:
    torch.save({"w": torch.tensor([1e300], dtype=torch.float64), "b": torch.ones(2)}, tmp_path / "a.pt")
    torch.save({"w": torch.zeros(1), "b": torch.zeros(2)}, tmp_path / "like.pt")
    page = tmp_path / "page.html"
    choices = ("--like", tmp_path / "like.pt", "--adapt", "w=cast:float32", "--allow-lossy", "-o", tmp_path / "out.pt")
    assert call("convert", tmp_path / "a.pt", *choices, "--report", page)[0] == 1
    assert states(page) == ["refused", "kept"]
    assert not (tmp_path / "out.pt").exists()


def test_an_older_page_does_not_outlive_a_conversion_that_is_refused(single: Path, call: Call, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("all is well")
    arguments = ("convert", single, "--to", "drqv2", "--set", "frame_stack=2", "-o", tmp_path / "out.pt")
    assert call(*arguments, "--report", page, "--force")[0] == 1
    assert verdict(page).startswith("Refused: ")


@pytest.mark.parametrize("report", [False, True])
def test_a_page_needs_no_torch_and_no_page_needs_no_template_engine(report: bool, snapshot: Path) -> None:
    code = (
        "import sys\n"
        "from weightkit.cli.main import cli\n"
        "cli(sys.argv[1:], standalone_mode=False)\n"
        "print(*(name for name in ('torch', 'jinja2') if name in sys.modules), file=sys.stderr)\n"
    )
    words = ["convert", "best.pt", "-o", "out.npz", *["--report", "page.html"] * report]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=snapshot.parent, capture_output=True, text=True, check=True
    )
    assert done.stderr.split() == ["jinja2"] * report


# ---- where the page cannot be


@pytest.mark.parametrize(
    ("where", "code", "what"),
    [
        ("page.txt", 2, "a report is an .html file"),
        ("taken.html", 6, "exists already"),
        ("none/page.html", 6, "does not exist"),
        ("folder.html", 6, "is a folder"),
        ("link.html", 6, "a symbolic link"),
        ("out.html/page.html", 6, "does not exist"),
        ("source/page.html", 6, "lies in what is read"),
    ],
)
def test_a_bad_place_is_refused_before_anything_is_read(
    where: str, code: int, what: str, call: Call, tmp_path: Path
) -> None:
    (tmp_path / "taken.html").write_text("mine")
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "source").mkdir()
    (tmp_path / "link.html").symlink_to(tmp_path / "taken.html")
    before = sorted(tmp_path.iterdir())
    found, _, err = call("convert", tmp_path / "source", "-o", tmp_path / "out.pt", "--report", tmp_path / where)
    assert (found, what in err) == (code, True), err
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "taken.html").read_text() == "mine"


def test_the_page_may_not_be_the_output_nor_lie_in_it(snapshot: Path, tmp_path: Path) -> None:
    wk.convert(snapshot, to="drqv2", out=tmp_path / "policy")
    with pytest.raises(WriteError, match="is the output, or lies in it"):
        wk.convert(snapshot, to="drqv2", out=tmp_path / "policy", force=True, report=tmp_path / "policy" / "page.html")


def test_the_page_may_not_be_what_is_read_even_with_force(snapshot: Path, tmp_path: Path) -> None:
    source = snapshot.rename(tmp_path / "odd.html")
    before = source.read_bytes()
    with pytest.raises(WriteError, match="is what is being read"):
        wk.convert(source, out=tmp_path / "out.pt", report=source, force=True)
    assert source.read_bytes() == before


def test_an_existing_page_is_replaced_with_force_only(snapshot: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("mine")
    with pytest.raises(WriteError, match="exists already"):
        wk.convert(snapshot, out=tmp_path / "out.pt", report=page)
    assert not (tmp_path / "out.pt").exists()
    wk.convert(snapshot, out=tmp_path / "out.pt", report=page, force=True)
    assert "accounted for" in verdict(page)


def test_a_page_that_fails_after_the_conversion_says_that_the_conversion_is_complete(
    snapshot: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    with pytest.raises(WriteError, match=r"exists already; .*out\.pt is complete"):
        wk.convert(snapshot, out=tmp_path / "out.pt", report=page, progress=lambda *_: taken(page))
    assert page.read_text() == "meanwhile"
    assert (tmp_path / "out.pt").exists()


def test_a_page_that_fails_leaves_the_error_of_the_conversion_as_it_is(tmp_path: Path) -> None:
    torch.save({"b": torch.ones(2), "w": torch.tensor([1e300], dtype=torch.float64)}, tmp_path / "a.pt")
    torch.save({"b": torch.zeros(2), "w": torch.zeros(1)}, tmp_path / "like.pt")
    page = tmp_path / "page.html"
    with pytest.raises(PlanError) as refused:
        wk.convert(
            tmp_path / "a.pt", like=tmp_path / "like.pt", adapt=["w=cast:float32"], allow_lossy=True,
            out=tmp_path / "out.pt", report=page, progress=lambda *_: taken(page),
        )  # fmt: skip
    assert "no report: " in refused.value.hint
    assert refused.value.report.errors()[0].code == "WK205"


def taken(page: Path) -> None:
    """Somebody else writes the page first."""
    page.write_text("meanwhile")


# ---- the command on the page


def command_on(page: Path) -> str:
    return read_page(page.read_bytes()).one("pre", class_="command").text


def test_the_command_on_the_page_makes_the_same_conversion(single: Path, call: Call, tmp_path: Path) -> None:
    page, out = tmp_path / "page.html", tmp_path / "it's out.pt"
    wk.convert(
        single, to="drqv2", set={"frame_stack": "2"}, adapt=["*=inflate:newest"], out=out, report=page, force=True
    )
    before = out.read_bytes()
    program, *arguments = shlex.split(command_on(page))
    out.unlink()
    assert program == "weightkit"
    assert call(*arguments)[0] == 0
    assert out.read_bytes() == before


def test_a_word_that_is_not_printable_is_quoted_with_escapes(tmp_path: Path) -> None:
    source = tmp_path / "a\x1b\u202e'b.pt"
    torch.save({"w": torch.zeros(2)}, source)
    page = tmp_path / "page.html"
    wk.convert(source, out=tmp_path / "out.pt", report=page)
    assert f"$'{tmp_path}/a\\x1b\\u202e\\'b.pt'" in command_on(page)
