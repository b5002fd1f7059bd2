"""Which pages stand in which of the two demo crawls, and which of them are copies of one another.

The second crawl repeats some pages of the first under the same address, under another one, on another site with other
furniture, and with one sentence more, as crawls of the real web do; the rest of it is new.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from corpusmill.demo import odd_pages
from corpusmill.demo.dice import Dice
from corpusmill.demo.page_chrome import BUILDS, Page, Site, article_page
from corpusmill.demo.written_texts import TOWNS, Text, articles, foreign, news, products, recipes, threads

FIRST, SECOND = "MILL-DEMO-2024-10", "MILL-DEMO-2024-33"
"""Crawl ids."""
DOCS_HOST = "sqlite-docs.example"
"""Host under which the SQLite documentation stands; a name that cannot exist."""
ADDED_SENTENCE = "A reader wrote to us that the same is told in her village, although with a few more details."

_MENU = ("Home", "Latest stories", "Opinion and letters", "Weather and tides", "Photo galleries", "About this site")
SITES: dict[str, tuple[Site, ...]] = {
    "blog": (
        Site("slow-days.example", "Slow Days", ("Start", "All posts", "About me and this blog", "RSS"), "article"),
        Site(
            "hedge-and-hearth.example",
            "Hedge and Hearth",
            ("Blog", "Recipes and gardens", "Shop our favourites"),
            "div",
        ),
    ),
    "howto": (
        Site("do-it-once.example", "Do It Once", ("Guides A to Z", "Tools", "Ask an expert", "Log in"), "div"),
        Site("fixed-by-noon.example", "Fixed by Noon", ("All repairs", "Newest guides", "Write for us"), "article"),
    ),
    "science": (
        Site(
            "why-things-are.example", "Why Things Are", ("Nature", "Physics at home", "Quiz", "Newsletter"), "article"
        ),
        Site("pocket-science.example", "Pocket Science", ("Index", "Questions and answers", "Links"), "table"),
    ),
    "history": (Site("old-and-odd.example", "Old and Odd", ("Archive", "By century", "By country"), "table"),),
    "guide": (
        Site("away-by-rail.example", "Away by Rail", ("Journeys", "Tickets and passes", "Our guides"), "article"),
    ),
    "essay": (Site("the-back-page.example", "The Back Page", ("Essays", "Authors", "Subscribe"), "div"),),
    "recipe": (
        Site(
            "spoon-and-lid.example",
            "Spoon and Lid",
            ("Recipes", "Seasonal menus", "Cookbook shop", "Log in"),
            "article",
        ),
        Site("one-pot-town.example", "One Pot Town", ("All recipes", "Quick dinners", "Videos"), "div"),
    ),
    "shop": (
        Site("plain-goods.example", "Plain Goods", ("Kitchen", "Garden", "House", "Sale", "My basket (0)"), "div"),
    ),
    "forum": (
        Site("workbench-forum.example", "Workbench Forum", ("Board index", "Members", "Rules", "Register"), "table"),
        Site("ask-the-shed.example", "Ask the Shed", ("Forums", "New posts", "Search forums", "Sign up"), "div"),
    ),
    "de": (Site("talblick.example", "Talblick", ("Startseite", "Aus der Region", "Kontakt und Impressum"), "article"),),
    "fr": (Site("la-vallee.example", "La Vallée", ("Accueil", "Actualités", "Mentions légales"), "article"),),
    "es": (Site("el-valle.example", "El Valle", ("Portada", "Noticias", "Aviso legal"), "div"),),
}
COPY_SITE = Site("daily-digest.example", "Daily Digest", ("Top stories", "World", "Sport", "Subscribe"), "div")
"""A site that reprints the texts of others."""
ODD_SITE = Site("odd-island.example", "Odd Island", ("Home", "Harbour", "Contact"))


def site_of(text: Text) -> Site:
    """Returns the site that first published a text."""
    kind = text.key.partition("/")[0]
    if kind == "news":
        town, host = text.fields
        number = [name for name, _, _ in TOWNS].index(town)
        return Site(host, host.partition(".")[0].replace("-", " ").title(), _MENU, BUILDS[number % 3])
    return Dice(text.key).choice(SITES[kind])


def url_of(text: Text, site: Site | None = None) -> str:
    """Returns the address of a text on its own or another site."""
    dice = Dice(f"url {text.key}")
    tail = dice.choice((f"{text.slug}.html", f"2024/{1 + dice.below(9):02}/{text.slug}/", f"articles/{text.slug}"))
    return f"https://{(site or site_of(text)).host}/{tail}"


@dataclass(frozen=True)
class CrawlPages:
    """Pages of one crawl in fetch order, and how its copies came about (URL -> (kind, URL of the original))."""

    crawl: str
    pages: tuple[Page, ...]
    copies: dict[str, tuple[str, str]]


def both_crawls(docs: Mapping[str, bytes]) -> tuple[CrawlPages, CrawlPages]:
    """Returns the pages of both crawls.

    Args:
        docs: SQLite documentation: path below the documentation's folder -> HTML; see `documentation_paths`.
    """
    texts = [*news(), *articles(), *recipes(), *products(), *threads(), *foreign()]
    first = [t for i, t in enumerate(texts) if i % 5 < 3]  # of five towns with the same events, three come first
    second = [t for i, t in enumerate(texts) if i % 5 >= 3]
    one, two = _Plan(FIRST, texts), _Plan(SECOND, texts)
    for text in first:
        one.show(text)
    for text in second:
        two.show(text)
    one.copy_within(first)
    two.copy_across(first)
    two.copy_within(second)
    in_first, in_second = documentation_split(sorted(docs))
    one.document(docs, in_first)
    two.document(docs, in_second)
    one.add_odd("a", thin=51, spam=38)
    two.add_odd("b", thin=54, spam=40)
    return one.finished(), two.finished()


def documentation_split(paths: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns the documentation pages of the first and of the second crawl; about a quarter stands in both."""
    first = [p for p in paths if Dice(f"docs {p}").below(100) < 62]
    second = [p for p in paths if Dice(f"docs {p}").below(100) >= 38]
    return first, second


