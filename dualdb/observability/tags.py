"""Tags of statements, as comments in the format of sqlcommenter."""

from typing import Mapping, Optional, Union
from urllib.parse import quote

#: The most bytes of a comment; tags that do not fit are left out.
LONGEST_COMMENT = 1024


def comment_of(tags: Mapping[str, Union[str, int, None]]) -> bytes:
    """Return tags as a comment, ordered by key; empty if there is none.

    Keys and values are percent-encoded, so that none of them can end the comment.

    Args:
        tags: By key; those that are None are left out.

    Example:
        >>> comment_of({"route": "/trades", "action": "list"})
        b"/*action='list',route='%2Ftrades'*/"
    """
    pairs = []
    left = LONGEST_COMMENT - len("/**/")
    for key, value in sorted(tags.items()):
        if value is None:
            continue
        pair = f"{quote(str(key), safe='')}='{quote(str(value), safe='')}'"
        left -= len(pair) + 1
        if left >= 0:
            pairs.append(pair)
    return f"/*{','.join(pairs)}*/".encode("ascii") if pairs else b""


def append_comment(command: bytes, comment: bytes, limit: Optional[int] = None) -> bytes:
    """Return a command with a comment at its end.

    Args:
        command: The command, in any character set of the server; of a subclass of bytes
            if it is more than a statement.
        comment: The comment; nothing is appended if it is empty.
        limit: The most bytes of a command, if they are known; nothing is appended if it
            would be longer.
    """
    if not comment or (limit is not None and len(command) + len(comment) + 16 > limit):
        return command
    return type(command)(command.rstrip(b" \t\r\n;") + b" " + comment)
