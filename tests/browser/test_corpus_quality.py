"""The pages in a real browser: their numbers, stepping through differences, hostile texts, failures, both themes."""

import json
import re
import subprocess
import sys
from urllib.parse import quote

import pytest

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.timeout(2400),  # the first test waits for the runs of all of them
]

DAG = "corpus_refresh_demo"


def open_run(page, run_id, tab="corpus-quality"):
    page.goto(f"/dags/{DAG}/runs/{quote(run_id, safe='')}/plugin/{tab}")


def open_shard(page, run_id, task, index):
    page.goto(f"/dags/{DAG}/runs/{quote(run_id, safe='')}/tasks/{task}/mapped/{index}/plugin/shard-quality")


@pytest.fixture(scope="module")
def tables(airflow, runs):
    """Counts read from the tables themselves, in a process of their own: documents by stage, and hostile texts."""
    code = (
        "import json\n"
        "from corpusmill.runner.open_lakehouse import open_lakehouse\n"
        "lake, at = open_lakehouse(), {'crawl': 'MILL-DEMO-2024-10'}\n"
        "def rows(name, column='kept'):\n"
        "    return lake.table(f'demo.{name}').scan(at, columns=[column])[column].to_pylist()\n"
        "pages = [p for p in lake.table('raw.pages').partitions() if p['crawl'] == at['crawl']]\n"
        "documents = rows('documents')\n"
        "print(json.dumps({\n"
        "  'ingest': lake.table('raw.pages').count(pages[0]),\n"
        "  'clean': sum(documents),\n"
        "  'deduplicate': sum(documents) - rows('duplicates').count(False),\n"
        "  'refine_chunks': sum(rows('chunk_refinements')),\n"
        "  'assemble': lake.table('demo.corpus').count(at),\n"
        "  'characters': sum(rows('corpus', 'n_chars')),\n"
        "  'tokens': sum(rows('corpus', 'n_tokens')),\n"
        "}))\n"
    )
    _, environment = airflow
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def cells(page, row_name):
    row = page.get_by_role("row").filter(has=page.get_by_role("rowheader", name=row_name, exact=True)).first
    return row.locator("td").all_inner_texts()


@pytest.mark.parametrize("page", ["light", "dark"], indirect=True)
def test_the_funnel_shows_the_numbers_of_the_tables(page, runs, tables, keep, request):
    open_run(page, runs["good"])
    page.get_by_role("heading", name="From pages to published documents").wait_for()
    stages = {
        "Pages with text": "ingest", "After the rules": "clean", "After deduplication": "deduplicate",
        "After chunk programs": "refine_chunks", "Published": "assemble",
    }  # fmt: skip
    for name, stage in stages.items():
        assert cells(page, name)[0] == f"{tables[stage]:,}", name
    assert cells(page, "Published")[2:4] == [f"{tables['characters']:,}", f"{tables['tokens']:,}"]
    assert page.get_by_text("The audit passed").is_visible()
    page.wait_for_function("document.querySelectorAll('.cq-plot .main-svg').length >= 12")  # six charts of two layers
    assert page.get_by_role("img", name=re.compile("Chart: Bits per byte. Median .* Kept: up to")).is_visible()
    assert page.locator("html").get_attribute("class").split()[0] == request.node.callspec.params["page"]
    grow(page)
    keep(page, f"run_{request.node.callspec.params['page']}")


def test_the_funnel_stands_beside_that_of_the_crawl_before(page, runs, tables, keep):
    open_run(page, runs["hostile"])
    page.get_by_role("columnheader", name="Crawl before (MILL-DEMO-2024-10)").wait_for()
    assert cells(page, "Pages with text")[-1].startswith(f"{tables['ingest']:,} (")
    assert cells(page, "Published")[-1].startswith(f"{tables['assemble']:,} (")


def test_one_steps_through_differences_by_buttons_and_keys(page, runs, keep):
    open_run(page, runs["good"])
    where = page.locator(".cq-where")
    where.wait_for()
    assert where.get_attribute("aria-live") == "polite"
    total = int(re.search(r"1 of (\d+)", where.inner_text()).group(1))
    assert total > 3
    assert page.get_by_role("button", name="Previous document").is_disabled()
    first = page.locator(".cq-url").inner_text()
    page.get_by_role("button", name="Next document").click()
    assert f"Document 2 of {total}" in where.inner_text()
    assert page.locator(".cq-url").inner_text() != first
    page.locator(".cq-differences").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("j")
    assert f"Document 4 of {total}" in where.inner_text()
    page.keyboard.press("ArrowLeft")
    assert f"Document 3 of {total}" in where.inner_text()
    n_removed = page.locator(".cq-lines del").count()
    assert n_removed >= 1
    assert page.locator(".cq-note").filter(has_text=f"{n_removed} of ").count() == 1
    page.get_by_role("combobox", name="Reason").select_option("edited")
    assert "Document 1 of" in where.inner_text()
    page.get_by_role("button", name="Explain this document").click()
    page.get_by_text(re.compile("Document .*: (not )?published.")).wait_for()
    assert page.get_by_role("table", name="chunk_refinements").is_visible()
    page.locator(".cq-differences").scroll_into_view_if_needed()
    grow(page)
    keep(page, "explained")


