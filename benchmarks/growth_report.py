"""What the document says of how cost grows."""

from typing import List, Mapping, Optional

from .growth import CALLERS, LISTS, POOLS, ROWS, SHARDS, SIMULATED, growth_key, titles
from .measure import Ratio, inverse, median, ratio
from .results import Results
from .text import amount, table

#: The lines of the pictures, by their files: what is drawn against what.
PICTURES = {
    "growth-shards": "What a process pays for its shards",
    "growth-callers": "Throughput by the number of callers",
    "growth-rows": "Rows streamed: the time of a row",
}

_IMPLEMENTATIONS = (("threads", "growth"), ("asyncio", "growth-asyncio"))
_REFERENCE = {"dualdb": "pymysql", "dualdb-asyncio": "aiomysql"}
_POOL_REFERENCE = {"dualdb": "sqlalchemy-pymysql", "dualdb-asyncio": "aiomysql-pool"}


def growth(results: Results, pictures: Mapping[str, str]) -> str:
    """The chapter; empty where nothing of it was measured."""
    parts = [
        _section(name, text, pictures)
        for name, text in (
            ("growth-shards", _shards(results)),
            ("growth-callers", _callers(results)),
            ("growth-rows", _rows(results)),
        )
        if text
    ]
    if not parts:
        return ""
    return "\n\n".join(["## How cost grows", *parts])


def _section(name: str, text: str, pictures: Mapping[str, str]) -> str:
    picture = [f"![{PICTURES[name]}]({pictures[name]})"] if name in pictures else []
    return "\n\n".join([f"### {PICTURES[name]}", *picture, text])


def _shards(results: Results) -> str:
    rows = []
    for implementation, peer in _IMPLEMENTATIONS:
        for shards in (*SHARDS, SIMULATED):
            key = growth_key(peer, shards)
            cells = [
                _cell(results, f"growth-{figure}", key, unit)
                for figure, unit in (
                    ("open", "time"),
                    ("memory", "kilobytes"),
                    ("lookup", "time"),
                    ("scatter", "time"),
                )
            ]
            if cells[0]:
                loop = _loop_ratio(results, key)
                cells += [loop, _cell(results, "growth-refresh", key, "time")]
                rows.append([f"{implementation}, {shards:,}", *cells])
    if not rows:
        return ""
    text = (
        "The shards are databases of one server, each with its pool and a connection that is "
        f"made when the service is opened, in a fresh process. {SIMULATED:,} are in the table "
        "alone: `warm_up=0`, and none is used. Memory is what the process grew by, the rows "
        "of the table included; a refresh finds the table unchanged; a scatter is a trivial "
        "query on all shards at once, divided by their number."
    )
    head = [
        "shards",
        "to open",
        "memory a shard",
        "a lookup",
        "a scatter, for a shard",
        "of a loop's",
        "a refresh",
    ]
    return f"{text}\n\n{table(head, rows)}"


def _loop_ratio(results: Results, key: str) -> str:
    scatter = results.tables.get("growth-scatter", {}).get(key)
    in_turn = results.tables.get("growth-in_turn", {}).get(key)
    if not scatter or not in_turn:
        return ""
    return _shown(ratio({"scatter": scatter, "loop": in_turn}, "scatter", "loop"))


def _callers(results: Results) -> str:
    rows = []
    for key, title in titles(POOLS):
        cells = [_cell(results, f"callers{number}", key, "throughput") for number in CALLERS]
        if any(cells):
            rows.append([f"**{title}**" if key in _POOL_REFERENCE else title, *cells])
            if key in _POOL_REFERENCE:
                rows.append(_caller_ratios(results, key, _POOL_REFERENCE[key]))
    if not rows:
        return ""
    text = "Point lookups over a pool of ten connections, as above."
    return f"{text}\n\n{table(['', *[_callers_of(number) for number in CALLERS]], rows)}"


def _callers_of(number: int) -> str:
    return "1 caller" if number == 1 else f"{number:,} callers"


def _caller_ratios(results: Results, key: str, reference: str) -> List[str]:
    """What our throughput is of the reference's."""
    compared = [
        _shown(inverse(ratio(results.tables.get(f"callers{number}", {}), key, reference)))
        for number in CALLERS
    ]
    ((_, title),) = titles((reference,))
    return [f"of the throughput of {title}", *compared]


def _rows(results: Results) -> str:
    figures = results.tables.get("growth-rows", {})
    rows = []
    lists = results.tables.get("growth-list", {})
    for key, title in titles(LISTS):
        most = growth_key(key, ROWS[-1])
        cells = [
            *[_cell(results, "growth-rows", growth_key(key, count), "time") for count in ROWS],
            _cell(results, "growth-rows-memory", most, "memory"),
            _cell(results, "growth-list", most, "time"),
        ]
        if not any(cells):
            continue
        ours = key in _REFERENCE
        rows.append([f"**{title}**" if ours else title, *cells])
        if ours:
            reference = _REFERENCE[key]
            ((_, other),) = titles((reference,))
            compared = [
                _shown(ratio(figures, growth_key(key, count), growth_key(reference, count)))
                for count in ROWS
            ]
            listed = _shown(ratio(lists, most, growth_key(reference, ROWS[-1])))
            rows.append([f"of the time of {other}", *compared, "", listed])
    if not rows:
        return ""
    text = (
        "Streamed one after the other, each contestant in a process of its own. The memory is the "
        f"most that was ever resident above the start while {ROWS[-1]:,} rows went by. The last "
        f"column is the time of reading {ROWS[-1]:,} rows into a list."
    )
    head = [
        "",
        *["1 row" if count == 1 else f"{count:,} rows" for count in ROWS],
        "memory",
        f"{ROWS[-1]:,} rows as a list",
    ]
    return f"{text}\n\n{table(head, rows)}"


def _cell(results: Results, scenario: str, key: str, unit: str) -> str:
    middle = median(results.tables.get(scenario, {}), key)
    return "" if middle is None else amount(middle, unit)


def _shown(found: Optional[Ratio]) -> str:
    return "" if found is None else f"{found} ({found.spread})"
