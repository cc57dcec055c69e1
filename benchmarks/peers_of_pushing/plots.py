"""Cost of a push against its size and against the number of actors, as SVG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

COLOURS = {
    "LeRobot recipe": "#d55e00",
    "gloo": "#999999",
    "weightkit, gRPC": "#56b4e9",
    "weightkit, shared memory": "#0072b2",
    "memcpy": "#000000",
}
NAMES = {"memcpy": "one memcpy (the floor)", "gloo": "torch.distributed, gloo"}


def draw(sections: dict[str, Any], folder: Path) -> None:
    """Both plots, as far as their sections are there; nothing without matplotlib."""
    try:
        import matplotlib
    except ImportError:
        print("no plots: matplotlib is not installed")
        return
    matplotlib.use("Agg")
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "pushing", "font.size": 9})
    folder.mkdir(parents=True, exist_ok=True)
    if "sizes" in sections:
        _sizes(sections["sizes"]["rows"], folder / "pushing-size.svg")
    if "actors" in sections:
        _actors(sections["actors"]["rows"], folder / "pushing-actors.svg")


def _sizes(rows: list[dict[str, Any]], path: Path) -> None:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 3.8), layout="constrained")
    _lines(axes, rows, "size_mb", lambda peer: peer["latency_ms"]["p50"])
    axes.set(xscale="log", yscale="log", xlabel="size of the payload / MB", ylabel="publish to applied / ms")
    axes.set_title("1 actor, median", loc="left", fontsize=9)
    axes.set_xticks([row["size_mb"] for row in rows], [f"{row['size_mb']:g}" for row in rows])
    _finish(figure, [axes], path)


def _actors(rows: list[dict[str, Any]], path: Path) -> None:
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(8.4, 3.8), layout="constrained")
    _lines(left, rows, "actors", lambda peer: peer["latency_ms"]["p50"])
    _lines(right, rows, "actors", lambda peer: peer["learner_cpu_ms"])
    counts = [row["actors"] for row in rows]
    for axes, label in ((left, "publish to applied by all / ms"), (right, "learner's CPU time per version / ms")):
        axes.set(xscale="log", yscale="log", xlabel="actors", ylabel=label)
        axes.set_xticks(counts, [str(count) for count in counts])
    left.set_title("encoder and actor, 8.3 MB, median", loc="left", fontsize=9)
    _finish(figure, [left, right], path)


def _lines(axes: Any, rows: list[dict[str, Any]], key: str, value: Any) -> None:
    for name, colour in COLOURS.items():
        points = [(row[key], value(row["peers"][name])) for row in rows if name in row["peers"]]
        if points:
            style = "--" if name == "memcpy" else "-"
            axes.plot(*zip(*points, strict=True), style, marker="o", ms=3, color=colour, label=NAMES.get(name, name))
    axes.grid(True, color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _finish(figure: Any, every: list[Any], path: Path) -> None:
    from matplotlib import pyplot

    for axes in every:
        axes.minorticks_off()
        axes.yaxis.set_major_formatter("{x:g}")
    figure.legend(*every[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    figure.savefig(path, facecolor="white", metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)