def test_a_hostile_page_is_shown_as_text(page, runs, crawls, keep):
    open_run(page, runs["hostile"])
    page.locator(".cq-url").wait_for()
    assert page.locator(".cq-url").inner_text().startswith(crawls.HOSTILE_URL)
    shown = ""
    for _ in range(30):
        shown = page.locator(".cq-lines").first.inner_text()
        if crawls.HOSTILE_SCRIPT in shown or page.get_by_role("button", name="Next document").is_disabled():
            break
        page.get_by_role("button", name="Next document").click()
    assert crawls.HOSTILE_SCRIPT in shown
    assert crawls.HOSTILE_IMAGE in shown
    page.get_by_role("button", name="Explain this document").click()
    page.get_by_text("Table documents, 1 row").click()
    table = page.get_by_role("table", name="documents", exact=True)
    table.wait_for()
    assert crawls.HOSTILE_SCRIPT in table.inner_text()
    page.wait_for_timeout(300)  # an image that is not there would have called its handler by now
    assert page.evaluate("window.injected") is None
    assert page.locator(".cq-page img, .cq-page script, .cq-page iframe").count() == 0
    grow(page)
    keep(page, "hostile")


@pytest.mark.parametrize("page", ["light", "dark"], indirect=True)
def test_a_failed_shard_says_what_happened_and_to_which_input(page, runs, keep, request):
    open_run(page, runs["broken"])
    page.get_by_text("This run failed.").wait_for()
    assert page.get_by_text("No stage of this run was finished.").is_visible()
    keep(page, f"failed_run_{request.node.callspec.params['page']}")
    page.get_by_role("link", name="What shard 1 of ingest met").click()
    page.get_by_text("Shard 00001 failed").wait_for()
    assert "more than max_error_fraction" in page.get_by_role("alert").inner_text()
    assert page.get_by_role("cell", name="ingest.bad_file", exact=True).is_visible()
    assert "MILL-DEMO-2024-33-00001.warc.gz" in page.locator(".cq-files").inner_text()
    keep(page, f"failed_shard_{request.node.callspec.params['page']}")


def test_a_shard_shows_its_counts_throughput_worst_rows_and_inputs(page, runs, keep):
    open_shard(page, runs["good"], "clean", 1)
    page.get_by_role("heading", name="Worst examples").wait_for()
    assert page.get_by_text(re.compile(r"documents/s")).is_visible()
    assert page.locator(".cq-files li").count() == 2
    grow(page)
    keep(page, "shard")


def test_a_run_without_a_report_says_why(page, runs, keep):
    open_run(page, runs["unplanned"])
    said = page.get_by_text("This run failed before it had a plan")
    said.wait_for()
    assert "plan failed: ConfigError: " in said.inner_text()
    assert "MILL-DEMO-1999-01" in said.inner_text()
    keep(page, "unplanned")


def test_a_task_without_a_shard_says_where_to_look(page, runs):
    page.goto(f"/dags/{DAG}/runs/{quote(runs['good'], safe='')}/tasks/select/plugin/shard-quality")
    page.get_by_text("This task does not work on a shard.").wait_for()


@pytest.mark.parametrize("page", ["light", "dark"], indirect=True)
def test_the_home_page_shows_published_crawls_and_what_is_late(page, runs, keep, request):
    page.goto("/")
    panel = page.get_by_role("region", name="Published crawls")
    panel.wait_for()
    assert "MILL-DEMO-2024-33" in panel.get_by_role("status").inner_text()
    assert "has no published run" in panel.get_by_role("status").inner_text()
    keep(page, f"home_{request.node.callspec.params['page']}")
    panel.get_by_role("link", name="MILL-DEMO-2024-10").click()
    page.get_by_role("heading", name="From pages to published documents").wait_for()


def test_the_data_docs_of_a_run_open_from_its_tab_and_from_the_task(page, runs, keep):
    open_run(page, runs["good"])
    with page.expect_popup() as opened:
        page.get_by_role("link", name="All checks in the Data Docs of this run").click()
    docs = opened.value
    docs.get_by_role("link", name="metrics").first.click()
    docs.wait_for_load_state()
    assert "expect" in docs.content()
    assert "https://" not in re.sub(r"<a [^>]*>", "", docs.content())
    keep(docs, "data_docs")
    answer = page.request.get(
        f"/api/v2/dags/{DAG}/dagRuns/{quote(runs['good'], safe='')}/taskInstances/validate/links?map_index=-1"
    )
    link = answer.json()["extra_links"]["Data Docs"]
    assert link.startswith(f"/corpus-quality/data-docs/{DAG}/MILL-DEMO-2024-10/1/")
    assert page.request.get(link).status == 200


def test_a_browser_that_is_not_signed_in_gets_no_data(browser, server, runs):
    context = browser.new_context(base_url=server)
    try:
        for path in ("home", f"runs/{DAG}/{quote(runs['good'], safe='')}"):
            assert context.request.get(f"/corpus-quality/{path}").status == 401
    finally:
        context.close()


def grow(page):
    """Makes the window as high as the page inside Airflow's frame, so that a screenshot holds all of it."""
    missing = page.evaluate(
        "(() => { const p = document.querySelector('.cq-page'); return p ? p.scrollHeight - p.clientHeight : 0; })()"
    )
    page.set_viewport_size({"width": 1440, "height": min(8000, 1000 + missing + 20)})
    page.wait_for_timeout(300)
