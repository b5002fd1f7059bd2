"""HTML around the written texts: site headers, menus, banners, sidebars, comments, footers, in three builds.

``article`` marks its parts with semantic elements, ``div`` only with class names, ``table`` is laid out in tables as in
the nineties. Each page knows which of its lines are text (wanted) and which are furniture (noise).
"""

import html
from dataclasses import dataclass, field

from corpusmill.demo.dice import Dice
from corpusmill.demo.noise_lines import AFTER, BEFORE, BETWEEN, FOREIGN, FORUM, RECIPE, SHOP, TOPICS, fill
from corpusmill.demo.written_texts import Text

BUILDS = ("article", "div", "table")


@dataclass(frozen=True)
class Site:
    """One invented web site."""

    host: str
    name: str
    menu: tuple[str, ...]
    build: str = "article"


@dataclass
class Page:
    """One page of the demo crawl as it was fetched.

    Attributes:
        url: Address.
        body: Payload bytes.
        wanted: Lines of the text, in order.
        noise: Lines of site furniture, in order.
        keep_doc: Whether the page is worth keeping at all; None where nobody judged it.
        kind: What the page is, for counting.
        status: HTTP status line without the version.
        content_type: Content-Type header.
        headers: Further response headers.
        broken: ``"gzip"`` where the record's gzip member is damaged on purpose.
    """

    url: str
    body: bytes
    wanted: list[str] = field(default_factory=list)
    noise: list[str] = field(default_factory=list)
    keep_doc: bool | None = None
    kind: str = "article"
    status: str = "200 OK"
    content_type: str = "text/html; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()
    broken: str = ""


