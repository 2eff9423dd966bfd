"""What a model meant is found, and what it did not say is not made up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service_kit.llm.reading import Ambiguous, objects

FOUND = [
    ('{"a": 1}', [{"a": 1}]),
    ('before {"a": {"b": 2}} between {"c": 3} after', [{"a": {"b": 2}}, {"c": 3}]),
    ('{"a": [1, 2, ], }', [{"a": [1, 2]}]),
    ('{"a": "x, }", "b": 1,}', [{"a": "x, }", "b": 1}]),
    ('{"a": 1, // why\n "b": "http://x"}', [{"a": 1, "b": "http://x"}]),
    ('{"a": True, "b": None, "c": "True"}', [{"a": True, "b": None, "c": "True"}]),
    ('{"a": "first\nsecond"}', [{"a": "first\nsecond"}]),
    (r'{"a": "\d+ \'quoted\' \n"}', [{"a": "\\d+ 'quoted' \n"}]),
    ('{"a": 1, "a": 1}', [{"a": 1}]),
    ('{"draft": 1,} and then {"final": 2,}', [{"draft": 1}, {"final": 2}]),
    ('<think>{"a": 0}</think>{"a": 1}', [{"a": 1}]),
    ('maybe {"a": 0}\n</think>\n{"a": 1}', [{"a": 1}]),
    ('<think>so {"a": 0} it', []),
    ('{"a": "half', []),
    ('{"a": [1, 2', []),
    ("{'a': 1}", []),
    ("no object", []),
    ("", []),
]


@pytest.mark.parametrize(("text", "expected"), FOUND)
def test_objects_are_found_whatever_stands_around_them(text: str, expected: list[object]) -> None:
    assert list(objects(text)) == expected


def test_a_key_with_two_values_is_no_answer() -> None:
    [found] = objects('{"a": 1, "a": 2}')
    assert isinstance(found, Ambiguous)
    assert str(found) == "a: is there twice with different values"


HOSTILE = ["{" * 100_000, '{"a":' * 20_000, '{"a": "' + '\\"' * 50_000, '"{,' * 30_000, "</think>" + "<think>" * 20_000]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_answer_costs_bounded_work(text: str) -> None:
    assert [found for found in objects(text) if found] == []


@given(st.text())
def test_any_text_is_read_without_an_error(text: str) -> None:
    assert all(isinstance(found, dict | Ambiguous) for found in objects(text))
