"""The words of texts that people read: phrases that earlier readers stumbled over stay out."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
READ = (".py", ".md", ".j2", ".yml", ".toml", ".cff", ".sh", "Makefile", "Dockerfile")
PHRASES = (
    "has none such",
    "there is none of this name",
    "did not strike",
    "nobody who samples",
    "asks for leave",
    "none of its own",
    "stands again",
    "takes back",
    "taken on trust",
    "redy does not bound",
    "is used up by",
    "beside the point",
    "limit strikes",
    "numerical trouble",
    "in vain",
)
"""None of them names what happened, to what, and what to do."""
SYNONYMS = {
    r"sub-?problem": "slice, sub-box or question",
    r"hyper-?rectangle": "box",
    r"counter-?examples?\b(?! loop)": "witness",
    r"neurone?s? are dead": "inactive",
    r"time-?out of the search": "deadline or time limit",
    r"tile[sd]? of the box": "slice",
}
"""Words for which the glossary has another."""


def texts():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split(
        "\n"
    )
    for name in listed:
        if name.endswith(READ) and name != "tests/test_words.py" and (ROOT / name).exists():
            yield name, (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs the repository")
@pytest.mark.parametrize("phrase", PHRASES)
def test_phrases_stay_out(phrase):
    pattern = re.compile(r"\s+".join(map(re.escape, phrase.split())), re.IGNORECASE)
    assert [name for name, text in texts() if pattern.search(text)] == []


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs the repository")
@pytest.mark.parametrize("word", list(SYNONYMS))
def test_one_word_for_one_thing(word):
    found = [name for name, text in texts() if re.search(word, text, re.IGNORECASE)]
    assert found == [], f"say {SYNONYMS[word]}"


def test_the_glossary_is_sorted_and_says_each_word_once():
    rows = re.findall(r"^\| ([^|]+?) \|", (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8"), re.MULTILINE)
    words = rows[2:]
    assert len(words) > 20
    assert words == sorted(set(words))
