"""The order of crawls by their ids."""

from corpusmill.dedup.crawl_order import crawl_order, crawls_after, crawls_before


def test_crawls_are_ordered_by_year_and_week_as_numbers():
    crawls = ["CC-MAIN-2024-10", "CC-MAIN-2013-48", "CC-MAIN-2024-9", "CC-MAIN-2009-2010", "CC-MAIN-2012"]
    expected = ["CC-MAIN-2009-2010", "CC-MAIN-2012", "CC-MAIN-2013-48", "CC-MAIN-2024-9", "CC-MAIN-2024-10"]
    assert sorted(crawls, key=crawl_order) == expected


def test_ids_of_other_forms_compare_without_an_error():
    assert sorted(["b", "", "2024", "a-1", "a-x"], key=crawl_order)[0] == ""


def test_the_oldest_crawl_keeps_its_copy_and_every_newer_one_gives_way():
    published = ["C-9", "C-10", "C-2"]
    assert crawls_before("C-9", published, "oldest_crawl") == ["C-2"]
    assert crawls_after("C-9", published, "oldest_crawl") == ["C-10"]


def test_what_is_published_first_stays_whatever_its_crawl_and_nothing_gives_way():
    published = ["C-9", "C-10", "C-2"]
    assert crawls_before("C-9", published, "first_published") == ["C-2", "C-10"]
    assert crawls_before("C-1", published, "first_published") == ["C-2", "C-9", "C-10"]
    assert crawls_after("C-1", published, "first_published") == []
