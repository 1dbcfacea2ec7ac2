"""What a release is made with: pinned actions, and links that work outside the repository."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import set_home  # noqa: E402 - a script beside the package

HOME, TAG = "https://example.org/owner/redy", "v1.2.3"


@pytest.mark.parametrize("workflow", sorted((ROOT / ".github" / "workflows").glob("*.yml")), ids=lambda path: path.stem)
def test_every_action_is_pinned_by_its_hash(workflow):
    used = re.findall(r"uses: (.+)", workflow.read_text(encoding="utf-8"))
    assert used
    assert [line for line in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)] == []


def test_links_of_the_readme_are_absolute_in_a_release_and_point_to_files():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    relative = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"[a-z]+:|#", link)]
    assert relative
    assert [link for link in relative if not (ROOT / link.partition("#")[0]).exists()] == []
    links = re.findall(r"\]\(([^)\s]+)\)", set_home.absolute_links(text, HOME, TAG))
    assert [link for link in links if not re.match(r"https?:|#", link)] == []
    assert all(f"{HOME}/{'raw' if link.endswith('.png') else 'blob'}/{TAG}/{link}" in links for link in relative)


def test_a_release_names_its_urls():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    made = set_home.with_urls(project, HOME, TAG)
    urls = tomllib.loads(made)["project"]["urls"]
    assert set(urls) == {"Homepage", "Documentation", "Changelog", "Issues"}
    assert all(url.startswith(HOME) for url in urls.values())
    assert tomllib.loads(made)["project"]["scripts"] == tomllib.loads(project)["project"]["scripts"]
    with pytest.raises(ValueError, match="already"):
        set_home.with_urls(made, HOME, TAG)
