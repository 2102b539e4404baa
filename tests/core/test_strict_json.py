"""JSON of which nothing is known."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rotator.core.strict_json import parse


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not JSON"),
        ("{", "not JSON: Expecting property name enclosed in double quotes at character 2"),
        ("{} {}", "not JSON: Extra data"),
        ("\ufeff{}", "not JSON"),
        ("'a'", "not JSON"),
        ('{"a":1,"a":1}', "a member is there twice"),
        ('{"b":{"a":1,"\\u0061":2}}', "a member is there twice"),
        ("NaN", "NaN is no number"),
        ("[-Infinity]", "-Infinity is no number"),
        ("1e400", "beyond the range"),
        ("9" * 400, "beyond the range"),
        ("9" * 5000, "beyond the range"),
        ('"\\ud800"', "half a surrogate pair"),
        ('{"\\udfff":1}', "half a surrogate pair"),
        ("[" * 17 + "]" * 17, "nested more than 16 deep"),
        ('[{"a":' * 8 + "[]" + "}]" * 8, "nested more than 16 deep"),
        ('["\\\\",' * 17 + "1" + "]" * 17, "nested more than 16 deep"),
        ("1" * 310, "beyond the range"),
        ("X" * 17, "not JSON"),
        ("[X" * 17, "nested more than"),
        ('{"a":' * 100_000, "nested more than"),
    ],
)
def test_what_two_parsers_could_read_in_two_ways_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[" * 16 + "]" * 16, None),
        ("[" + "[]," * 20 + "{}]", None),
        ("1" * 309, int("1" * 309)),
        ('"[[[[[[[[[[[[[[[[[[[[[["', "[" * 22),
        ('"\\"[[[[[[[[[[[[[[[[[[[["', '"' + "[" * 20),
        ('{"a":[1,2.5,null,true]}', {"a": [1, 2.5, None, True]}),
        ('"\\ud83d\\ude00"', "\U0001f600"),
    ],
)
def test_what_is_plain_is_read(text: str, value: object) -> None:
    assert parse(text) == (value if value is not None else json.loads(text))


@given(st.text() | st.binary().map(lambda content: content.decode("latin-1")))
def test_whatever_comes_is_a_value_or_a_refusal(text: str) -> None:
    try:
        value = parse(text)
    except ValueError:
        return
    assert parse(json.dumps(value)) == value
