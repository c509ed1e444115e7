"""The events of a change."""

from typing import Any

import pytest
from shard_rows import BASE, row

from dualdb.topology.shard_map import parse_shard_table
from dualdb.topology.status import events


@pytest.mark.parametrize(
    ("before", "after", "translated"),
    [
        ([], [row(1)], [("shard_added", 1)]),
        ([row(1)], [], [("shard_removed", 1)]),
        ([row(1)], [row(1)], []),
        ([row(1)], [row(1, port=1)], [("shard_moved", 1)]),
        ([row(1)], [row(1, status="readonly")], [("shard_state_changed", 1)]),
        (
            [row(1)],
            [row(1, status="maintenance", password="p")],
            [("shard_moved", 1), ("shard_state_changed", 1)],
        ),
        ([row(1)], [row(1, port=None)], [("shard_state_changed", 1)]),
        ([row(2), row(1)], [row(3), row(1)], [("shard_removed", 2), ("shard_added", 3)]),
    ],
)
def test_the_events_of_a_change(before: Any, after: Any, translated: Any) -> None:
    old, new = parse_shard_table(before, BASE), parse_shard_table(after, BASE, 2)
    assert [(event.name, event.shard_id) for event in events(old, new)] == [
        *translated,
        ("map_refreshed", None),
    ]
    assert all(event.version == 2 for event in events(old, new))
    assert "canary" not in repr(events(old, new))
