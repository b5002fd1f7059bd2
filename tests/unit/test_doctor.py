"""Each check of the doctor against the real thing, whole and broken."""

import datetime as dt
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from corpusmill import cli
from corpusmill.doctor import examine
from corpusmill.doctor.airflow_database import AirflowDatabase, airflow_database, check_pools
from corpusmill.doctor.examination import run_checks
from corpusmill.doctor.finding import ok
from corpusmill.doctor.packages import check_constraints, check_packages, check_plugin, check_python
from corpusmill.doctor.recipes import check_endpoints, check_models, check_release_list, read_recipe_folder
from corpusmill.doctor.storage import check_catalog, check_disk, check_tables, check_warehouse
from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.lakehouse.settings import LakehouseSettings
from corpusmill.recipe import parse_recipe

NOW = dt.datetime.now(dt.UTC)


def levels(findings):
    return [f.level for f in findings]


@pytest.fixture
def home(tmp_path, monkeypatch):
    for name in list(os.environ):
        if name.startswith(("AIRFLOW", "CORPUSMILL_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("CORPUSMILL_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


@pytest.fixture
def lake(home):
    made = Lakehouse(LakehouseSettings.from_environment(home))
    yield made
    made.close()


def recipe(**changes):
    return parse_recipe({"name": "mine", **changes})


def test_an_old_python_is_an_error():
    assert levels(check_python()) == ["ok"]
    (finding,) = check_python((3, 9, 1))
    assert finding.level == "error"
    assert "3.9.1" in finding.what


def test_packages_that_are_missing_or_of_another_version_are_named():
    whole = list(check_packages(["numpy>=2", "pyarrow>=20; extra == 'crawl'"], ""))
    assert set(levels(whole)) == {"ok"}
    found = {
        f.check: f
        for f in check_packages(["numpy>=99", "no-such-thing>=1; extra == 'crawl'", "celerio; extra == 'celery'"], "")
    }
    assert (found["packages"].level, found["extra crawl"].level) == ("error", "warning")
    assert "expected >=99" in found["packages"].what
    assert "no-such-thing" in found["extra crawl"].what
    assert "extra celery" not in found
    with_celery = {f.check for f in check_packages(["celerio; extra == 'celery'"], "CeleryExecutor")}
    assert "extra celery" in with_celery


def test_versions_other_than_the_tested_ones_are_named(tmp_path):
    import numpy

    (tmp_path / "constraints.txt").write_text(f"numpy=={numpy.__version__}\nnot-installed==1.0\n")
    assert levels(check_constraints(tmp_path / "constraints.txt")) == ["ok"]
    (tmp_path / "constraints.txt").write_text("numpy==1.0\n")
    (finding,) = check_constraints(tmp_path / "constraints.txt")
    assert finding.level == "warning"
    assert "(tested: 1.0)" in finding.what
    assert list(check_constraints(tmp_path / "absent.txt")) == []


def test_the_plugin_must_be_registered_once(tmp_path):
    source = Path(__file__).resolve().parents[2] / "plugins" / "corpusmill_plugin.py"
    assert levels(check_plugin(tmp_path)) == ["warning"]
    shutil.copy(source, tmp_path / "corpusmill_plugin.py")
    assert levels(check_plugin(tmp_path)) == ["ok"]
    shutil.copy(source, tmp_path / "copy_of_it.py")
    (finding,) = check_plugin(tmp_path)
    assert finding.level == "error"
    assert "registered 2 times" in finding.what


def test_a_lakehouse_that_is_not_there_not_readable_or_without_tables(lake, home):
    (finding,) = check_catalog(lake)
    assert finding.level == "error"
    assert "corpusmill init" in finding.todo
    lake.init(["mine"])
    (finding,) = check_catalog(lake)
    assert finding.level == "ok"
    assert "sqlite 3" in finding.what
    assert levels(check_tables(lake, "mine")) == ["ok"]
    assert levels(check_tables(lake, "other")) == ["warning"]
    lake.close()
    (home / "catalog.db").write_bytes(b"not a database, whatever its name says" * 100)
    assert levels(check_catalog(lake)) == ["error"]


def test_a_catalog_server_that_is_down(home):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    lake = Lakehouse(LakehouseSettings.load({
        "catalog_uri": f"postgresql://me:secret@127.0.0.1:{port}/x", "warehouse": f"file://{home}/warehouse",
    }))  # fmt: skip
    (finding,) = check_catalog(lake)
    assert finding.level == "error"
    assert "secret" not in finding.what


def test_a_warehouse_that_cannot_be_written(lake, home):
    home.mkdir()
    assert levels(check_warehouse(lake)) == ["ok"]
    assert not (home / "warehouse").exists(), "looking makes nothing"
    (home / "warehouse").mkdir()
    assert levels(check_warehouse(lake)) == ["ok", "ok"]
    assert list((home / "warehouse").iterdir()) == []
    (home / "warehouse").rmdir()
    (home / "warehouse").write_text("a file where the folder should be")
    (finding,) = check_warehouse(lake)
    assert finding.level == "error"
    assert "cannot be written" in finding.what


def test_a_store_whose_clock_is_wrong(lake, home, monkeypatch):
    (home / "warehouse").mkdir(parents=True)
    from corpusmill.doctor import storage

    listed = storage.list_files

    def late(io, folder):
        for stored in listed(io, folder):
            yield type(stored)(stored.location, stored.size, stored.modified + dt.timedelta(minutes=10))

    monkeypatch.setattr(storage, "list_files", late)
    assert levels(check_warehouse(lake)) == ["ok", "warning"]


def test_too_little_room_on_disk(lake, home, monkeypatch):
    lake.init(["mine"])
    assert levels(check_disk(lake)) == ["ok"]
    free = shutil.disk_usage(home).free / 1e9
    monkeypatch.setattr("corpusmill.doctor.storage.SCRATCH_GIGABYTES", free + 1)
    (finding,) = check_disk(lake)
    assert finding.level == "error"
    assert "GB free" in finding.what


@pytest.fixture
def database(tmp_path):
    """The two tables of Airflow's database that are read, with a pool and a connection."""
    place = tmp_path / "airflow.db"
    with sqlite3.connect(place) as made:
        made.execute("CREATE TABLE slot_pool (pool TEXT, slots INTEGER)")
        made.execute("CREATE TABLE connection (conn_id TEXT)")
        made.execute("INSERT INTO slot_pool VALUES ('gpu', 2)")
        made.execute("INSERT INTO connection VALUES ('large_model')")
    made.close()
    return place


def test_pools_missing_empty_or_other_than_the_devices(database, monkeypatch):
    airflow = AirflowDatabase(f"sqlite:///{database}")
    monkeypatch.setenv("CORPUSMILL_DEVICES", "0,1")
    assert levels(check_pools(airflow)) == ["ok"]
    monkeypatch.setenv("CORPUSMILL_DEVICES", "0,1,2,3")
    (finding,) = check_pools(airflow)
    assert (finding.level, "2 slots, this machine 4 devices" in finding.what) == ("warning", True)
    for slots in (0, None):
        with sqlite3.connect(database) as change:
            change.execute("DELETE FROM slot_pool" if slots is None else "UPDATE slot_pool SET slots = 0")
        change.close()
        (finding,) = check_pools(airflow)
        assert finding.level == "error"
        assert "airflow pools set gpu" in finding.todo
    for unknown in (AirflowDatabase(None), AirflowDatabase("sqlite:////nowhere/a.db"), AirflowDatabase("not a url")):
        (finding,) = check_pools(unknown)
        assert finding.level == "warning"
        assert finding.what.startswith("unknown: ")


def test_airflows_database_is_found_where_airflow_would(home, tmp_path, monkeypatch):
    assert airflow_database().url is None
    (home / "airflow").mkdir(parents=True)
    (home / "airflow" / "airflow.db").touch()
    assert airflow_database().url == f"sqlite:///{home}/airflow/airflow.db"
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "af"))
    (tmp_path / "af").mkdir()
    (tmp_path / "af" / "airflow.cfg").write_text("[database]\nsql_alchemy_conn = postgresql://db/airflow\n")
    assert airflow_database().url == "postgresql://db/airflow"
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "postgresql://other/airflow")
    assert airflow_database().url == "postgresql://other/airflow"


