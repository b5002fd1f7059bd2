"""Rehearses the cluster of compose.yaml natively: ``make rehearse``.

One bundled crawl goes through the demo recipe by CeleryExecutor, on PostgreSQL, Redis and an S3 server, with two
schedulers. One worker is killed with SIGKILL in the middle of a mapped stage, and one scheduler with it. Exit code 0
only if the run completes and every table of the recipe equals what `corpusmill refresh` of the same crawl makes in one
undisturbed process.
"""

import base64
import json
import os
import resource
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from corpusmill_operators.local.processes import adopt_orphans, end_descendants, end_on_signals
from rehearsal.compose_services import ComposeError
from rehearsal.native_cluster import NativeCluster
from rehearsal.native_processes import NativeProcesses, RehearsalError
from rehearsal.watched_run import LoggedInApi, WatchedRun, catch

RECIPE = "demo"
REPOSITORY = Path(__file__).resolve().parents[2]
DISTURBED = ("clean", "assemble")
"""Mapped stages of the CPU workers, the first of which to be seen loses a worker."""
READY_SECONDS = 240.0
RUN_SECONDS = 600.0
HEARTBEAT_SECONDS = "20"
"""As ``HEARTBEAT_TIMEOUT`` in docker/.env: a lost worker is noticed soon enough for a rehearsal."""


def main() -> int:
    """Runs the rehearsal and returns the exit code."""
    end_on_signals()
    adopt_orphans()
    folder = Path(tempfile.mkdtemp(prefix="corpusmill-rehearsal-"))
    started = time.monotonic()

    def say(line: str) -> None:
        sys.stdout.write(f"[{time.monotonic() - started:5.0f} s] {line}\n")
        sys.stdout.flush()

    processes = NativeProcesses(folder)
    code = 1
    try:
        rehearse(folder, processes, say)
        code = 0
    except (RehearsalError, ComposeError) as error:
        say(f"FAILED: {error}")
    except KeyboardInterrupt:
        say("interrupted")
    finally:
        processes.stop()
        end_descendants()
    if left := psutil.Process().children(recursive=True):
        say(f"FAILED: processes are left behind: {left}")
        code = 1
    if code:
        say(f"all logs: {folder}")
        return code
    shutil.rmtree(folder, ignore_errors=True)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    say(f"the rehearsal holds; no process is left; {used.ru_utime + used.ru_stime:.0f} CPU seconds")
    return 0


def rehearse(folder: Path, processes: NativeProcesses, say: Callable[[str], None]) -> None:
    """Runs every step.

    Raises:
        RehearsalError: One did not hold.
    """
    cluster = NativeCluster(REPOSITORY, folder, variables(), processes)
    share_kernels(folder / "lake" / "home")
    say(f"starting PostgreSQL, Redis and moto (in the place of the S3-compatible store) in {folder}")
    cluster.start_servers()
    say("service init: database, pools, bucket, catalog and tables")
    cluster.initialise()
    workers = cluster.start_airflow()
    said = f"two schedulers, DAG processor, triggerer, workers {', '.join(workers)} and one for queue gpu"
    say(f"starting API server, {said}")
    api = LoggedInApi(processes, cluster.base_url, folder / "state" / "passwords.json", folder)
    processes.wait_for(api.healthy, READY_SECONDS, "Airflow to get ready")
    api.sign_in()
    dag_id = f"corpus_refresh_{RECIPE}"
    processes.wait_for(lambda: api.find(f"/dags/{dag_id}") is not None, READY_SECONDS, f"DAG {dag_id}")
    run = WatchedRun(api, dag_id, folder / "logs", say)
    crawl = run.switch_on(READY_SECONDS)
    say(f"{dag_id} is switched on; its timetable made run {run.run_id}")

    task = catch(run, DISTURBED, RUN_SECONDS, processes.check)
    victim = processes.owner_of(task["pid"], workers)
    if victim is None:
        raise RehearsalError(f"no CPU worker runs process {task['pid']} of {task['task_id']} {task['map_index']}")
    number = processes.kill(victim)
    label = f"{task['task_id']}[{task['rendered_map_index'] or task['map_index']}]"
    say(f"killed {victim} with SIGKILL while it ran {label}: {number} processes")
    scheduler, *others = cluster.labels("scheduler")
    processes.kill(scheduler)
    say(f"killed {scheduler} with SIGKILL; {', '.join(others)} goes on alone")
    refresh = begin_refresh(cluster, crawl)
    lost = (task["task_id"], task["map_index"])
    run.follow(processes.check)

    again = next(t for t in run.tasks() if (t["task_id"], t["map_index"]) == lost)
    if again["try_number"] < 2:
        raise RehearsalError(f"{label} was not tried again: try_number={again['try_number']}")
    queues = run.queues()
    if not queues["gpu"] or not queues["default"]:
        raise RehearsalError(f"tasks by queue: {dict(queues)}; expected both 'default' and 'gpu'")
    say(f"the run is complete; {label} took {again['try_number']} tries; tasks by queue: {dict(queues)}")
    cluster.processes.finish("refresh", refresh, RUN_SECONDS)
    compare(cluster, crawl, say)


