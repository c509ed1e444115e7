"""Fixtures of the tests of the protocol."""

import pytest

from dualdb.protocol import compiled_decoder


@pytest.fixture(params=["compiled", "python"])
def each_decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The test runs with either decoder of rows."""
    if request.param == "compiled" and not compiled_decoder.AVAILABLE:
        pytest.skip("the compiled decoder is not built (python setup.py build_ext --inplace)")
    monkeypatch.setattr(compiled_decoder, "AVAILABLE", request.param == "compiled")
    return str(request.param)