class _Plan:
    """Collects the pages of one crawl."""

    def __init__(self, crawl: str, texts: Sequence[Text]) -> None:
        self.crawl = crawl
        self.pages: list[Page] = []
        self.copies: dict[str, tuple[str, str]] = {}
        self._titles: dict[str, list[str]] = {}
        for text in texts:
            self._titles.setdefault(text.language, []).append(text.title)

    def others(self, text: Text, url: str) -> list[str]:
        """Returns titles of other pages for links."""
        dice = Dice(f"links {url}")
        own = dice.sample([t for t in self._titles[text.language] if t != text.title], 7)
        return own if len(own) > 1 else own + dice.sample(self._titles["en"], 3)

    def show(self, text: Text) -> None:
        """Adds a text on its own site."""
        url = url_of(text)
        self.pages.append(article_page(site_of(text), text, url, self.others(text, url)))

    def copy_within(self, texts: Sequence[Text]) -> None:
        """Adds copies of this crawl's pages: the same payload elsewhere, and reprints on another site."""
        by_url = {page.url: page for page in self.pages}
        english = [t for t in texts if t.language == "en"]
        for text in Dice(f"{self.crawl} moved").sample(english, 6):
            original = by_url[url_of(text)]
            self._add_copy("moved_same_crawl", replace(original, url=f"{original.url}?ref=home"), original.url)
        for text in Dice(f"{self.crawl} reprint").sample(english, 8):
            url = url_of(text, COPY_SITE)
            page = article_page(COPY_SITE, text, url, self.others(text, url), round_=3)
            self._add_copy("reprint_same_crawl", page, url_of(text))

    def copy_across(self, earlier: Sequence[Text]) -> None:
        """Adds copies of another crawl's texts: exact, moved, with other furniture, edited."""
        english = [t for t in earlier if t.language == "en"]
        dice = Dice(f"{self.crawl} across")
        chosen = dice.sample(english, 40)
        for i, text in enumerate(chosen):
            site, url = site_of(text), url_of(text)
            kind = ("exact", "moved", "boilerplate", "edited")[i % 4]
            target = url.replace("https://", "https://www.") if kind == "moved" else url
            page = article_page(
                site,
                text,
                url,
                self.others(text, url),
                extra=ADDED_SENTENCE if kind == "edited" else "",
                round_=1 if kind == "boilerplate" else 0,
            )
            self._add_copy(kind, replace(page, url=target), url)

    def _add_copy(self, kind: str, page: Page, original: str) -> None:
        self.pages.append(page)
        self.copies[page.url] = (kind, original)

    def document(self, docs: Mapping[str, bytes], paths: Sequence[str]) -> None:
        """Adds documentation pages as they are."""
        for path in paths:
            self.pages.append(Page(f"https://{DOCS_HOST}/{path}", docs[path], kind="documentation"))

    def add_odd(self, mark: str, *, thin: int, spam: int) -> None:
        """Adds the pages that no corpus wants, and those that no reader should trip over."""
        dice = Dice(f"{self.crawl} odd")
        shop, forum = SITES["shop"][0], SITES["forum"][0]
        for i in range(thin):
            site = dice.choice((*SITES["blog"], *SITES["recipe"], *SITES["science"]))
            titles = dice.sample(self._titles["en"], 12)
            makers = (
                lambda n, s=site, t=titles: odd_pages.listing_page(s, f"https://{s.host}/category/{mark}{n}", t),
                lambda n: odd_pages.profile_page(forum, f"https://{forum.host}/user/{mark}{n}"),
                lambda n: odd_pages.thin_product_page(shop, f"https://{shop.host}/p/{mark}{n}", f"Item {mark}{n}"),
            )
            self.pages.append(makers[i % 3](i))
        for i in range(spam):
            maker = (odd_pages.stuffed_page, odd_pages.sales_page)[i % 2]
            self.pages.append(maker(f"https://best-deals-{i % 5}.example/{mark}{i}"))
        for i in range(14):
            self.pages.append(odd_pages.promotion_page(f"https://offers-{i % 3}.example/{mark}/{i}.html"))
        for i, code in enumerate((404, 404, 403, 410, 500, 503, 404, 500)):
            self.pages.append(odd_pages.error_page(f"https://{ODD_SITE.host}/lost/{mark}{i}", code))
        for i in range(8):
            target = f"https://{ODD_SITE.host}/new/{mark}{i}"
            self.pages.append(odd_pages.redirect_page(f"https://{ODD_SITE.host}/old/{mark}{i}", target))
        self.pages += odd_pages.file_pages(f"files-{mark}.example")
        self.pages += odd_pages.hostile_pages(f"hostile-{mark}.example")
        self.pages += odd_pages.charset_pages(f"charset-{mark}.example")
        lost = odd_pages.sales_page(f"https://{ODD_SITE.host}/damaged/{mark}")
        self.pages.append(replace(lost, kind="damaged", broken="gzip", keep_doc=None))

    def finished(self) -> CrawlPages:
        """Returns the pages in fetch order, which has nothing to do with what they are."""
        order = sorted(self.pages, key=lambda page: Dice(f"order {page.url}").below(1 << 60))
        return CrawlPages(self.crawl, tuple(order), dict(sorted(self.copies.items())))
