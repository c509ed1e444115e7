"""The directory as users hold it: every method and its docstring, written once."""

from abc import abstractmethod
from typing import Any, Generic, TypeVar

from ..api.typevars import IntR, NoneR, ValueR
from ..execution import steps
from .lookup import KeyDirectory

OptionalIntR = TypeVar("OptionalIntR")  # Optional[int]


class BaseDirectory(Generic[IntR, OptionalIntR, ValueR, NoneR]):
    """Which shard has which key: ``db.directory``.

    All of it is about the global database and runs outside of the caller's
    transactions, because what it says is true for every process.
    """

    def __init__(self, directory: KeyDirectory) -> None:
        self._directory = directory

    @abstractmethod
    def _run(self, plan: steps.Plan[Any]) -> Any:
        """Perform a plan: its result, or in asyncio a coroutine of it."""

    def get(self, key: object) -> OptionalIntR:
        """The shard of a key.

        Args:
            key: An int, str, bytes or UUID, as the key column holds it.

        Returns:
            The shard id, or None if the key has no shard. Either is cached.

        Raises:
            ParameterError: It cannot be a key of this column.

        Example:
            >>> db.directory.get(7)
            2
        """
        return self._run(self._directory.get(key))

    def assign(self, key: object) -> IntR:
        """Give a new key a shard, and find it afterwards.

        A key that has a shard keeps it. Of any number of callers that assign one key at
        the same time, in whatever process, one places it, and all are given the same
        shard. The shard is chosen by the ``placement`` of the source among those that
        are active, can be reached from here, and take new keys (columns ``accepts_new``
        and ``weight`` of the shard table).

        Returns:
            The shard id.

        Raises:
            ShardUnavailable: No shard takes new keys.
            ProgrammingError: The key column has no unique index, or there is no table.
            InterfaceError: Keys are found by a function.
        """
        return self._run(self._directory.assign(key))

    def set(self, key: object, shard_id: int) -> NoneR:
        """Give a key this shard, whatever it had. No rows are moved.

        Other processes follow when what they have cached is over (``ttl``).

        Raises:
            ParameterError: There is no such shard.
            InterfaceError: Keys are found by buckets or a function.
        """
        return self._run(self._directory.set(key, shard_id))

    def set_bucket(self, bucket: int, shard_id: int) -> NoneR:
        """Give a hash bucket this shard. No rows are moved.

        Raises:
            ParameterError: There is no such bucket or shard.
            InterfaceError: Keys are not found by buckets.
        """
        return self._run(self._directory.set_bucket(bucket, shard_id))

    def bucket_moves(self) -> ValueR:
        """The buckets that must move for each shard to have its share, as few as can
        be.

        Nothing is changed: move the rows of each bucket, then call ``set_bucket``.

        Returns:
            The new shard id of each such bucket, by its number.

        Raises:
            InterfaceError: Keys are not found by buckets.
        """
        return self._run(self._directory.bucket_moves())

    def forget(self, key: object) -> NoneR:
        """Remove a key and its aliases from the tables. Its rows on the shard stay.

        Raises:
            InterfaceError: Keys are found by buckets or a function.
        """
        return self._run(self._directory.forget(key))

    def alias(self, kind: str, value: str) -> ValueR:
        """The key that has an alias: ``db.key(db.directory.alias("email", address))``.

        An alias leads to the key and not to the shard, so it follows a key that moves.

        Returns:
            The key, or None if there is no such alias.

        Raises:
            ProgrammingError: There is no table of aliases; see ``create_tables``.
        """
        return self._run(self._directory.alias(kind, value))

    def set_alias(self, kind: str, value: str, key: object) -> NoneR:
        """Add an alias of a key; does nothing if the key has it.

        Args:
            kind: A word for what the alias is, such as ``"email"``.
            value: The alias, at most 191 characters; its case does not matter.
            key: The key.

        Raises:
            IntegrityError: The alias belongs to another key.
        """
        return self._run(self._directory.set_alias(kind, value, key))

    def remove_alias(self, kind: str, value: str) -> NoneR:
        """Remove an alias, if there is one."""
        return self._run(self._directory.remove_alias(kind, value))

    def create_tables(self) -> NoneR:
        """Make the tables that are missing: that of keys or buckets, and that of
        aliases.

        Every bucket that has no shard is given one, by the weights of the shards. What
        there is already is not changed.
        """
        return self._run(self._directory.create_tables())

    def clear_cache(self) -> None:
        """Forget what is cached in this process, without I/O."""
        self._directory.cache.clear()
