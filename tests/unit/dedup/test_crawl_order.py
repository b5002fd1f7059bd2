"""The order of crawls by their ids."""

from corpusmill.dedup.crawl_order import crawl_order


def test_crawls_are_ordered_by_year_and_week_as_numbers():
    crawls = ["CC-MAIN-2024-10", "CC-MAIN-2013-48", "CC-MAIN-2024-9", "CC-MAIN-2009-2010", "CC-MAIN-2012"]
    expected = ["CC-MAIN-2009-2010", "CC-MAIN-2012", "CC-MAIN-2013-48", "CC-MAIN-2024-9", "CC-MAIN-2024-10"]
    assert sorted(crawls, key=crawl_order) == expected


def test_ids_of_other_forms_compare_without_an_error():
    assert sorted(["b", "", "2024", "a-1", "a-x"], key=crawl_order)[0] == ""
