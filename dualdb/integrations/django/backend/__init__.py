"""A database engine for Django over a service's pools."""

import sys

import pymysql.constants.CLIENT
import pymysql.constants.FIELD_TYPE
import pymysql.converters
from django.core.exceptions import ImproperlyConfigured

if sys.modules.get("MySQLdb", pymysql) is not pymysql:
    raise ImproperlyConfigured(
        "this engine uses PyMySQL, and mysqlclient has been imported: use one of them in a process"
    )
# Not pymysql.install_as_MySQLdb(), which lets Django import PyMySQL's modules a second
# time, with exceptions that nobody catches.
for _name in [each for each in sys.modules if each.partition(".")[0] == "pymysql"]:
    sys.modules[_name.replace("pymysql", "MySQLdb", 1)] = sys.modules[_name]
