"""Builds the compiled modules, which setup.cfg has no words for.

They are optional: without a C compiler, or on another interpreter than CPython, the
package is installed without them and does the same in Python. ``DUALDB_PURE=1`` leaves
them out, for a wheel that fits every platform.
"""

import os
import platform

from setuptools import Extension, setup

PURE = os.environ.get("DUALDB_PURE") == "1" or platform.python_implementation() != "CPython"

COMPILED = [
    Extension("dualdb.protocol._row_decoder", ["dualdb/protocol/_row_decoder.c"], optional=True)
]
if os.name == "posix":
    COMPILED.append(Extension("dualdb._poll", ["dualdb/_poll.c"], optional=True))

setup(ext_modules=[] if PURE else COMPILED)
