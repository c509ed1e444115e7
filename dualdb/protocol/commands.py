"""Encoding of commands.

Source: MySQL internals manual, "Command Phase" and "MySQL Packets".
"""

import struct
from typing import List, Sequence, Tuple

from pymysql.constants import COMMAND

#: The maximum length of a packet; a longer payload is continued in the next packet.
MAX_PACKET = 0xFFFFFF
QUIT = struct.pack("<IB", 1, COMMAND.COM_QUIT)

#: COM_SET_OPTION, which allows several statements in a command, or forbids them.
_SET_OPTION = 0x1B
_ALLOW = struct.pack("<IBH", 3, _SET_OPTION, 0)
#: What is sent after a ``Batch``.
END_OF_BATCH = struct.pack("<IBH", 3, _SET_OPTION, 1)
#: How many commands a batch is sent as.
BATCH_COMMANDS = 3

_head = struct.Struct("<IB").pack


class Batch(bytes):
    """Statements separated by semicolons, for one COM_QUERY.

    The server performs one after the other until one fails. A session takes several
    statements for this command alone: otherwise a parameter that was pasted into a
    statement could begin another.
    """

    __slots__ = ()


def encode(command: bytes) -> bytes:
    """Encode a command, as far as it must have left for the server to perform it.

    Args:
        command: A statement or a ``Batch``, in the connection's character set.
    """
    return _ALLOW + query(command) if type(command) is Batch else query(command)


def query(sql: bytes) -> bytes:
    """Encode a COM_QUERY.

    Args:
        sql: The statement, in the connection's character set.
    """
    if len(sql) + 1 < MAX_PACKET:
        return _head(len(sql) + 1, COMMAND.COM_QUERY) + sql
    payload = b"%c%b" % (COMMAND.COM_QUERY, sql)
    parts: List[bytes] = []
    # The last packet is shorter than the maximum, and may be empty.
    for number in range(query_packets(sql)):
        part = payload[number * MAX_PACKET : (number + 1) * MAX_PACKET]
        parts.append(struct.pack("<I", len(part) | (number & 255) << 24) + part)
    return b"".join(parts)


def query_packets(sql: bytes) -> int:
    """Return the number of packets of a COM_QUERY.

    The sequence number of the first packet of the response follows theirs.
    """
    return (len(sql) + 1) // MAX_PACKET + 1


def together(commands: Sequence[Tuple[int, bytes]]) -> bytes:
    """Encode several commands, to be sent together.

    Args:
        commands: The command bytes (COM_*) with their arguments, which are shorter than
            a packet.
    """
    return b"".join([_head(len(argument) + 1, number) + argument for number, argument in commands])
