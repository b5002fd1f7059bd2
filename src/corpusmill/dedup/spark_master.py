"""Whether the shuffles of deduplication run on Spark, and where: one variable of the environment.

The variable is no part of a recipe: it says where work is done, and decides no content and no content key.
"""

import os
import re
import shutil
from importlib.util import find_spec
from pathlib import Path

from corpusmill.errors import ConfigError

VARIABLE = "CORPUSMILL_SPARK_MASTER"
"""Names Spark's master, for instance ``spark://host:7077``; not set: shuffles run in the process."""

_MASTER = re.compile(r"local(\[(\d+|\*)\])?|yarn|(spark|k8s)://\S+")


def spark_master() -> str | None:
    """Returns Spark's master, None where shuffles run in the process.

    Raises:
        ConfigError: The variable names no master, or what Spark needs is not installed here.
    """
    master = os.environ.get(VARIABLE) or None
    if master is None:
        return None
    if not _MASTER.fullmatch(master):
        raise ConfigError(
            f"{VARIABLE}={master!r} is no master of Spark; expected local, local[N], local[*], yarn, spark://HOST:PORT "
            "or k8s://HOST:PORT. Unset it to deduplicate in the process"
        )
    if lacking := _lacking():
        raise ConfigError(
            f"{VARIABLE}={master!r} sends the shuffles of deduplication to Spark, but this machine lacks "
            f"{' and '.join(lacking)}. Install that wherever a run is planned or deduplicated, or unset {VARIABLE}: "
            "the tables are the same"
        )
    return master


def _lacking() -> list[str]:
    """Returns what Spark needs and this machine has not, with what to install."""
    home = os.environ.get("JAVA_HOME")
    java = (Path(home) / "bin" / "java").exists() if home else shutil.which("java") is not None
    lacking = []
    if find_spec("pyspark") is None:
        lacking.append("pyspark (pip install -c constraints.txt 'corpusmill[spark]')")
    if not java:
        lacking.append(
            "Java 17 or newer" + (f" in JAVA_HOME={home!r}" if home else " (Debian: openjdk-17-jre-headless)")
        )
    return lacking
