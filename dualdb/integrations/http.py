"""What an HTTP client is answered when a database call fails, for every framework."""

import contextlib
import json
import math
from typing import Any, Dict, List, NamedTuple, Optional, Tuple, Type

import pymysql.err

from .. import errors
from ..endpoints.causal import CausalBlock

#: The status of each class of errors that is not a fault of the program; the first
#: that fits counts. Anything else is the framework's 500.
STATUSES: Tuple[Tuple[Type[errors.Error], int], ...] = (
    (errors.DeadlineExceeded, 504),
    (errors.StatementInterrupted, 504),
    (errors.PoolTimeout, 429),
    (errors.Deadlock, 409),
    (errors.LockWaitTimeout, 409),
    (errors.LockNotAvailable, 409),
    (errors.IntegrityError, 409),
    (errors.KeyNotFound, 404),
    (errors.ShardUnavailable, 503),
    (errors.ShardNotFound, 503),
    (errors.ConnectionFailed, 503),
    (errors.ConnectionLost, 503),
    (errors.NotPrimary, 503),
    (errors.NotReady, 503),
    (errors.StaleMap, 503),
    (errors.ServiceNotOpen, 503),
)

#: Seconds after which a client may try again, where the error does not say.
RETRY_AFTER = 1


#: Seconds that a browser keeps the cookie: replicas are not further behind.
COOKIE_AGE = 600


class CausalCarrier(NamedTuple):
    """Where the token of ``db.causal`` travels between a client and the application.

    Attributes:
        header: The name of a header of requests and responses; None for none.
        cookie: The name of a cookie; None for none.
    """

    header: Optional[str] = None
    cookie: Optional[str] = None

    @property
    def is_used(self) -> bool:
        """There is a header or a cookie."""
        return self.header is not None or self.cookie is not None

    def block(self, service: Any, header: Optional[str], cookies: Optional[str]) -> "CausalBlock":
        """Make the block of a request. A text that is no token is ignored.

        Args:
            service: The service.
            header: The request's header of that name; None if it has none.
            cookies: The request's header ``Cookie``; None if it has none.
        """
        for text in (header, self._in(cookies)):
            if text:
                with contextlib.suppress(errors.ParameterError):
                    block: CausalBlock = service.causal(text)
                    return block
        made: CausalBlock = service.causal()
        return made

    def _in(self, cookies: Optional[str]) -> Optional[str]:
        for part in () if cookies is None else cookies.split(";"):
            name, _, value = part.strip().partition("=")
            if name == self.cookie:
                return value.strip('"')
        return None

    def headers(self, token: str, *, secure: bool) -> List[Tuple[str, str]]:
        """Return the headers of a response.

        Args:
            token: The token of the request's block.
            secure: The request came by HTTPS.
        """
        if not token:
            return []
        found = [] if self.header is None else [(self.header, token)]
        if self.cookie is not None:
            secured = "; Secure" if secure else ""
            value = f"{self.cookie}={token}; Max-Age={COOKIE_AGE}; Path=/; HttpOnly; SameSite=Lax"
            found.append(("set-cookie", value + secured))
        return found


class ErrorAnswer(NamedTuple):
    """An HTTP answer for an error.

    Attributes:
        status: The HTTP status.
        error: The name of the error's class.
        shard_id: The shard it concerns; None for the global database.
        retry_after: Whole seconds after which the same request may succeed; None if it
            must not simply be repeated.
    """

    status: int
    error: str
    shard_id: Optional[int]
    retry_after: Optional[int]

    @property
    def headers(self) -> Dict[str, str]:
        """Content type, and Retry-After where the request may be repeated."""
        headers = {"content-type": "application/json"}
        if self.retry_after is not None:
            headers["retry-after"] = str(self.retry_after)
        return headers

    @property
    def body(self) -> bytes:
        """JSON. It has no message: that of a server may contain somebody's data."""
        content = {"error": self.error, "shard_id": self.shard_id}
        return json.dumps({**content, "retryable": self.retry_after is not None}).encode()


def error_answer(error: BaseException) -> Optional[ErrorAnswer]:
    """Choose the HTTP answer for an error.

    Args:
        error: Any exception: of this package, of PyMySQL, or one of SQLAlchemy or
            Django around those.

    Returns:
        The answer; None for what is a fault of the program, or whose outcome is
        unknown, and so is the framework's 500.

    Example:
        >>> error_answer(PoolTimeout("all 30 connections are in use"))
        ErrorAnswer(status=429, error='PoolTimeout', shard_id=None, retry_after=1)
    """
    error = _unwrapped(error)
    if isinstance(error, errors.ScatterError) and error.result is not None:
        return _worst(list(error.result.errors.values()))
    if isinstance(error, errors.TransactionAborted):
        cause = error.__cause__
        found = None if cause is None else error_answer(cause)
        return None if found is None else found._replace(error=type(error).__name__)
    if not isinstance(error, errors.Error):
        return None
    status = next((status for cls, status in STATUSES if isinstance(error, cls)), None)
    if status is None or error.partially_committed:
        return None
    return ErrorAnswer(status, type(error).__name__, error.shard_id, _retry_after(error))


def _unwrapped(error: BaseException) -> BaseException:
    if isinstance(error, errors.Error):
        return error
    if isinstance(error, pymysql.err.MySQLError):
        return errors.translate_error(error, "", None)
    inner = getattr(error, "orig", None)  # SQLAlchemy
    if inner is None and type(error).__module__ == "django.db.utils":
        inner = error.__cause__
    return _unwrapped(inner) if isinstance(inner, BaseException) else error


def _worst(found: List[errors.Error]) -> Optional[ErrorAnswer]:
    answers = [error_answer(each) for each in found]
    known = [each for each in answers if each is not None]
    if len(known) < len(answers) or not known:
        return None
    return max(known, key=lambda each: (each.status, each.retry_after or 0))


def _retry_after(error: errors.Error) -> Optional[int]:
    seconds: Optional[float] = getattr(error, "retry_after", None)
    if seconds is not None:
        return max(1, math.ceil(seconds))
    return RETRY_AFTER if error.retryable else None