def test_models_that_are_missing_or_changed(lake, home, tmp_path):
    from corpusmill.modeling.load import model_folder

    model = tmp_path / "labeller"
    shutil.copytree(model_folder("bundled:line_labeller"), model)
    refine = {"backend": "labeller", "model": str(model)}
    (finding,) = check_models(lake, recipe(refine_documents=refine))
    assert finding.level == "ok"
    from corpusmill.prox.refiner import folder_digest

    pinned = recipe(refine_documents={**refine, "sha256": folder_digest(model)})
    assert levels(check_models(lake, pinned)) == ["ok"]
    victim = max((p for p in model.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    victim.write_bytes(victim.read_bytes()[:-1] + b"!")
    (finding,) = check_models(lake, pinned)
    assert finding.level == "error"
    assert "sha256" in finding.what
    shutil.rmtree(model)
    assert levels(check_models(lake, pinned)) == ["error"]


def test_a_hub_model_is_looked_for_in_the_cache_and_nowhere_else(lake, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    mine = recipe(score={"model": "some/model", "revision": "0" * 40})
    (finding,) = check_models(lake, mine)
    assert finding.level == "warning"
    snapshot = tmp_path / "hf" / "hub" / "models--some--model" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    assert levels(check_models(lake, mine)) == ["ok"]


def test_registered_models_are_read_whole(lake, home, tmp_path):
    from corpusmill.modeling.load import model_folder
    from corpusmill.runner.model_registry import register_model, store_model

    lake.init(["mine"])
    stored = store_model(lake, "lines", model_folder("bundled:line_labeller"))
    register_model(lake, stored, "run")
    mine = recipe(refine_documents={"backend": "labeller", "model": stored.reference})
    assert levels(check_models(lake, mine)) == ["ok"]
    folder = Path(lake.io.parse_location(stored.location)[2])
    weights = max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    weights.unlink()
    (finding,) = check_models(lake, mine)
    assert finding.level == "error"
    assert levels(check_models(lake, recipe(score={"model": "registered:nothing@123"}))) == ["error"]


def test_release_lists_absent_broken_and_old(home, tmp_path):
    file = tmp_path / "mine.yaml"
    mine = recipe(source={"releases": "list.json"})
    (finding,) = check_release_list(file, mine, NOW)
    assert (finding.level, "crawl_watch" in finding.todo) == ("warning", True)
    place = tmp_path / "list.json"
    place.write_text(json.dumps([{"id": "A", "to": "2024-03-05"}]))
    (finding,) = check_release_list(file, mine, NOW)
    assert (finding.level, finding.what) == ("ok", "1 releases, newest A")
    os.utime(place, (time.time() - 9 * 86_400,) * 2)
    (finding,) = check_release_list(file, mine, NOW)
    assert (finding.level, "9 days ago" in finding.what) == ("warning", True)
    place.write_text("[{")
    assert levels(check_release_list(file, mine, NOW)) == ["error"]


def test_model_servers_that_nothing_describes(database, monkeypatch):
    airflow = AirflowDatabase(f"sqlite:///{database}")

    def mine(name):
        return recipe(refine_documents={"backend": "completions", "model": "m/m", "endpoint": name})

    assert levels(check_endpoints(mine("large_model"), airflow)) == ["ok"]
    assert levels(check_endpoints(mine("other_model"), airflow)) == ["error"]
    assert levels(check_endpoints(mine("other_model"), AirflowDatabase(None))) == ["warning"]
    assert levels(check_endpoints(mine("http://host/v1"), airflow)) == []
    monkeypatch.setenv("CORPUSMILL_ENDPOINT_OTHER_MODEL", "http://host/v1")
    assert levels(check_endpoints(mine("other_model"), airflow)) == ["ok"]


def test_a_recipe_that_cannot_be_read_and_a_folder_without_any(tmp_path):
    assert levels(read_recipe_folder(tmp_path)[1]) == ["warning"]
    (tmp_path / "broken.yaml").write_text("name: broken\nrulez: {}\n")
    read, (finding,) = read_recipe_folder(tmp_path)
    assert (read, finding.check, finding.level) == ([], "recipe broken", "error")


def test_a_check_that_gets_no_answer_or_falls_over_delays_no_other():
    started = time.monotonic()
    findings = run_checks(
        [
            ("slow", lambda: time.sleep(30) or []),
            ("broken", lambda: [1 / 0]),
            ("fine", lambda: [ok("fine", "all is well")]),
        ],
        seconds=0.3,
    )
    assert time.monotonic() - started < 10
    assert [(f.check, f.level) for f in findings] == [("slow", "error"), ("broken", "error"), ("fine", "ok")]


RECIPE = "name: mine\nsource: {base: bundled:crawls}\n"


@pytest.fixture
def project(home, tmp_path, monkeypatch):
    monkeypatch.setattr("corpusmill.doctor.examination.SECONDS", 60)  # for a machine that runs other tests too
    folder = tmp_path / "recipes"
    folder.mkdir()
    (folder / "mine.yaml").write_text(RECIPE)
    monkeypatch.setenv("CORPUSMILL_RECIPES", str(folder))
    return folder


def test_the_command_says_one_line_each_and_ends_with_1_on_an_error(project, lake, capsys):
    assert cli.main(["doctor"]) == 1, "there is no lakehouse yet"
    shown = capsys.readouterr().out
    assert "ERROR" in shown
    assert "-> corpusmill init" in shown
    lake.init(["mine"])
    assert cli.main(["doctor", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["error"] == 0
    assert {"check", "level", "what", "todo"} == set(told["findings"][0])
    assert all(f["todo"] for f in told["findings"] if f["level"] != "ok")


def test_every_finding_is_one_line(project):
    assert all("\n" not in f.what + f.todo for f in examine(project))


@pytest.mark.slow
def test_no_heavy_package_is_loaded(project):
    code = (
        "import sys; from pathlib import Path; from corpusmill.doctor import examination\n"
        "examination.SECONDS = 60\n"
        "examination.examine(Path(sys.argv[1]))\n"
        "print([m for m in ('torch', 'transformers', 'great_expectations', 'airflow', 'spacy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, project], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
