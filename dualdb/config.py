"""Configuration of a database and its pool, shared by threads and asyncio."""

import functools
import os
import re
from difflib import get_close_matches
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Dict,
    Literal,
    Mapping,
    Optional,
    Tuple,
    TypeVar,
    cast,
)
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    SerializationInfo,
    ValidationError,
    field_serializer,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails
from pymysql.charset import charset_by_name

from .hosts import Address, addresses, parse_entries, plain_host
from .passwords import LookedUpPassword, Password, as_secret

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

#: Isolation levels, as the servers spell them.
IsolationLevel = Literal["READ UNCOMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]

#: Schemes of a database URL, and the driver names that other libraries add to them.
URL_SCHEMES = ("mysql", "mariadb")
URL_DRIVERS = ("pymysql", "aiomysql", "mysqldb", "mysqlconnector", "asyncmy", "mariadbconnector")

#: TLS modes, named as in MySQL's ``--ssl-mode``. "preferred" uses TLS if the server
#: offers it and does not verify the certificate; "required" refuses a server without
#: TLS; "verify_ca" also verifies the certificate's issuer, "verify_identity" the host
#: name in it as well.
SslMode = Literal["disabled", "preferred", "required", "verify_ca", "verify_identity"]

#: Which of several hosts is used. "primary": one that accepts writes; "primary_first":
#: one that does if there is one, and otherwise one that accepts reads; "any": any that
#: accepts reads, in turn.
EndpointPolicy = Literal["primary", "primary_first", "any"]

#: The kinds of server, which differ in what they can do; "auto" asks each.
Engine = Literal[
    "auto",
    "mysql",
    "mariadb",
    "galera",
    "group_replication",
    "spider",
    "tidb",
    "vitess",
    "proxysql",
]


def _keeps_arguments_secret(function: FunctionT) -> FunctionT:
    """Decorate a function that is given a password, under whatever name: an error that
    it raises has none of its frames, whose local variables would show the password.
    """

    @functools.wraps(function)
    def call(*args: object, **named: object) -> object:
        try:
            return function(*args, **named)
        except Exception as error:
            failure = error.with_traceback(None)
        del args, named
        raise failure

    return cast(FunctionT, call)


class DatabaseConfig(BaseModel):
    """One database and its connection pool. Immutable; all times are in seconds.

    The first nine fields and their defaults are those of the original service. Create
    it from keywords, or with ``from_url`` or ``from_env``.

    Attributes:
        type: "mysql", for MySQL and MariaDB alike.
        host: Name or address of the server; or several, as ``"n1:3306,n2,n3"``, that
            stand behind one name: the members of a cluster, a primary and its replicas.
            An IPv6 address with a port is in brackets.
        port: TCP port, also of the hosts that name none.
        endpoint_policy: Which of several hosts is used; see ``EndpointPolicy``.
        engine: The kind of server; "auto" finds it out when a connection is opened.
        buffer_timeout: How long a call that has not been sent waits until its database
            can be used again: while another primary is elected among several hosts,
            while its shard is ``moving``, and while a move keeps writes to its tenant
            off.
        max_in_flight: The most calls of one database that are in progress in this
            process, those included that wait for a connection; another one is refused
            at once (Overloaded). None for no limit.
        buffer_size: The most calls that wait so for one of these; another one fails at
            once.
        replicas: Its replicas, as ``"r1:3306,r2"``, which ``read`` uses. Those of the
            shards are in a table; see ``ReplicaOptions``.
        unix_socket: Path of a unix socket, used in place of host and port.
        database: The database's name on the server.
        user: The account name.
        password: A SecretStr, never shown. May also be given as ``env:NAME`` or
            ``file:PATH``, or as a function without arguments that returns it: these are
            resolved for each new connection, so that the password can be rotated
            without a restart. In asyncio they are resolved in a thread.
        charset: The connection's character set, by MySQL's name.
        pool_size: The most connections that are kept open when idle.
        max_overflow: Connections beyond these under load, closed after use; at most
            ``pool_size + max_overflow`` are ever open.
        pool_timeout: The longest wait for a free connection.
        max_connections_per_server: The most connections of this process to one server,
            over all databases on it and all services; None for no limit. Each of
            several hosts is a server. At the limit an idle connection of another
            database is closed, or the caller waits.
        server_limits: The same for single servers, by "host:port". In a URL or a
            variable: "db2:3306=40,db3:3306=20".
        warm_up: Connections opened with the pool, at most ``pool_size``; 0 connects
            when it is first used.
        max_lifetime: The maximum age of a pooled connection; None for no limit. Each
            expires at a random point in the last tenth of this time.
        max_idle: The maximum time that an unused connection is kept; None for no limit.
        leak_threshold: A connection that is checked out for longer is logged with the
            code location of its checkout; None to log none.
        connect_timeout: One limit over TCP, TLS, authentication and session set-up.
        reset_after_call: Reset the session after each procedure call, for procedures
            that leave locks or user variables which the server does not report. The
            caller does not wait for it; the server executes three more commands.
        row_decoder: The decoder of rows; all produce the same values. "auto": this
            package's decoder, compiled if it was built and in Python otherwise;
            "python": the one in Python; "driver": PyMySQL or aiomysql, which are
            slower. The driver is also used if its release is incompatible with the
            package's decoder.
        max_rows: A result of more rows raises TooManyRows before it fills the memory;
            None for no limit. It does not apply to ``stream``. With the driver's
            decoder, rows are counted after all have been received.
        read_timeout: The maximum time without data from the server while a response is
            awaited; None for no limit.
        write_timeout: The maximum time that sending a statement may block; None for no
            limit.
        ssl_mode: The TLS mode; see ``SslMode``.
        ssl_ca: PEM file with trusted authorities. It turns the modes "preferred" and
            "required" into "verify_ca". Without it the verifying modes trust the
            system's authorities.
        ssl_cert: PEM file with the client's certificate.
        ssl_key: PEM file with the key of ``ssl_cert``.
        server_public_key: PEM file with the server's RSA key, for
            ``caching_sha2_password`` and ``sha256_password`` without TLS.
        get_server_public_key: Without TLS, encrypt the password with any RSA key that
            the server presents. False allows this on loopback only.
        init_command: A statement executed first in each session.
        time_zone: The session's time zone: an offset such as "+00:00", or a name.
        sql_mode: The session's ``sql_mode``, a list of words separated by commas.
        isolation: The session's isolation level, "READ COMMITTED" for instance.
        reset: When a session is reset after use: "changed" if a statement changed it;
            "always" after each use, recommended if tenants share servers.
        pool: "standard" keeps ``pool_size`` connections open; "null" keeps none, for
            scripts and behind a pooling proxy. The connection limit is the same.

    Raises:
        pydantic.ValidationError: (A ValueError.) It names each invalid, missing or
            unknown field, and never contains a value.

    Example:
        >>> DatabaseConfig(database="app", user="app", password="env:DUALDB_PW").port
        3306
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    type: Literal["mysql"] = "mysql"
    host: str = Field(
        default="localhost", min_length=1, max_length=4096, pattern=r"^[^\s/@\x00-\x1f\x7f]+$"
    )
    port: int = Field(default=3306, ge=1, le=65535)
    database: str = Field(min_length=1, max_length=64, pattern=r"^[^\x00]+$")
    user: str = Field(min_length=1, pattern=r"^[^\x00]+$")
    password: Password
    charset: str = "utf8mb4"
    pool_size: int = Field(default=10, ge=1)
    max_overflow: int = Field(default=20, ge=0)
    pool_timeout: float = Field(default=30.0, gt=0)
    max_connections_per_server: Optional[int] = Field(default=None, ge=1)
    server_limits: Mapping[str, int] = Field(default={}, validate_default=False)
    warm_up: int = Field(default=1, ge=0)
    max_lifetime: Optional[float] = Field(default=1800.0, gt=0)
    max_idle: Optional[float] = Field(default=600.0, gt=0)
    leak_threshold: Optional[float] = Field(default=None, gt=0)
    connect_timeout: float = Field(default=10.0, gt=0)
    reset_after_call: bool = False
    row_decoder: Literal["auto", "python", "driver"] = "auto"
    max_rows: Optional[int] = Field(default=None, ge=1)
    read_timeout: Optional[float] = Field(default=None, gt=0)
    write_timeout: Optional[float] = Field(default=None, gt=0)
    unix_socket: Optional[str] = None
    ssl_mode: SslMode = "preferred"
    ssl_ca: Optional[str] = None
    ssl_cert: Optional[str] = None
    ssl_key: Optional[str] = None
    server_public_key: Optional[str] = None
    get_server_public_key: bool = False
    init_command: Optional[str] = Field(default=None, pattern=r"^[^\x00]*[^\x00;\s][^\x00]*$")
    time_zone: Optional[str] = Field(
        default=None, pattern=r"^([+-]\d{1,2}:\d{2}|[A-Za-z][A-Za-z0-9_+/-]*)$"
    )
    sql_mode: Optional[str] = Field(default=None, pattern=r"^[A-Za-z0-9_, ]*$")
    isolation: Optional[IsolationLevel] = None
    reset: Literal["changed", "always"] = "changed"
    pool: Literal["standard", "null"] = "standard"
    endpoint_policy: EndpointPolicy = "primary"
    engine: Engine = "auto"
    buffer_timeout: float = Field(default=30.0, ge=0)
    buffer_size: int = Field(default=200, ge=0)
    max_in_flight: Optional[int] = Field(default=None, ge=1)
    replicas: Optional[str] = Field(
        default=None, min_length=1, max_length=4096, pattern=r"^[^\s/@\x00-\x1f\x7f]+$"
    )

    def __hash__(self) -> int:
        return hash((self.address, self.user, self.pool_size, self.max_overflow))

    @model_validator(mode="wrap")
    @classmethod
    def _hide_values(
        cls, values: object, check: Callable[[Any], "DatabaseConfig"]
    ) -> "DatabaseConfig":
        # hide_input_in_errors applies to the message only: errors() and json() would
        # contain the password.
        try:
            return check(values)
        except ValidationError as error:
            found = error.errors(include_url=False)
        shown = [
            InitErrorDetails(
                type=each["type"], loc=each["loc"], input=None, ctx=each.get("ctx", {})
            )
            for each in found
        ]
        raise ValidationError.from_exception_data(cls.__name__, shown, hide_input=True)

    @model_validator(mode="before")
    @classmethod
    def _name_unknown_fields(cls, values: object) -> Any:
        if isinstance(values, Mapping):
            for name in values.keys() - cls.model_fields.keys():
                near = get_close_matches(str(name), cls.model_fields, 1)
                if near:
                    raise ValueError(f"unknown field {name!r}: did you mean {near[0]!r}?")
        return values

    @field_validator("type", mode="before")
    @classmethod
    def _known_type(cls, value: object) -> Any:
        if value != "mysql":
            raise ValueError(
                f"Unsupported database type: {value!r}; use 'mysql' for both MySQL and MariaDB"
            )
        return value

    @field_validator("host", "replicas", mode="before")
    @classmethod
    def _without_spaces(cls, value: object) -> Any:
        if isinstance(value, str) and "," in value:
            return ",".join([part.strip() for part in value.split(",")])
        return value

    @field_validator("host", "replicas")
    @classmethod
    def _parsable_hosts(cls, value: Optional[str]) -> Optional[str]:
        if value is not None:
            parse_entries(value)
        return value

    @field_validator("charset")
    @classmethod
    def _known_charset(cls, value: str) -> str:
        known = charset_by_name(value)
        if known is None:
            raise ValueError(f"unknown charset {value!r}; utf8mb4 covers every character")
        try:
            # A connection's character set must contain ASCII, which excludes UTF-16,
            # and must not be binary.
            if value == "binary" or "1".encode(known.encoding) != b"1":
                raise LookupError
        except LookupError:
            raise ValueError(
                f"charset {value!r} is not supported for a connection; use utf8mb4"
            ) from None
        return value

    @field_validator("password", mode="plain")
    @classmethod
    def _hidden(cls, value: object) -> SecretStr:
        return as_secret(value)

    @field_serializer("password")
    def _masked(self, value: object, info: SerializationInfo) -> Any:
        return str(value) if info.mode == "json" else value

    @field_validator("isolation", mode="before")
    @classmethod
    def _isolation_words(cls, value: object) -> Any:
        if not isinstance(value, str):
            return value
        return re.sub(r"[\s_-]+", " ", value.strip()).upper()

    @field_validator("server_limits", mode="before")
    @classmethod
    def _limits_of_text(cls, value: object) -> Any:
        if not isinstance(value, str):
            return value
        pairs = [part.rpartition("=") for part in value.split(",")]
        found = {server.strip(): number.strip() for server, _, number in pairs}
        if len(found) < len(pairs):
            raise ValueError("gives a server twice")
        return found

    @field_validator("server_limits")
    @classmethod
    def _limits_are_positive(cls, value: Mapping[str, int]) -> Mapping[str, int]:
        found: Dict[str, int] = {}
        for server, limit in value.items():
            if limit < 1 or not re.fullmatch(r"[^\s,]+:\d+|/\S+", server):
                raise ValueError('must be numbers above 0 by "host:port"')
            if not server.startswith("/"):
                (address,) = addresses(server, 0)
                server = str(Address(plain_host(address.host), address.port))
            if server in found:
                raise ValueError(f"gives {server} twice")
            found[server] = limit
        return found

    @model_validator(mode="after")
    def _one_host_has_one_port(self) -> "DatabaseConfig":
        found = addresses(self.host, self.port)
        if len(found) == 1:
            object.__setattr__(self, "host", found[0].host)
            object.__setattr__(self, "port", found[0].port)
            self.model_fields_set.add("port")  # for copies
        return self

    @model_validator(mode="after")
    def _authority_is_used(self) -> "DatabaseConfig":
        if self.ssl_ca is not None and self.ssl_mode in ("preferred", "required"):
            object.__setattr__(self, "ssl_mode", "verify_ca")
        return self

    @model_validator(mode="after")
    def _warm_up_fits(self) -> "DatabaseConfig":
        if self.warm_up > self.pool_size:
            raise ValueError(
                f"warm_up must be at most pool_size ({self.pool_size}), not {self.warm_up}"
            )
        return self

    if not TYPE_CHECKING:  # checkers know the fields from pydantic

        @_keeps_arguments_secret
        def __init__(self, **fields: object) -> None:
            super().__init__(**fields)

        @classmethod
        @_keeps_arguments_secret
        def model_validate(cls, *args: object, **options: object) -> "DatabaseConfig":
            return super().model_validate(*args, **options)

        @classmethod
        @_keeps_arguments_secret
        def model_validate_json(cls, *args: object, **options: object) -> "DatabaseConfig":
            return super().model_validate_json(*args, **options)

    @classmethod
    @_keeps_arguments_secret
    def from_url(cls, url: str, **overrides: object) -> "DatabaseConfig":
        """Create it from ``mysql://user:password@host:3306/database?pool_size=5``.

        ``mariadb://`` is equivalent, and so are the schemes with a driver that other
        libraries use: ``mysql+pymysql://``, ``mysql+aiomysql://``. The driver is
        ignored.

        Args:
            url: The URL. Reserved characters in user, password and database must be
                percent-encoded; query arguments are fields of this class.
            overrides: Fields of this class, which take precedence over the URL.

        Returns:
            The configuration.

        Raises:
            ValueError: The URL is invalid. The message does not contain it, because it
                may include a password.
            pydantic.ValidationError: A field is invalid.

        Example:
            >>> DatabaseConfig.from_url("mysql://app:secret@db1/app_global").address
            'db1:3306/app_global'
        """
        fields: Dict[str, Any] = {}
        problem = _fields_of_url(str(url), fields)
        if problem is not None:
            raise ValueError(problem)
        return cls(**{**fields, **overrides})

    @classmethod
    @_keeps_arguments_secret
    def from_env(
        cls, prefix: str = "DUALDB_", environ: Optional[Mapping[str, str]] = None
    ) -> "DatabaseConfig":
        """Create it from ``DUALDB_URL``, or from ``DUALDB_HOST``, ``DUALDB_USER`` and
        so on, one variable for each field.

        Args:
            prefix: The prefix of the variables' names.
            environ: The variables; by default those of the process. A field's variable
                takes precedence over the URL.

        Returns:
            The configuration.

        Raises:
            ValueError: No variable names a field, or one has the name of a field
                misspelt. Others with this prefix are ignored, because the rows of the
                shard table may refer to them, as in ``env:DUALDB_SHARD_3``.
            pydantic.ValidationError: A field is invalid or missing.

        Example:
            >>> env = {"APP_URL": "mysql://app:secret@db1/app_global"}
            >>> DatabaseConfig.from_env("APP_", env).host
            'db1'
        """
        fields: Dict[str, Any] = {}
        problem = _fields_of_environment(prefix, environ, fields)
        if problem is not None:
            raise ValueError(problem)
        url = fields.pop("url", None)
        if url is None:
            return cls(**fields)
        return cls.from_url(url.get_secret_value(), **fields)

    @property
    def most_idle(self) -> int:
        """The most connections that are kept open when idle."""
        return 0 if self.pool == "null" else self.pool_size

    @property
    def hosts(self) -> Tuple[Address, ...]:
        """The addresses of the server, or of several behind one name, in order."""
        return addresses(self.host, self.port)

    @property
    def servers(self) -> Tuple[str, ...]:
        """``host:port`` of each host, in order, or the socket's path; the same for all
        spellings of an address.
        """
        if self.unix_socket is not None:
            return (self.unix_socket,)
        return tuple([str(Address(plain_host(host), port)) for host, port in self.hosts])

    def limit_at(self, server: str) -> Optional[int]:
        """Return the most connections of this process to a server; None for no limit.

        Args:
            server: One of ``servers``.
        """
        return self.server_limits.get(server, self.max_connections_per_server)

    @property
    def server_limit(self) -> Optional[int]:
        """The most connections of this process to the server, the least of several;
        None for no limit.
        """
        limits = [self.limit_at(server) for server in self.servers]
        return min([each for each in limits if each is not None], default=None)

    @property
    def address(self) -> str:
        """``host:port/database``, or the socket's path with the database."""
        several = ",".join([str(each) for each in self.hosts]) if "," in self.host else None
        return f"{self.unix_socket or several or f'{self.host}:{self.port}'}/{self.database}"

    @_keeps_arguments_secret
    def model_copy(
        self, *, update: Optional[Mapping[str, Any]] = None, deep: bool = False
    ) -> "DatabaseConfig":
        """Return a copy with some fields replaced and validated as in the constructor.

        Args:
            update: The new values, by field name.
            deep: Ignored: the configuration is immutable.
        """
        kept = {name: getattr(self, name) for name in self.model_fields_set}
        return type(self)(**{**kept, **(update or {})})

    def with_sizes(
        self, pool_size: Optional[int] = None, max_overflow: Optional[int] = None
    ) -> "DatabaseConfig":
        """Return a copy with other pool sizes; ``warm_up`` is lowered to fit.

        Args:
            pool_size: Connections kept open when idle; None leaves it.
            max_overflow: Connections beyond these under load; None leaves it.
        """
        changes: Dict[str, Any] = {}
        if pool_size is not None:
            changes.update(pool_size=pool_size, warm_up=min(self.warm_up, pool_size))
        if max_overflow is not None:
            changes["max_overflow"] = max_overflow
        return self.model_copy(update=changes)

    def reveal_password(self) -> str:
        """Return the password in plain text, for authentication.

        Raises:
            ValueError: It is a reference or a function, and could not be resolved.
        """
        secret = self.password
        return secret.get_secret_value() if isinstance(secret, SecretStr) else str(secret)

    @property
    def looks_up_password(self) -> bool:
        """Whether the password is resolved for each connection, which may block."""
        return isinstance(self.password, LookedUpPassword)

    def __reduce_ex__(self, protocol: object) -> Any:
        raise TypeError(
            "a DatabaseConfig contains a password and cannot be pickled: "
            "create it in the other process, for example with from_env"
        )

    def __copy__(self) -> "DatabaseConfig":
        return self

    def __deepcopy__(self, memo: Optional[Dict[int, Any]] = None) -> "DatabaseConfig":
        return self


def _fields_of_url(url: str, fields: Dict[str, Any]) -> Optional[str]:
    """Fill ``fields`` from a URL; return what is wrong with it, or None."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "the address in the database URL is invalid: is the ] of an [IPv6 address] missing?"
    scheme, _, driver = parts.scheme.partition("+")
    if scheme not in URL_SCHEMES or (driver and driver not in URL_DRIVERS):
        return (
            "a database URL must begin with mysql:// or mariadb://, optionally with a driver "
            "as in mysql+pymysql://"
        )
    if "@" in parts.path + parts.query or parts.fragment:
        return (
            "the user, password or database in the database URL has a character that must be "
            "percent-encoded: / is %2F, ? is %3F, # is %23, @ is %40"
        )
    hosts = parts.netloc.rpartition("@")[2]
    try:
        port = None if "," in hosts else parts.port
    except ValueError:
        return "the port in the database URL is not a number from 0 to 65535"
    address = {
        "host": hosts.lower() if "," in hosts else parts.hostname,
        "port": port,
        "database": unquote(parts.path[1:]),
        "user": unquote(parts.username or ""),
        "password": SecretStr(unquote(parts.password or "")),
    }
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    twice = sorted(query.keys() & address.keys())
    if twice:
        return f"{twice[0]} belongs in the URL's address, not in its query"
    fields.update({name: value for name, value in address.items() if value is not None})
    fields.update(query)
    return None


def names_a_field(variable: str, prefix: str = "DUALDB_") -> bool:
    """Whether ``from_env`` takes or refuses a variable. The others it leaves to those
    who use them, such as the rows of the shard table (``env:DUALDB_SHARD_3``).
    """
    if not variable.startswith(prefix):
        return False
    name = variable[len(prefix) :].lower()
    return name in _ENVIRONMENT or _meant_field(name) is not None


#: What a variable's name ends with, or has, that is another secret's.
_OTHER_SECRET = re.compile(r"\d|_password$|^password_")


def _meant_field(name: str) -> Optional[str]:
    """The field of which a name is a misspelling; None if it looks like no field."""
    if _OTHER_SECRET.search(name):
        return None
    near = get_close_matches(name, _ENVIRONMENT, 1, 0.7)
    return near[0] if near else None


def _fields_of_environment(
    prefix: str, environ: Optional[Mapping[str, str]], fields: Dict[str, Any]
) -> Optional[str]:
    """Fill ``fields`` from the environment; return what is wrong with it, or None."""
    source = os.environ if environ is None else environ
    for variable in source:
        if not variable.startswith(prefix):
            continue
        name = variable[len(prefix) :].lower()
        if name in _ENVIRONMENT:
            fields[name] = source[variable]
            continue
        meant = _meant_field(name)
        if meant is not None:
            return (
                f"{prefix}{name.upper()} is not a field of the configuration: "
                f"did you mean {prefix}{meant.upper()}?"
            )
    for name in ("url", "password"):
        if name in fields:
            fields[name] = SecretStr(fields[name])
    if fields:
        return None
    return (
        f"no environment variable names a database: set {prefix}URL, or {prefix}HOST, "
        f"{prefix}DATABASE, {prefix}USER and {prefix}PASSWORD"
    )


#: What a variable may name: the fields, and ``url``.
_ENVIRONMENT = [*DatabaseConfig.model_fields, "url"]
