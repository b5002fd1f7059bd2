"""Where the local Airflow keeps its state, and the environment its processes get.

Everything lies below ``CORPUSMILL_HOME/airflow``: one SQLite database, logs, a secret of its own. Nobody logs in, so
the server listens on the loopback interface only.
"""

import os
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path

from corpusmill.errors import ConfigError

FIRST_PORT = 8080
"""Airflow's usual port, taken for `up` if it is free."""
PARALLELISM = 4
"""Task processes at the same time; LocalExecutor starts all of them, at some 40 MB each."""
SECRET_BYTES = 64
"""Length of the key that signs tokens between the processes; Airflow warns below 64."""


@dataclass(frozen=True)
class LocalSettings:
    """Folders and address of the local Airflow.

    Attributes:
        home: ``CORPUSMILL_HOME``, absolute.
        project: Folder that holds ``dags/`` and ``plugins/``.
        port: Port of the API server and UI.
    """

    home: Path
    project: Path
    port: int

    @property
    def airflow_home(self) -> Path:
        """Airflow's own folder."""
        return self.home / "airflow"

    @property
    def base_url(self) -> str:
        """Address of the UI."""
        return f"http://127.0.0.1:{self.port}"

    def environment(self) -> dict[str, str]:
        """Returns the environment of every Airflow process: this one's, without settings of another Airflow."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("AIRFLOW_")}
        return {
            **inherited,
            "AIRFLOW_HOME": str(self.airflow_home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.project / "dags"),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(self.project / "plugins"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": str(PARALLELISM),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.airflow_home}/airflow.db",
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(self.airflow_home / "logs"),
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__BASE_URL": self.base_url,
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.base_url}/execution/",
            "AIRFLOW__API_AUTH__JWT_SECRET": self._secret(),
            "AIRFLOW__OPENLINEAGE__DISABLED": os.environ.get("AIRFLOW__OPENLINEAGE__DISABLED", "True"),
            "CORPUSMILL_HOME": str(self.home),
            "PYTHONSAFEPATH": "1",
            "PYTHONUNBUFFERED": "1",
        }

    def _secret(self) -> str:
        place = self.airflow_home / "jwt_secret"
        if not place.exists():
            self.airflow_home.mkdir(parents=True, exist_ok=True)
            place.touch(mode=0o600)
            place.write_text(secrets.token_hex(SECRET_BYTES))
        return place.read_text()


def local_settings(project: Path, *, fixed_port: bool) -> LocalSettings:
    """Returns the settings of this machine.

    Args:
        project: Folder that holds ``dags/`` and ``plugins/``.
        fixed_port: True takes Airflow's usual port where it is free, False any free one.

    Raises:
        ConfigError: The folder holds no DAGs.
    """
    from corpusmill.lakehouse.settings import corpusmill_home

    if not (project / "dags" / "corpus_refresh.py").exists():
        raise ConfigError(f"{str(project)!r} holds no dags/corpus_refresh.py; run this in the project's root folder")
    port = FIRST_PORT if fixed_port and _is_free(FIRST_PORT) else _free_port()
    return LocalSettings(home=corpusmill_home().expanduser().absolute(), project=project.absolute(), port=port)


def _is_free(port: int) -> bool:
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])
