"""``python -m benchmarks``; ``scripts/bench`` installs what it needs before."""

import argparse
import pathlib
import sys
from typing import List, Optional

from . import plots, report, scenarios
from .results import load, save


def groups(text: str) -> List[str]:
    """What --only names."""
    named = text.split(",")
    unknown = [name for name in named if name not in scenarios.GROUPS]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"{', '.join(unknown)}: not one of {', '.join(scenarios.GROUPS)}"
        )
    return named


def plan(arguments: argparse.Namespace) -> scenarios.Plan:
    made = (
        scenarios.Plan(rounds=3, memory_rounds=1, seconds=0.02)
        if arguments.quick
        else scenarios.Plan()
    )
    if arguments.only:
        made = made._replace(groups=tuple(arguments.only))
    if arguments.rounds:
        made = made._replace(
            rounds=arguments.rounds, memory_rounds=max(1, round(arguments.rounds / 6))
        )
    return made


def say(text: str) -> None:
    print(f"- {text}", file=sys.stderr, flush=True)


def main(given: Optional[List[str]] = None) -> None:
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description="Measure dualdb beside others, and write what was found."
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a few short rounds, to see that it runs; the figures are worth little",
    )
    parser.add_argument(
        "--only", type=groups, metavar="NAME,...", help=f"of {', '.join(scenarios.GROUPS)}"
    )
    parser.add_argument(
        "--rounds",
        type=int,
        metavar="N",
        help="how often everybody has a turn (30); whole processes a sixth of that",
    )
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        default=pathlib.Path("docs"),
        metavar="DIR",
        help="where to write (docs)",
    )
    parser.add_argument(
        "--report",
        action="store_true",
        help="measure nothing; write the report again from the samples in DIR",
    )
    arguments = parser.parse_args(given)
    pictures = arguments.output / "benchmarks"
    samples = pictures / "samples.json"
    if not arguments.report:
        results = scenarios.run(plan(arguments), say)
        results.quick = arguments.quick
        save(results, samples)
    results = load(samples)
    written = arguments.output / "benchmarks.md"
    written.write_text(report.document(results, plots.draw(results, pictures)), encoding="utf-8")
    print(report.goals_as_text(results))
    print(f"written: {written}")


if __name__ == "__main__":
    main()
