"""Parts of the platform without HTTP: text and tree of a query, the index it uses, memory of a long answer, migrations."""

import sqlite3
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamppost_host.errors import LamppostError
from lamppost_host.platform import times
from lamppost_host.platform.database import VERSION, open_writer
from lamppost_host.platform.errors import BadRequest
from lamppost_host.platform.ingest import Ingest
from lamppost_host.platform.model import ENTITY_TYPES
from lamppost_host.platform.odata import syntax
from lamppost_host.platform.odata.parser import parse_filter, parse_path, parse_query
from lamppost_host.platform.odata.unparse import unparse, unparse_query
from lamppost_host.platform.page import leaflet_folder
from lamppost_host.platform.paging import encode_token
from lamppost_host.platform.reader import Limits, Reader
from lamppost_host.platform.store import Store
from tests.platforms import thing

_ROOT = "http://localhost:8080/v1.1"

_LITERALS = st.one_of(
    st.integers(-(2**63) + 1, 2**63 - 1).map(lambda n: syntax.Literal(syntax.LiteralKind.NUMBER, n)),
    st.floats(allow_nan=False, allow_infinity=False).map(
        lambda n: syntax.Literal(syntax.LiteralKind.NUMBER, n)
    ),
    st.text(max_size=12).map(lambda text: syntax.Literal(syntax.LiteralKind.TEXT, text)),
    st.integers(times.MIN_INSTANT, times.MAX_INSTANT).map(
        lambda n: syntax.Literal(syntax.LiteralKind.INSTANT, n)
    ),
    st.integers(-(10**14), 10**14).map(lambda n: syntax.Literal(syntax.LiteralKind.DURATION, n)),
    st.sampled_from([True, False]).map(lambda flag: syntax.Literal(syntax.LiteralKind.BOOLEAN, flag)),
    st.just(syntax.Literal(syntax.LiteralKind.NULL, None)),
)
_PATHS = st.sampled_from(
    [("name",), ("properties", "a", "0"), ("Datastream", "@iot.id"), ("order",), ("eq",)]
).map(syntax.Path)
_EXPRESSIONS = st.recursive(
    _LITERALS | _PATHS,
    lambda inner: st.one_of(
        st.builds(syntax.Comparison, st.sampled_from(["eq", "ne", "gt", "ge", "lt", "le"]), inner, inner),
        st.builds(syntax.Arithmetic, st.sampled_from(["add", "sub", "mul", "div", "mod"]), inner, inner),
        st.builds(syntax.Membership, inner, st.lists(inner, min_size=1, max_size=3).map(tuple)),
        st.builds(
            syntax.Call, st.sampled_from(["length", "now", "date"]), st.lists(inner, max_size=2).map(tuple)
        ),
        st.builds(syntax.Not, inner),
        st.builds(syntax.Negative, _PATHS),
        st.builds(
            syntax.Junction,
            st.sampled_from(["and", "or"]),
            st.lists(inner, min_size=2, max_size=3).map(tuple),
        ),
    ),
    max_leaves=12,
)


@settings(deadline=None)  # the first example builds the parser
@given(_EXPRESSIONS)
def test_an_expression_survives_being_written_and_read(expression: syntax.Expression) -> None:
    text = unparse(expression)
    assert parse_filter(text) == expression, text


def test_a_whole_query_survives_being_written_and_read() -> None:
    query = parse_query(
        {
            "$filter": "result gt 3 and phenomenonTime lt 2026-11-22T02:00:00Z",
            "$orderby": "phenomenonTime desc,id",
            "$expand": "Datastream($select=name;$expand=Thing($top=3;$skip=1;$count=true;$filter=name eq 'a;b')),FeatureOfInterest",
            "$select": "id,result",
            "$top": "5",
            "$skip": "2",
            "$count": "true",
        }
    )
    assert parse_query(unparse_query(query)) == query


@given(st.integers(times.MIN_INSTANT, times.MAX_INSTANT))
def test_an_instant_survives_being_written_and_read(instant: int) -> None:
    assert times.parse_instant(times.format_instant(instant)) == instant


@pytest.mark.parametrize("text", ["P", "PT", "1D", "P1Y", "PT1.S", "P1DT", "P-1D"])
def test_a_duration_that_is_none(text: str) -> None:
    with pytest.raises(BadRequest):
        times.parse_duration(text)


