"""The document's pictures, where matplotlib is installed."""

import pathlib
from typing import Any, Dict, List, Tuple

from . import growth
from .growth_report import PICTURES
from .measure import median
from .peers import ASYNCIO, OURS, THREADS, peers
from .report import CHAPTERS, SCATTERS
from .results import Results
from .scenarios import SHARDS, scatter_key
from .text import amount

OURS_COLOUR, OTHERS_COLOUR, FLOOR_COLOUR = "#1f6f8b", "#b8c4cc", "#e3e3e3"


def draw(results: Results, directory: pathlib.Path) -> Dict[str, str]:
    """Write one file for each scenario; their links, relative to the document beside
    the directory.
    """
    try:
        import matplotlib
    except ImportError:
        return {}
    matplotlib.use("svg")
    # The same figures give the same files; text stays text, and the files small.
    matplotlib.rcParams.update({"svg.hashsalt": "dualdb", "svg.fonttype": "none", "font.size": 9})
    import matplotlib.pyplot as plt

    directory.mkdir(parents=True, exist_ok=True)
    links = {}

    def write(name: str, figure: Any) -> None:
        figure.tight_layout()
        figure.savefig(directory / f"{name}.svg", metadata={"Date": None})
        plt.close(figure)
        links[name] = f"{directory.name}/{name}.svg"

    for chapter in CHAPTERS:
        figures = results.tables.get(chapter.scenario, {})
        bars = {
            implementation: _bars(figures, implementation) for implementation in (THREADS, ASYNCIO)
        }
        if any(bars.values()):
            figure, axes = plt.subplots(1, 2, figsize=(10, 3.2))
            for axis, (implementation, keys) in zip(axes, bars.items()):
                _bar_chart(axis, implementation, keys, figures, chapter.unit)
            write(chapter.scenario, figure)
    for name, what in SCATTERS.items():
        if results.tables.get(name):
            figure, axis = plt.subplots(figsize=(6, 3.2))
            _lines(axis, results.tables[name])
            axis.set_title(what)
            write(name, figure)
    for name, lines in _growth_lines(results).items():
        if lines:
            figure, axis = plt.subplots(figsize=(7, 3.6))
            _growth(axis, lines)
            axis.set_xlabel(_AXES[name][0])
            axis.set_ylabel(_AXES[name][1])
            axis.set_title(PICTURES[name])
            write(name, figure)
    return links


#: The lines of a picture: what each is called, and its points.
_Lines = Dict[str, List[Tuple[float, float]]]


def _growth_lines(results: Results) -> Dict[str, _Lines]:
    """What is drawn of how cost grows, by the picture's name."""
    shards: _Lines = {}
    for implementation, key in (("threads", "growth"), ("asyncio", "growth-asyncio")):
        for figure, label in (
            ("open", "to open"),
            ("refresh", "a refresh"),
            ("lookup", "a lookup"),
        ):
            table = results.tables.get(f"growth-{figure}", {})
            # those that are simulated are not connected
            numbers = growth.SHARDS if figure == "open" else (*growth.SHARDS, growth.SIMULATED)
            points = [(each, median(table, growth.growth_key(key, each))) for each in numbers]
            shards[f"{label}, {implementation}"] = [
                (number, middle * 1e3) for number, middle in points if middle is not None
            ]
    callers: _Lines = {
        title: [
            (number, 1 / middle)
            for number in growth.CALLERS
            for middle in [median(results.tables.get(f"callers{number}", {}), key)]
            if middle is not None
        ]
        for key, title in growth.titles(growth.POOLS)
    }
    table = results.tables.get("growth-rows", {})
    rows: _Lines = {
        title: [
            (number, middle / number * 1e6)
            for number in growth.ROWS
            for middle in [median(table, growth.growth_key(key, number))]
            if middle is not None
        ]
        for key, title in growth.titles(growth.STREAMS)
    }
    found: Dict[str, _Lines] = {
        "growth-shards": shards,
        "growth-callers": callers,
        "growth-rows": rows,
    }
    return {
        name: {label: points for label, points in lines.items() if points}
        for name, lines in found.items()
    }


#: What the axes of the pictures are called.
_AXES = {
    "growth-shards": ("shards", "ms"),
    "growth-callers": ("callers", "calls a second"),
    "growth-rows": ("rows", "µs a row"),
}


def _growth(axis: Any, lines: _Lines) -> None:
    """Lines over powers of ten; those of others are dotted."""
    others = [
        title
        for key, title in growth.titles((*growth.POOLS, *growth.STREAMS))
        if not key.startswith("dualdb")
    ]
    for label, points in lines.items():
        style = "o:" if label in others else "o-"
        axis.plot(*zip(*points), style, label=label, markersize=3)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _bars(figures: Dict[str, List[float]], implementation: str) -> List[str]:
    return [
        key
        for key, peer in peers().items()
        if peer.implementation == implementation and figures.get(key)
    ]


def _bar_chart(
    axis: Any, implementation: str, keys: List[str], figures: Dict[str, List[float]], unit: str
) -> None:
    known = peers()
    middles = [median(figures, key) or 0.0 for key in keys]
    lengths = [1 / middle for middle in middles] if unit == "throughput" else middles
    paints = [
        FLOOR_COLOUR
        if known[key].floor
        else OURS_COLOUR
        if key.startswith(OURS[implementation])
        else OTHERS_COLOUR
        for key in keys
    ]
    bars = axis.barh([known[key].title for key in keys], lengths, color=paints)
    axis.bar_label(bars, [amount(middle, unit) for middle in middles], padding=3)
    axis.set_title(
        implementation
        + {
            "time": ": less is better",
            "throughput": ": more is better",
            "memory": ": less is better",
        }[unit]
    )
    axis.margins(x=0.25)
    axis.invert_yaxis()
    axis.set_xticks([])
    for side in ("top", "right", "bottom"):
        axis.spines[side].set_visible(False)


def _lines(axis: Any, figures: Dict[str, List[float]]) -> None:
    for implementation, key, paint in (
        (THREADS, "scatter", OURS_COLOUR),
        (ASYNCIO, "scatter-asyncio", "#d1495b"),
    ):
        for way, label, style in (("at_once", "db.shards()", "o-"), ("in_turn", "a loop", "o:")):
            points = [(shards, median(figures, scatter_key(key, way, shards))) for shards in SHARDS]
            drawn = [(shards, middle * 1e3) for shards, middle in points if middle is not None]
            if drawn:
                axis.plot(*zip(*drawn), style, color=paint, label=f"{label}, {implementation}")
    axis.set_xlabel("shards")
    axis.set_ylabel("ms")
    axis.set_xticks(SHARDS)
    axis.set_ylim(bottom=0)
    axis.legend(frameon=False)
