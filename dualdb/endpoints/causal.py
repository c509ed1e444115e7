"""Read-your-writes over processes: what was written, as a text that travels, and which
reads have to see it.

Sources: MySQL 9 manual ("session_track_gtids", "WAIT_FOR_EXECUTED_GTID_SET"), MariaDB
documentation ("MASTER_GTID_WAIT", "wsrep_sync_wait").
"""

import base64
import binascii
import hashlib
import json
import threading
import time
from collections import deque
from contextvars import ContextVar
from typing import Any, Deque, Dict, Iterable, List, NamedTuple, Optional, Tuple, cast

from .. import blocks, deadlines, errors, fork_safety
from .gtid import GtidKind, Position, parse_position
from .profiles import EngineProfile

#: The version of the text's form, and its longest, in characters. A cookie has 4096.
_FORM = "1"
_MOST_BYTES = 2560
_LONGEST = 8192
#: The longest position in it; a longer one is not carried.
_LONGEST_POSITION = 400

#: Positions that are kept unparsed.
_MOST_PENDING = 64

#: Seconds after a write of unknown position until another one counts for both.
_SETTLED = 1.0


class Entry(NamedTuple):
    """What one database has to have.

    Attributes:
        mark: Stands for its address: a shard that has moved is another database.
        position: The position; None if it is not known, and the primary is to be read.
    """

    mark: str
    position: Optional[Position]


class Needed(NamedTuple):
    """What a read has to see.

    Attributes:
        anything: The read is inside a block.
        only_primary: It is not known what a replica would have to have.
        position: What a replica has to have.
        limit: Seconds that it may be waited for; None for the service's setting.
    """

    anything: bool = False
    only_primary: bool = False
    position: Optional[Position] = None
    limit: Optional[float] = None


NOTHING = Needed()


class WriteLog:
    """The last writes of this process to one database.

    Args:
        shard_id: Its shard; None for the global database.
        address: Its address.
        owner: Stands for the service.

    Attributes:
        key: Its name in a token.
        mark: See ``Entry``.
        owner: As given.
    """

    def __init__(self, shard_id: Optional[int], address: str, owner: object = None) -> None:
        self.key = "g" if shard_id is None else str(shard_id)
        self.mark = hashlib.blake2s(address.lower().encode(), digest_size=4).hexdigest()
        self.owner = owner
        self._pending: Deque[Tuple[GtidKind, Optional[str], float]] = deque()
        self._lock = threading.Lock()
        self._position: Optional[Position] = None
        self._unknown_at: Optional[float] = None
        fork_safety.register(self)

    def _forked(self) -> None:
        self._lock = threading.Lock()

    def record_unreported(self) -> None:
        """Record that a write may have been committed whose id is not known."""
        self.record("gtid", None)

    def record(self, kind: GtidKind, text: Optional[str]) -> None:
        """Record a committed write.

        Args:
            kind: The kind of its id.
            text: Its id, or their set; None if the server did not report it.
        """
        self._pending.append((kind, text, time.monotonic()))
        if len(self._pending) > _MOST_PENDING:
            self._settle()
        for block in _blocks.get():
            if block.is_of(self.owner):
                position = None if text is None else parse_position(kind, text)
                block.add(self.key, Entry(self.mark, position))

    def _settle(self) -> None:
        with self._lock:
            while self._pending:
                kind, text, at = self._pending.popleft()
                position = None if text is None else parse_position(kind, text)
                if position is None:
                    self._unknown_at = at
                    continue
                known = self._position
                self._position = (position if known is None else known.joined(position)).shortened()
                if self._unknown_at is not None and at > self._unknown_at + _SETTLED:
                    self._unknown_at = None

    @property
    def entry(self) -> Optional[Entry]:
        """What a replica has to have for all of them; None if there were none."""
        self._settle()
        if self._unknown_at is not None:
            return Entry(self.mark, None)
        return None if self._position is None else Entry(self.mark, self._position)


class CausalBlock(blocks.EndedBlock):
    """A block whose reads see the writes of a token, and those made inside it; see
    ``causal``.

    Args:
        owner: Stands for the service.
        token: Of ``causal_token``; None or empty for none.
        timeout: Seconds that a read waits for a replica; None for the service's
            setting.

    Raises:
        ParameterError: The token is none.
    """

    def __init__(
        self, owner: object, token: Optional[str] = None, timeout: Optional[float] = None
    ) -> None:
        self._owner = owner
        self.limit = None if timeout is None else deadlines.seconds(timeout)
        self._entries, self._others = parse_token(token) if token else ({}, False)
        self._lock = threading.Lock()
        self._open = False
        fork_safety.register(self)

    def _forked(self) -> None:
        self._lock = threading.Lock()

    def is_of(self, owner: object) -> bool:
        """Return whether it is an open block of the service."""
        return self._open and self._owner is owner

    @property
    def token(self) -> str:
        """The token with which it began, and of what was written inside it."""
        with self._lock:
            return token_of(self._entries.items(), others=self._others)

    def add(self, key: str, entry: Entry) -> None:
        """Add a write.

        Args:
            key: Of its database.
            entry: What a replica has to have for it.
        """
        with self._lock:
            known = self._entries.pop(key, None)
            if known is not None and known.mark == entry.mark:
                if known.position is None or entry.position is None:
                    entry = Entry(entry.mark, None)
                else:
                    entry = Entry(entry.mark, known.position.joined(entry.position).shortened())
            self._entries[key] = entry

    def needed_by(self, key: str, mark: str) -> Needed:
        """Return what a read of a database has to see."""
        with self._lock:
            entry = self._entries.get(key)
        if entry is None:
            return Needed(anything=True, only_primary=self._others, limit=self.limit)
        unknown = entry.position is None or entry.mark != mark
        return Needed(True, unknown, entry.position, self.limit)

    @property
    def _entered(self) -> bool:
        return self._open

    def __enter__(self) -> "CausalBlock":
        if self._open:
            raise errors.InterfaceError("a causal block cannot be entered while it is open")
        self._open = True
        _blocks.set((*[each for each in _blocks.get() if each._open], self))
        return self

    def _abandon(self) -> None:
        self._open = False

    @blocks.ends_block
    def __exit__(self, *exc_info: object) -> None:
        self._open = False
        _blocks.set(tuple([each for each in _blocks.get() if each._open]))


