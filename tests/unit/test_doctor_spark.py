"""What the doctor says about Spark, which deduplication may use."""

import sys

from corpusmill.dedup.spark_master import VARIABLE
from corpusmill.doctor.spark import check_spark


def test_spark_is_mentioned_only_where_it_is_asked_for(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert list(check_spark()) == []


def test_what_spark_lacks_is_an_error_with_what_to_do(monkeypatch):
    monkeypatch.setenv(VARIABLE, "yarn")
    monkeypatch.setitem(sys.modules, "pyspark", None)
    (finding,) = check_spark()
    assert finding.level == "error"
    assert "corpusmill[spark]" in finding.what
    assert VARIABLE in finding.todo


def test_what_is_installed_is_fine(monkeypatch, tmp_path):
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.touch()
    monkeypatch.setenv(VARIABLE, "local[2]")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "pyspark.py").touch()
    monkeypatch.delitem(sys.modules, "pyspark", raising=False)
    (finding,) = check_spark()
    assert finding.level == "ok"
    assert "local[2]" in finding.what
