"""Where a database is and how to reach it: one pydantic model, the same in both
colours.
"""

import os
from difflib import get_close_matches
from typing import Any, Callable, Dict, Literal, Mapping, Optional, Union
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails
from pymysql.charset import charset_by_name

#: TLS by MySQL's own words. "preferred" uses TLS where the server offers it and does
#: not check the certificate; "required" refuses a server without TLS; "verify_ca" also
#: checks the certificate's issuer, "verify_identity" the host name in it as well.
SslMode = Literal["disabled", "preferred", "required", "verify_ca", "verify_identity"]


class DatabaseConfig(BaseModel):
    """One database and its connection pool. Immutable; all times are in seconds.

    The first nine fields and their defaults are the original service's. Made from
    keywords, ``from_url`` or ``from_env``.

    Attributes:
        type: "mysql", for MySQL and MariaDB alike.
        host, port, unix_socket: the address; a unix socket's path is used in place of
            host and port.
        database, user, password: as the server knows them. The password is a SecretStr
            and is never shown.
        charset: the connection's character set, by MySQL's name.
        pool_size: connections kept open once they were needed.
        max_overflow: connections beyond these under load, closed after use; at most
            ``pool_size + max_overflow`` are ever open.
        pool_timeout: the longest wait for a connection to become free.
        warm_up: connections made when the pool is opened, at most ``pool_size``.
        max_lifetime: the greatest age of a pooled connection; None for no limit. Spread
            over its last tenth.
        max_idle: how long a service keeps a connection that nobody uses; None for no
            limit.
        leak_threshold: a connection that is out for longer is logged, with the place
            where it was taken; None to look for none.
        connect_timeout: one limit over TCP, TLS, authentication and session set-up.
        reset_after_call: reset a session after each procedure, for those that leave
            locks or user variables behind of which the server does not tell. Nobody
            waits for it, but the server has three commands more.
        row_decoder: what decodes rows, all to the same values. "auto": this package's
            decoder, compiled if it was built and in Python otherwise; "python": the one
            in Python; "driver": PyMySQL or aiomysql, which are slower. The drivers also
            do it where their release does not fit the package's decoder.
        max_rows: more rows of one result that is read whole are an error (TooManyRows)
            before they fill the memory; None for no limit. A ``stream`` has none. Where
            the drivers read, the rows are counted when they have come.
        read_timeout, write_timeout: the longest silence of the server while an answer
            is awaited, the longest stall while a statement is sent; None for no limit.
        ssl_mode, ssl_ca, ssl_cert, ssl_key: TLS; the files are PEM. Without ``ssl_ca``
            the verify modes trust the system's authorities.

    Raises:
        pydantic.ValidationError: (a ValueError) naming each field that is wrong,
            missing or unknown, and never showing its value.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    type: Literal["mysql"] = "mysql"
    host: str = Field(
        default="localhost", min_length=1, max_length=255, pattern=r"^[^\s/@\x00-\x1f\x7f]+$"
    )
    port: int = Field(default=3306, ge=1, le=65535)
    database: str = Field(min_length=1, max_length=64, pattern=r"^[^\x00]+$")
    user: str = Field(min_length=1, pattern=r"^[^\x00]+$")
    password: Union[SecretStr, str]
    charset: str = "utf8mb4"
    pool_size: int = Field(default=10, ge=1)
    max_overflow: int = Field(default=20, ge=0)
    pool_timeout: float = Field(default=30.0, gt=0)
    warm_up: int = Field(default=1, ge=1)
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

    @model_validator(mode="wrap")
    @classmethod
    def _tell_no_values(
        cls, values: Any, check: Callable[[Any], "DatabaseConfig"]
    ) -> "DatabaseConfig":
        # hide_input_in_errors is for the message alone: errors() and json() would show
        # the password.
        try:
            return check(values)
        except ValidationError as error:
            found = error.errors(include_url=False)
        told = [
            InitErrorDetails(
                type=each["type"], loc=each["loc"], input=None, ctx=each.get("ctx", {})
            )
            for each in found
        ]
        raise ValidationError.from_exception_data(cls.__name__, told, hide_input=True)

    @model_validator(mode="before")
    @classmethod
    def _name_unknown_fields(cls, values: Any) -> Any:
        if isinstance(values, Mapping):
            for name in values.keys() - cls.model_fields.keys():
                near = get_close_matches(str(name), cls.model_fields, 1)
                if near:
                    raise ValueError(f"unknown field {name!r}: did you mean {near[0]!r}?")
        return values

    @field_validator("type", mode="before")
    @classmethod
    def _known_type(cls, value: Any) -> Any:
        if value != "mysql":
            raise ValueError(
                f"Unsupported database type: {value!r}; 'mysql' is the one there is, for MySQL and MariaDB alike"
            )
        return value

    @field_validator("charset")
    @classmethod
    def _known_charset(cls, value: str) -> str:
        known = charset_by_name(value)
        if known is None:
            raise ValueError(f"unknown charset {value!r}; utf8mb4 holds every character")
        try:
            # A connection cannot speak UTF-16 or the like, and no text at all in
            # binary.
            if value == "binary" or "1".encode(known.encoding) != b"1":
                raise LookupError
        except LookupError:
            raise ValueError(
                f"charset {value!r} cannot be a connection's; utf8mb4 holds every character"
            ) from None
        return value

    @field_validator("password")
    @classmethod
    def _hidden(cls, value: Union[SecretStr, str]) -> SecretStr:
        return value if isinstance(value, SecretStr) else SecretStr(value)

    @model_validator(mode="after")
    def _warm_up_fits(self) -> "DatabaseConfig":
        if self.warm_up > self.pool_size:
            raise ValueError(
                f"warm_up is {self.warm_up}, but pool_size is {self.pool_size}: no more are kept"
            )
        return self

    @classmethod
    def from_url(cls, url: str, **overrides: Any) -> "DatabaseConfig":
        """From ``mysql://user:password@host:3306/database?pool_size=5``; ``mariadb://``
        is the same.

        Reserved characters in user, password and database are percent-encoded. Query
        arguments and ``overrides`` are this class's fields.

        Raises:
            ValueError: not such a URL. The message does not show it, for it may hold a
                password.
            pydantic.ValidationError: a field is wrong.
        """
        try:
            parts = urlsplit(url)
        except ValueError:
            raise ValueError(
                "the address in the database URL cannot be read: is an [IPv6 address] left open?"
            ) from None
        if parts.scheme not in ("mysql", "mariadb"):
            raise ValueError("a database URL begins with mysql:// or mariadb://")
        try:
            port = parts.port
        except ValueError:
            raise ValueError(
                "the port in the database URL is not a number from 0 to 65535"
            ) from None
        fields: Dict[str, Any] = {
            "host": parts.hostname,
            "port": port,
            "database": unquote(parts.path[1:]),
            "user": unquote(parts.username or ""),
            "password": unquote(parts.password or ""),
        }
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        twice = sorted(query.keys() & fields.keys())
        if twice:
            raise ValueError(f"{twice[0]} belongs in the URL's address, not in its query")
        return cls(
            **{
                **{name: value for name, value in fields.items() if value is not None},
                **query,
                **overrides,
            }
        )

    @classmethod
    def from_env(
        cls, prefix: str = "DUALDB_", environ: Optional[Mapping[str, str]] = None
    ) -> "DatabaseConfig":
        """From ``DUALDB_URL``, or ``DUALDB_HOST``, ``DUALDB_USER`` and so on, one
        variable a field; a field's variable wins over the URL.

        Raises:
            ValueError: a variable with this prefix names no field.
            pydantic.ValidationError: a field is wrong or missing.
        """
        source = os.environ if environ is None else environ
        fields = {
            name[len(prefix) :].lower(): value
            for name, value in source.items()
            if name.startswith(prefix)
        }
        url = fields.pop("url", None)
        for name in fields:
            if name not in cls.model_fields:
                near = get_close_matches(name, cls.model_fields, 1)
                hint = (
                    f"did you mean {prefix}{near[0].upper()}?"
                    if near
                    else f"the fields are {', '.join(cls.model_fields)}"
                )
                raise ValueError(
                    f"{prefix}{name.upper()} names no field of the configuration: {hint}"
                )
        return cls.from_url(url, **fields) if url is not None else cls(**fields)  # type: ignore[arg-type]

    @property
    def address(self) -> str:
        """``host:port/database``, or the socket's path with the database."""
        return f"{self.unix_socket or f'{self.host}:{self.port}'}/{self.database}"

    def model_copy(
        self, *, update: Optional[Mapping[str, Any]] = None, deep: bool = False
    ) -> "DatabaseConfig":
        """This configuration with other values for some fields, which are checked as in
        the constructor.
        """
        return type(self)(
            **{**{name: getattr(self, name) for name in type(self).model_fields}, **(update or {})}
        )

    def reveal_password(self) -> str:
        """The password in plain text, for the driver that logs in with it."""
        return (
            self.password.get_secret_value()
            if isinstance(self.password, SecretStr)
            else self.password
        )

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(
            "a DatabaseConfig holds a password and is not pickled: let the other process make its own, from_env for instance"
        )

    def __copy__(self) -> "DatabaseConfig":
        return self

    def __deepcopy__(self, memo: Optional[Dict[int, Any]] = None) -> "DatabaseConfig":
        return self
