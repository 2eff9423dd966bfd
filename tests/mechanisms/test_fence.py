"""A mechanism's text cannot leave its fence."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mechanisms.fence import fenced


@given(st.text(max_size=300), st.integers(0, 5))
def test_no_line_of_the_text_looks_like_a_border(text: str, nested: int) -> None:
    for _ in range(nested):
        text = fenced("inner", text)
    first, *inside, last = fenced("tabu", text).splitlines() if text else ("", "")
    if text.splitlines():
        assert first.startswith("[data from mechanism tabu ")
        assert last.startswith("[end of data ")
        assert all(line.startswith("| ") for line in inside)
        assert last not in inside
