"""The document: tables, goals, and what was not in our favour, all of it out of the
samples.
"""

from typing import Dict, Iterator, List, Mapping, NamedTuple, Optional

from .goals import GOALS, Goal, Verdict, judge
from .growth_report import growth
from .measure import Ratio, Table, inverse, median, ratio
from .peers import ASYNCIO, NOT_ASKED, OURS, REFERENCE, THREADS, Peer, ours_beside, peers
from .results import Results
from .scenarios import CALLS_OF_EACH, SHARDS, longest_of, scatter_key
from .text import amount, table


class Chapter(NamedTuple):
    """What is reported of a scenario.

    Attributes:
        unit: "time" of one call, "throughput" in calls a second, or "memory" above the
            start.
        longest: the longest call is shown as well.
        variants: all are ours, and compared with dualdb as it comes.
    """

    scenario: str
    title: str
    text: str
    unit: str = "time"
    longest: bool = False
    variants: bool = False


_LONGEST = (
    "The longest call of a round, as the median of the rounds: where callers are served in the "
    "order in which they came, it is about the time in which each of them makes one call; where "
    f"it is several times that, some wait until others have made all of theirs (at least "
    f"{CALLS_OF_EACH} each)."
)


CHAPTERS = [
    Chapter("point", "Point lookup", "One row of five columns by its primary key, by one caller."),
    Chapter(
        "rows1000",
        "1,000 rows",
        (
            "1,000 rows of seven columns (numbers, text, a decimal, a date, NULLs), read "
            "into a list of dicts."
        ),
    ),
    Chapter(
        "typed",
        "1,000 rows of a type",
        (
            "The same rows by `query(..., as_=...)`, beside dicts: a dataclass is filled, a "
            "pydantic model validates each row."
        ),
        variants=True,
    ),
    Chapter("insert", "executemany", "10,000 rows of six columns written by one call."),
    Chapter(
        "update",
        "executemany of UPDATEs",
        (
            "1,000 rows changed by their primary keys by one call, each change in a transaction of "
            "its own. The raw socket sends 250 statements in a command, and all commands at once."
        ),
    ),
    Chapter(
        "call",
        "Procedure call",
        (
            'A procedure that selects one row. Bare drivers send it by `execute("CALL '
            '...")`: `callproc` costs them one statement more.'
        ),
    ),
    Chapter("callers1", "1 caller", "Point lookups over a pool of ten connections.", "throughput"),
    Chapter(
        "callers10",
        "10 callers at once",
        f"The same by ten threads or tasks. {_LONGEST}",
        "throughput",
        longest=True,
    ),
    Chapter(
        "callers100",
        "100 callers at once",
        f"The same by a hundred; nine of ten wait for a connection. {_LONGEST}",
        "throughput",
        longest=True,
    ),
    Chapter(
        "callers1000",
        "1,000 callers at once",
        f"The same by a thousand. {_LONGEST}",
        "throughput",
        longest=True,
    ),
    Chapter("rows100000", "100,000 rows as a list: the time", "In a fresh process each time."),
    Chapter(
        "rows100000-memory",
        "100,000 rows as a list: the memory",
        "The most that was ever resident above the start.",
        "memory",
    ),
    Chapter(
        "stream100000",
        "100,000 rows streamed: the time",
        "One after the other over a server-side cursor, in a fresh process each time.",
    ),
    Chapter(
        "stream100000-memory",
        "100,000 rows streamed: the memory",
        "The most that was ever resident above the start.",
        "memory",
    ),
]


def document(results: Results, pictures: Mapping[str, str]) -> str:
    """The whole, in Markdown. ``pictures`` are links by scenario."""
    parts = [_head(results), _goals(results), _not_in_our_favour(results)]
    parts += [
        _chapter(chapter, results, pictures)
        for chapter in CHAPTERS
        if chapter.scenario in results.tables
    ]
    parts += [_scatter(results, pictures), growth(results, pictures)]
    parts += [_per_call(results), _missing(results)]
    return "\n\n".join([part for part in parts if part]) + "\n"


def _head(results: Results) -> str:
    machine = results.machine
    versions = ", ".join(
        [
            f"{name} {version}"
            for name, version in sorted(results.versions.items(), key=lambda pair: pair[0].lower())
        ]
    )
    text = [
        "# How fast it is",
        (
            "Written by `scripts/bench`, which measures all of this again on your machine "
            "and writes it anew."
        ),
        f"On {machine.get('date', '?')}: {machine.get('processor', '?')}, "
        f"{machine.get('processors', '?')} processors, shared by the "
        f"contestants and the servers; {machine.get('system', '?')}; "
        f"{machine.get('python', '?')}; server "
        f"{machine.get('server', '?')}, over TCP on loopback, without TLS. Load average before "
        f"{machine.get('load before', '?')}, "
        f"after {machine.get('load after', '?')}. {versions}.",
        f"Every contestant is in a process of its own. In each of {results.rounds} rounds "
        "everybody runs one short batch, in a random "
        "order; what is shown is the median of the rounds, and ratios are the median of the "
        "ratios within each round, so that what slows "
        "a whole round slows nobody in particular. The quartiles stand behind a ratio. Before "
        "anything is timed everybody is asked the "
        "same, and whoever answers otherwise takes no part. The raw socket and the raw stream "
        "decode nothing: what they take is the "
        "server's and the system's.",
    ]
    if results.quick:
        text.append("**This was a quick run: the figures are worth little.**")
    return "\n\n".join(text)


