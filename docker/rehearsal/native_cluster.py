"""The services of compose.yaml as processes of this machine.

What differs from containers, all of it here: host names, ports and folders; moto stands for the S3-compatible store,
which is no Debian package; workers on one host need names of their own; each process has its own AIRFLOW_HOME, as each
container has. The workers of the image without torch are refused torch.
"""

import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from rehearsal.compose_services import NativePlaces, Service, read_services
from rehearsal.native_processes import NativeProcesses, RehearsalError, as_postgres, free_port, listens

AIRFLOW = ("apiserver", "scheduler", "dag-processor", "triggerer")
WORKERS = ("worker", "worker-gpu")
WITHOUT_TORCH = "worker"
"""Service whose image has no torch."""
SERVER_SECONDS = 60.0


class NativeCluster:
    """Servers and Airflow processes of one rehearsal.

    Args:
        repository: Root of the project.
        folder: Everything of the rehearsal lies in it.
        values: Variables as ``docker/.env`` would give them.
        processes: Runs them.
    """

    def __init__(self, repository: Path, folder: Path, values: dict[str, str], processes: NativeProcesses) -> None:
        self.repository, self.folder, self.processes = repository, folder, processes
        self.services = read_services(repository / "docker" / "compose.yaml", values)
        ports = {"postgres:5432": free_port(), "redis:6379": free_port(), "s3:8333": free_port()}
        ports |= {"apiserver:8080": free_port()}
        self.ports = {name.partition(":")[0]: port for name, port in ports.items()}
        self.places = NativePlaces(
            hosts={name: f"127.0.0.1:{port}" for name, port in ports.items()},
            folders={
                "/opt/airflow/dags": str(repository / "dags"),
                "/opt/airflow/plugins": str(repository / "plugins"),
                "/opt/airflow/logs": str(folder / "logs"),
                "/opt/airflow/state": str(folder / "state"),
                "/opt/airflow/execution.yaml": str(repository / "docker" / "execution.yaml"),
                "/opt/airflow/pools.json": str(repository / "docker" / "pools.json"),
                "/opt/airflow/make_bucket.py": str(repository / "docker" / "make_bucket.py"),
                "/opt/airflow": str(folder / "airflow"),
                "/lake": str(folder / "lake"),
            },
        )
        for name in ("logs", "state", "lake/home"):
            (folder / name).mkdir(parents=True)

    @property
    def base_url(self) -> str:
        """Address of the API server."""
        return f"http://127.0.0.1:{self.ports['apiserver']}"

    def start_servers(self) -> None:
        """Starts PostgreSQL with both databases, Redis, and the stand-in of the S3 store."""
        self._start_postgres()
        self._start_redis()
        s3 = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.ports["s3"])]
        self.processes.start("s3", s3, self.environment(self.services["s3"]))
        for name in ("postgres", "redis", "s3"):
            self.processes.wait_for(lambda port=self.ports[name]: listens(port), SERVER_SECONDS, name)  # type: ignore[misc]
        self._create_catalog()

    def initialise(self) -> None:
        """Runs the service ``init`` to its end."""
        init = self.native("init")
        process = self.processes.begin("init", init.command, self.environment(init))
        self.processes.finish("init", process, 180)

    def start_airflow(self) -> list[str]:
        """Starts Airflow's processes and the workers; returns the names of the CPU workers."""
        workers = []
        for name in (*AIRFLOW, *WORKERS):
            for label in self.labels(name):
                service = replace(self.native(name), name=label)
                if name in WORKERS:
                    service = replace(service, command=[*service.command, "--celery-hostname", f"{label}@%h"])
                environment = self.environment(service)
                if name == WITHOUT_TORCH:
                    environment |= self._without_torch(environment)
                    workers.append(label)
                self.processes.start(label, service.command, environment)
        return workers

    def labels(self, name: str) -> list[str]:
        """Returns the names of a service's processes."""
        return [f"{name}-{number + 1}" for number in range(self.services[name].replicas)]

    def native(self, name: str) -> Service:
        """Returns a service with this machine's places."""
        return self.places.service(self.services[name])

    def environment(self, service: Service) -> dict[str, str]:
        """Returns the environment of a service's process: as in its container, with what one machine needs besides."""
        passed = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "PYTHONPATH") if name in os.environ}
        passed["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{passed.get('PATH', '')}"
        home = self.folder / "airflow" / service.name
        home.mkdir(parents=True, exist_ok=True)
        environment = {**passed, **service.environment}
        if "AIRFLOW_HOME" in environment:
            environment |= {
                "AIRFLOW_HOME": str(home),
                "AIRFLOW__API__HOST": "127.0.0.1",
                "AIRFLOW__API__PORT": str(self.ports["apiserver"]),
                "AIRFLOW__API__BASE_URL": self.base_url,
                "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_SERVER_PORT": str(free_port()),
            }
        return environment

    def _start_postgres(self) -> None:
        service = self.services["postgres"]
        user, password = (service.environment[f"POSTGRES_{name}"] for name in ("USER", "PASSWORD"))
        home = self.folder / "postgres"
        home.mkdir()
        (home / "password").write_text(password)
        if as_postgres():
            self.folder.chmod(0o711)
            for place in (home, home / "password"):
                shutil.chown(place, "postgres", "postgres")
        environment = {"PATH": os.environ["PATH"]}
        made = [
            *as_postgres(), _postgres("initdb"), "-D", str(home / "data"), "-A", "scram-sha-256", "-U", user,
            f"--pwfile={home / 'password'}", "-E", "UTF8", "--no-sync",
        ]  # fmt: skip
        self.processes.finish("initdb", self.processes.begin("initdb", made, environment), SERVER_SECONDS)
        self.processes.start(
            "postgres",
            [
                *as_postgres(), _postgres("postgres"), "-D", str(home / "data"), "-p", str(self.ports["postgres"]),
                "-c", "listen_addresses=127.0.0.1", "-k", str(home), "-F", "-c", "max_connections=200",
            ],
            environment,
        )  # fmt: skip

    def _create_catalog(self) -> None:
        """Creates the databases that the image would: the one of POSTGRES_DB, then those of its start-up script."""
        service = self.services["postgres"]
        user, password, database = (service.environment[f"POSTGRES_{name}"] for name in ("USER", "PASSWORD", "DB"))
        script = self.repository / "docker" / "postgres" / "create_catalog.sql"
        psql = [
            "psql",
            "-h",
            "127.0.0.1",
            "-p",
            str(self.ports["postgres"]),
            "-U",
            user,
            "-v",
            "ON_ERROR_STOP=1",
            "postgres",
        ]
        environment = {"PATH": os.environ["PATH"], "PGPASSWORD": password}
        for name, what in (("database", ["-c", f"CREATE DATABASE {database}"]), ("catalog", ["-f", str(script)])):
            self.processes.finish(name, self.processes.begin(name, [*psql, *what], environment), SERVER_SECONDS)

    def _start_redis(self) -> None:
        service = self.native("redis")
        home = self.folder / "redis"
        home.mkdir()
        here = ["--port", str(self.ports["redis"]), "--bind", "127.0.0.1", "--dir", str(home)]
        self.processes.start("redis", [*service.command, *here], self.environment(service))

    def _without_torch(self, environment: dict[str, str]) -> dict[str, str]:
        refused = self.folder / "without_torch"
        refused.mkdir(exist_ok=True)
        (refused / "torch.py").write_text('raise ModuleNotFoundError("torch is not in this image", name="torch")\n')
        paths = [str(refused), *filter(None, [environment.get("PYTHONPATH")])]
        return {"PYTHONPATH": os.pathsep.join(paths)}


def _postgres(program: str) -> str:
    """Returns a program of PostgreSQL's server, which Debian keeps out of the path.

    Raises:
        RehearsalError: It is not installed.
    """
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"))
    path = str(found[-1]) if found else shutil.which(program)
    if path is None:
        raise RehearsalError(f"PostgreSQL's {program} is not installed; Debian's package is postgresql")
    return path
