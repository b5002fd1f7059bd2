"""Pages that a crawl contains besides good ones: thin, spam, errors, redirects, files, broken and hostile pages."""

from corpusmill.demo.dice import Dice
from corpusmill.demo.noise_lines import FORUM, SHOP, TOPICS, fill
from corpusmill.demo.page_chrome import Page, Site
from corpusmill.demo.written_texts import PEOPLE, promotions

SPAM_WORDS = (
    "replica watches", "payday loans", "miracle diet tea", "casino bonus", "cheap pills", "essay writing service",
    "luxury handbags", "followers and likes", "binary trading", "roof repair", "hair growth oil", "forex robot",
)  # fmt: skip


def _plain(title: str, body: str, language: str = "en") -> bytes:
    head = f'<!doctype html><html lang="{language}"><head><meta charset="utf-8"><title>{title}</title></head>'
    return f"{head}<body>{body}</body></html>\n".encode()


def _lines_page(url: str, kind: str, title: str, lines: list[str], site: str) -> Page:
    shown = "\n".join(f"<p>{line}</p>" for line in lines)
    body = f'<div class="logo">{site}</div><h1>{title}</h1><div class="content">{shown}</div>'
    return Page(url, _plain(title, body), [], lines, keep_doc=False, kind=kind)


def listing_page(site: Site, url: str, titles: list[str]) -> Page:
    """Returns a category page: titles and dates, no text."""
    dice = Dice(url)
    lines = []
    for title in titles:
        lines += [title, fill("{date} | {n} comments | Read on", dice, site.name, titles)]
    return _lines_page(url, "listing", f"{dice.choice(TOPICS)} - {site.name}", lines, site.name)


def profile_page(site: Site, url: str) -> Page:
    """Returns a user's profile: a few facts."""
    dice = Dice(url)
    user = dice.choice(PEOPLE)
    others = ["Welcome", "Rules of this board"]
    lines = [fill(line, dice, site.name, others) for line in dice.sample(FORUM, 3)]
    return _lines_page(url, "profile", f"Profile of {user}", [f"User name: {user}", *lines], site.name)


def thin_product_page(site: Site, url: str, name: str) -> Page:
    """Returns a product page without a description."""
    dice = Dice(url)
    lines = [fill(line, dice, site.name, ["Gift card", "Tea towel"]) for line in dice.sample(SHOP, 5)]
    return _lines_page(url, "thin_product", name, ["No description available yet.", *lines], site.name)


def stuffed_page(url: str) -> Page:
    """Returns a page that repeats a few key words for search engines."""
    dice = Dice(url)
    words = dice.sample(SPAM_WORDS, 3)
    verbs = ("buy", "order", "get", "compare", "find", "save on")
    lines = []
    for _ in range(30 + dice.below(30)):
        word = dice.choice(words)
        lines.append(f"{dice.choice(verbs)} {word} online best {word} discount {word} near you {word} 2024")
    return _lines_page(url, "spam", f"{words[0]} | best {words[0]} online", lines, "BEST DEALS")


def sales_page(url: str) -> Page:
    """Returns a page of promises in whole sentences, which says the same thing many times."""
    dice = Dice(url)
    word = dice.choice(SPAM_WORDS)
    claims = (
        f"Our {word} will change your life in only {2 + dice.below(20)} days, guaranteed!",
        f"Thousands of happy customers cannot be wrong about {word}.",
        f"Doctors hate this simple trick with {word}, and you will love it.",
        f"Order {word} today and receive a second one free of charge.",
        f"This offer for {word} ends at midnight, so do not wait any longer.",
        "Click the button below and enter the number of your credit card.",
        f"Nobody has ever sold {word} at a price like this before.",
    )
    lines = [dice.choice(claims) for _ in range(24)]
    return _lines_page(url, "spam", f"The secret of {word}", lines, "Health and Wealth Daily")


def promotion_page(url: str) -> Page:
    """Returns an advertisement in varied whole sentences: rules let it pass, a reader would not keep it."""
    dice = Dice(url)
    text = dice.choice(promotions())
    brand = dice.choice(("Sunvelle", "Norrvik", "Tellamo", "Quickfern", "Oakmira", "Bellastra"))
    word = dice.choice(
        ("mattress", "vacuum cleaner", "travel insurance", "coffee machine", "tooth brush", "web hosting")
    )
    lines = [line.format(brand=brand, word=word) for _, line in text.blocks]
    return _lines_page(url, "promotion", f"{brand} {word}: {text.title}", dice.sample(lines, 15), brand)


def error_page(url: str, code: int) -> Page:
    """Returns a page that the server answered with an error status."""
    reason = {404: "Not Found", 403: "Forbidden", 410: "Gone", 500: "Internal Server Error", 503: "Service Unavailable"}
    title = f"{code} {reason[code]}"
    body = f"<h1>{title}</h1><p>The page that you are looking for could not be shown. Please go back and try again.</p>"
    return Page(url, _plain(title, body), kind="http_error", status=title, keep_doc=False)


