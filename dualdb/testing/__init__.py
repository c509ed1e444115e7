"""For the tests of applications: a proxy that breaks connections, and a pytest plugin.

``pytest_plugins = ["dualdb.testing.plugin"]`` in the ``conftest.py`` at the root of the
tests gives the fixtures.
"""

from .proxy import Fault, FaultProxy

__all__ = ["Fault", "FaultProxy"]
