"""Query options of the platform: what each filter finds, orders, pages, expansions. Over HTTP, to the real process."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.platforms import Platform, thing


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """Two Things with two Datastreams; 20 Observations a minute apart in Datastream 1, one interval and odd results in 3."""
    running = Platform(tmp_path_factory.mktemp("platform")).start()
    running.create("Things", thing("Harbour", datastreams=2, floor=3, tags=["a", "b"], nested={"größe": 1}))
    running.create("Things", thing("School", datastreams=2, floor="first", active=True))
    rows = [[f"2026-11-22T02:{n:02}:00Z", None, n, {"reading": f"b/0/{n}", "raw": n * 2}] for n in range(20)]
    parts = ["phenomenonTime", "resultTime", "result", "parameters"]
    odd = [
        ["2026-11-22T02:00:00Z/2026-11-22T03:00:00Z", "2026-11-22T03:00:00Z", "5", None],
        ["1969-12-31T23:59:59.250Z", None, True, None],
        ["2026-11-22T04:30:15.5Z", None, None, None],
        ["2026-11-22T05:00:00Z", None, {"x": 7}, None],
        ["2026-11-22T06:00:00Z", None, 5, None],
    ]
    running.post(
        "CreateObservations",
        [
            {"Datastream": {"@iot.id": 1}, "components": parts, "dataArray": rows},
            {"Datastream": {"@iot.id": 3}, "components": parts, "dataArray": odd},
        ],
    )
    yield running
    running.close()


_ODD = [21, 22, 23, 24, 25]  # ids of the Observations in Datastream 3


@pytest.mark.parametrize(
    ("collection", "expression", "ids"),
    [
        ("Things", "name eq 'Harbour'", [1]),
        ("Things", "name ne 'Harbour'", [2]),
        ("Things", "id gt 1", [2]),
        ("Things", "@iot.id in (2, 1, 7)", [1, 2]),
        ("Things", "properties/lamppost eq 'city/harbour'", [1]),
        ("Things", "properties/floor eq 3", [1]),
        ("Things", "properties/floor gt 2", [1]),
        ("Things", "properties/floor gt 'e'", [2]),
        ("Things", "properties/active", [2]),
        ("Things", "properties/active eq true", [2]),
        ("Things", "not properties/active", [1]),
        ("Things", "properties/missing eq null", [1, 2]),
        ("Things", "properties/tags/1 eq 'b'", [1]),
        ("Things", "properties/nested/größe eq 1", [1]),
        ("Things", "Datastreams/id eq 3", [2]),
        ("Things", "Datastreams/Observations/result gt 18", [1]),
        ("Things", "Datastreams/properties/lamppost eq 'city/school/temperature-1'", [2]),
        ("Things", "Locations/name eq 'the square' and name eq 'School'", [2]),
        ("Datastreams", "Thing/name eq 'School'", [3, 4]),
        ("Datastreams", "Thing/id eq 1", [1, 2]),
        ("Datastreams", "Thing/properties/floor eq 3 and id ne 1", [2]),
        ("Datastreams", "unitOfMeasurement/symbol eq '°C' and id lt 3", [1, 2]),
        ("Datastreams", "concat(Thing/name, name) eq 'SchoolSchool temperature 1'", [4]),
        ("Datastreams", "phenomenonTime gt 2026-11-01T00:00:00Z", [1]),
        ("Sensors", "metadata eq 'https://example.org/bme280.pdf' and id eq 1", [1]),
        ("Observations", "result gt '17'", [19, 20, 21]),  # numbers as numbers, text as text
        ("Observations", "result gt 17", [19, 20]),
        ("Observations", "17 lt result", [19, 20]),
        ("Observations", "result eq '5'", [6, 21, 25]),
        ("Observations", "result eq 5", [6, 25]),
        ("Observations", "result eq true", [22]),
        ("Observations", "result eq null", [23]),
        ("Observations", "result/x eq 7", [24]),
        ("Observations", "result add 1 ge 20", [20]),
        ("Observations", "result mod 7 eq 6 and Datastream/id eq 1", [7, 14]),
        ("Observations", "result div 2 eq 2.5", [6, 25]),
        ("Observations", "-result lt -18", [20]),
        ("Observations", "parameters/reading eq 'b/0/7' and Datastream/id eq 1", [8]),
        ("Observations", "parameters/raw eq 14", [8]),
        ("Observations", "phenomenonTime ge 2026-11-22T04:18:00+02:00 and Datastream/id eq 1", [19, 20]),
        ("Observations", "phenomenonTime eq 2026-11-22T02:03:00Z", [4]),
        ("Observations", "phenomenonTime lt 2026-11-22T02:01:00Z", [1, 22]),
        ("Observations", "phenomenonTime gt 2026-11-22T03:00:00Z", [23, 24, 25]),
        ("Observations", "phenomenonTime eq 2026-11-22T02:00:00Z/2026-11-22T03:00:00Z", [21]),
        ("Observations", "during(phenomenonTime, 2026-11-22T02:00:00Z/2026-11-22T02:01:00Z)", [1, 2]),
        ("Observations", "overlaps(phenomenonTime, 2026-11-22T02:50:00Z/2026-11-22T04:00:00Z)", [21]),
        ("Observations", "before(phenomenonTime, 2000-01-01T00:00:00Z)", [22]),
        ("Observations", "after(phenomenonTime, 2026-11-22T05:30:00Z)", [25]),
        ("Observations", "resultTime ne null", [21]),
        ("Observations", "year(phenomenonTime) eq 1969 and second(phenomenonTime) eq 59", [22]),
        ("Observations", "fractionalseconds(phenomenonTime) eq 0.25", [22]),
        ("Observations", "date(phenomenonTime) eq 1969-12-31", [22]),
        ("Observations", "hour(phenomenonTime) eq 4 and minute(phenomenonTime) eq 30", [23]),
        ("Observations", "phenomenonTime gt now() add duration'P1000D'", []),
        ("Observations", "phenomenonTime sub duration'PT1H' eq 2026-11-22T04:00:00Z", [24]),
        ("Observations", "FeatureOfInterest/name eq 'the square' and result lt 1", [1]),
        ("Things", "substringof('choo', name)", [2]),
        ("Things", "contains(name,'arb')", [1]),
        ("Things", "startswith(name,'Sch')", [2]),
        ("Things", "endswith(name,'our')", [1]),
        ("Things", "startswith(name,'')", [1, 2]),
        ("Things", "indexof(name,'oo') eq 3", [2]),
        ("Things", "length(name) eq 7", [1]),
        ("Things", "tolower(name) eq 'harbour'", [1]),
        ("Things", "toupper(name) eq 'SCHOOL'", [2]),
        ("Things", "trim(concat(' ', name)) eq 'School'", [2]),
        ("Things", "substring(name,4) eq 'our'", [1]),
        ("Things", "substring(name,0,3) eq 'Sch'", [2]),
        ("Things", "round(2.5) eq 3 and floor(-2.5) eq -3 and ceiling(-2.5) eq -2 and floor(3) eq 3", [1, 2]),
        ("Things", "name eq 'O''Hara' or name eq 'School'", [2]),
        ("Things", "name eq ''' OR 1=1 --'", []),
        ("Things", "(name eq 'School' or name eq 'Harbour') and not (id eq 1)", [2]),
    ],
)
def test_filter(platform: Platform, collection: str, expression: str, ids: list[int]) -> None:
    found = platform.get(collection, filter=expression, select="id", count="true", orderby="id")
    assert [each["@iot.id"] for each in found["value"]] == ids
    assert found["@iot.count"] == len(ids)


def test_a_plus_sign_that_was_not_encoded_is_understood(platform: Platform) -> None:
    answer = platform.client.get(
        f"{platform.url}/Observations?$filter=phenomenonTime%20eq%202026-11-22T04:03:00+02:00&$select=id"
    )
    assert [each["@iot.id"] for each in answer.json()["value"]] == [4]


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("filter", "name eq"),
        ("filter", "nme eq 'x'"),
        ("filter", "name"),
        ("filter", "5"),
        ("filter", "name add 1 eq 2"),
        ("filter", "name eq 2026-11-22T02:00:00Z"),
        ("filter", "Datastreams eq 1"),
        ("filter", "nofunction(name)"),
        ("filter", "startswith(name)"),
        ("filter", "concat(Datastreams/name, name) eq 'x'"),
        ("filter", "name eq 'x"),
        ("filter", "not " * 100 + "true"),
        ("filter", "(" * 3000 + "1" + ")" * 3000),
        ("filter", " or ".join(["id eq 1"] * 800)),
        ("filter", "x" * 10_000),
        ("top", "-1"),
        ("top", "many"),
        ("skip", "1.5"),
        ("count", "yes"),
        ("orderby", "nme"),
        ("orderby", "name sideways"),
        ("orderby", "Datastreams/name"),
        ("select", "nme"),
        ("expand", "Sensors"),
        ("expand", "Datastreams($top=x)"),
        ("expand", "Datastreams($nothing=1)"),
        ("expand", "Datastreams($top=1;$top=2)"),
        ("expand", "/".join(["Datastreams/Thing"] * 10)),
        ("skiptoken", "nonsense"),
        ("skiptoken", "WzEsMl0"),
        ("skiptoken", "W3siYSI6MX1d"),
        ("colour", "red"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_a_reason(platform: Platform, option: str, text: str) -> None:
    answer = platform.client.get(f"{platform.url}/Things", params={f"${option}": text})
    assert answer.status_code == 400, answer.text
    assert answer.json()["message"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("Things(1)", 200),
        ("Things(3)", 404),
        ("Things('abc')", 404),
        ("Things(99999999999999999999)", 400),
        ("Nothings", 404),
        ("Things(1)/Sensors", 404),
        ("Things(1)/Datastreams(1)", 200),
        ("Things(1)/Datastreams(3)", 404),
        ("Things/Datastreams", 404),
        ("Datastreams(1)/Thing(1)", 404),
        ("Things(1)/properties/nested/größe", 200),
        ("Things(1)/properties/tags/1", 200),
        ("Things(1)/properties/tags/2", 404),
        ("Things(1)/properties/missing", 404),
        ("Things(1)/nme", 404),
        ("Things(1)/$value", 400),
        ("Things(1)/name/$ref", 400),
        ("Things(", 400),
        ("Things(1)//name", 400),
        ("Observations(22)/result/$value", 200),
    ],
)
def test_paths(platform: Platform, path: str, status: int) -> None:
    answer = platform.client.get(f"{platform.url}/{path}")
    assert answer.status_code == status, answer.text
    if status != 200:
        assert answer.json()["code"] == status


def test_property_values(platform: Platform) -> None:
    def raw(path: str) -> tuple[str, str]:
        answer = platform.client.get(f"{platform.url}/{path}")
        return answer.headers["content-type"].partition(";")[0], answer.text

    assert platform.get("Things(1)/name") == {"name": "Harbour"}
    assert raw("Things(1)/name/$value") == ("text/plain", "Harbour")
    assert raw("Things(1)/properties/tags/$value") == ("text/plain", '["a","b"]')
    assert raw("Observations(4)/phenomenonTime/$value") == ("text/plain", "2026-11-22T02:03:00Z")
    assert platform.get("Datastreams(1)/phenomenonTime") == {
        "phenomenonTime": "2026-11-22T02:00:00Z/2026-11-22T02:19:00Z"
    }
    assert platform.get("Things/$ref")["value"][1] == {"@iot.selfLink": f"{platform.url}/Things(2)"}
    assert platform.get("Datastreams(1)/Thing/$ref") == {"@iot.selfLink": f"{platform.url}/Things(1)"}


def test_order(platform: Platform) -> None:
    def order(collection: str, keys: str) -> list[int]:
        return [each["@iot.id"] for each in platform.get(collection, orderby=keys, select="id")["value"]]

    assert order("Datastreams", "Thing/name desc,id desc") == [4, 3, 2, 1]
    assert order("Things", "properties/floor") == [1, 2]
    assert order("Things", "length(name) desc") == [1, 2]
    assert order("Datastreams(1)/Observations", "result desc")[:3] == [20, 19, 18]
    assert order("Datastreams(3)/Observations", "phenomenonTime") == [22, 21, 23, 24, 25]


def test_select_gives_what_it_names(platform: Platform) -> None:
    found = platform.get("Things(1)", select="name,@iot.id,Datastreams")
    assert found == {
        "@iot.id": 1,
        "name": "Harbour",
        "Datastreams@iot.navigationLink": f"{platform.url}/Things(1)/Datastreams",
    }


def test_expand_with_options_of_its_own(platform: Platform) -> None:
    found = platform.get(
        "Things(1)",
        select="name",
        expand="Datastreams($orderby=id desc;$select=id;$count=true;"
        "$expand=Observations($top=2;$orderby=phenomenonTime desc;$filter=result lt 10;$select=result)),Locations/Things",
    )
    assert found["name"] == "Harbour"
    assert found["Datastreams@iot.count"] == 2
    second, first = found["Datastreams"]
    assert (second["@iot.id"], first["@iot.id"]) == (2, 1)
    assert [each["result"] for each in first["Observations"]] == [9, 8]
    assert found["Locations"][0]["Things"][0]["name"] == "Harbour"
    # The next link of the expansion carries on where it stopped, with the same options.
    page = platform.client.get(first["Observations@iot.nextLink"]).json()
    assert [each["result"] for each in page["value"]] == [7, 6]
    assert set(page["value"][0]) == {"result"}


def _follow(platform: Platform, path: str, **options: str) -> list[dict[str, Any]]:
    """All entities of a collection, page after page."""
    page = platform.get(path, **options)
    found = list(page["value"])
    while "@iot.nextLink" in page:
        page = platform.client.get(page["@iot.nextLink"]).json()
        assert page["value"], "a next link that leads to nothing"
        found += page["value"]
    return found


@pytest.mark.parametrize("top", ["1", "3", "7", "20", "100"])
@pytest.mark.parametrize(
    "keys",
    [
        "",
        "result",
        "result desc",
        "phenomenonTime desc",
        "resultTime,result desc",
        "parameters/raw desc,id",
        "id desc",
    ],
)
def test_pages_join_without_gap_or_overlap(platform: Platform, top: str, keys: str) -> None:
    options = {"orderby": keys} if keys else {}
    whole = platform.get("Observations", **options, top="1000", select="id")
    assert "@iot.nextLink" not in whole
    assert _follow(platform, "Observations", **options, top=top, select="id") == whole["value"]
    assert len(whole["value"]) == 25


def test_skip_counts_once_along_the_pages(platform: Platform) -> None:
    found = _follow(
        platform, "Datastreams(1)/Observations", top="4", skip="3", select="result", filter="result ne 10"
    )
    assert [each["result"] for each in found] == [each for each in range(3, 20) if each != 10]


def test_top_0_counts_only(platform: Platform) -> None:
    found = platform.get("Datastreams(1)/Observations", top="0", count="true")
    assert found["@iot.count"] == 20
    assert found["value"] == []


def test_pages_stay_in_step_while_rows_arrive(platform: Platform) -> None:
    node = platform.create("Things", thing("Paged"))
    stream = platform.get(f"Things({node})/Datastreams")["value"][0]["@iot.id"]
    path = f"Datastreams({stream})/Observations"
    try:
        for minute in range(0, 20, 2):
            platform.create(path, {"result": minute, "phenomenonTime": f"2026-11-22T02:{minute:02}:00Z"})
        page = platform.get(path, orderby="phenomenonTime desc", top="4", select="result")
        seen = [each["result"] for each in page["value"]]
        late = 19
        while "@iot.nextLink" in page:
            # Newer ones arrive between the pages: with $skip, rows would be seen twice.
            platform.create(path, {"result": -late, "phenomenonTime": f"2026-11-22T02:{late:02}:30Z"})
            late += 1
            page = platform.client.get(page["@iot.nextLink"]).json()
            seen += [each["result"] for each in page["value"]]
        assert seen == list(range(18, -1, -2))
    finally:
        platform.client.delete(f"{platform.url}/Things({node})", headers=platform.headers)


_WORDS = st.sampled_from(
    """name id result phenomenonTime resultTime properties parameters reading Datastream Datastreams Thing Observations Location
    FeatureOfInterest unitOfMeasurement lamppost eq ne gt ge lt le and or not in add sub mul div mod ( ) , / - ' '' '3' 'x' 3 2.5 1e400
    9223372036854775807 -9223372036854775808 99999999999999999999 0 null true false 2026-11-22T02:00:00Z
    2026-11-22T02:00:00Z/2026-11-22T03:00:00Z 0001-01-01T00:00:00+14:00 9999-12-31T23:59:59-14:00 2026-11-22 duration'P1D' duration'P9999999D'
    geography'POINT(1 2)' substringof startswith endswith indexof length tolower toupper trim concat substring round floor ceiling year
    month second date time fractionalseconds now mindatetime maxdatetime during overlaps before after meets starts finishes geo.distance
    st_within @iot.id $filter= $top= $orderby= $expand= $select= ; desc asc * % " \\ \x00 é""".split(" ")
)
_TEXTS = st.one_of(
    st.text(max_size=60),
    st.lists(_WORDS, max_size=14).map(" ".join),
    st.lists(_WORDS, max_size=8).map("".join),
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    collection=st.sampled_from(["Things", "Datastreams", "Observations", "Sensors"]),
    option=st.sampled_from(
        ["$filter", "$orderby", "$select", "$expand", "$top", "$skip", "$skiptoken", "$count"]
    ),
    text=_TEXTS,
)
@example(
    collection="Things",
    option="$filter",
    text="round(9223372036854775807) add 1 mul 9223372036854775807 gt 1",
)
@example(
    collection="Things",
    option="$filter",
    text="substring(name,9223372036854775807,9223372036854775807) eq 'a'",
)
@example(collection="Observations", option="$filter", text="phenomenonTime add duration'P9999999D' gt now()")
@example(
    collection="Observations",
    option="$filter",
    text="year(maxdatetime()) eq 9999 and year(mindatetime()) eq 1",
)
@example(
    collection="Observations", option="$filter", text="result mul 1e308 gt 1 or 1 div 0 eq 1 or 1 mod 0 eq 1"
)
@example(collection="Observations", option="$skip", text="999999999999999999")
@example(collection="Observations", option="$top", text="999999999999999999")
def test_any_text_in_an_option_is_answered_or_refused(
    platform: Platform, collection: str, option: str, text: str
) -> None:
    answer = platform.client.get(f"{platform.url}/{collection}", params={option: text})
    assert answer.status_code in (200, 400, 404), (answer.status_code, answer.text)
    answer.json()


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.one_of(
        st.text(max_size=40),
        st.lists(
            st.sampled_from(
                "Things Observations ( ) 1 / Datastreams name properties result $ref $value ' 3 @iot.id".split()
            ),
            max_size=9,
        ).map("".join),
    )
)
def test_any_path_is_answered_or_refused(platform: Platform, path: str) -> None:
    from urllib.parse import quote

    answer = platform.client.get(f"{platform.url}/{quote(path)}", follow_redirects=False)
    assert answer.status_code in (200, 204, 400, 404), (path, answer.status_code, answer.text)
