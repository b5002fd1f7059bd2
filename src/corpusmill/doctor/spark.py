"""What the shuffles of deduplication need, where the environment sends them to Spark."""

from collections.abc import Iterator

from corpusmill.dedup.spark_master import VARIABLE, spark_master
from corpusmill.doctor.finding import Finding, error, ok
from corpusmill.errors import ConfigError


def check_spark() -> Iterator[Finding]:
    """Looks whether PySpark and Java are here; says nothing where shuffles run in the process. Starts no Spark."""
    try:
        master = spark_master()
    except ConfigError as problem:
        yield error("spark", str(problem), f"install what is missing, or correct or unset {VARIABLE}")
        return
    if master is not None:
        yield ok("spark", f"shuffles of deduplication run on {master}; PySpark and Java are installed")
