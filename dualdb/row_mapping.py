"""Rows as what the caller wants them to be: a pydantic model, a dataclass, a
NamedTuple, a TypedDict, or plain tuples.
"""

import contextlib
import dataclasses
import inspect
from functools import lru_cache
from itertools import starmap
from typing import Any, Callable, Iterable, List, NamedTuple, Optional, Tuple

import typing_extensions
from pydantic import BaseModel, PydanticUserError, TypeAdapter, ValidationError

from .errors import ParameterError, RowError
from .results import ResultSet, Row


class Maker(NamedTuple):
    """Makes one row of a kind out of what one set of columns holds.

    Attributes:
        make: called with the row's values, one by one or (``by_name``) with the row as
            a dict.
        make_all: called with all rows as dicts, which is faster where pydantic makes
            them; it does not say which row it was that did not fit.
    """

    make: Callable[..., Any]
    by_name: bool
    make_all: Optional[Callable[[List[Row]], List[Any]]] = None

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


def takes_tuples(as_: Any) -> bool:
    """Whether ``typed`` makes this of rows that are tuples, as it does where the values
    go to a constructor, and not of dicts, which pydantic validates.
    """
    return not _is_model(as_) and not _is_typed_dict(as_)


def maker(as_: Any, columns: Tuple[str, ...]) -> Maker:
    """Raises: RowError, without the number of a row, where such columns do not make
    such rows.
    """
    return _maker(as_, columns)


def typed(result: ResultSet, as_: Any) -> List[Any]:
    """The rows of a result set; none for a statement without rows.

    They are tuples where ``takes_tuples`` says so, and dicts otherwise.

    Raises:
        RowError: the columns, or the values of a row, do not fit.
    """
    if not result.columns:
        return []
    make, by_name, make_all = _maker(as_, result.columns)
    if as_ is tuple:
        return result.rows
    if make_all is not None:
        with contextlib.suppress(ValueError, TypeError):  # found again one by one
            return make_all(result.rows)
    made: List[Any] = []
    try:
        # What is made before an error stays in the list.
        if by_name:
            made.extend(map(make, _as_dicts(result)))
        else:
            made.extend(starmap(make, result.rows))
    except (ValueError, TypeError) as error:
        raise misfit(as_, result.columns, len(made), error) from error
    return made


def _as_dicts(result: ResultSet) -> Iterable[Row]:
    rows: List[Any] = result.rows
    if rows and isinstance(rows[0], tuple):
        return (dict(zip(result.columns, row)) for row in rows)
    return rows


def misfit(as_: Any, columns: Tuple[str, ...], number: int, error: Exception) -> RowError:
    """The error about the row whose values a constructor has refused.

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
    made.row = number
    made.columns = tuple(names)
    return made


_KINDS = "a pydantic model, a dataclass, a NamedTuple, a TypedDict or tuple"


@lru_cache(maxsize=512)
def _kind(as_: Any) -> Callable[[Tuple[str, ...]], Maker]:
    """What makes a Maker for columns."""
    if as_ is tuple:
        return lambda columns: Maker(_itself, by_name=False)
    if _is_model(as_):
        all_at_once = _validate_all(as_)
        return lambda columns: Maker(as_.model_validate, True, all_at_once)
    if _is_typed_dict(as_):
        return _typed_dict(as_)
    if dataclasses.is_dataclass(as_) or (issubclass(as_, tuple) and hasattr(as_, "_fields")):
        return _constructor(as_)
    raise ParameterError(f"as_ is {_KINDS}, not the class {as_.__name__}")


def _is_model(as_: Any) -> bool:
    return issubclass(as_, BaseModel)


def _is_typed_dict(as_: Any) -> bool:
    return issubclass(as_, dict) and hasattr(as_, "__required_keys__")


def _maker(as_: Any, columns: Tuple[str, ...]) -> Maker:
    # Very many columns are not seen often enough to be kept.
    return _kept_maker(as_, columns) if len(columns) < 500 else _kind(as_)(columns)


@lru_cache(maxsize=1024)
def _kept_maker(as_: Any, columns: Tuple[str, ...]) -> Maker:
    return _kind(as_)(columns)


def _itself(*values: Any) -> Tuple[Any, ...]:
    return values


def _validate_all(as_: Any) -> Optional[Callable[[Any], List[Any]]]:
    """Validate all rows in one call; None for a model that has its own way of it, or is
    not complete yet.
    """
    own, usual = [inspect.getattr_static(each, "model_validate") for each in (as_, BaseModel)]
    if own is not usual:
        return None
    try:
        return TypeAdapter(List[as_]).validate_python
    except (PydanticUserError, NameError):
        return None


def _typed_dict(as_: Any) -> Callable[[Tuple[str, ...]], Maker]:
    # Before Python 3.12 pydantic takes those of typing_extensions alone, so it is given
    # one like it, whatever the caller's is.
    try:
        fields = {
            name: hint if name in as_.__required_keys__ else typing_extensions.NotRequired[hint]
            for name, hint in typing_extensions.get_type_hints(as_).items()
        }
        kind = typing_extensions.TypedDict(as_.__name__, fields)  # type: ignore[misc]
        validate = TypeAdapter(kind).validate_python
        validate_all = TypeAdapter(List[kind]).validate_python
    except (PydanticUserError, NameError) as error:
        raise ParameterError(f"rows cannot be made as {as_.__name__}: {error}") from error

    def fit(columns: Tuple[str, ...]) -> Maker:
        _demand(
            as_,
            [name for name in fields if name in as_.__required_keys__ and name not in columns],
            [],
        )
        return Maker(validate, True, validate_all)

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