def begin_refresh(cluster: NativeCluster, crawl: str) -> "subprocess.Popen[bytes]":
    """Begins to make the same corpus in one process, without Airflow and servers."""
    command = ["corpusmill", "refresh", str(REPOSITORY / "dags" / "recipes" / f"{RECIPE}.yaml"), crawl]
    return cluster.processes.begin("refresh", command, environments(cluster)["undisturbed"])


def environments(cluster: NativeCluster) -> dict[str, dict[str, str]]:
    """Returns the environments that name the cluster's lakehouse and the embedded one of the undisturbed refresh.

    The refresh computes with one thread, as the workers' model processes do: float sums depend on the number.
    """
    environment = cluster.environment(cluster.native("worker-gpu"))
    embedded = {name: value for name, value in environment.items() if not name.startswith("CORPUSMILL_")}
    embedded |= {"CORPUSMILL_HOME": environment["CORPUSMILL_HOME"], "OMP_NUM_THREADS": "1"}
    return {"cluster": environment, "undisturbed": embedded}


def compare(cluster: NativeCluster, crawl: str, say: Callable[[str], None]) -> None:
    """Compares every table of the cluster's run with those of the undisturbed refresh.

    Raises:
        RehearsalError: A table differs, or nothing was published.
    """
    processes, digests = cluster.processes, {}
    for name, of in environments(cluster).items():
        paths = [str(REPOSITORY / "docker"), *filter(None, [of.get("PYTHONPATH")])]
        command = [sys.executable, "-m", "rehearsal.table_digests", RECIPE, str(cluster.folder / "tables" / name)]
        begun = processes.begin(f"digests-{name}", command, of | {"PYTHONPATH": os.pathsep.join(paths)})
        digests[name] = json.loads(processes.finish(f"digests-{name}", begun, READY_SECONDS))
    different = [table for table, found in digests["cluster"].items() if found != digests["undisturbed"][table]]
    if different:
        raise RehearsalError(
            f"tables differ from an undisturbed refresh: {different}; their rows: {cluster.folder / 'tables'}"
        )
    corpus = digests["cluster"]["corpus"]
    if not corpus["rows"]:
        raise RehearsalError("nothing was published")
    rows = ", ".join(f"{found['rows']} {table}" for table, found in digests["cluster"].items() if found["rows"])
    say(f"every table equals an undisturbed refresh of {crawl}: {rows}; corpus {corpus['digest'][:16]}")


def variables() -> dict[str, str]:
    """Returns what ``docker/.env`` would hold: secrets of this rehearsal, and a short time for lost workers."""
    secret = {
        name: secrets.token_hex(24)
        for name in ("POSTGRES_PASSWORD", "REDIS_PASSWORD", "S3_ACCESS_KEY", "S3_SECRET_KEY")
    }
    return {
        **secret,
        "JWT_SECRET": secrets.token_hex(64),
        "FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "WORKERS": "2",
        "SCHEDULERS": "2",
        "WORKER_CONCURRENCY": "1",
        "PARALLELISM": "4",
        "HEARTBEAT_TIMEOUT": HEARTBEAT_SECONDS,
    }


def share_kernels(home: Path) -> None:
    """Lets the rehearsal use the kernels that this checkout has compiled already."""
    compiled = Path(os.environ.get("CORPUSMILL_HOME") or REPOSITORY / ".corpusmill") / "kernels"
    if compiled.is_dir():
        (home / "kernels").symlink_to(compiled.absolute())


if __name__ == "__main__":
    sys.exit(main())
