"""The document's pictures, where matplotlib is installed."""

import pathlib
from typing import Any, Dict, List

from .measure import median
from .peers import ASYNCIO, OURS, THREADS, peers
from .report import CHAPTERS, SCATTERS, amount
from .results import Results
from .scenarios import SHARDS, scatter_key

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
        bars = {colour: _bars(figures, colour) for colour in (THREADS, ASYNCIO)}
        if any(bars.values()):
            figure, axes = plt.subplots(1, 2, figsize=(10, 3.2))
            for axis, (colour, keys) in zip(axes, bars.items()):
                _bar_chart(axis, colour, keys, figures, chapter.unit)
            write(chapter.scenario, figure)
    for name, what in SCATTERS.items():
        if results.tables.get(name):
            figure, axis = plt.subplots(figsize=(6, 3.2))
            _lines(axis, results.tables[name])
            axis.set_title(what)
            write(name, figure)
    return links


def _bars(figures: Dict[str, List[float]], colour: str) -> List[str]:
    return [key for key, peer in peers().items() if peer.colour == colour and figures.get(key)]


def _bar_chart(
    axis: Any, colour: str, keys: List[str], figures: Dict[str, List[float]], unit: str
) -> None:
    known = peers()
    middles = [median(figures, key) or 0.0 for key in keys]
    lengths = [1 / middle for middle in middles] if unit == "throughput" else middles
    paints = [
        FLOOR_COLOUR
        if known[key].floor
        else OURS_COLOUR
        if key.startswith(OURS[colour])
        else OTHERS_COLOUR
        for key in keys
    ]
    bars = axis.barh([known[key].title for key in keys], lengths, color=paints)
    axis.bar_label(bars, [amount(middle, unit) for middle in middles], padding=3)
    axis.set_title(
        colour
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
    for colour, key, paint in (
        (THREADS, "scatter", OURS_COLOUR),
        (ASYNCIO, "scatter-asyncio", "#d1495b"),
    ):
        for way, label, style in (("at_once", "db.shards()", "o-"), ("in_turn", "a loop", "o:")):
            points = [(shards, median(figures, scatter_key(key, way, shards))) for shards in SHARDS]
            drawn = [(shards, middle * 1e3) for shards, middle in points if middle is not None]
            if drawn:
                axis.plot(*zip(*drawn), style, color=paint, label=f"{label}, {colour}")
    axis.set_xlabel("shards")
    axis.set_ylabel("ms")
    axis.set_xticks(SHARDS)
    axis.set_ylim(bottom=0)
    axis.legend(frameon=False)
