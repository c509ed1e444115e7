"""Exceptions between any two lines of the package, as a signal handler raises them."""

import linecache
import pathlib
import sys
from types import FrameType
from typing import Any, Iterable, Optional

import dualdb


class Interrupted(BaseException):
    """What a signal handler raises."""


class Interrupt:
    """Raises at one line of some files of the package, counted from the beginning of
    the block.

    The tracer also stops at the end of a ``with lock:`` block, before the lock is
    released, where no signal is handled; such lines are left out.
    """

    def __init__(self, at: int, files: Iterable[str]) -> None:
        self.at, self.lines = at, 0
        package = pathlib.Path(dualdb.__file__).parent
        self._files = {str(package.joinpath(name)) for name in files}
        self.happened = False
        # kept here: the interpreter drops a tracer that raises too soon
        self._tracers = (self._trace, self._trace_line)

    def __enter__(self) -> "Interrupt":
        self._before = sys.gettrace()
        sys.settrace(self._tracers[0])
        return self

    def __exit__(self, *exc_info: Any) -> None:
        sys.settrace(self._before)

    def _trace(self, frame: FrameType, event: str, arg: Any) -> Optional[Any]:
        return self._tracers[1] if frame.f_code.co_filename in self._files else None

    def _trace_line(self, frame: FrameType, event: str, arg: Any) -> Any:
        text = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
        if event == "line" and not text.startswith("with self._lock"):
            self.lines += 1
            if self.lines == self.at:
                self.happened = True
                raise Interrupted  # which ends the tracing, too
        return self._tracers[1]
