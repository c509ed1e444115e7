"""The compiled row decoder against the Python one, which it must be equal to."""

import contextlib
import datetime
import gc
import importlib
import random
import struct
import sys
import threading
from decimal import Decimal
from typing import Any, List, Tuple

import decoders
import pymysql.err
import pytest

from dualdb import UndecodableText
from dualdb.protocol import compiled_decoder, row_decoder
from dualdb.protocol.response import Response, ResponseOptions

pytestmark = pytest.mark.skipif(
    not compiled_decoder.AVAILABLE,
    reason="the compiled decoder is not built (python setup.py build_ext --inplace)",
)
END = b"\xfe\x00\x00\x02\x00"


def packets(payloads: List[bytes], number: int = 1) -> bytes:
    return b"".join([decoders.packet(each, number + n) for n, each in enumerate(payloads)])


@pytest.mark.parametrize("tuples", [False, True])
@pytest.mark.parametrize("name", sorted(decoders.KINDS))
def test_every_text_of_every_kind_and_charset(name: str, tuples: bool) -> None:
    kind = decoders.KINDS[name]
    for encoding in decoders.ENCODINGS:
        both = decoders.pair((name,), encoding, tuples)
        for text in [None, *kind.usual, *kind.odd]:
            data = packets([decoders.length_encoded(text), END])
            (ended, rows) = decoders.compare(both, data)
            assert rows or isinstance(ended[0], type), text


def random_kinds(rng: random.Random) -> Tuple[str, ...]:
    count = rng.choice((1, 2, 5, 5, 20, 99, 100, 101, 300))
    return tuple(rng.choices(sorted(decoders.KINDS), k=count))


@pytest.mark.slow
def test_generated_rows(seed: int) -> None:
    rng = random.Random(seed)
    decoded = 0
    for _ in range(25):
        kinds = random_kinds(rng)
        both = decoders.pair(kinds, rng.choice(decoders.ENCODINGS), rng.random() < 0.5)
        for odd in (0, 0, 0.1 / len(kinds)):
            number = rng.randrange(256)
            data = packets([decoders.row(rng, kinds, odd) for _ in range(20)] + [END], number)
            _, rows = decoders.compare(both, data, number=number)
            decoded += len(rows)
            for _ in range(5):  # an answer that has not come whole, or begins elsewhere
                cut = rng.randrange(len(data))
                decoders.compare(both, data[:cut], number=number)
                decoders.compare(both, data, rng.randrange(len(data)), rng.randrange(256))
    assert decoded > 200


def test_rows_gone_wrong(seed: int) -> None:
    rng = random.Random(seed)
    kinds = ("integer 8", "VARCHAR", "DECIMAL", "DATETIME", "TIME", "BLOB")
    errors = 0
    for _ in range(3000):
        both = decoders.pair(kinds, "utf8", rng.random() < 0.5)
        data = bytearray(packets([decoders.row(rng, kinds, 0) for _ in range(3)] + [END]))
        del data[2000:]
        for _ in range(rng.choice((1, 1, 2, 8))):
            data[rng.randrange(len(data))] = rng.choice((0, 1, 250, 251, 252, 253, 254, 255, 45))
        ended, _ = decoders.compare(both, bytes(data))
        errors += isinstance(ended[0], type)
    assert errors > 500


