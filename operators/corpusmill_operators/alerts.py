"""Who is told when a refresh fails or is late: any notifier of Airflow, by configuration.

The variable ``CORPUSMILL_ALERTS`` names a YAML file; without it nobody is told::

    on_failure:
      - notifier: airflow.providers.smtp.notifications.smtp.SmtpNotifier
        arguments: {to: corpus@example.org, subject: "{{ failure }}", html_content: "{{ failure | e }}"}
    on_late:
      - notifier: airflow.providers.slack.notifications.slack_webhook.SlackWebhookNotifier
        arguments: {text: "{{ dag_run.dag_id }} {{ dag_run.partition_key }} is late"}
    late_after_hours: 72
    late_after_hours_of: {demo: 2}

Arguments may be templates: for failures of the run's context and ``failure``, the message of the run's report; for late
runs of ``dag_run`` and ``deadline`` alone. Secrets stand in the notifier's Airflow connection, never in this file. A
mistake in the file is an error of the DAG files that use it.
"""

import logging
import os
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import BaseNotifier
from airflow.sdk.definitions.callback import AsyncCallback, SyncCallback
from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference
from pydantic import Field, model_validator

from corpusmill.config import StageConfig
from corpusmill.errors import ConfigError
from corpusmill.settings_file import read_settings
from corpusmill_operators.xcom_keys import ERROR_KEY

log = logging.getLogger(__name__)

VARIABLE = "CORPUSMILL_ALERTS"
"""Names the file."""
SECRET_WORDS = ("password", "secret", "token", "api_key")
DEFAULT_HOURS = 72.0
"""Hours from the start of a run until it is late: a monthly crawl should be through in three days."""


class NotifierConfig(StageConfig):
    """One notifier."""

    notifier: str
    """Class path of a `BaseNotifier`."""
    arguments: Mapping[str, Any] = {}
    """Its arguments; may hold templates, never secrets."""

    def load_class(self) -> type[BaseNotifier]:
        """Returns the notifier's class.

        Raises:
            ConfigError: There is no such class, it is no notifier, or it does not take the arguments.
        """
        from importlib import import_module

        module, _, name = self.notifier.rpartition(".")
        try:
            found = getattr(import_module(module), name)
        except (ImportError, ValueError, AttributeError) as error:
            raise ConfigError(
                f"notifier={self.notifier!r} cannot be imported: {error}; expected the class path of an Airflow "
                "notifier whose provider is installed"
            ) from error
        if not (isinstance(found, type) and issubclass(found, BaseNotifier)):
            raise ConfigError(
                f"notifier={self.notifier!r} is no notifier; expected a subclass of airflow.sdk.BaseNotifier"
            )
        try:
            found(**self.arguments)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"notifier={self.notifier!r} does not take arguments={dict(self.arguments)}: {error}"
            ) from error
        return found


class Alerts(StageConfig):
    """The whole file."""

    on_failure: tuple[NotifierConfig, ...] = ()
    """Told once for each run that failed."""
    on_late: tuple[NotifierConfig, ...] = ()
    """Told once for each run that is not done in time."""
    late_after_hours: float = Field(default=DEFAULT_HOURS, gt=0)
    """Hours after a run was queued."""
    late_after_hours_of: Mapping[str, float] = {}
    """The same for recipes by name, where it differs."""

    @model_validator(mode="after")
    def _hold_no_secrets(self) -> "Alerts":
        for one in (*self.on_failure, *self.on_late):
            for name in one.arguments:
                if any(word in name.lower() for word in SECRET_WORDS):
                    raise ValueError(
                        f"argument {name!r} of {one.notifier!r} is a secret; put it into its Airflow connection"
                    )
        return self

    def dag_arguments(self, recipe: str) -> dict[str, Any]:
        """Returns the arguments of a recipe's DAG that make Airflow tell people.

        Raises:
            ConfigError: A notifier cannot be loaded.
        """
        arguments: dict[str, Any] = {}
        if self.on_failure:
            arguments["on_failure_callback"] = [FailureCallback(one) for one in self.on_failure]
        if self.on_late:
            hours = self.late_after_hours_of.get(recipe, self.late_after_hours)
            arguments["deadline"] = [_deadline(one, recipe, hours) for one in self.on_late]
        return arguments


class FailureCallback:
    """Calls a notifier with the run's context and ``failure``, the message of the run's report."""

    def __init__(self, config: NotifierConfig) -> None:
        self.notifier = config.load_class()
        self.arguments = dict(config.arguments)

    def __call__(self, context: Any) -> None:
        """Tells of the failed run; a new notifier each time, because rendering changes it."""
        self.notifier(**self.arguments)({**context, "failure": failure_of(context)})


def failure_of(context: Mapping[str, Any]) -> str:
    """Returns the first line of what the run's report said, else Airflow's own reason."""
    run = context.get("run_id", "")
    said = None
    if (ti := context.get("ti")) is not None:
        try:
            said = ti.xcom_pull(task_ids="report", key=ERROR_KEY, run_id=run)
        except Exception:  # people must be told in any case
            log.exception("the message of the report of %s could not be read", run)
    text = str(said or context.get("reason") or "failed").partition("\n")[0]
    return f"{context['dag'].dag_id} {run}: {text.removeprefix('AirflowFailException: ')}"


def read_alerts(environ: Mapping[str, str] | None = None) -> Alerts:
    """Returns the alerts of the file that ``CORPUSMILL_ALERTS`` names, none without it.

    Raises:
        ConfigError: The file is absent or wrong.
    """
    file = (os.environ if environ is None else environ).get(VARIABLE)
    if not file:
        return Alerts()
    try:
        alerts = Alerts.load(read_settings(Path(file), VARIABLE))
        alerts.dag_arguments("")
    except ConfigError as error:
        raise ConfigError(f"{VARIABLE}={file}: {error}") from error
    return alerts


def _deadline(one: NotifierConfig, recipe: str, hours: float) -> DeadlineAlert:
    notifier = one.load_class()
    # what can wait runs in the triggerer; a notifier that only knows `notify` runs as a callback of the executor
    waits = notifier.async_notify is not BaseNotifier.async_notify
    kind: Callable[..., Any] = AsyncCallback if waits else SyncCallback
    return DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=timedelta(hours=hours),
        callback=kind(one.notifier, kwargs=dict(one.arguments)),
        name=f"{recipe} is late",
    )
