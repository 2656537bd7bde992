"""Values that JSON can hold, for Hypothesis: what a parser must survive."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

# A short alphabet that has what is special in JSON, paths, headers and UTF-16 (half a pair, last). Over all of Unicode,
# Hypothesis computes its tables first: seconds on a cold machine, which fail its health check (too_slow).
TEXT = st.text(st.sampled_from('aF09-./ "\\\0\n\u00e9\u2028\U0001f600\udc80'), max_size=6)

NUMBERS = st.integers() | st.floats()


def any_json(
    numbers: st.SearchStrategy[Any] = NUMBERS, texts: st.SearchStrategy[str] = TEXT
) -> st.SearchStrategy[Any]:
    """Values of all types, within each other; ``texts`` are strings and keys."""
    return st.recursive(
        st.none() | st.booleans() | numbers | texts,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
        max_leaves=6,
    )
