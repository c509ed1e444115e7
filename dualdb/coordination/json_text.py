"""Values that are stored as JSON and read back unchanged."""

import json
from typing import Any, Union

from .. import errors


def encoded(value: object, what: str) -> str:
    """Return a value as JSON text.

    Only what comes back equal is taken, but for a tuple, which comes back as a list:
    ``{1: "a"}`` would come back as ``{"1": "a"}``, and NaN not at all.

    Args:
        value: The value.
        what: What it is, for the message.

    Raises:
        ParameterError: JSON cannot hold it.
    """
    try:
        text = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise errors.ParameterError(f"{what} must be what JSON can hold: {error}") from None
    if not _same(value, json.loads(text)):
        raise errors.ParameterError(
            f"{what} must be what JSON can hold: it has keys that are not str, and they would "
            "come back as texts"
        )
    return text


def decoded(text: Union[str, bytes]) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: It is none.
    """
    return json.loads(text)


def _same(value: object, decoded: object) -> bool:
    if isinstance(value, dict) and isinstance(decoded, dict):
        return value.keys() == decoded.keys() and all(
            _same(value[key], each) for key, each in decoded.items()
        )
    if isinstance(value, (list, tuple)) and isinstance(decoded, list):
        return all(_same(one, other) for one, other in zip(value, decoded))
    return bool(value == decoded)
