"""The words that are ours: few, each defined once, and those of the code."""

from __future__ import annotations

import pytest
from docutils import nodes

from tests.support.documents import document
from tests.support.identifiers import defined, defined_in_tests, is_used

MOST_WORDS = 25

REPLACED = {
    "crew": "lane plugins",
    "seat": "target",
    "roster": "membership",
    "generation": "membership version",
    "horizon": "claims pruned until",
    "counted window": "checksum window",
    "restamping": "timestamp tolerance",
    "put aside": "defer",
    "set apart": "quarantine",
    "flow": "release",
    "doubts": "uncertain ranges",
    "flows": "boundary shifts",
    "subject": "target",
    "mark": "validator",
    "saw": "observed",
    "flights": "single flight",
    "front": "cache middleware",
    "commits": "change feed",
    "newest rows": "event rows",
    "zones": "calendar",
    "catalogue": "plugins",
    "world": "full app",
    "truth": "oracle",
}
"""A replaced word to the one that took its place."""

ENTRIES = [
    (item[0].astext(), item[-1].astext())
    for item in document("docs/glossary.rst").findall(nodes.definition_list_item)
]


def test_there_are_few_words_and_each_is_defined_once_in_a_sentence() -> None:
    names = [name for name, _ in ENTRIES]
    assert len(names) == len(set(names)) <= MOST_WORDS
    for name, text in ENTRIES:
        assert text.endswith("."), name
        assert ". " not in text, name


@pytest.mark.parametrize("name", [name for name, _ in ENTRIES])
def test_each_word_is_one_of_the_code(name: str) -> None:
    assert is_used(name, defined())


@pytest.mark.parametrize("word", REPLACED)
def test_words_that_were_replaced_are_gone(word: str) -> None:
    for names in (defined(), defined_in_tests()):
        assert not is_used(word, names), f"say {REPLACED[word]}"
