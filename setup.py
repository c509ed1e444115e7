"""Builds the compiled row decoder, which setup.cfg has no words for.

It is optional: without a C compiler, or on another interpreter than CPython, the
package is installed without it and decodes rows in Python. ``DUALDB_PURE=1`` leaves it
out, for a wheel that fits every platform.
"""

import os
import platform

from setuptools import Extension, setup

PURE = os.environ.get("DUALDB_PURE") == "1" or platform.python_implementation() != "CPython"

DECODER = Extension(
    "dualdb.protocol._row_decoder", ["dualdb/protocol/_row_decoder.c"], optional=True
)

setup(ext_modules=[] if PURE else [DECODER])
