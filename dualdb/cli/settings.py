"""Where the command finds its database: the URL, the environment, or a TOML file."""

import importlib
import os
import pathlib
import sys
from typing import Any, Callable, Dict, Mapping, NamedTuple, Optional
from urllib.parse import urlsplit

from ..config import DatabaseConfig, names_a_field
from ..coordination.outbox import OutboxTable
from ..directory.sources import HashBuckets, KeyFunction, LookupTable, Source
from ..topology.replicas import ReplicaOptions

#: Read from the working directory if nothing else names a database.
DEFAULT_FILE = "dualdb.toml"

_SECTIONS = {"database", "service", "directory", "tenant", "outbox", "replicas"}
_SERVICE = {
    "absent_shard",
    "shard_table",
    "refresh_interval",
    "drain_timeout",
    "allowed_hosts",
    "allowed_references",
    "max_shards",
    "max_staleness",
    "worker_table",
}


class SettingsError(ValueError):
    """The settings name no database, or are wrong. The message shows no value."""


class Settings(NamedTuple):
    """What the command works on.

    Attributes:
        config: The global database.
        service: Options of the DatabaseService.
        directory: The table ``[directory]`` of the TOML file: where keys are found.
        tenant: The table ``[tenant]``: where the rows of a tenant are.
        outbox: The table ``[outbox]``: where events are, if that is not
            ``dualdb_outbox``.
        replicas: The table ``[replicas]``: how replicas are used; see ReplicaOptions.
    """

    config: DatabaseConfig
    service: Mapping[str, Any]
    directory: Mapping[str, Any]
    tenant: Mapping[str, Any]
    outbox: Mapping[str, Any] = {}
    replicas: Mapping[str, Any] = {}


def load(
    url: Optional[str], file: Optional[str], environ: Mapping[str, str] = os.environ
) -> Settings:
    """The settings: ``--url``, else ``--config``, else the environment, else
    ``dualdb.toml`` in the working directory.

    The file's ``[service]`` and ``[directory]`` are used with each of them.

    Raises:
        SettingsError: There are none, or they are wrong.
    """
    path = file or (DEFAULT_FILE if os.path.isfile(DEFAULT_FILE) else None)
    document = {} if path is None else _read(path)
    names = ("service", "directory", "tenant", "outbox", "replicas")
    sections = [document.get(name, {}) for name in names]
    named = any(names_a_field(name) for name in environ)
    try:
        if url is not None:
            config = _from_url(url, environ)
        elif file is None and named:
            config = DatabaseConfig.from_env(environ=environ)
        elif path is not None and "database" in document:
            config = _from_table(document["database"])
        else:
            raise SettingsError(
                "no database is given: use --url, set DUALDB_URL, or write dualdb.toml"
            )
    except SettingsError:
        raise
    except ValueError as error:
        raise SettingsError(one_line(error)) from None
    return Settings(config, *sections)


def function(name: str) -> Callable[..., Any]:
    """The function that ``package.module:function`` names; modules of the working
    directory can be imported.

    Raises:
        SettingsError: There is none.
    """
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise SettingsError(f"a function is named module:function, not {name!r}")
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise SettingsError(f"{name}: {error}") from None
    if not callable(found):
        raise SettingsError(f"{name} is not a function")
    return found  # type: ignore[no-any-return]


def directory_source(table: Mapping[str, Any]) -> Source:
    """Where the shards of keys are found, by the section ``[directory]``.

    ``kind`` is "table" (the default), "buckets" or "function"; the other entries are
    the arguments of LookupTable, HashBuckets or KeyFunction, a function being named
    ``module:function``.

    Raises:
        SettingsError: The section is wrong.
    """
    arguments = dict(table)
    kind = arguments.pop("kind", "table")
    sources: Dict[str, Callable[..., Source]] = {
        "table": LookupTable,
        "buckets": HashBuckets,
        "function": KeyFunction,
    }
    if kind not in sources:
        raise SettingsError(f"[directory]: kind must be table, buckets or function, not {kind!r}")
    if kind == "function":
        arguments["function"] = function(str(arguments.get("function", "")))
    try:
        return sources[kind](**arguments)
    except (TypeError, ValueError) as error:
        raise SettingsError(f"[directory]: {error}") from None


def replica_options(table: Mapping[str, Any]) -> ReplicaOptions:
    """How replicas are used, by the section ``[replicas]``.

    Raises:
        SettingsError: The section is wrong.
    """
    try:
        return ReplicaOptions(**table)
    except (TypeError, ValueError) as error:
        raise SettingsError(f"[replicas]: {error}") from None


def outbox_table(table: Mapping[str, Any]) -> OutboxTable:
    """Where events are, by the section ``[outbox]``.

    Raises:
        SettingsError: The section is wrong.
    """
    try:
        return OutboxTable(**table)
    except (TypeError, ValueError) as error:
        raise SettingsError(f"[outbox]: {error}") from None


def _from_url(url: str, environ: Mapping[str, str]) -> DatabaseConfig:
    # So that the password need not be in the list of processes.
    password = environ.get("DUALDB_PASSWORD")
    try:
        given = urlsplit(url).password
    except ValueError:
        given = None  # from_url says what is wrong
    if password is not None and given is None:
        return DatabaseConfig.from_url(url, password=password)
    return DatabaseConfig.from_url(url)


def _from_table(table: Mapping[str, Any]) -> DatabaseConfig:
    fields: Dict[str, Any] = dict(table)
    url = fields.pop("url", None)
    if url is None:
        return DatabaseConfig(**fields)
    return DatabaseConfig.from_url(str(url), **fields)


def _read(path: str) -> Dict[str, Any]:
    toml: Any = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        document: Dict[str, Any] = toml.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise SettingsError(f"{path} is not TOML: {error}") from None
    unknown = document.keys() - _SECTIONS
    if unknown:
        raise SettingsError(
            f"{path}: unknown section [{min(unknown)}]; there are {', '.join(sorted(_SECTIONS))}"
        )
    for section, table in document.items():
        if not isinstance(table, dict):
            raise SettingsError(f"{path}: {section} must be a section [{section}]")
    unknown = document.get("service", {}).keys() - _SERVICE
    if unknown:
        raise SettingsError(f"{path}: unknown option {min(unknown)!r} in [service]")
    return document


def one_line(error: ValueError) -> str:
    """What is wrong with a configuration, without its values; pydantic's own text has
    many lines.
    """
    listed = getattr(error, "errors", None)
    if listed is None:
        return str(error)
    found = listed(include_url=False, include_context=False, include_input=False)
    return "; ".join(
        ": ".join([part for part in (".".join(map(str, each["loc"])), each["msg"]) if part])
        for each in found
    )