def redirect_page(url: str, target: str) -> Page:
    """Returns a redirect."""
    body = f'<h1>Moved</h1><p>The document has moved <a href="{target}">here</a>.</p>'
    return Page(
        url, _plain("Moved", body), kind="redirect", status="301 Moved Permanently", headers=(("Location", target),)
    )


def file_pages(host: str) -> list[Page]:
    """Returns fetched files that are no HTML pages: PDF, PNG, JSON, plain text, CSS."""
    pdf = b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[]/Count 0>>endobj\n"
    pdf += b"trailer<</Root 1 0 R>>\n%%EOF\n"
    png = bytes.fromhex(
        "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
        "1f15c4890000000d49444154789c6360606060000000050001a5f64540"
        "0000000049454e44ae426082"
    )
    kinds = (
        ("timetable.pdf", "application/pdf", pdf),
        ("pixel.png", "image/png", png),
        ("stations.json", "application/json", b'{"stations": ["Aldermoor", "Veldhoek"], "updated": "2024-01-01"}\n'),
        ("robots.txt", "text/plain", b"User-agent: *\nDisallow: /private/\n"),
        ("site.css", "text/css", b"body { margin: 0; font: 16px serif }\n"),
    )
    return [Page(f"https://{host}/{n}", body, kind="file", content_type=mime) for n, mime, body in kinds]


SENTENCES = (
    "The ferry to the island leaves at seven in the morning and returns when the captain has finished his coffee.",
    "On the pier there is a kiosk that sells newspapers from last week, which is recent enough for most visitors.",
    "A path of white stones leads from the harbour to the lighthouse and on to a meadow with eleven donkeys.",
    "The keeper of the lighthouse shows guests around on Sundays and tells of the storm that took the old pier.",
    "There is one shop, and what it does not have is written on a slate so that the boat can bring it on Thursday.",
    "In the evening the bats come out from under the roof of the chapel and hunt over the warm rocks by the sea.",
    "Those who stay overnight sleep in the former school, where the blackboard still shows the tides of the month.",
    "The well has never run dry, not even in the summer when the goats had to be brought to the mainland by boat.",
)
HEBREW = "\u05d4\u05e1\u05e4\u05d9\u05e0\u05d4 \u05d9\u05d5\u05e6\u05d0\u05ea \u05d1\u05d1\u05d5\u05e7\u05e8."
"""Hebrew: the ship leaves in the morning."""


def hostile_pages(host: str) -> list[Page]:
    """Returns pages that try parsers: script text, deep nesting, NUL, right to left marks, an endless word."""
    told = "".join(f"<p>{s}</p>" for s in SENTENCES)
    script = (
        "<script>alert('this must never be text')</script><p>&lt;script&gt;alert(1)&lt;/script&gt; is what a visitor "
        "typed into the guest book of the island, and the harbour master did not laugh about it.</p>"
        "<img src=x onerror=\"alert('nor this')\"><iframe srcdoc='<p>frame</p>'></iframe>"
    )
    pages = {
        "guest-book": _plain("Guest book", f"<article>{told}{script}</article>"),
        "deep": _plain("Deep", "<div>" * 20_000 + told + "</div>" * 20_000),
        "nul": _plain("NUL", f"<article>{told}<p>A zero \x00 byte stands here \x00 twice.</p></article>"),
        "right-to-left": _plain("RTL", f'<article dir="rtl"><p>\u202e{HEBREW}\u202c</p>{told}</article>', "he"),
        "endless-word": _plain("Endless", f"<article>{told}<p>{'a' * 200_000}</p></article>"),
        "unclosed": b"<html><body><table><tr><td><p><b><i>" + told.encode() + b"<!-- never closed <p>lost",
        "empty": b"",
    }
    return [Page(f"https://{host}/{name}", body, kind="hostile") for name, body in pages.items()]


def charset_pages(host: str) -> list[Page]:
    """Returns pages whose bytes do not fit what their header says, or say it in an unusual place."""
    german = "".join(
        f"<p>{s}</p>"
        for s in (
            "Die Fähre zur Insel fährt um sieben Uhr und kehrt zurück, wenn der Kapitän gefrühstückt hat.",
            "Auf der großen Wiese hinter dem Leuchtturm grasen elf Esel, über die es viele Geschichten gibt.",
            "Wer über Nacht bleibt, schläft im früheren Schulhaus, wo noch die Gezeiten an der Tafel stehen.",
        )
    )
    page = f"<html><head><title>Insel</title></head><body><article>{german}</article></body></html>"
    meta = page.replace("<head>", '<head><meta http-equiv="Content-Type" content="text/html; charset=windows-1252">')
    broken = page.encode("latin-1").replace(b"Wiese", b"Wie\xff\xfese")
    return [
        Page(f"https://{host}/wrong-header", broken, kind="charset"),
        Page(f"https://{host}/in-meta", meta.encode("cp1252"), kind="charset", content_type="text/html"),
        Page(f"https://{host}/no-charset", page.encode("latin-1"), kind="charset", content_type="text/html"),
        Page(f"https://{host}/bom", b"\xff\xfe" + page.encode("utf-16-le"), kind="charset", content_type="text/html"),
        Page(f"https://{host}/unknown", page.encode(), kind="charset", content_type="text/html; charset=klingon-8"),
    ]
