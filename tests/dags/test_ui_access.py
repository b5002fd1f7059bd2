"""Every route of the UI plugin asks Airflow for the user's rights; only scripts and styles are open."""

import contextlib
from pathlib import Path

import pytest

pytestmark = [pytest.mark.airflow, pytest.mark.slow]

DAG = "corpus_refresh_demo"
FILLED = {"dag_id": DAG, "run_id": "manual__x", "doc_id": "d", "task_id": "ingest", "map_index": "0",
          "crawl": "C-2024-10", "epoch": "1", "path": "index.html"}  # fmt: skip
ANSWERS = (200, 404)  # a right to see does not make a run exist


@pytest.fixture(scope="module")
def users():
    """Airflow with users and passwords in place of its mode without login."""
    from airflow.configuration import conf

    key = ("core", "simple_auth_manager_all_admins")
    before = conf.get(*key)
    conf.set(*key, "False")
    yield
    conf.set(*key, before)


@pytest.fixture(scope="module")
def client(airflow_db, users):
    from airflow import plugins_manager
    from airflow.api_fastapi.app import create_app, purge_cached_app
    from fastapi.testclient import TestClient

    purge_cached_app()
    app = create_app()
    assert [a["url_prefix"] for a in plugins_manager.get_fastapi_plugins()[0]].count("/corpus-quality") == 1
    with contextlib.closing(TestClient(app, raise_server_exceptions=False)) as found:
        yield found
    purge_cached_app()


@pytest.fixture(scope="module")
def token(client):
    """Returns a function that makes a signed token of a user with a role; None is a user without any right."""
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

    def make(role):
        made = get_auth_manager().generate_jwt(SimpleAuthManagerUser(username="u", role=role))
        return {"Authorization": f"Bearer {made}"}

    return make


def routes():
    """Returns (path pattern, path with values) of everything that is mounted, the static mount excepted."""
    from corpusmill_operators.ui.app import build_app

    found = [route for route in build_app().routes if getattr(route, "name", "") != "static"]
    return [(route.path, "/corpus-quality" + route.path.replace(":path", "").format(**FILLED)) for route in found]


def test_every_route_refuses_requests_without_a_token(client, home):
    assert len(routes()) >= 5
    for pattern, path in routes():
        assert client.get(path).status_code == 401, pattern
        assert client.get(path, headers={"Authorization": "Bearer nonsense"}).status_code == 403, pattern


def test_every_route_answers_a_user_with_the_right_to_read(client, token, home):
    for pattern, path in routes():
        answer = client.get(path, headers=token("viewer"))
        assert answer.status_code in ANSWERS, (pattern, answer.text)
        assert answer.status_code == 404 or "no-store" in answer.headers["cache-control"]
    assert client.get("/corpus-quality/home", headers=token("viewer")).status_code == 200


def test_a_user_without_rights_to_the_dag_is_refused(client, token, home):
    for pattern, path in routes():
        answer = client.get(path, headers=token(None))
        if "{dag_id}" in pattern:
            assert answer.status_code == 403, pattern
        else:
            assert answer.json()["recipes"] == []


def test_no_route_takes_anything_but_reading():
    from corpusmill_operators.ui.app import build_app

    methods = {m for route in build_app().routes for m in getattr(route, "methods", None) or ()}
    assert methods <= {"GET", "HEAD"}


def test_the_open_folder_serves_scripts_and_styles_only(client):
    from corpusmill_operators.ui.static_files import FOLDER

    assert {path.suffix for path in FOLDER.iterdir()} <= {".js", ".css"}
    for path in FOLDER.iterdir():
        assert client.get(f"/corpus-quality/static/{path.name}").status_code == 200
    for path in ("../app.py", "..%2fapp.py", "../app.js", "", "nothing.js", "..%2f..%2flinks.py"):
        assert client.get(f"/corpus-quality/static/{path}").status_code == 404, path


def test_the_charts_script_comes_from_the_package(client):
    pytest.importorskip("plotly")
    answer = client.get("/corpus-quality/static/plotly.min.js")
    assert answer.status_code == 200
    assert "plotly.js" in answer.text[:500]


def test_the_pages_are_registered_once_with_addresses_that_work_below_any_path(airflow_db):
    from airflow.plugins_manager import get_plugin_info

    found = [p for p in get_plugin_info() if p["name"] == "corpusmill"]
    assert len(found) == 1
    apps = found[0]["react_apps"]
    assert {a["destination"] for a in apps} == {"dag_run", "task_instance", "dashboard"}
    folder = Path(__file__).resolve().parents[2] / "operators/corpusmill_operators/ui/static"
    for app in apps:
        place = app["bundle_url"].removeprefix("corpus-quality/static/")
        assert (folder / place).is_file()
        assert f'globalThis["{app["name"]}"]' in (folder / place).read_text()


