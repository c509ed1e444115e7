"""``manage.py migrate_shards``"""

from typing import Any, List

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser

from .....operations.places import Databases
from ....wsgi import open_at_first_use
from ... import options
from ...databases import alias_of


class Command(BaseCommand):
    """Runs ``migrate`` on every shard, one after the other, as the only one who does.

    After an error no further shard is begun. Run it again when the cause is mended.
    """

    help = "Migrates the applications of DUALDB['SHARDED_APPS'] on every shard."

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the arguments.

        Args:
            parser: Of the command line.
        """
        parser.add_argument("app_label", nargs="?", help="an application")
        parser.add_argument("migration_name", nargs="?", help="a migration, or zero")
        parser.add_argument("--shards", default="all", help="1,3; all by default")
        parser.add_argument("--fake", action="store_true", help="record it alone")
        parser.add_argument(
            "--lock-timeout", type=float, default=30.0, help="seconds to wait for another runner"
        )

    def handle(self, *args: Any, **options_: Any) -> None:
        """Run the command.

        Args:
            args: None.
            options_: The arguments.
        """
        service = options.service()
        open_at_first_use(service)
        asked = options_["shards"]
        chosen = asked if asked == "all" else [int(each) for each in asked.split(",")]
        places = Databases(service).chosen(chosen)
        arguments = [options_[name] for name in ("app_label", "migration_name") if options_[name]]
        name = f"dualdb:django:{service.global_config.database}"[:64]
        done: List[str] = []
        with service.lock(name, timeout=options_["lock_timeout"]) as lock:
            for place in places:
                lock.check()
                self.stdout.write(f"shard {place.name}:")
                alias = alias_of(int(place.name))
                try:
                    call_command(
                        "migrate",
                        *arguments,
                        database=alias,
                        fake=options_["fake"],
                        interactive=False,
                        verbosity=options_["verbosity"],
                        stdout=self.stdout,
                    )
                except Exception as error:
                    raise CommandError(
                        f"the migration failed on shard {place.name} "
                        f"(done: {', '.join(done) or 'none'}): {error}"
                    ) from error
                done.append(place.name)