def verdicts(results: Results) -> List[Verdict]:
    return [judge(goal, results) for goal in GOALS]


def _goals(results: Results) -> str:
    return "## Goals\n\n" + table(
        ["goal", "reached", "quartiles", ""],
        [list(_cells(verdict)) for verdict in verdicts(results)],
    )


def _cells(verdict: Verdict) -> Iterator[str]:
    goal = verdict.goal
    quickest = ""
    if verdict.beside and len(goal.against) > 1:
        key, _, _ = verdict.beside.partition("/")
        quickest = f" (the quickest of them: {peers()[key].title})"
    yield goal.text + quickest
    if verdict.reached is None:
        yield from ("", "", "not measured")
        return
    yield (f"{verdict.reached:.2f}" if goal.against else amount(verdict.reached, goal.unit))
    yield verdict.spread
    yield "met" if verdict.met else "**not met**"


def goals_as_text(results: Results) -> str:
    """For the terminal."""
    lines = []
    for verdict in verdicts(results):
        text, reached, _, met = _cells(verdict)
        lines.append(f"{met.strip('*'):13}{reached:>8}  {text}")
    return "\n".join(lines)


def losses(results: Results) -> List[str]:
    """Every line in which somebody did better than we did, each beside ours of the same
    implementation.
    """
    found = []
    for chapter in CHAPTERS:
        figures = results.tables.get(chapter.scenario, {})
        for key, peer in peers().items():
            if peer.floor or _is_ours(peer):
                continue
            mine = ratio(figures, ours_beside(peer), key)
            if mine is not None and round(mine.median, 2) > 1:
                behind = _behind(mine, peer.title, chapter.unit)
                found.append(f"{chapter.title}, {peer.implementation}: {behind}")
            longest = _longest_ratio(results, chapter, key) if chapter.longest else None
            if longest is not None and round(longest.median, 2) > 1:
                found.append(
                    f"{chapter.title}, {peer.implementation}: dualdb's longest call takes "
                    f"{longest} of the time of that of {peer.title} ({longest.spread})"
                )
    for name, what in SCATTERS.items():
        figures = results.tables.get(name, {})
        for implementation, key in (("threads", "scatter"), ("asyncio", "scatter-asyncio")):
            for shards in SHARDS:
                mine = ratio(
                    figures,
                    scatter_key(key, "at_once", shards),
                    scatter_key(key, "in_turn", shards),
                )
                if mine is not None and round(mine.median, 2) > 1:
                    plural = "shards" if shards > 1 else "shard"
                    found.append(
                        f"{what}, {shards} {plural}, {implementation}: `db.shards()` takes "
                        f"{mine} of a plain loop's time ({mine.spread})"
                    )
    return found


def _behind(mine: Ratio, title: str, unit: str) -> str:
    if unit == "throughput":
        lower = inverse(mine)
        assert lower is not None
        return f"dualdb has {lower} of the throughput of {title} ({lower.spread})"
    return (
        f"dualdb takes {mine} of the {'memory' if unit == 'memory' else 'time'} of {title} "
        f"({mine.spread})"
    )


def _is_ours(peer: "type[Peer]") -> bool:
    return peer.key.startswith("dualdb")


def _not_in_our_favour(results: Results) -> str:
    lines = losses(results)
    unmet = [
        f"Goal not met: {verdict.goal.text}{_of_floor(verdict.goal, results)}"
        for verdict in verdicts(results)
        if verdict.met is False
    ]
    found = [f"- {line}" for line in (*unmet, *lines)] or [
        "Nothing: nobody did better in anything."
    ]
    return "## What was not in our favour\n\n" + "\n".join(found)


def _of_floor(goal: Goal, results: Results) -> str:
    """What the floor reaches of a goal, where it takes part: nobody does better."""
    ours = peers().get(goal.ours)
    if ours is None or goal.floor:
        return ""
    for key, peer in peers().items():
        if peer.floor and peer.implementation == ours.implementation and key not in goal.against:
            reached = judge(goal._replace(ours=key), results).reached
            return "" if reached is None else f" (the {peer.title} reaches {reached:.2f})"
    return ""


def _chapter(chapter: Chapter, results: Results, pictures: Mapping[str, str]) -> str:
    parts = [f"## {chapter.title}", chapter.text]
    if chapter.scenario in pictures:
        parts.append(f"![{chapter.title}]({pictures[chapter.scenario]})")
    parts += [
        _peers_table(chapter, implementation, results) for implementation in (THREADS, ASYNCIO)
    ]
    return "\n\n".join([part for part in parts if part])