@pytest.fixture
def filled(tmp_path: Path) -> sqlite3.Connection:
    """A database with one Datastream of 100,000 Observations."""
    connection = open_writer(tmp_path / "test.db")
    store = Store(connection, Ingest(connection))
    store.create(ENTITY_TYPES["Thing"], thing())
    connection.execute(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) "
        "INSERT INTO observation (id, datastream, phenomenon_start, result, feature, reading) "
        "SELECT i, 1, i * 1000000, i * 0.5, 1, 'b/' || i || '/0' FROM n"
    )
    return connection


def test_a_long_answer_takes_little_memory(filled: sqlite3.Connection) -> None:
    reader = Reader(filled, _ROOT, Limits(max_top=30_000))
    target = reader.resolve(parse_path("Datastreams(1)/Observations"))
    tracemalloc.start()
    try:
        size = sum(map(len, reader.collection(target, parse_query({"$top": "30000"}))))  # type: ignore[arg-type]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size > 8_000_000
    assert peak < 2_000_000


@pytest.mark.parametrize(
    ("path", "options", "index"),
    [
        ("Datastreams", {"$filter": "properties/lamppost eq 'x'"}, "datastream_lamppost"),
        ("Things", {"$filter": "properties/lamppost eq 'x'"}, "thing_lamppost"),
        (
            "Datastreams(1)/Observations",
            {"$orderby": "phenomenonTime desc"},
            "observation_time (datastream=?)",
        ),
        ("Datastreams(1)/Observations", {}, "observation_time (datastream=?)"),
        (
            "Datastreams(1)/Observations",
            {"$filter": "phenomenonTime gt 2026-01-01T00:00:00Z"},
            "observation_time (datastream=? AND",
        ),
        (
            "Datastreams(1)/Observations",
            {"$filter": "parameters/reading eq 'x'"},
            "observation_reading (datastream=? AND reading=?)",
        ),
        (
            "Observations",
            {"$filter": "parameters/reading eq 'x' and Datastream/id eq 1"},
            "observation_reading",
        ),
        ("Observations", {"$filter": "Datastream/properties/lamppost eq 'x'"}, "datastream_lamppost"),
    ],
)
def test_the_queries_that_matter_use_an_index(
    filled: sqlite3.Connection, path: str, options: dict[str, str], index: str
) -> None:
    statements: list[str] = []
    filled.set_trace_callback(statements.append)
    reader = Reader(filled, _ROOT, Limits())
    list(reader.collection(reader.resolve(parse_path(path)), parse_query(options)))  # type: ignore[arg-type]
    filled.set_trace_callback(None)
    plan = [row[3] for row in filled.execute(f"EXPLAIN QUERY PLAN {statements[-1]}")]
    assert any(index in step for step in plan), plan
    if path.startswith("Datastreams(1)"):
        assert not any("TEMP B-TREE" in step for step in plan) or "reading" in str(options), plan


def test_a_late_page_is_as_quick_as_the_first(filled: sqlite3.Connection) -> None:
    """Newest first, the page after 90,000 rows starts from the index, not from the top."""
    reader = Reader(filled, _ROOT, Limits())
    target = reader.resolve(parse_path("Datastreams(1)/Observations"))
    statements: list[str] = []
    filled.set_trace_callback(statements.append)
    token = encode_token([10_000 * 1_000_000, 10_000])
    query = parse_query(
        {"$orderby": "phenomenonTime desc", "$top": "1", "$select": "id", "$skiptoken": token}
    )
    page = b"".join(reader.collection(target, query))  # type: ignore[arg-type]
    filled.set_trace_callback(None)
    assert b'"@iot.id":9999' in page
    plan = [row[3] for row in filled.execute(f"EXPLAIN QUERY PLAN {statements[-1]}")]
    assert plan == ["SEARCH e USING COVERING INDEX observation_time (datastream=? AND phenomenon_start<?)"]


def test_a_migration_is_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "test.db"
    connection = open_writer(path)
    assert connection.execute("PRAGMA user_version").fetchone() == (VERSION,)
    connection.execute(
        "PRAGMA user_version = 0"
    )  # as if version 1 had yet to be applied: its first table is there
    connection.close()
    with pytest.raises(LamppostError):
        open_writer(path)
    with sqlite3.connect(path) as left:
        assert left.execute("PRAGMA user_version").fetchone() == (0,)


def test_leaflet_is_found_without_django() -> None:
    assert (leaflet_folder() / "leaflet.css").is_file()
