"""What a run has found, and its file."""

import json
import pathlib
from dataclasses import asdict, dataclass, field
from typing import Dict, List


@dataclass
class Results:
    """All that the report is made of.

    Attributes:
        tables: by scenario, by contestant: a figure for each round, in seconds for one
            call (or MB, where the scenario's key says memory).
        missing: by scenario, by contestant: why there is no figure.
        notes: by contestant: what is to be known of it.
        versions: by distribution.
        machine: what it ran on, by what it is and not by its name.
        rounds: how many; of whole processes fewer.
        quick: the figures are worth little.
    """

    tables: Dict[str, Dict[str, List[float]]] = field(default_factory=dict)
    missing: Dict[str, Dict[str, str]] = field(default_factory=dict)
    notes: Dict[str, str] = field(default_factory=dict)
    versions: Dict[str, str] = field(default_factory=dict)
    machine: Dict[str, str] = field(default_factory=dict)
    rounds: int = 0
    quick: bool = False


def save(results: Results, path: pathlib.Path) -> None:
    """Write the samples, to four digits."""
    plain = asdict(results)
    for table in plain["tables"].values():
        for key, samples in table.items():
            table[key] = [float(f"{sample:.4g}") for sample in samples]
    path.parent.mkdir(parents=True, exist_ok=True)
    # A line for each contestant would be long, one for each figure many: this is for
    # programs.
    path.write_text(json.dumps(plain, ensure_ascii=False) + "\n", encoding="utf-8")


def load(path: pathlib.Path) -> Results:
    """What ``save`` has written."""
    return Results(**json.loads(path.read_text(encoding="utf-8")))
