"""Give a release its home: project URLs in pyproject.toml, and links of the README that also work on PyPI.

    python scripts/set_home.py https://github.com/OWNER/redy v1.2.3

The repository itself keeps relative links, which work in every clone and fork.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
IMAGES = (".png", ".svg")


def absolute_links(text: str, home: str, tag: str) -> str:
    """The Markdown with every relative link pointing to the files of the tag."""

    def absolute(match: re.Match[str]) -> str:
        target = match[1]
        if re.match(r"[a-z]+:|#", target):
            return match[0]
        kind = "raw" if target.endswith(IMAGES) else "blob"
        return f"]({home}/{kind}/{tag}/{target})"

    return re.sub(r"\]\(([^)\s]+)\)", absolute, text)


def with_urls(project: str, home: str, tag: str) -> str:
    """pyproject.toml with a table of project URLs.

    Raises:
        ValueError: it has one.
    """
    if "[project.urls]" in project:
        raise ValueError("pyproject.toml names project URLs already")
    urls = {
        "Homepage": home,
        "Documentation": f"{home}/blob/{tag}/docs/index.md",
        "Changelog": f"{home}/blob/{tag}/CHANGELOG.md",
        "Issues": f"{home}/issues",
    }
    table = "".join(f'{name} = "{url}"\n' for name, url in urls.items())
    return project.replace("[project.scripts]\n", f"[project.urls]\n{table}\n[project.scripts]\n", 1)


def main() -> None:
    """Rewrite both files in place."""
    home, tag = sys.argv[1].rstrip("/"), sys.argv[2]
    readme, project = ROOT / "README.md", ROOT / "pyproject.toml"
    urls = with_urls(project.read_text(encoding="utf-8"), home, tag)
    readme.write_text(absolute_links(readme.read_text(encoding="utf-8"), home, tag), encoding="utf-8")
    project.write_text(urls, encoding="utf-8")


if __name__ == "__main__":
    main()
