"""Checks of the Docker files that need no Docker engine."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
DOCKER = REPOSITORY / "docker"
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text())
DOCKERFILE = (DOCKER / "Dockerfile").read_text()
OVERLAY = yaml.safe_load((DOCKER / "compose.gpu.yaml").read_text())


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
    assert targets == {"airflow", "worker-gpu"}
    for service in COMPOSE["services"].values():
        if "build" in service:
            assert service["build"]["target"] in targets
            assert (DOCKER / service["build"]["context"] / service["build"]["dockerfile"]).exists()
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (DOCKER / source).exists() if source.startswith(".") else source in COMPOSE["volumes"], volume


def test_the_image_without_models_installs_no_torch_and_the_worker_installs_everything():
    first, second = DOCKERFILE.split("FROM airflow AS worker-gpu")
    installed = re.findall(r'"\.\[([^\]]+)\]"', first)
    assert installed == ["airflow,postgres"]
    assert re.findall(r'"\.\[([^\]]+)\]"', second) == ["all"]
    assert DOCKERFILE.count("-c constraints.txt") == DOCKERFILE.count("pip install")


def airflow_options():
    """Every (section, option) of the installed Airflow, read from its own description file."""
    import importlib.util

    for folder in importlib.util.find_spec("airflow").submodule_search_locations:
        description = Path(folder) / "config_templates" / "config.yml"
        if description.exists():
            sections = yaml.safe_load(description.read_text())
            return {(s, option) for s, body in sections.items() for option in body["options"]}
    raise AssertionError("Airflow's config.yml was not found")


def test_every_airflow_variable_names_an_option_that_exists():
    named = set(re.findall(r"\bAIRFLOW__[A-Z0-9_]+", DOCKERFILE))
    for service in COMPOSE["services"].values():
        named |= {name for name in service.get("environment", {}) if name.startswith("AIRFLOW__")}
    assert len(named) > 8
    options = airflow_options()
    wrong = [n for n in named if tuple(part.lower() for part in n.split("__")[1:]) not in options]
    assert wrong == []


@pytest.mark.airflow
@pytest.mark.slow
def test_every_command_is_one_that_airflow_has(tmp_path):
    commands = [s["command"] for n, s in COMPOSE["services"].items() if "command" in s and n != "init"]
    script = "\n".join(COMPOSE["services"]["init"]["command"])
    commands += [line.split()[1:] for line in script.splitlines() if line.strip().startswith("airflow ")]
    assert ["scheduler"] in commands
    assert ["db", "migrate"] in commands
    code = (
        "import json, sys\nfrom airflow.cli.cli_parser import get_parser\n"
        "for c in json.loads(sys.argv[1]): get_parser().parse_args(c)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(commands)],
        capture_output=True, text=True, check=False, env={"AIRFLOW_HOME": str(tmp_path), "PATH": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


def test_no_secret_is_written_down_and_the_ui_is_not_open_to_the_network():
    text = (DOCKER / "compose.yaml").read_text()
    for name in ("POSTGRES_PASSWORD", "JWT_SECRET", "FERNET_KEY"):
        assert re.search(rf"\${{{name}:\?", text), name
    assert "ALL_ADMINS" not in text
    assert COMPOSE["services"]["apiserver"]["ports"] == ["127.0.0.1:8080:8080"]
    assert [n for n, s in COMPOSE["services"].items() if "ports" in s] == ["apiserver"]


def test_the_health_check_asks_airflows_own_address():
    check = " ".join(COMPOSE["services"]["apiserver"]["healthcheck"]["test"])
    assert "/api/v2/monitor/health" in check


def test_the_pools_file_is_what_the_operators_define():
    from corpusmill_operators.pools import pool_definitions

    assert json.loads((DOCKER / "pools.json").read_text()) == pool_definitions()


def test_the_overlay_changes_services_that_exist():
    assert set(OVERLAY["services"]) <= set(COMPOSE["services"])
