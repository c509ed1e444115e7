"""What each engine can do, as a whole table, and what is refused before it is sent."""

import pickle
from typing import Any, Dict, Tuple

import pytest

from dualdb import NotSupportedByEngine, NotSupportedError
from dualdb.endpoints.profiles import FEATURES, PROFILES, greeted_engine, profile_of

#: Every feature of every engine.
TABLE: Dict[str, Tuple[str, ...]] = {
    "mysql": tuple(FEATURES),
    "mariadb": tuple(FEATURES),
    "galera": tuple([each for each in FEATURES if each not in ("xa", "get_lock")]),
    "group_replication": tuple(FEATURES),
    "spider": tuple([each for each in FEATURES if each not in ("savepoints", "causal_reads")]),
    "tidb": ("savepoints", "get_lock", "statement_timeout", "causal_reads"),
    "vitess": ("procedures", "savepoints"),
    "proxysql": ("procedures", "savepoints"),
}


def test_every_engine_is_in_the_table() -> None:
    assert TABLE.keys() == PROFILES.keys()


@pytest.mark.parametrize("engine", TABLE)
@pytest.mark.parametrize("feature", FEATURES)
def test_features(engine: str, feature: str) -> None:
    profile = PROFILES[engine]
    assert profile.can(feature) is (feature in TABLE[engine])
    if profile.can(feature):
        profile.require(feature)
        return
    with pytest.raises(NotSupportedByEngine) as caught:
        profile.require(feature)
    error = caught.value
    assert (error.feature, error.engine, error.sent) == (feature, engine, False)
    assert str(error) == f"{engine} does not have {FEATURES[feature]}"
    assert isinstance(error, NotSupportedError)
    again: Any = pickle.loads(pickle.dumps(error))
    assert (again.feature, again.engine) == (feature, engine)


@pytest.mark.parametrize(
    ("engine", "variable", "causal"),
    [
        ("mysql", "max_execution_time", "gtid"),
        ("mariadb", "max_statement_time", "mariadb_gtid"),
        ("galera", "max_statement_time", "wsrep"),
        ("group_replication", "max_execution_time", "gtid"),
        ("spider", "max_statement_time", None),
        ("tidb", "max_execution_time", "always"),
        ("vitess", None, None),
        ("proxysql", None, None),
    ],
)
def test_ways(engine: str, variable: Any, causal: Any) -> None:
    assert (PROFILES[engine].statement_timeout, PROFILES[engine].causal_reads) == (variable, causal)


def test_a_lock_that_is_not_everybody_s_is_a_row() -> None:
    assert [name for name, profile in PROFILES.items() if profile.row_locks] == ["galera"]
    assert not PROFILES["galera"].get_lock


@pytest.mark.parametrize(
    ("version", "engine"),
    [
        ("8.4.2", "mysql"),
        ("9.7.4-2", "mysql"),
        ("10.11.6-MariaDB-0+deb12u1", "mariadb"),
        ("5.5.5-10.6.12-MariaDB-log", "mariadb"),
        ("8.0.11-TiDB-v7.5.0", "tidb"),
        ("8.0.30-Vitess", "vitess"),
        ("", "mysql"),
    ],
)
def test_greetings(version: str, engine: Any) -> None:
    assert greeted_engine(version) == engine
    assert profile_of("auto", version) is PROFILES[engine]
    assert profile_of("proxysql", version) is PROFILES["proxysql"]
