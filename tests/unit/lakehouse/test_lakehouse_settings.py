import subprocess
import sys
from pathlib import Path

import pytest

from corpusmill.errors import ConfigError
from corpusmill.lakehouse.settings import LakehouseSettings, corpusmill_home

SECRET = "postgresql://ann:hunter2@db/lake"


def test_the_default_is_sqlite_and_a_folder_below_home(tmp_path):
    settings = LakehouseSettings.from_environment(tmp_path, {})
    assert settings.catalog_uri == f"sqlite:///{tmp_path}/catalog.db"
    assert settings.warehouse == f"file://{tmp_path}/warehouse"
    assert settings.sqlite_path == tmp_path / "catalog.db"
    assert not list(tmp_path.iterdir())


def test_the_environment_overrides_every_part(tmp_path):
    settings = LakehouseSettings.from_environment(
        tmp_path,
        {
            "CORPUSMILL_CATALOG_URI": SECRET,
            "CORPUSMILL_WAREHOUSE": "s3://bucket/prefix/",
            "CORPUSMILL_S3_ENDPOINT": "http://127.0.0.1:9000",
            "AWS_DEFAULT_REGION": "eu-west-1",
        },
    )
    assert settings.sqlite_path is None
    properties = settings.catalog_properties()
    assert properties["uri"] == "postgresql+psycopg2://ann:hunter2@db/lake"
    assert properties["warehouse"] == "s3://bucket/prefix"
    assert (properties["s3.endpoint"], properties["s3.region"]) == ("http://127.0.0.1:9000", "eu-west-1")
    assert "s3.access-key-id" not in properties  # the S3 client reads the standard AWS variables itself


def test_an_own_endpoint_needs_no_region():
    settings = LakehouseSettings.load(
        {
            "catalog_uri": SECRET,
            "warehouse": "s3://b/p",
            "s3_endpoint": "http://h",
            "s3_credentials": {"access_key": "k"},
        }
    )
    properties = settings.catalog_properties()
    assert (properties["s3.region"], properties["s3.access-key-id"]) == ("us-east-1", "k")


def test_secrets_are_never_shown_or_dumped():
    settings = LakehouseSettings.load(
        {"catalog_uri": SECRET, "warehouse": "s3://b/p", "s3_credentials": {"secret_key": "topsecret"}}
    )
    shown = [repr(settings), str(settings), settings.model_dump_json(), str(settings.model_dump())]
    assert not [text for text in shown if "hunter2" in text or "topsecret" in text]
    assert settings.shown_catalog_uri == "postgresql://ann:***@db/lake"
    assert settings.fingerprint() == settings.model_copy(update={"catalog_uri": "sqlite:///x"}).fingerprint()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"catalog_uri": "mysql://ann:hunter2@db/lake", "warehouse": "file:///w"},
            r"catalog_uri='mysql://ann:\*\*\*@db",
        ),
        ({"catalog_uri": "sqlite:////c.db", "warehouse": "/w"}, "warehouse='/w'"),
        ({"catalog_uri": "sqlite:////c.db", "warehouse": "s3://b", "s3_credentials": {"pass": "x"}}, "'pass'"),
    ],
)
def test_what_is_not_supported_is_refused_without_its_password(values, message):
    with pytest.raises(ConfigError, match=message) as error:
        LakehouseSettings.load(values).catalog_properties()
    assert "hunter2" not in str(error.value)


def test_a_home_that_no_uri_can_carry_is_refused():
    with pytest.raises(ConfigError, match="file URI"):
        LakehouseSettings.from_environment(Path("/data/50%"), {})


def test_home_is_the_variable_or_a_folder_below_the_current_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CORPUSMILL_HOME", raising=False)
    assert corpusmill_home() == tmp_path / ".corpusmill"
    monkeypatch.setenv("CORPUSMILL_HOME", "elsewhere")
    assert corpusmill_home() == tmp_path / "elsewhere"


def test_importing_the_settings_loads_nothing_heavy():
    heavy = ("pyarrow", "pyiceberg", "numpy", "sqlalchemy")
    code = f"import sys, corpusmill.lakehouse.settings; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