def _peers_table(chapter: Chapter, implementation: str, results: Results) -> str:
    figures = results.tables[chapter.scenario]
    ours = OURS[implementation]
    reference = ours if chapter.variants else REFERENCE[implementation]
    with_reference = bool(figures.get(reference))
    longest = results.tables.get(longest_of(chapter.scenario), {}) if chapter.longest else {}
    rows = []
    for key, peer in peers().items():
        middle = median(figures, key)
        if peer.implementation != implementation or middle is None:
            continue
        row = [f"**{peer.title}**" if key == ours else peer.title, amount(middle, chapter.unit)]
        if with_reference:
            row.append(_cell(ratio(figures, key, reference), chapter.unit))
        if not chapter.variants:
            row.append(_beside(figures, key, chapter.unit))
        if longest:
            slowest = median(longest, key)
            row.append("" if slowest is None else amount(slowest, "time"))
            row.append(_beside(longest, key, "time"))
        rows.append(row)
    if not rows:
        return ""
    head = [
        implementation,
        {"time": "time of a call", "throughput": "calls", "memory": "memory"}[chapter.unit],
    ]
    if with_reference:
        head.append(f"of {peers()[reference].title}'s")
    if not chapter.variants:
        head.append("dualdb's, of it")
    if longest:
        head += ["longest call", "dualdb's, of it"]
    return table(head, rows)


def _beside(figures: Table, key: str, unit: str) -> str:
    """Ours of a contestant's, for its line."""
    other = ours_beside(peers()[key])
    return "" if key == other else _cell(ratio(figures, other, key), unit)


def _longest_ratio(results: Results, chapter: Chapter, key: str) -> Optional[Ratio]:
    figures = results.tables.get(longest_of(chapter.scenario), {})
    return ratio(figures, ours_beside(peers()[key]), key)


def _cell(found: Optional[Ratio], unit: str) -> str:
    if unit == "throughput":
        found = inverse(found)
    return "" if found is None else f"{found} ({found.spread})"


SCATTERS = {
    "scatter-trivial": "A trivial query on each shard",
    "scatter-sleep": "A query that sleeps for 50 ms on each shard",
}


def _scatter(results: Results, pictures: Mapping[str, str]) -> str:
    parts = []
    for name, what in SCATTERS.items():
        figures = results.tables.get(name)
        if figures is None:
            continue
        rows = []
        for implementation, key in (("threads", "scatter"), ("asyncio", "scatter-asyncio")):
            alone = scatter_key(key, "in_turn", 1)
            for shards in SHARDS:
                at_once, in_turn = (
                    scatter_key(key, "at_once", shards),
                    scatter_key(key, "in_turn", shards),
                )
                middle, other = median(figures, at_once), median(figures, in_turn)
                if middle is None or other is None:
                    continue
                compared = [
                    _cell(ratio(figures, at_once, against), "time") for against in (in_turn, alone)
                ]
                rows.append(
                    [
                        f"{implementation}, {shards}",
                        amount(middle, "time"),
                        amount(other, "time"),
                        *compared,
                    ]
                )
        parts.append(f"### {what}")
        if name in pictures:
            parts.append(f"![{what}]({pictures[name]})")
        parts.append(
            table(
                [
                    "shards",
                    "`db.shards()`",
                    "a loop",
                    "at once, of the loop's",
                    "at once, of one shard's",
                ],
                rows,
            )
        )
    if not parts:
        return ""
    text = (
        "Each shard is a server of its own. A loop calls `db.shard(n)` for one after the "
        "other; one shard alone is the loop over one."
    )
    return "\n\n".join(["## Several shards at once", text, *parts])


def _per_call(results: Results) -> str:
    measured = {key for figures in results.tables.values() for key in figures}
    lines = ["| | | what a call costs beside its statement |", "|---|---|---|"]
    for key, peer in peers().items():
        if key in measured:
            note = f". Here {results.notes[key]}" if key in results.notes else ""
            lines.append(f"| {peer.title} | {peer.implementation} | {peer.per_call}{note} |")
    return "## What each does for a call\n\n" + "\n".join(lines) if len(lines) > 2 else ""


def _missing(results: Results) -> str:
    """Who was not measured, and why; the same reason once."""
    reasons: Dict[str, List[str]] = {}
    known = peers()
    for scenario, missing in results.missing.items():
        for key, reason in missing.items():
            if key not in known or reason == NOT_ASKED:
                continue
            reasons.setdefault(
                f"{known[key].title} ({known[key].implementation}): {reason}", []
            ).append(scenario)
    if not reasons:
        return ""
    return "## Not measured\n\n" + "\n".join(
        [f"- {who} ({', '.join(where)})" for who, where in reasons.items()]
    )
