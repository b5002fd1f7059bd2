"""Serves the Data Docs of a run: files below ``$CORPUSMILL_HOME/data_docs`` and nothing else, readable offline.

Great Expectations' pages load styles and scripts from the network. Here they are served without either: references to
other hosts are taken out, a small style sheet of ours is put in, and the browser is told to run no script, so that text
from a page that is quoted in them can do nothing.
"""

import re
from html import escape
from pathlib import Path
from urllib.parse import quote

from fastapi import HTTPException
from fastapi.responses import FileResponse, HTMLResponse, Response

from corpusmill_operators.ui.recipes import recipe_of

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self'; "
        "sandbox allow-same-origin allow-top-navigation-by-user-activation allow-popups"
    ),
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "private, no-store",
}
SAFE_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""A crawl id or an epoch folder in an address."""
INDEX = "index.html"
SUFFIXES = (".html", ".css", ".png", ".svg", ".ico", ".otf", ".woff", ".woff2", ".jpg", ".gif")
_REMOTE = re.compile(
    r"<link\b[^>]*href=[\"'](?:https?:)?//[^>]*>|<img\b[^>]*src=[\"'](?:https?:)?//[^>]*>", re.IGNORECASE
)
_REMOTE_STYLE = re.compile(r"url\(\s*[\"']?(?:https?:)?//[^)]*\)", re.IGNORECASE)
_SCRIPT = re.compile(r"<script\b.*?</script\s*>", re.IGNORECASE | re.DOTALL)
_HEAD_END = re.compile(r"</head\s*>", re.IGNORECASE)


def data_docs_file(dag_id: str, crawl: str, epoch: int, path: str) -> Response:
    """Returns one file of a run's site.

    Raises:
        HTTPException: 404, where there is no such file, or the path leads out of the site.
    """
    place = locate(dag_id, crawl, epoch, path)
    if place is None:
        raise HTTPException(404, f"no Data Docs of {crawl}, epoch {epoch} here: {path}")
    if place.suffix != ".html":
        return FileResponse(place, headers=HEADERS)
    if path == INDEX:
        return HTMLResponse(index(place.parent, f"{recipe_of(dag_id)} {crawl}, run {epoch}"), headers=HEADERS)
    depth = path.count("/")
    return HTMLResponse(offline(place.read_text(encoding="utf-8", errors="replace"), depth), headers=HEADERS)


def locate(dag_id: str, crawl: str, epoch: int, path: str) -> Path | None:
    """Returns the file that an address names, None where it is none of the site's."""
    from corpusmill.lakehouse.settings import corpusmill_home

    recipe = recipe_of(dag_id)
    if recipe is None or not SAFE_PART.fullmatch(recipe) or not SAFE_PART.fullmatch(crawl) or epoch < 0:
        return None
    folder = corpusmill_home() / "data_docs" / recipe / crawl / f"epoch-{epoch:05d}"
    site = (folder / "site" if (folder / "site").is_dir() else folder).resolve()
    found = (site / path).resolve()
    inside = found.is_relative_to(site) and found.is_file() and found.suffix in SUFFIXES
    return found if inside else None


def index(site: Path, title: str) -> str:
    """Returns the first page of a site: theirs fills its table by a script, ours lists the same pages.

    Args:
        site: Folder of the site.
        title: What the site is of.
    """
    parts = []
    for folder, heading in (("validations", "Validation results"), ("expectations", "Expectations")):
        places = sorted(p.relative_to(site) for p in (site / folder).rglob("*.html"))
        items = "".join(
            f'<li><a href="{quote(p.as_posix())}">{escape(p.stem if folder == "expectations" else p.parts[1])}</a></li>'
            for p in places
        )
        parts.append(f"<h2>{heading}</h2><ul>{items or '<li>none</li>'}</ul>")
    head = f'<meta charset="utf-8"><title>Data Docs</title><link rel="stylesheet" href="{_style(0)}">'
    body = f"<h1>Data Docs of {escape(title)}</h1>{''.join(parts)}"
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{body}</body></html>'


def _style(depth: int) -> str:
    """Returns the address of our style sheet from a page that lies so many folders deep in its site."""
    return f"{'../' * (depth + 4)}static/data_docs.css"


def offline(page: str, depth: int) -> str:
    """Returns a page without scripts and without references to other hosts, with our style sheet.

    Args:
        page: HTML.
        depth: Folders between the page and the root of its site.
    """
    plain = _REMOTE_STYLE.sub("none", _REMOTE.sub("", _SCRIPT.sub("", page)))
    link = f'<link rel="stylesheet" href="{_style(depth)}">'
    return _HEAD_END.sub(lambda m: link + m.group(0), plain, count=1)
