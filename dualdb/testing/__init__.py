"""For the tests of applications: databases without servers, a proxy that breaks
connections, and a pytest plugin.

``pytest_plugins = ["dualdb.testing.plugin"]`` in the ``conftest.py`` at the root of the
tests gives the fixtures.
"""

from .fake import Answer, Done, FakeCall, FakeRouter, Rows, Sets
from .proxy import Fault, FaultProxy

__all__ = [
    "Answer",
    "Done",
    "FakeCall",
    "FakeRouter",
    "Fault",
    "FaultProxy",
    "Rows",
    "Sets",
]
