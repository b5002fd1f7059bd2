"""Checks of the Docker files that need no Docker engine."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from http.server import HTTPServer
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
DOCKER = REPOSITORY / "docker"
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text())
DOCKERFILE = (DOCKER / "Dockerfile").read_text()
OVERLAY = yaml.safe_load((DOCKER / "compose.gpu.yaml").read_text())
SERVERS = {"postgres", "redis", "s3"}
SECRETS = ("POSTGRES_PASSWORD", "REDIS_PASSWORD", "S3_ACCESS_KEY", "S3_SECRET_KEY", "JWT_SECRET", "FERNET_KEY")


@pytest.fixture
def services(monkeypatch):
    """The services as compose would run them, with secrets given."""
    monkeypatch.syspath_prepend(str(DOCKER))
    from rehearsal.compose_services import read_services

    return read_services(DOCKER / "compose.yaml", dict.fromkeys(SECRETS, "x"))


def tool(name):
    """The command of an installed tool, beside the interpreter that runs the tests."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    assert found, f"{name} is not installed; it is part of the extra 'dev'"
    return found


@pytest.mark.parametrize("name", ["compose.yaml", "compose.gpu.yaml"])
def test_compose_files_follow_the_compose_specification(name):
    command = [tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(DOCKER / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_hadolint_finds_nothing_in_the_dockerfile():
    done = subprocess.run([tool("hadolint"), str(DOCKER / "Dockerfile")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip() == ""


def copied_sources():
    for line in re.findall(r"^COPY (.*)$", DOCKERFILE, flags=re.MULTILINE):
        words = [word for word in line.split() if not word.startswith("--")]
        yield from words[:-1]


def test_everything_the_dockerfile_copies_exists_and_passes_the_ignore_file():
    sources = list(copied_sources())
    assert {"src", "operators", "dags", "plugins", "constraints.txt"} <= set(sources)
    assert [source for source in sources if not (REPOSITORY / source).exists()] == []
    allowed = re.findall(r"^!(.*)$", (DOCKER / "Dockerfile.dockerignore").read_text(), flags=re.MULTILINE)
    assert sorted(sources) == sorted(allowed)


def test_mounted_files_and_build_targets_exist():
    targets = set(re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE, flags=re.MULTILINE))
    assert targets == {"airflow", "worker-cpu", "worker-gpu"}
    for service in COMPOSE["services"].values():
        if "build" in service:
            assert service["build"]["target"] in targets
            assert service["image"] == f"corpusmill:{service['build']['target']}"
            assert (DOCKER / service["build"]["context"] / service["build"]["dockerfile"]).exists()
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (DOCKER / source).exists() if source.startswith(".") else source in COMPOSE["volumes"], volume


def test_only_the_gpu_image_installs_torch():
    def extras(text):
        return set(",".join(re.findall(r'"\.\[([^\]]+)\]"', text)).split(","))

    airflow, cpu, gpu = re.split(r"^FROM \S+ AS worker-\w+$", DOCKERFILE, flags=re.MULTILINE)
    assert extras(airflow) == {"airflow", "postgres", "celery", "kubernetes", "statsd", "openlineage"}
    assert extras(cpu) == {"airflow", "crawl", "validation", "postgres", "celery"}
    assert extras(gpu) == {"all", "celery"}
    assert "torch" not in re.sub("#.*", "", airflow + cpu)
    assert DOCKERFILE.count("-c constraints.txt") == DOCKERFILE.count("pip install")


def airflow_options():
    """Every (section, option) of the installed Airflow and its Celery provider, from their own descriptions."""
    import importlib.util

    celery = pytest.importorskip("airflow.providers.celery.get_provider_info", reason="extra 'celery'")
    for folder in importlib.util.find_spec("airflow").submodule_search_locations:
        description = Path(folder) / "config_templates" / "config.yml"
        if description.exists():
            sections = yaml.safe_load(description.read_text()) | celery.get_provider_info()["config"]
            return {(s, option) for s, body in sections.items() for option in body["options"]}
    raise AssertionError("Airflow's config.yml was not found")


def test_every_airflow_variable_names_an_option_that_exists():
    named = set(re.findall(r"\bAIRFLOW__[A-Z0-9_]+", DOCKERFILE))
    for service in COMPOSE["services"].values():
        named |= {name for name in service.get("environment", {}) if name.startswith("AIRFLOW__")}
    assert len(named) > 15
    options = airflow_options()
    wrong = [n for n in named if tuple(part.lower() for part in n.split("__")[1:]) not in options]
    assert wrong == []


def test_every_variable_of_corpusmill_is_one_that_the_code_reads():
    named = {n for s in COMPOSE["services"].values() for n in s.get("environment", {}) if n.startswith("CORPUSMILL_")}
    named |= set(re.findall(r"\bCORPUSMILL_[A-Z0-9_]+", DOCKERFILE))
    files = [*(REPOSITORY / "src").rglob("*.py"), *(REPOSITORY / "operators").rglob("*.py")]
    text = "\n".join(file.read_text() for file in files)
    assert len(named) >= 6
    assert [name for name in named if f'"{name}"' not in text] == []


@pytest.mark.airflow
@pytest.mark.slow
def test_every_airflow_command_is_one_that_airflow_has_and_the_api_answers_the_health_check(services, tmp_path):
    pytest.importorskip("airflow.providers.celery", reason="extra 'celery'")
    commands = [list(s.command[1:]) for n, s in services.items() if n not in SERVERS | {"init"}]
    commands += [shlex.split(line)[1:] for line in init_lines(services) if line.startswith("airflow ")]
    assert ["celery", "worker", "--queues", "default", "--skip-serve-logs"] in commands
    assert ["db", "migrate"] in commands
    code = (
        "import json, sys\nfrom airflow.cli.cli_parser import get_parser\n"
        "for c in json.loads(sys.argv[1]): get_parser().parse_args(c)\n"
        "from airflow.api_fastapi.app import create_app\n"
        "print('PATHS', json.dumps(sorted(set(create_app(apps='core').openapi()['paths']))))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(commands)], capture_output=True, text=True, check=False,
        env={"AIRFLOW_HOME": str(tmp_path), "PATH": "", "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    line = next(line for line in done.stdout.splitlines() if line.startswith("PATHS "))
    assert health_path("apiserver") in json.loads(line.removeprefix("PATHS "))


def init_lines(services):
    return [line.strip() for line in services["init"].command[-1].splitlines() if line.strip()]


def health_path(name):
    check = " ".join(COMPOSE["services"][name]["healthcheck"]["test"])
    return re.search(r"http://localhost:\d+(/[\w/]+)", check)[1]


def test_the_init_service_runs_commands_that_exist(services):
    from corpusmill.cli import _parser

    programs = {line.split()[0] for line in init_lines(services)}
    assert programs == {"airflow", "python", "corpusmill"}
    corpusmill = next(line for line in init_lines(services) if line.startswith("corpusmill "))
    recipes = "$(basename --suffix=.yaml --multiple /opt/airflow/dags/recipes/*.yaml)"
    assert recipes in corpusmill
    _parser().parse_args(shlex.split(corpusmill.replace(recipes, "demo pruning_paper"))[1:])
    script = next(line for line in init_lines(services) if line.startswith("python ")).split()[1]
    copied = re.findall(r"^COPY (?:--\S+ )?(.*) /opt/airflow/$", DOCKERFILE, flags=re.MULTILINE)
    assert script.removeprefix("/opt/airflow/") in [Path(name).name for name in copied[0].split()]


@pytest.mark.airflow
def test_the_schedulers_health_check_asks_an_address_that_it_serves():
    from airflow.utils.scheduler_health import HealthServer

    check = " ".join(COMPOSE["services"]["scheduler"]["healthcheck"]["test"])
    assert ("scheduler", "scheduler_health_check_server_port") in airflow_options()
    assert ":8974/" in check  # Airflow's default for that option
    server = HTTPServer(("127.0.0.1", 0), HealthServer)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        answers = {}
        for path in (health_path("scheduler"), "/nothing"):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}{path}", timeout=20)
            except urllib.error.HTTPError as error:
                answers[path] = error.code
    finally:
        server.shutdown()
        server.server_close()
    assert answers == {"/health": 503, "/nothing": 404}  # known, but no scheduler runs here


def test_no_secret_is_written_down_and_the_ui_is_not_open_to_the_network():
    text = (DOCKER / "compose.yaml").read_text()
    for name in SECRETS:
        assert re.search(rf"\${{{name}:\?", text), name
    assert "ALL_ADMINS" not in text
    assert COMPOSE["services"]["apiserver"]["ports"] == ["127.0.0.1:8080:8080"]
    assert [n for n, s in COMPOSE["services"].items() if "ports" in s] == ["apiserver"]
    assert ".env" in (DOCKER / ".gitignore").read_text().splitlines()


def test_every_variable_is_explained_in_the_example_with_the_default_that_holds():
    text = (DOCKER / "compose.yaml").read_text()
    example = dict(
        line.split("=", 1)
        for line in (DOCKER / ".env.example").read_text().splitlines()
        if not line.startswith("#") and line
    )
    used = set(re.findall(r"\$\{(\w+)", text))
    assert used == set(example)
    assert {name for name, value in example.items() if not value} == {*SECRETS, "CORPUSMILL_ALERTS"}
    for name, default in re.findall(r"\$\{(\w+):?-([^}]*)\}", text):
        assert example[name] == default, name


def test_workers_listen_to_the_queues_that_the_placement_names(services):
    from corpusmill_operators.execution import ExecutionConfig, known_stages

    config = ExecutionConfig.load(yaml.safe_load((DOCKER / "execution.yaml").read_text()))
    listened = {
        queue
        for service in services.values() if "worker" in service.command
        for queue in service.command[service.command.index("--queues") + 1].split(",")
    }  # fmt: skip
    placed = {stage: config.placement(stage).queue or "default" for stage in known_stages()}
    assert set(placed.values()) == listened == {"default", "gpu"}
    models = {
        "refine_documents",
        "refine_chunks",
        "score",
        "score_pool",
        "train_refiner",
        "train_reference_model",
        "train_arm",
    }
    assert models <= {stage for stage, queue in placed.items() if queue == "gpu"}
    assert {placed[stage] for stage in ("plan", "ingest", "clean", "deduplicate", "validate", "publish")} == {"default"}
    mounted = COMPOSE["services"]["worker"]["environment"]["CORPUSMILL_EXECUTION"]
    assert f"./execution.yaml:{mounted}:ro" in COMPOSE["services"]["worker"]["volumes"]


def test_a_task_is_never_handed_out_twice_while_it_may_still_run(services):
    longest = 7 * 24 * 3600  # execution_timeout of training, dags/build_reference_model.py
    name = "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT"
    assert int(services["worker"].environment[name]) > longest


def test_variables_are_replaced_as_compose_does(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCKER))
    from rehearsal.compose_services import ComposeError, NativePlaces, substitute

    values = {"A": "1", "EMPTY": ""}
    assert substitute("${A} ${EMPTY:-x} ${EMPTY-x} ${NONE:-y} ${NONE} $$(z)", values) == "1 x  y  $(z)"
    with pytest.raises(ComposeError, match="NONE: set it"):
        substitute("${NONE:?set it}", values)
    places = NativePlaces({"s3:8333": "127.0.0.1:9"}, {"/opt/a": "/there", "/opt/a/b.yaml": "/here/b.yaml"})
    assert (
        places.put_in("http://s3:8333/x /opt/a/c /opt/a/b.yaml /opt/ab")
        == "http://127.0.0.1:9/x /there/c /here/b.yaml /opt/ab"
    )


def test_the_pools_file_is_what_the_operators_define():
    from corpusmill_operators.pools import pool_definitions

    assert json.loads((DOCKER / "pools.json").read_text()) == pool_definitions()


def test_the_overlay_gives_the_worker_of_the_gpu_queue_a_device():
    assert set(OVERLAY["services"]) == {"worker-gpu"} <= set(COMPOSE["services"])
    device = OVERLAY["services"]["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"][0]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])


def test_the_guides_example_of_places_is_one_that_loads():
    from corpusmill_operators.execution import ExecutionConfig, StagePlacement

    guide = (REPOSITORY / "docs" / "how-to" / "cluster.md").read_text()
    example = re.search(r"```yaml\n(stages:.*?)```", guide, flags=re.DOTALL)[1]
    config = ExecutionConfig.load(yaml.safe_load(example))
    assert config.placement("refine_chunks").pod_override.resources.limits == {"nvidia.com/gpu": 1}
    assert config.placement("score").queue == "gpu"
    assert config.placement("clean").retry_delay_seconds == 15
    keys = set(re.findall(r"^\| `(\w+)` \|", guide.split("## Kubernetes")[0], flags=re.MULTILINE))
    assert keys == set(StagePlacement.model_fields)


def test_the_guides_settings_are_those_of_compose():
    guide = (REPOSITORY / "docs" / "how-to" / "cluster.md").read_text()
    shown = dict(re.findall(r"^\| `([A-Z_]+)` \| (\S+(?: \w+)?) \|", guide, flags=re.MULTILINE))
    seconds = {"s": 1, "h": 3600, "days": 86400, "": 1}
    example = dict(re.findall(r"^(\w+)=(\S+)$", (DOCKER / ".env.example").read_text(), flags=re.MULTILINE))
    found = {name: int(n) * seconds[unit] for name, (n, _, unit) in ((k, v.partition(" ")) for k, v in shown.items())}
    assert set(found) == {
        "PARALLELISM",
        "HEARTBEAT_TIMEOUT",
        "VISIBILITY_TIMEOUT",
        "QUEUED_TIMEOUT",
        "WORKER_CONCURRENCY",
    }
    assert found == {name: int(example[name]) for name in found}