class _Body:
    """Collects the HTML of a page's main part and what each line is."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.wanted: list[str] = []
        self.noise: list[str] = []

    def text(self, tag: str, line: str) -> None:
        self.wanted.append(line)
        self.parts.append(f"<{tag}>{html.escape(line, quote=False)}</{tag}>")

    def furniture(self, line: str, tag: str = "p") -> None:
        if line in self.noise:  # a line that stands twice on a page would decide the repetition rules, not the text
            return
        self.noise.append(line)
        shown = html.escape(line, quote=False)
        link = (
            f'<a href="/more">{shown}</a>' if line.startswith(("Read more", "Related", "Next", "Previous")) else shown
        )
        self.parts.append(f"<{tag}>{link}</{tag}>")

    def raw(self, markup: str) -> None:
        self.parts.append(markup)


def article_page(site: Site, text: Text, url: str, others: list[str], *, extra: str = "", round_: int = 0) -> Page:
    """Returns a page that shows a text with furniture inside and around it.

    Args:
        site: The site that shows it.
        text: The text; forum threads and product pages get their own furniture.
        url: Address of the page.
        others: At least two titles of other pages of the site.
        extra: A sentence put behind the second paragraph (an edited copy), ``""`` for none.
        round_: Another number gives the same text with other furniture (a redesigned site).
    """
    dice = Dice(f"{url} {round_}")
    body = _Body()
    if text.key.startswith("forum/"):
        _forum_body(body, text, site, others, dice, extra)
    else:
        _article_body(body, text, site, others, dice, extra)
    markup = _document(site, text.title, text.language, body, others, dice)
    return Page(url, markup.encode("utf-8"), body.wanted, body.noise, keep_doc=True, kind=text.key.partition("/")[0])


def _article_body(body: _Body, text: Text, site: Site, others: list[str], dice: Dice, extra: str) -> None:
    kind = text.key.partition("/")[0]
    own = {"recipe": RECIPE, "shop": SHOP}.get(kind, ())
    before: tuple[str, ...] = (*BEFORE, *own)
    between: tuple[str, ...] = (*BETWEEN, *own)
    after: tuple[str, ...] = AFTER
    if text.language != "en":
        before = between = after = FOREIGN[text.language]
    _furnish(body, dice.sample(before, 1 + dice.below(3)), dice, site, others)
    listed = False
    for i, (tag, line) in enumerate(text.blocks):
        if (tag == "li") != listed:
            body.raw("<ul>" if tag == "li" else "</ul>")
            listed = tag == "li"
        body.text(tag, line)
        if extra and i == 1:
            body.text("p", extra)
        if tag == "p" and i + 1 < len(text.blocks) and dice.chance(45):
            _furnish(body, [dice.choice(between)], dice, site, others)
    _furnish(body, dice.sample(after, 2 + dice.below(3)), dice, site, others)


def _furnish(body: _Body, lines: list[str], dice: Dice, site: Site, others: list[str]) -> None:
    for line in lines:
        body.furniture(fill(line, dice, site.name, dice.sample(others, 2)), dice.choice(("p", "p", "div")))


def _forum_body(body: _Body, text: Text, site: Site, others: list[str], dice: Dice, extra: str) -> None:
    _furnish(body, dice.sample(FORUM[3:], 2), dice, site, others)
    for i, (_, line) in enumerate(text.blocks):
        user, _, post = line.partition(": ")
        body.raw("<div>")
        body.furniture(f"{user} wrote on {fill('{date} at {time}', dice, site.name, others)}")
        body.text("p", post)
        if extra and i == 1:
            body.text("p", extra)
        if dice.chance(60):
            _furnish(body, [dice.choice(FORUM[:3])], dice, site, others)
        body.raw("</div>")
    _furnish(body, dice.sample(FORUM[3:], 1), dice, site, others)


def _document(site: Site, title: str, language: str, body: _Body, others: list[str], dice: Dice) -> str:
    menu = "".join(f'<li><a href="/{i}">{html.escape(item)}</a></li>' for i, item in enumerate(site.menu))
    related = "".join(f'<li><a href="/r{i}">{html.escape(t)}</a></li>' for i, t in enumerate(others[:6]))
    banner = "We value your privacy. This site uses cookies to improve your visit. Accept all | Settings"
    footer = f"Copyright 2024 {site.name} | Terms of use | Privacy policy | Contact"
    topic = dice.choice(TOPICS)
    body.noise += [site.name, *site.menu, *others[:6], banner, footer, f"Home > {topic} > {title}", "Related articles"]
    parts = {
        "head": _head(site, title, language),
        "menu": f'<ul class="menu">{menu}</ul>',
        "crumbs": f"Home &gt; {topic} &gt; {html.escape(title)}",
        "title": f"<h1>{html.escape(title, quote=False)}</h1>",
        "body": "\n".join(body.parts),
        "related": f"<h3>Related articles</h3><ul>{related}</ul>",
        "banner": banner,
        "footer": footer,
        "name": html.escape(site.name),
    }
    return _LAYOUTS[site.build].format(**parts)


def _head(site: Site, title: str, language: str) -> str:
    return (
        f'<html lang="{language}"><head><meta charset="utf-8"><title>{html.escape(title)} - {html.escape(site.name)}'
        f'</title><meta name="viewport" content="width=device-width"><meta property="og:site_name" '
        f'content="{html.escape(site.name)}"><link rel="stylesheet" href="/site.css"><style>body{{font:16px/1.5 serif}}'
        ".menu li{display:inline}.box{border:1px solid #ccc}</style><script>window.dataLayer=window.dataLayer||[];"
        'function gtag(){dataLayer.push(arguments)}gtag("js",new Date());</script></head>'
    )


_LAYOUTS = {
    "article": """<!doctype html>
{head}<body class="single"><div id="cookie-banner" class="cookie-consent"><p>{banner}</p></div>
<header class="site-header"><a href="/">{name}</a><nav>{menu}</nav></header>
<main><div class="breadcrumb">{crumbs}</div><article>{title}
<div class="entry-content">
{body}
</div></article></main>
<aside class="sidebar">{related}</aside>
<footer class="site-footer"><p>{footer}</p></footer></body></html>
""",
    "div": """<!DOCTYPE html>
{head}<body><div class="top"><div class="logo">{name}</div>{menu}</div>
<div class="wrap"><div class="path">{crumbs}</div><div class="content"><div class="box-left">{title}
<div class="story">
{body}
</div></div><div class="rail">{related}</div></div></div>
<div class="bottom"><p>{footer}</p></div><div class="cc-window"><p>{banner}</p></div></body></html>
""",
    "table": """<!DOCTYPE HTML PUBLIC "-//W3C//DTD HTML 4.01 Transitional//EN">
{head}<body bgcolor="#ffffff"><table width="100%"><tr><td colspan="2"><b>{name}</b> {menu}</td></tr>
<tr><td valign="top" width="180">{related}</td><td valign="top"><small>{crumbs}</small>{title}
{body}
</td></tr><tr><td colspan="2"><small>{footer}</small><br><small>{banner}</small></td></tr></table></body></html>
""",
}
