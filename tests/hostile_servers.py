"""Servers whose global settings make a new session another than usual, and the tests
that must hold there as well.
"""

from typing import Dict, FrozenSet, List, NamedTuple

#: By name, what is set on every server, after the tests' schema has been made.
SETTINGS: Dict[str, List[str]] = {
    "autocommit": ["SET GLOBAL autocommit = 0"],
    "init_connect": [
        "SET GLOBAL init_connect = 'SET autocommit = 0, time_zone = ''+05:00'', @left = 1'"
    ],
    "chain": ["SET GLOBAL completion_type = 'CHAIN'"],
    "release": ["SET GLOBAL completion_type = 'RELEASE'"],
    "sql_mode": ["SET GLOBAL sql_mode = 'ANSI_QUOTES,PIPES_AS_CONCAT,NO_AUTO_VALUE_ON_ZERO'"],
    "no_backslash_escapes": ["SET GLOBAL sql_mode = 'NO_BACKSLASH_ESCAPES'"],
    "tracking": [
        "SET GLOBAL session_track_system_variables = '*'",
        "SET GLOBAL session_track_schema = 1",
        "SET GLOBAL session_track_state_change = 1",
        "SET GLOBAL session_track_transaction_info = 'CHARACTERISTICS'",
    ],
}

#: By file, the conformance tests that run on each of these servers too.
CORE: Dict[str, FrozenSet[str]] = {
    "test_verbs.py": frozenset(
        {
            "test_rows_are_a_list_of_dicts_and_counts_are_affected_rows",
            "test_a_write_gives_its_own_id",
            "test_a_call_keeps_every_set_apart",
            "test_out_and_inout_values_by_name",
            "test_an_error_after_a_set_leaves_a_usable_connection_and_one_row",
            "test_values_travel_there_and_back",
            "test_percent_signs",
            "test_a_backslash_is_a_backslash_in_either_sql_mode",
        }
    ),
    "test_transactions.py": frozenset(
        {
            "test_a_block_that_ends_well_is_committed",
            "test_a_block_that_fails_is_rolled_back",
            "test_inside_a_transaction_another_is_a_savepoint",
            "test_calls_of_the_same_caller_take_part_and_others_do_not",
            "test_a_legacy_unit_of_work_commits_or_vanishes_whole",
            "test_an_error_that_the_block_handles_leaves_the_rest",
            "test_after_a_deadlock_nothing_more_is_sent",
            "test_the_connection_comes_back_clean",
            "test_a_commit_marker_is_left_with_the_transaction",
            "test_a_procedure_that_ends_the_transaction_is_found_out",
            "test_twenty_callers_on_two_rows_all_succeed_with_the_right_sums",
        }
    ),
    "test_pool.py": frozenset(
        {
            "test_pool_size_is_kept_and_overflow_closed_after_use",
            "test_a_transaction_left_open_by_a_statement_is_not_the_next_borrower_s",
            "test_what_a_borrower_changed_is_as_before_for_the_next",
        }
    ),
    "test_bulk.py": frozenset(
        {
            "test_rows_of_any_iterable_are_written_in_chunks",
            "test_other_statements_are_sent_row_by_row",
        }
    ),
    "test_streams.py": frozenset(
        {
            "test_all_rows_come_and_the_connection_goes_back",
            "test_inside_a_transaction_it_is_part_of_it",
        }
    ),
    "test_locks.py": frozenset({"test_it_is_held_inside_its_block_alone"}),
    "test_scatter.py": frozenset({"test_every_shard_is_asked_and_each_answer_is_its_own"}),
    "test_xa.py": frozenset(
        {
            "test_it_commits_on_all",
            "test_the_global_database_takes_part",
            "test_nothing_is_left_of_a_block_that_fails",
            "test_a_savepoint_is_rolled_back_alone",
            "test_best_effort_commits_on_all",
        }
    ),
    "test_legacy.py": frozenset(
        {
            "test_what_each_method_gives",
            "test_the_last_insert_id_is_this_caller_s_own",
            "test_a_borrowed_connection_is_the_driver_s_and_comes_back",
        }
    ),
}


class KnownFailure(NamedTuple):
    """Tests that fail on such servers today; one that no longer does is an error."""

    setting: str
    tests: FrozenSet[str]
    reason: str
    #: The test fails with "sync", "async" or both.
    io: str = ""
    #: Every case of the test fails, every time.
    always: bool = True

    def covers(self, name: str) -> bool:
        test, _, case = name.partition("[")
        return test in self.tests and self.setting in case and self.io in case


FAILING: List[KnownFailure] = [
    KnownFailure(
        "init_connect",
        frozenset({"test_what_a_borrower_changed_is_as_before_for_the_next"}),
        "a session that begins with init_connect is replaced, because a reset does not run it",
        always=False,
    ),
]
