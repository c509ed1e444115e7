from typing import Any, Callable, List, Optional, Tuple

BYTES: int
UTF8: int
ASCII: int
ENCODED: int
INTEGER: int
FLOAT: int
DATETIME: int
DATE: int
TIME: int
CONVERT: int
CONVERT_ASCII: int

class RowReader:
    def __init__(
        self,
        names: Tuple[str, ...],
        codecs: Tuple[Tuple[int, Optional[str], Callable[[Any], Any]], ...],
        fallback: Callable[..., Tuple[int, int, bool]],
        tuples: bool,
    ) -> None: ...
    def read(
        self, buffer: bytes, position: int, end: int, number: int, rows: List[Any]
    ) -> Tuple[int, int, bool]: ...
