"""Models and their databases."""

from typing import Any, Optional

from ... import errors
from ...api import session_scope
from ...api.interfaces import route_of
from ...execution import execute
from ...sync_impl.runner import run_plan, run_step
from ..wsgi import open_at_first_use
from . import options
from .databases import DEFAULT, alias_of


class Router:
    """The database of a model: for the applications in ``DUALDB["SHARDED_APPS"]`` the
    one of ``db.scope``, for others ``default``.

    ``using("shard_2")`` names another one. An object's relations are on its own
    database.

    Example:
        >>> DATABASE_ROUTERS = ["dualdb.integrations.django.Router"]
    """

    def db_for_read(self, model: Any, **hints: Any) -> Optional[str]:
        """Choose the database of a query.

        Args:
            model: Its model.
            hints: Django's.

        Raises:
            InterfaceError: The model is on the shards, and there is no scope.
        """
        if model._meta.app_label not in options.sharded_apps():
            return None
        instance = hints.get("instance")
        if instance is not None and instance._state.db is not None:
            found: str = instance._state.db
            return found
        service = options.service()
        open_at_first_use(service)
        scope = session_scope.innermost(service)
        if scope is None:
            raise errors.InterfaceError(
                f"{model.__name__} is on the shards, and there is no current one: call it inside "
                'db.scope(...), or name a database, as by using("shard_2")'
            )
        # Not the scope's own shard id: a shard that this process does not know yet is
        # looked up first.
        client = run_plan(execute.resolve_route(route_of(scope.target)), run_step)
        return alias_of(client.shard_id)

    db_for_write = db_for_read

    def allow_relation(self, obj1: Any, obj2: Any, **hints: Any) -> Optional[bool]:
        """Allow relations inside one database alone.

        Args:
            obj1: An object.
            obj2: Another.
            hints: Django's.
        """
        apps = options.sharded_apps()
        if {obj1._meta.app_label, obj2._meta.app_label} & apps:
            return bool(obj1._state.db == obj2._state.db)
        return None

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool:
        """Have the tables of sharded applications on the shards, others on ``default``.

        Args:
            db: The alias of a database.
            app_label: The application.
            hints: Django's.
        """
        return (db != DEFAULT) == (app_label in options.sharded_apps())
