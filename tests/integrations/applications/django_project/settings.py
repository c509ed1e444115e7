"""Settings of a Django project whose models are on shards."""

from django_project.shards import db
from dualdb.integrations.django import databases

SECRET_KEY = "not one"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "django_project.urls"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "dualdb.integrations.django",
    "django_project.trading",
]
MIDDLEWARE = ["dualdb.integrations.django.DatabaseMiddleware"]
DATABASES = databases(db)
DATABASE_ROUTERS = ["dualdb.integrations.django.Router"]
DUALDB = {
    "SERVICE": "django_project.shards.db",
    "ASYNC_SERVICE": "django_project.shards.adb",
    "SESSION": "django_project.shards.client_session",
    "TIMEOUT": 10,
    "SHARDED_APPS": ["trading"],
}
