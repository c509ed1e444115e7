"""Rows as what the caller wants them to be: a pydantic model, a dataclass, a
NamedTuple, a TypedDict, or plain tuples.
"""

import dataclasses
import inspect
from functools import lru_cache
from typing import Any, Callable, List, NamedTuple, Tuple

import typing_extensions
from pydantic import BaseModel, PydanticUserError, TypeAdapter, ValidationError

from .errors import ParameterError, RowError
from .results import ResultSet


class Maker(NamedTuple):
    """Makes one row of a kind out of what one set of columns holds.

    Attributes:
        make: called with the row's values, one by one or (``by_name``) with the row as
            a dict.
    """

    make: Callable[..., Any]
    by_name: bool

    def of(self, columns: Tuple[str, ...], values: Tuple[Any, ...]) -> Any:
        return self.make(dict(zip(columns, values))) if self.by_name else self.make(*values)


def check_kind(as_: Any) -> None:
    """Before anything is sent.

    Raises:
        ParameterError: rows cannot be made as that.
    """
    # By its own type and not by isinstance, which takes list[int] for a class before
    # Python 3.11.
    if not issubclass(type(as_), type):
        raise ParameterError(f"as_ is {_KINDS}, not {as_!r}")
    _kind(as_)


def maker(as_: Any, columns: Tuple[str, ...]) -> Maker:
    """Raises: RowError, without the number of a row, where such columns do not make
    such rows.
    """
    return _maker(as_, columns)


def typed(result: ResultSet, as_: Any) -> List[Any]:
    """The rows of a result set; none for a statement without rows.

    Raises:
        RowError: the columns, or the values of a row, do not fit.
    """
    if not result.columns:
        return []
    make, by_name = _maker(as_, result.columns)
    made: List[Any] = []
    add = made.append
    try:
        if by_name:
            for row in result.rows:
                add(make(row))
        else:
            for row in result.rows:
                add(make(*row.values()))
    except (ValueError, TypeError) as error:
        raise misfit(as_, result.columns, len(made), error) from error
    return made


def misfit(as_: Any, columns: Tuple[str, ...], number: int, error: Exception) -> RowError:
    """What the caller is told of the row whose values a constructor has refused.

    Says the columns, and no values.
    """
    names: List[str] = []
    if isinstance(error, ValidationError):
        whys = []
        for each in error.errors(include_url=False, include_input=False, include_context=False):
            # A dataclass of pydantic's is given its values by position, and names them
            # by it.
            place = [
                str(columns[part]) if isinstance(part, int) and not depth else str(part)
                for depth, part in enumerate(each["loc"])
            ]
            names += [name for name in place[:1] if name not in names]
            whys.append(f"{'.'.join(place)}: {each['msg']}" if place else each["msg"])
        why = "; ".join(whys)
    else:
        why = f"{type(error).__name__}: {error}"
    made = RowError(f"row {number} is no {as_.__name__}: {why}").with_context(None, sent=True)
    made.row, made.columns = number, tuple(names)
    return made


_KINDS = "a pydantic model, a dataclass, a NamedTuple, a TypedDict or tuple"


@lru_cache(maxsize=512)
def _kind(as_: Any) -> Callable[[Tuple[str, ...]], Maker]:
    """What makes a Maker for columns."""
    if as_ is tuple:
        return lambda columns: Maker(_itself, by_name=False)
    if issubclass(as_, BaseModel):
        return lambda columns: Maker(as_.model_validate, by_name=True)
    if issubclass(as_, dict) and hasattr(as_, "__required_keys__"):
        return _typed_dict(as_)
    if dataclasses.is_dataclass(as_) or (issubclass(as_, tuple) and hasattr(as_, "_fields")):
        return _constructor(as_)
    raise ParameterError(f"as_ is {_KINDS}, not the class {as_.__name__}")


@lru_cache(maxsize=1024)
def _maker(as_: Any, columns: Tuple[str, ...]) -> Maker:
    return _kind(as_)(columns)


def _itself(*values: Any) -> Tuple[Any, ...]:
    return values


def _typed_dict(as_: Any) -> Callable[[Tuple[str, ...]], Maker]:
    # Before Python 3.12 pydantic takes those of typing_extensions alone, so it is given
    # one like it, whatever the caller's is.
    try:
        fields = {
            name: hint if name in as_.__required_keys__ else typing_extensions.NotRequired[hint]
            for name, hint in typing_extensions.get_type_hints(as_).items()
        }
        validate = TypeAdapter(typing_extensions.TypedDict(as_.__name__, fields)).validate_python  # type: ignore[operator]
    except (PydanticUserError, NameError) as error:
        raise ParameterError(f"rows cannot be made as {as_.__name__}: {error}") from error

    def fit(columns: Tuple[str, ...]) -> Maker:
        _demand(
            as_,
            [name for name in fields if name in as_.__required_keys__ and name not in columns],
            [],
        )
        return Maker(validate, by_name=True)

    return fit


def _constructor(as_: Any) -> Callable[[Tuple[str, ...]], Maker]:
    parameters = inspect.signature(as_).parameters
    takes_all = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    known = [
        name
        for name, each in parameters.items()
        if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
    ]
    required = [name for name in known if parameters[name].default is inspect.Parameter.empty]
    in_order = tuple(
        [name for name in known if parameters[name].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    )

    def fit(columns: Tuple[str, ...]) -> Maker:
        extra = [] if takes_all else [column for column in columns if column not in known]
        _demand(as_, [name for name in required if name not in columns], extra)
        if columns == in_order[: len(columns)]:
            return Maker(as_, by_name=False)
        return Maker(lambda row: as_(**row), by_name=True)

    return fit


def _demand(as_: Any, missing: List[str], extra: List[str]) -> None:
    if missing or extra:
        whys = [f"no column for {', '.join(missing)}"] * bool(missing) + [
            f"no field for the column {', '.join(extra)}"
        ] * bool(extra)
        error = RowError(f"the rows are no {as_.__name__}: {'; '.join(whys)}").with_context(
            None, sent=True
        )
        error.columns = (*missing, *extra)
        raise error