def test_loading_the_plugin_loads_neither_routes_nor_tables():
    import subprocess
    import sys

    code = (
        "import sys\n"
        "from corpusmill_operators.ui.registration import FASTAPI_APPS, REACT_APPS\n"
        "print([m for m in ('fastapi', 'pyarrow', 'pyiceberg', 'airflow.models', 'plotly') if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_names_of_airflow_that_are_not_public_stand_in_two_modules_alone():
    folder = Path(__file__).resolve().parents[2] / "operators/corpusmill_operators/ui"
    using = {p.name for p in folder.glob("*.py") if "airflow.api_fastapi" in p.read_text()}
    assert using == {"access.py"}
    models = {p.name for p in folder.glob("*.py") if "airflow.models" in p.read_text()}
    assert models == {"airflow_state.py"}


def test_no_page_makes_markup_from_text():
    folder = Path(__file__).resolve().parents[2] / "operators/corpusmill_operators/ui/static"
    for path in folder.glob("*.js"):
        text = path.read_text()
        for word in (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "dangerouslySetInnerHTML",
            "document.write",
            "eval(",
        ):
            assert word not in text, (path.name, word)


@pytest.mark.parametrize(
    "path",
    [
        "../index.html", "..%2f..%2fepoch-00002/site/index.html", "%2e%2e/secret.html", "/etc/passwd", "secret.json",
        "link.html", "validations/../../site2/x.html",
    ],
)  # fmt: skip
def test_data_docs_do_not_leave_their_folder(home, path):
    from urllib.parse import unquote

    from corpusmill_operators.ui.data_docs import locate

    site = home / "data_docs/demo/C-2024-10/epoch-00001/site"
    site.mkdir(parents=True)
    (site / "index.html").write_text("<html><head></head></html>")
    (site / "secret.json").write_text("{}")
    (site.parent / "secret.html").write_text("secret")
    (site / "link.html").symlink_to(home / "catalog.db")
    assert locate(DAG, "C-2024-10", 1, "index.html") == site / "index.html"
    assert locate(DAG, "C-2024-10", 1, unquote(path)) is None
    assert locate("another_dag", "C-2024-10", 1, "index.html") is None
    assert locate(DAG, "../demo/C-2024-10", 1, "index.html") is None
    assert locate("corpus_refresh_../demo", "C-2024-10", 1, "index.html") is None


def test_data_docs_are_readable_offline_and_run_no_script(client, token, home):
    site = home / "data_docs/demo/C-2024-10/epoch-00001/site"
    (site / "validations/metrics/run/1").mkdir(parents=True)
    page = (
        "<html><head><link rel='stylesheet' href='https://cdn.example/x.css'><script src='//cdn.example/x.js'></script>"
        "</head><body><img src='https://cdn.example/logo.png'><p onclick='x()'>12 of 34</p><script>steal()</script>"
    )
    (site / "index.html").write_text(page)
    (site / "validations/metrics/run/1/audit-metrics.html").write_text(page)
    base = f"/corpus-quality/data-docs/{DAG}/C-2024-10/1/"
    first = client.get(f"{base}index.html", headers=token("viewer"))
    assert 'href="validations/metrics/run/1/audit-metrics.html"' in first.text
    answer = client.get(f"{base}validations/metrics/run/1/audit-metrics.html", headers=token("viewer"))
    assert "12 of 34" in answer.text
    assert "cdn.example" not in answer.text
    assert "<script" not in answer.text
    assert "../../../../../../../../static/data_docs.css" in answer.text
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "sandbox" in policy
    assert "allow-scripts" not in policy
    assert client.get(f"{base}nothing.html", headers=token("viewer")).status_code == 404


def test_the_data_docs_link_of_a_site_of_ours_goes_through_the_guarded_route(monkeypatch):
    from corpusmill_operators.links import served_address

    site = "file:///home/x/data_docs/demo/C-2024-10/epoch-00012/site/index.html"
    assert served_address(site) == "/corpus-quality/data-docs/corpus_refresh_demo/C-2024-10/12/index.html"
    assert served_address("https://docs.example/site") == "https://docs.example/site"
    assert served_address("") == ""
