"""The public methods of the directory, shared by both implementations."""

from abc import abstractmethod
from typing import Any, Generic, TypeVar

from ..api.typevars import IntR, NoneR, ValueR
from ..execution import steps
from .lookup import KeyDirectory

OptionalIntR = TypeVar("OptionalIntR")  # Optional[int]


class BaseDirectory(Generic[IntR, OptionalIntR, ValueR, NoneR]):
    """The mapping of keys to shards: ``db.directory``.

    All statements run on the global database, outside of the caller's transactions,
    because the mapping is shared by all processes.
    """

    def __init__(self, directory: KeyDirectory) -> None:
        self._directory = directory

    @abstractmethod
    def _run(self, plan: steps.Plan[Any]) -> Any:
        """Run a plan and return its result, or in asyncio a coroutine of it."""

    def get(self, key: object) -> OptionalIntR:
        """Return the shard of a key.

        Args:
            key: An int, str, bytes or UUID, as the key column holds it.

        Returns:
            The shard id, or None if the key has no shard. Either is cached.

        Raises:
            ParameterError: It is not a valid key of the key column.

        Example:
            >>> db.directory.get(7)
            2
        """
        return self._run(self._directory.get(key))

    def assign(self, key: object, *, dry_run: bool = False) -> IntR:
        """Assign a shard to a key, unless it has one.

        If several callers in any process assign the same key concurrently, all get the
        same shard. The shard is chosen by the ``placement`` of the source among those
        that are active, reachable from this process, and accept new keys (columns
        ``accepts_new`` and ``weight`` of the shard table).

        Args:
            key: The key.
            dry_run: Change nothing, and return the shard that it has or would be given
                now.

        Returns:
            The shard id.

        Raises:
            ShardUnavailable: No shard accepts new keys.
            ProgrammingError: The key column has no unique index, or there is no table.
            InterfaceError: Keys are found by a function.
        """
        return self._run(self._directory.assign(key, dry_run=dry_run))

    def set(self, key: object, shard_id: int, *, dry_run: bool = False) -> NoneR:
        """Set the shard of a key. No rows are moved.

        Other processes use it after their cached entries have expired (``ttl``).

        Args:
            key: The key.
            shard_id: The shard's id.
            dry_run: Check that it can be done, and change nothing.

        Raises:
            ParameterError: There is no such shard.
            InterfaceError: Keys are found by buckets or a function.
        """
        return self._run(self._directory.set(key, shard_id, dry_run=dry_run))

    def set_bucket(self, bucket: int, shard_id: int, *, dry_run: bool = False) -> NoneR:
        """Set the shard of a hash bucket. No rows are moved.

        Args:
            bucket: The number of the bucket, from 0.
            shard_id: The shard's id.
            dry_run: Check that it can be done, and change nothing.

        Raises:
            ParameterError: There is no such bucket or shard.
            InterfaceError: Keys are not found by buckets.
        """
        return self._run(self._directory.set_bucket(bucket, shard_id, dry_run=dry_run))

    def bucket_moves(self) -> ValueR:
        """Compute the fewest bucket moves that give each shard its share.

        Nothing is changed: move the rows of each bucket, then call ``set_bucket``.

        Returns:
            The new shard id of each such bucket, by its number.

        Raises:
            InterfaceError: Keys are not found by buckets.
        """
        return self._run(self._directory.bucket_moves())

    def forget(self, key: object, *, dry_run: bool = False) -> NoneR:
        """Remove a key and its aliases from the tables. Its rows on the shard stay.

        Args:
            key: The key.
            dry_run: Check that it can be done, and change nothing.

        Raises:
            InterfaceError: Keys are found by buckets or a function.
        """
        return self._run(self._directory.forget(key, dry_run=dry_run))

    def alias(self, kind: str, value: str) -> ValueR:
        """Return the key of an alias: ``db.key(db.directory.alias("email", address))``.

        An alias refers to the key, not to the shard, so it stays valid if the key
        moves.

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
        """Create the missing tables: that of keys or buckets, and that of aliases.

        Buckets without a shard are distributed by the weights of the shards. Existing
        tables and rows are not changed.
        """
        return self._run(self._directory.create_tables())

    def clear_cache(self) -> None:
        """Clear the cache of this process, without I/O."""
        self._directory.cache.clear()