_blocks: ContextVar[Tuple[CausalBlock, ...]] = blocks.variable("dualdb_causal", ())


def innermost(owner: object) -> Optional[CausalBlock]:
    """Return the caller's innermost open block of a service; None without one."""
    found = [each for each in _blocks.get() if each.is_of(owner)]
    return found[-1] if found else None


def needed_by(writes: WriteLog) -> Needed:
    """Return what a read of a database has to see, by all blocks that the caller is
    in.
    """
    found = NOTHING
    for block in _blocks.get():
        if block.is_of(writes.owner):
            needed = block.needed_by(writes.key, writes.mark)
            position = needed.position
            if position is not None and found.position is not None:
                position = found.position.joined(position)
            found = Needed(
                True,
                found.only_primary or needed.only_primary,
                position or found.position,
                needed.limit if needed.limit is not None else found.limit,
            )
    return found


def wait_statement(
    profile: EngineProfile, needed: Needed, limit: float
) -> Optional[Tuple[str, Tuple[Any, ...]]]:
    """Return the statement that waits on a replica, and its parameters. Its only value
    is 0 if the replica has what is needed.

    Args:
        profile: Of the replica.
        needed: What is needed.
        limit: Seconds.

    Returns:
        None if it has all at once.
    """
    way = profile.causal_reads
    if way == "wsrep":
        return "SET STATEMENT wsrep_sync_wait = 1 FOR SELECT 0", ()
    if way == "always" or (needed.position is None and not needed.only_primary):
        return None
    position = needed.position
    if position is None or way != position.kind:
        return "SELECT 1", ()
    if way == "mariadb_gtid":
        return "SELECT MASTER_GTID_WAIT(%s, %s)", (position.text, limit)
    # 0 would wait without end
    return "SELECT WAIT_FOR_EXECUTED_GTID_SET(%s, %s)", (position.text, max(limit, 0.001))


# The text.


def token_of(entries: Iterable[Tuple[str, Entry]], *, others: bool = False) -> str:
    """Return the text of entries, of which the last ones count most.

    Args:
        entries: By the keys of their databases.
        others: Reads of databases without an entry go to the primary.

    Returns:
        An empty text if there is nothing to tell.
    """
    parts: List[List[str]] = []
    size = 0
    for key, entry in reversed(list(entries)):
        position = entry.position
        text = "" if position is None else f"{position.kind[0]}{position.text}"
        part = [key, entry.mark, text if len(text) <= _LONGEST_POSITION else ""]
        size += len(json.dumps(part)) + 1
        if size > _MOST_BYTES:
            others = True
            break
        parts.append(part)
    if not parts and not others:
        return ""
    content = json.dumps([others, parts[::-1]], separators=(",", ":")).encode()
    return _FORM + base64.urlsafe_b64encode(content).decode().rstrip("=")


def parse_token(token: str) -> Tuple[Dict[str, Entry], bool]:
    """Return the entries of a token, and whether other databases' primaries are read.

    Raises:
        ParameterError: It is none.
    """
    try:
        if not isinstance(token, str) or len(token) > _LONGEST or token[:1] != _FORM:
            raise ValueError
        padded = token[1:] + "=" * (-len(token[1:]) % 4)
        others, parts = json.loads(base64.b64decode(padded.encode("ascii"), b"-_", validate=True))
        if type(others) is not bool:
            raise ValueError
        return {str(key): _entry(key, mark, text) for key, mark, text in parts}, others
    except (ValueError, TypeError, binascii.Error, RecursionError):
        raise errors.ParameterError("this is no text of causal_token()") from None


def _entry(key: object, mark: object, text: object) -> Entry:
    if not (isinstance(key, str) and isinstance(mark, str) and isinstance(text, str)):
        raise TypeError
    if not text:
        return Entry(mark, None)
    kind = {"g": "gtid", "m": "mariadb_gtid"}[text[0]] if text[0] in "gm" else ""
    position = parse_position(cast(GtidKind, kind), text[1:]) if kind else None
    if position is None:
        raise ValueError
    return Entry(mark, position)
