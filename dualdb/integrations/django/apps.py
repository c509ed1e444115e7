"""The application, for ``INSTALLED_APPS``."""

from django.apps import AppConfig


class DualDBConfig(AppConfig):
    """Adds ``manage.py migrate_shards``."""

    name = "dualdb.integrations.django"
    label = "dualdb"
    verbose_name = "dualdb"
