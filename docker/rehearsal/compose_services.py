"""Reads compose.yaml and the Dockerfile's environment as compose would, and puts native places in their stead."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

VARIABLE = re.compile(r"\$(?:\$|\{(?P<name>\w+)(?:(?P<sign>:?[-?])(?P<rest>[^}]*))?\})")


class ComposeError(Exception):
    """The file asks for something that was not given."""


@dataclass(frozen=True)
class Service:
    """One service: what its container would run.

    Attributes:
        name: Name in the file.
        command: Entry point and command.
        environment: The image's variables, then the service's.
        replicas: Containers of it.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    replicas: int


@dataclass
class NativePlaces:
    """Where things lie here that lie elsewhere in containers.

    Attributes:
        hosts: ``service:port`` to ``address:port``.
        folders: Folders and files of the containers to those of this machine.
    """

    hosts: dict[str, str] = field(default_factory=dict)
    folders: dict[str, str] = field(default_factory=dict)

    def put_in(self, text: str) -> str:
        """Returns a text with native places instead of the containers'."""
        for host, address in self.hosts.items():
            text = re.sub(rf"(?<=[/@]){re.escape(host)}\b", address, text)
        for folder in sorted(self.folders, key=len, reverse=True):
            text = re.sub(rf"{re.escape(folder)}(?![\w-])", self.folders[folder], text)
        return text

    def service(self, service: Service) -> Service:
        """Returns a service that runs natively."""
        return replace(
            service,
            command=[self.put_in(word) for word in service.command],
            environment={name: self.put_in(value) for name, value in service.environment.items()},
        )


def read_services(compose: Path, values: Mapping[str, str]) -> dict[str, Service]:
    """Returns the services of a compose file, with its variables replaced.

    Args:
        compose: The file; images that it builds take their environment and entry point from its Dockerfile.
        values: Variables as ``docker/.env`` would give them.

    Raises:
        ComposeError: A variable that the file requires is missing.
    """
    described = yaml.safe_load(compose.read_text())["services"]
    return {name: _service(name, body, compose.parent, values) for name, body in described.items()}


def substitute(text: str, values: Mapping[str, str]) -> str:
    """Returns a text with ``${NAME}``, ``${NAME:-default}``, ``${NAME-default}``, ``${NAME:?message}`` replaced."""

    def value(found: re.Match[str]) -> str:
        if found["name"] is None:
            return "$"
        given, sign, rest = values.get(found["name"]), found["sign"] or "", found["rest"] or ""
        if given is None or (given == "" and ":" in sign):
            if "?" in sign:
                raise ComposeError(f"{found['name']}: {rest}")
            return rest if "-" in sign else ""
        return given

    return VARIABLE.sub(value, text)


def image_environment(dockerfile: Path) -> dict[str, str]:
    """Returns the variables that the Dockerfile's ENV instructions set."""
    joined = dockerfile.read_text().replace("\\\n", " ")
    lines = [line.removeprefix("ENV ") for line in joined.splitlines() if line.startswith("ENV ")]
    return {name: value for line in lines for name, _, value in (word.partition("=") for word in line.split())}


def _service(name: str, body: Mapping[str, Any], folder: Path, values: Mapping[str, str]) -> Service:
    command = [substitute(str(word), values) for word in [*body.get("entrypoint", []), *body.get("command", [])]]
    environment: dict[str, str] = {}
    if "build" in body:
        environment = image_environment(folder / body["build"]["context"] / body["build"]["dockerfile"])
        if "entrypoint" not in body:
            command = ["airflow", *command]  # the image's own
    environment |= {key: substitute(str(value), values) for key, value in body.get("environment", {}).items()}
    replicas = substitute(str(body.get("deploy", {}).get("replicas", 1)), values)
    return Service(name, command, environment, int(replicas))
