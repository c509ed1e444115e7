"""Receiving responses, in asyncio."""

import asyncio
import weakref
from typing import Any, Callable, Optional

import pymysql.err
from pymysql.constants import CR

#: The most bytes that are received at once. Decoding that many takes less than a
#: millisecond, or with the Python decoder a few, for which the loop's tasks wait.
CHUNK = 65536
CHUNK_IN_PYTHON = 16384

#: How many bytes of a stream nobody has waited for, before no more are received.
MOST_UNREAD = 2 * CHUNK


#: Where each loop receives data, which is taken out before the loop receives more.
_buffers: "weakref.WeakKeyDictionary[Any, memoryview]" = weakref.WeakKeyDictionary()


def lost(error: Optional[BaseException] = None) -> pymysql.err.OperationalError:
    """Make the error of a connection that was lost while a response was read."""
    why = "" if error is None else f" ({error})"
    made = pymysql.err.OperationalError(
        CR.CR_SERVER_LOST, f"Lost connection to MySQL server during query{why}"
    )
    made.__cause__ = error
    return made


class Receiver(asyncio.BufferedProtocol):
    """Takes the place of the driver's stream protocol after authentication.

    What is received is fed to the response that is expected, and the task that waits
    for it is woken when it is complete. What no response is expected for goes to the
    driver's stream, which its cursors read.

    Args:
        transport: The event loop's.
        chunk: The most bytes that are received at once.
        silence: The most seconds without any data; None for no limit.
        on_silence: Called when they have passed.

    Attributes:
        failure: Why nothing more can be received; None while it can.
    """

    def __init__(
        self,
        transport: Any,
        chunk: int,
        silence: Optional[float],
        on_silence: Callable[[], None],
    ) -> None:
        self.failure: Optional[BaseException] = None
        self._transport = transport
        self._driver: Any = transport.get_protocol()
        self._loop = asyncio.get_running_loop()
        self._buffer = _buffers.setdefault(self._loop, memoryview(bytearray(CHUNK)))[:chunk]
        self._response: Any = None
        self._is_stream = False
        self._waiter: Optional[asyncio.Future[None]] = None
        self._raised: Optional[BaseException] = None
        self._unread = 0
        self._silence = silence
        self._on_silence = on_silence
        self._received_at = 0.0
        self._timer: Any = None
        transport.pause_reading()
        transport.set_protocol(self)
        transport.resume_reading()

    def expect(self, response: Any, *, is_stream: bool = False) -> None:
        """Feed what is received from now on to a response.

        Args:
            response: A ``Response`` or ``Responses``; None if none is expected any
                more.
            is_stream: Its rows are taken while they arrive.
        """
        self._response = response
        self._is_stream = is_stream
        self._raised = None
        self._unread = 0

    async def wait(self) -> None:
        """Wait until the expected response is complete; in a stream, until data has
        been received.

        Raises:
            Exception: What feeding the response raised, or why nothing more is
                received.
        """
        if self._response is not None and self._raised is None and self.failure is None:
            self._waiter = self._loop.create_future()
            if self._silence is not None:
                self._received_at = self._loop.time()
                self._timer = self._loop.call_later(self._silence, self._check)
            if self._unread:
                self._unread = 0
                if not self._transport.is_closing():
                    self._transport.resume_reading()
            try:
                await self._waiter
            finally:
                self._waiter = None
                if self._timer is not None:
                    self._timer.cancel()
        if self._raised is not None or (self._response is not None and self.failure is not None):
            self._raise()

    def _raise(self) -> None:
        error = self._raised or self.failure
        self._raised = None
        assert error is not None
        try:
            raise error
        finally:
            del error  # whose traceback has this frame

    def fail(self, error: BaseException) -> None:
        """Make whoever waits, now or later, raise an error."""
        if self.failure is None:
            self.failure = error
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _check(self) -> None:
        assert self._silence is not None
        left = self._received_at + self._silence - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._check)
        else:
            self._on_silence()

    # The protocol's methods, which the event loop calls.

    def get_buffer(self, sizehint: int) -> Any:
        """Return the buffer for received data; called by the loop."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Process received data; called by the loop."""
        data = bytes(self._buffer[:nbytes])
        response = self._response
        if response is None:
            self._driver.data_received(data)
            return
        if self._timer is not None:
            self._received_at = self._loop.time()
        try:
            if self._is_stream:
                response.feed_stream(data)
                complete = response.complete or response.failure is not None
            else:
                complete = response.feed(data)
        except Exception as error:
            self._raised = error
            complete = True
        if complete:
            self._response = None
        elif not self._is_stream:
            return
        elif self._waiter is None or self._waiter.done():
            self._unread += nbytes
            if self._unread > MOST_UNREAD:
                self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> Any:
        """The server has closed its end."""
        self.fail(lost())
        return self._driver.eof_received()

    def connection_lost(self, exc: Optional[Exception]) -> None:
        """The connection is closed, on whichever side."""
        self.fail(lost(exc))
        self._driver.connection_lost(exc)

    def pause_writing(self) -> None:
        """Too much is waiting to be sent."""
        self._driver.pause_writing()

    def resume_writing(self) -> None:
        """There is room for more."""
        self._driver.resume_writing()
