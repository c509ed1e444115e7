"""The group of all commands."""

import click

from .. import __version__
from .base import Root, common_options


@click.group(
    name="dualdb",
    cls=Root,
    params=common_options(),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="dualdb")
def root() -> None:
    """See, change and check a sharded MySQL or MariaDB.

    The database is given by --url, by the environment (DUALDB_URL, or DUALDB_HOST,
    DUALDB_USER and so on), or by a file dualdb.toml.

    Exit codes: 0 done; 1 a problem was found; 2 wrong usage or settings; 3 a database
    cannot be reached; 4 refused, by a server or by dualdb; 5 the outcome of a write is
    unknown; 130 interrupted.
    """
