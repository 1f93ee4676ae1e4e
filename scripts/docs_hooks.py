"""What mkdocs has to be told of this repository; hooks of mkdocs.yml.

Pages that lie beside docs/ are taken in, links between all of them hold on GitHub and on the site,
a nav entry may be a pattern, and the page of settings is filled from the dataclasses.
"""

import posixpath
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from docs_settings import settings_tables
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]

BESIDE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "kernels/README.md": "kernels.md",
    "videos/README.md": "videos.md",
}
"""Pages outside docs/, and where they are on the site."""

CODE_OR_LINK = re.compile(
    r"^```.*?^```|`[^`\n]*`|\[(?P<text>(?:`[^`\n]*`|[^\]`])*)\]\((?P<target>[^)\s]+)\)",
    flags=re.M | re.S,
)
SETTINGS = "<!-- settings -->"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Patterns in the nav become pages: those that no other entry names, nor an earlier pattern."""
    pages = sorted(
        path.relative_to(config.docs_dir).as_posix() for path in Path(config.docs_dir).rglob("*.md")
    )
    named = {entry for entry in _entries(config.nav or []) if "*" not in entry}
    config.nav = _expanded(config.nav or [], [page for page in pages if page not in named])
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Take in what lies beside docs/."""
    for source, uri in BESIDE.items():
        files.append(File.generated(config, uri, content=(ROOT / source).read_text("utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Links as the site has them, and the tables of settings."""
    uri = page.file.src_uri
    here = {site: source for source, site in BESIDE.items()}.get(uri, f"docs/{uri}")

    def link(match: "re.Match[str]") -> str:
        target = match["target"]
        if target is None or re.match(r"[a-z]+:|#", target):
            return match[0]
        return _link(match["text"], target, here, uri)

    markdown = CODE_OR_LINK.sub(link, markdown)
    return markdown.replace(SETTINGS, settings_tables()) if SETTINGS in markdown else markdown


def _link(text: str, target: str, here: str, uri: str) -> str:
    """A link of the file `here`, for the page `uri`; what the site has not is named in words."""
    path, hash_, fragment = target.partition("#")
    path = posixpath.normpath(posixpath.join(posixpath.dirname(here), path))
    inside = path.removeprefix("docs/") if path.startswith("docs/") else None
    there = BESIDE.get(path, inside)
    if there is not None and (ROOT / path).is_file():
        relative = posixpath.relpath(there, posixpath.dirname(uri) or ".")
        return f"[{text}]({relative}{hash_}{fragment})"
    plain = text.replace("\\", "").strip("`")
    return f"`{path}`" if path.endswith(plain) else f"{text} (`{path}`)"


def _entries(nav: Any) -> Iterator[str]:
    for item in nav.values() if isinstance(nav, dict) else nav:
        if isinstance(item, str):
            yield item
        else:
            yield from _entries(item)


def _expanded(nav: list[Any], free: list[str]) -> list[Any]:
    """The nav without patterns; pages that are given a place are taken out of `free`."""
    out: list[Any] = []
    for entry in nav:
        if isinstance(entry, str) and "*" in entry:
            found = [p for p in free if fnmatch(p, entry) and p.count("/") == entry.count("/")]
            free[:] = [page for page in free if page not in found]
            out += found
        elif isinstance(entry, dict):
            ((title, inner),) = entry.items()
            inner = _expanded(inner, free) if isinstance(inner, list) else inner
            out += [{title: inner}] if inner else []
        else:
            out.append(entry)
    return out