def test_bytes_at_random(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(5000):
        decoders.fuzz_one(rng.randbytes(rng.choice((4, 8, 16, 60, 400))))
        mutated = bytearray(decoders.fuzz_seed(rng)[:600])
        mutated[rng.randrange(len(mutated))] = rng.randrange(256)
        decoders.fuzz_one(bytes(mutated))


@pytest.mark.slow
def test_sizes_at_each_edge() -> None:
    both = decoders.pair(("BLOB", "integer 3"), "utf8", False)
    for size in (0, 249, 250, 251, 255, 256, 65_535, 65_536, 0xFFFFFF - 7, 0xFFFFFF - 6):
        row = decoders.length_encoded(b"x" * size) + b"\x017"
        (position, number, over), _ = decoders.compare(both, packets([row, row, END]))
        expected = 0 if len(row) == 0xFFFFFF else 2  # it goes on in another packet
        assert (position, number, over) == (
            expected * (len(row) + 4),
            1 + expected,
            bool(expected),
        )


def test_a_response_split_anywhere(seed: int) -> None:
    rng = random.Random(seed)
    names = sorted(decoders.KINDS)
    definitions = [decoders.definition(name, decoders.KINDS[name]) for name in names]
    rows = [decoders.row(rng, names, 0) for _ in range(20)]
    data = packets([bytes([len(names)]), *definitions, END, *rows, END])
    results = []
    for compiled in (True, False):
        for sizes in ([len(data)], [1, 3, 60, 5000], [1000]):
            response = Response(ResponseOptions("utf8", compiled=compiled))
            position, complete = 0, False
            while not complete:
                size = rng.choice(sizes)
                complete = response.feed(data[position : position + size])
                position += size
            results.append([decoders.typed(row) for row in response.results[0].rows])
    assert len(results[0]) == 20
    assert all(each == results[0] for each in results)


@pytest.mark.parametrize("value", [b"\xff", b"\xc3"])
def test_text_that_cannot_be_decoded(value: bytes) -> None:
    column = decoders.definition("c", decoders.KINDS["VARCHAR"])
    data = packets([b"\x01", column, END, b"\x01a", decoders.length_encoded(value), END])
    raised = []
    for compiled in (True, False):
        response = Response(ResponseOptions("utf8", compiled=compiled))
        with pytest.raises(UndecodableText) as caught:
            response.feed(data)
        assert response.complete
        assert response.results[0].rows == [{"c": "a"}]
        raised.append((type(caught.value), caught.value.args))
    assert raised[0] == raised[1]


def test_a_row_that_is_malformed_has_the_same_error() -> None:
    column = decoders.definition("c", decoders.KINDS["integer 8"])
    for bad in (b"", b"\x05123", b"\x011\x012", b"\x01x", b"\xfc\x01", b"\xfe" + b"\xff" * 8):
        raised = []
        for compiled in (True, False):
            response = Response(ResponseOptions("utf8", compiled=compiled))
            with pytest.raises(pymysql.err.OperationalError) as caught:
                response.feed(packets([b"\x01", column, END, b"\x011", bad, END]))
            raised.append(caught.value.args)
        assert raised[0] == raised[1]


def extension() -> Any:
    return importlib.import_module("dualdb.protocol._row_decoder")


def reader(converter: Any = int, fallback: Any = None, kind: Any = None) -> Any:
    module = extension()
    codec = (module.CONVERT if kind is None else kind, None, converter)
    return module.RowReader(("a", "b"), (codec, codec), fallback or print, False)


def test_arguments_are_checked() -> None:
    module = extension()
    for arguments in [
        ((), (), print, False),
        (("a",), (), print, False),
        (("a",), ((99, None, int),), print, False),
        (("a",), ((-1, None, int),), print, False),
        (("a",), ((module.ENCODED, None, int),), print, False),
        (("a",), ((module.UTF8, "utf\0", int),), print, False),
        (("a", "a"), ((module.UTF8, None, int),) * 2, print, False),
    ]:
        with pytest.raises(ValueError, match=r"."):
            module.RowReader(*arguments)
    for wrong in [
        ((1,), ((0, None, int),), print, False),
        (("a",), (0,), print, False),
        (("a",), ((0,),), print, False),
        (["a"], ((0, None, int),), print, False),
        ((), ()),
    ]:
        with pytest.raises(TypeError):
            module.RowReader(*wrong)
    read = reader().read
    for position, end, number in [(-1, 4, 1), (5, 4, 1), (0, 5, 1), (0, 4, 256)]:
        with pytest.raises(ValueError, match="out of range"):
            read(b"1234", position, end, number, [])
    unfit: List[Any] = [
        (b"", 0, 0, 1),
        (b"", 0, 0, 1, ()),
        ("", 0, 0, 1, []),
        (b"", None, 0, 1, []),
    ]
    for each in unfit:
        with pytest.raises(TypeError):
            read(*each)
    with pytest.raises(OverflowError):
        read(b"", 0, 0, -1, [])


class Interrupt(BaseException):
    pass


@pytest.mark.parametrize("error", [Interrupt, KeyboardInterrupt, MemoryError])
def test_what_is_no_error_of_a_value_is_not_tried_again(error: type) -> None:
    def converter(value: bytes) -> Any:
        raise error

    def fallback(*args: Any) -> Any:
        raise AssertionError

    with pytest.raises(error):
        reader(converter, fallback).read(packets([b"\x011\x012"]), 0, 8, 1, [])


@pytest.mark.slow
def test_a_converter_may_do_anything_to_the_rows_and_the_buffer() -> None:
    data = bytearray(packets([b"\x011\x00", b"\x013\x014"]))
    rows: List[Any] = []

    def converter(value: bytes) -> Any:
        rows.clear()
        data[:] = bytes(len(data))
        with pytest.raises(BufferError):
            data.clear()
        gc.collect()
        return value

    # The headers are gone: the packet that would come next is out of sequence.
    assert reader(converter).read(data, 0, 15, 1, rows) == (7, 2, False)
    assert rows == [{"a": b"1", "b": b""}]
    data.clear()  # nobody holds it any more
    data += packets([b"\x07"])
    assert reader(converter, lambda *arguments: "fallback").read(data, 0, 5, 1, []) == "fallback"
    data.clear()


@pytest.mark.slow
def test_nothing_is_leaked(seed: int) -> None:
    rng = random.Random(seed)
    kinds = tuple(sorted(decoders.KINDS))
    inputs: List[Tuple[Any, bytes]] = []
    for name in (*[(kind,) for kind in kinds], kinds):
        for tuples in (False, True):
            both = decoders.pair(name, "utf8", tuples)
            rows = [decoders.row(rng, name, 0.3) for _ in range(5)]
            inputs += [(both.compiled, packets([row, END])) for row in rows]
            inputs += [(both.compiled, packets([row[:-1] or b"\xfc", END])) for row in rows]
            inputs += [(both.compiled, packets([row + b"\x011", END])) for row in rows]

    def decode() -> None:
        for read, data in inputs:
            try:
                read(data, 0, len(data), 1, [])
            except Exception as error:
                error.__traceback__ = None

    def blocks_and_references() -> List[int]:
        gc.collect()
        watched = (Decimal, "c0", *[read.__self__ for read, _ in inputs])
        return [sys.getallocatedblocks(), *[sys.getrefcount(each) for each in watched]]

    decode()
    before = blocks_and_references()
    for _ in range(200):
        decode()
    # What one input leaks, it has leaked 200 times.
    lost = [now - then for now, then in zip(blocks_and_references(), before)]
    assert max(lost) < 150, lost
    assert min(lost[1:]) > -150, lost


@pytest.mark.slow
def test_a_reader_gives_back_what_it_was_made_of() -> None:
    module = extension()
    names, fallback = ("a", "b"), object()
    codecs = tuple([(module.CONVERT, None, int)] * 2)

    def references() -> List[int]:
        gc.collect()
        capsule = getattr(datetime, "datetime_CAPI")  # noqa: B009 - its stub has none
        held = (names, codecs, fallback, module.RowReader, capsule)
        return [sys.getallocatedblocks(), *[sys.getrefcount(each) for each in held]]

    def make() -> None:
        for tuples in (False, True):
            module.RowReader(names, codecs, fallback, tuples)
            for wrong in ((names[:1], codecs), (names, (codecs[0], 1))):
                with contextlib.suppress(TypeError, ValueError):
                    module.RowReader(*wrong, fallback, tuples)

    make()
    before = references()
    for _ in range(500):
        make()
    # What is lost in each round is lost 500 times; caches grow, too.
    lost = [now - then for now, then in zip(references(), before)]
    assert max(lost) < 300, lost


@pytest.mark.slow
def test_a_reader_is_collected_with_what_it_holds() -> None:
    class Converter:
        reader: Any = None

        def __call__(self, value: bytes) -> Any:
            return value

    converter = Converter()
    converter.reader = reader(converter)
    assert converter.reader.read(packets([b"\x011\x012"]), 0, 8, 1, []) == (8, 2, False)
    gc.collect()
    before = len([each for each in gc.get_objects() if type(each) is Converter])
    del converter
    gc.collect()
    after = len([each for each in gc.get_objects() if type(each) is Converter])
    assert (before, after) == (1, 0)


def test_several_threads_share_a_reader() -> None:
    kinds = ("integer 8", "VARCHAR", "DECIMAL", "DATETIME", "BLOB")
    both = decoders.pair(kinds, "utf8", False)
    payload = b"".join(
        [decoders.length_encoded(decoders.KINDS[name].usual[0] or b"a") for name in kinds]
    )
    data = packets([payload] * 200, 1)
    found: List[Any] = []

    def decode() -> None:
        found.extend([decoders.outcome(both.compiled, data, 0, 1) for _ in range(20)])

    threads = [threading.Thread(target=decode) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 80
    expected = decoders.outcome(both.python, data, 0, 1)
    assert all(each == expected for each in found)


def test_python_is_taken_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    definitions = decoders.packet(decoders.definition("c", decoders.KINDS["integer 8"]), 2)

    def kind(**options: Any) -> str:
        return type(row_decoder.row_decoder_of(definitions, "utf8", **options).read).__name__

    assert kind() == kind(compiled=True) == "builtin_function_or_method"
    assert kind(compiled=False) == "function"
    monkeypatch.setattr(compiled_decoder, "AVAILABLE", False)
    assert kind() == "function"


def test_which_decoder_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def names(*, driver_fits: bool) -> List[str]:
        choices = ("auto", "python", "driver")
        return [row_decoder.decoder_name(each, driver_fits=driver_fits) for each in choices]

    assert names(driver_fits=True) == ["compiled", "python", "driver"]
    assert names(driver_fits=False) == ["driver"] * 3
    monkeypatch.setattr(compiled_decoder, "AVAILABLE", False)
    assert names(driver_fits=True) == ["python", "python", "driver"]


def test_the_length_of_a_value_is_no_address() -> None:
    both = decoders.pair(("BLOB",), "utf8", True)
    for size in (9, 10, 1 << 31, 1 << 32, 1 << 63, (1 << 64) - 1, (1 << 64) - 9):
        row = b"\xfe" + struct.pack("<Q", size) + b"x" * 8
        ended, rows = decoders.compare(both, packets([row, END]))
        assert (ended[0], rows) == (row_decoder.Malformed, [])
