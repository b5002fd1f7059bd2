"""Who is told: notifiers by configuration for failed runs, a deadline for late ones."""

import asyncio
import email
import importlib.util
import socketserver
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

HERE = Path(__file__).parent
_spec = importlib.util.spec_from_file_location("failing_runs", HERE / "failing_runs.py")
failing = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(failing)

pytestmark = [pytest.mark.airflow, pytest.mark.integration, pytest.mark.filterwarnings("default")]


@pytest.fixture
def alerts_file(tmp_path, monkeypatch):
    """Returns a function that writes the alerts' file and makes the environment name it."""
    monkeypatch.syspath_prepend(str(HERE))

    def write(text):
        file = tmp_path / "alerts.yaml"
        file.write_text(text)
        monkeypatch.setenv("CORPUSMILL_ALERTS", str(file))
        return file

    return write


@pytest.fixture
def failed_run(home, load_dags, short_pauses, run_partition, tmp_path):
    """Parses the DAGs anew, and runs the demo's for a crawl that does not exist."""

    def run(crawl="T-2099-01"):
        dag = load_dags()["corpus_refresh_demo"]
        dag.get_task("plan").recipe = failing.RECIPE
        source = failing.write_crawl(tmp_path / "crawls")
        return run_partition(dag, None, {"crawl": crawl, "source": str(source)})

    return run


def test_without_a_file_nobody_is_told(load_dags, monkeypatch):
    monkeypatch.delenv("CORPUSMILL_ALERTS", raising=False)
    dag = load_dags()["corpus_refresh_demo"]
    assert not dag.on_failure_callback
    assert not dag.deadline


def run_callbacks_in_the_dag_processor(run):
    """Does what Airflow does at night when a run has failed: the process that parses DAG files calls the notifiers.

    `dag.test` calls them too, but with a serialised DAG, for which Airflow's notifiers render no template.
    """
    import selectors
    import time

    from airflow.api_fastapi.execution_api.app import InProcessExecutionAPI
    from airflow.dag_processing.processor import DagFileProcessorProcess
    from airflow.models import DagRun
    from airflow.models.serialized_dag import SerializedDagModel
    from airflow.sdk.api.client import Client
    from airflow.utils.session import create_session
    from sqlalchemy import select
    from structlog import get_logger
    from uuid6 import uuid7

    with create_session() as session:
        stored = session.scalars(select(DagRun).where(DagRun.run_id == run.run_id)).one()
        request = stored.produce_dag_callback(
            SerializedDagModel.get_dag(run.dag_id, session=session),
            success=False,
            relevant_ti=next(t for t in stored.get_task_instances(session=session) if t.task_id == "report"),
            reason="task_failure",
        )
    client = Client(base_url=None, token="", dry_run=True, transport=InProcessExecutionAPI().transport)
    client.base_url = "http://in-process.invalid./"
    dags = HERE.parents[1] / "dags"
    with (dags.parent / "pyproject.toml").open("rb") as any_file:
        process = DagFileProcessorProcess.start(
            id=uuid7(), path=dags / "corpus_refresh.py", bundle_path=dags, bundle_name="dags-folder",
            dag_file_rel_path="corpus_refresh.py", callbacks=[request], selector=selectors.DefaultSelector(),
            logger=get_logger(), logger_filehandle=any_file, client=client,
        )  # fmt: skip
        deadline = time.monotonic() + 120
        while not process.is_ready and time.monotonic() < deadline:
            process._service_subprocess(0.1)


def test_any_notifier_is_told_of_a_failed_run_with_the_report_s_message(airflow_db, alerts_file, failed_run, tmp_path):
    told = tmp_path / "told"
    alerts_file(
        f'on_failure: [{{notifier: notifiers.FileNotifier, arguments: {{path: {told}, text: "{{{{ failure }}}}"}}}}]'
    )
    run = failed_run()
    assert run.state == "failed"
    run_callbacks_in_the_dag_processor(run)
    (line,) = told.read_text().splitlines()
    assert line.startswith(
        f"corpus_refresh_demo {run.run_id}: plan failed: ConfigError: crawl='T-2099-01' is not under"
    )
    assert "[permanent: " in line


class Mailbox(socketserver.StreamRequestHandler):
    """As much of SMTP as one client needs to leave a message."""

    def handle(self):
        self.wfile.write(b"220 mill.example ESMTP\r\n")
        while line := self.rfile.readline():
            command = line.strip().upper()
            if command == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                lines = iter(self.rfile.readline, b".\r\n")
                self.server.mails.append(b"".join(lines).decode())
            self.wfile.write(b"221 bye\r\n" if command == b"QUIT" else b"250 mill.example\r\n")
            if command == b"QUIT":
                return


def test_airflow_s_own_mail_notifier_sends_over_smtp(airflow_db, alerts_file, failed_run, monkeypatch):
    pytest.importorskip("airflow.providers.smtp.notifications.smtp")
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Mailbox) as server:
        server.mails = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_address[1]
        monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", f"smtp://127.0.0.1:{port}/?disable_ssl=true&disable_tls=true")
        alerts_file(
            "on_failure:\n"
            "  - notifier: airflow.providers.smtp.notifications.smtp.SmtpNotifier\n"
            "    arguments: {to: data@mill.example, from_email: mill@mill.example, subject: 'refresh failed',"
            " html_content: '{{ failure | e }}'}\n"
        )
        run_callbacks_in_the_dag_processor(failed_run())
        server.shutdown()
    (mail,) = (email.message_from_string(text) for text in server.mails)
    assert mail["Subject"] == "refresh failed"
    (body,) = (part.get_payload(decode=True) for part in mail.walk() if part.get_content_type() == "text/html")
    assert b"plan failed: ConfigError: crawl=" in body


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("on_failure: [{notifier: nowhere.Notifier}]", "notifier='nowhere.Notifier' cannot be imported"),
        ("on_failure: [{notifier: pathlib.Path}]", "notifier='pathlib.Path' is no notifier"),
        ("on_failure: [{notifier: notifiers.FileNotifier}]", "'notifiers.FileNotifier' does not take arguments={}"),
        ("on_late: [{notifier: Notifier}]", "notifier='Notifier' cannot be imported"),
        ("on_fail: []", "on_fail=[]"),
        (
            "on_failure: [{notifier: notifiers.FileNotifier, arguments: {path: a, text: b, password: c}}]",
            "argument 'password' of 'notifiers.FileNotifier' is a secret; put it into its Airflow connection",
        ),
    ],
)  # fmt: skip
def test_a_wrong_file_is_an_import_error_that_names_it(alerts_file, text, said):
    from airflow.dag_processing.dagbag import DagBag

    file = alerts_file(text)
    errors = DagBag(dag_folder=str(HERE.parents[1] / "dags")).import_errors
    (error,) = [e for path, e in errors.items() if path.endswith("corpus_refresh.py")]
    assert f"CORPUSMILL_ALERTS={file}" in error
    assert said in error


def queue_run():
    """Triggers the demo's DAG as the REST interface does; nothing runs it."""
    from airflow.api.common.trigger_dag import trigger_dag
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import BundleDagBag, sync_bag_to_db
    from airflow.utils.types import DagRunTriggeredByType

    manager = DagBundlesManager()
    manager.sync_bundles_to_db()
    bundle = manager.get_bundle("dags-folder")
    bag = BundleDagBag(dag_folder=bundle.path, bundle_path=bundle.path, bundle_name=bundle.name)
    sync_bag_to_db(bag, bundle.name, None)
    by = DagRunTriggeredByType.TEST
    return trigger_dag("corpus_refresh_demo", triggered_by=by, partition_key="MILL-DEMO-2024-10")


def late_deadlines():
    """Does with missed deadlines what the scheduler's loop does; returns their callbacks."""
    from airflow.models import Deadline
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        late = session.scalars(
            select(Deadline).where(Deadline.deadline_time < datetime.now(UTC), ~Deadline.missed)
        ).all()
        for deadline in late:
            deadline.handle_miss(session)
        return [(type(d.callback).__name__, dict(d.callback.data)) for d in late]


def test_a_late_run_is_told_of_by_the_executor_or_the_triggerer(airflow_db, alerts_file, tmp_path):
    from airflow.models import DagRun
    from airflow.sdk.execution_time.callback_supervisor import execute_callback
    from airflow.utils.session import create_session
    from structlog import get_logger

    told = tmp_path / "told"
    text = "{{ dag_run.dag_id }} {{ dag_run.partition_key }} is late"
    arguments = f'{{path: {told}, text: "{text}"}}'
    alerts_file(
        f"on_late:\n  - {{notifier: notifiers.FileNotifier, arguments: {arguments}}}\n"
        f"  - {{notifier: notifiers.WaitingFileNotifier, arguments: {arguments}}}\n"
        "late_after_hours: 72\nlate_after_hours_of: {demo: 1.0e-6}\n"
    )
    run = queue_run()
    callbacks = dict(late_deadlines())
    assert set(callbacks) == {"ExecutorCallback", "TriggererCallback"}
    data = callbacks["ExecutorCallback"]
    done, problem = execute_callback(data["path"], data["kwargs"], Path(), None, get_logger())
    assert (done, problem) == (True, None)

    import notifiers

    data = callbacks["TriggererCallback"]
    assert data["path"] == "notifiers.WaitingFileNotifier"
    waiting = notifiers.WaitingFileNotifier(**{k: v for k, v in data["kwargs"].items() if k != "context"})
    waiting.context = data["kwargs"]["context"]

    async def wait():
        await waiting

    asyncio.run(wait())
    assert told.read_text().splitlines() == ["corpus_refresh_demo MILL-DEMO-2024-10 is late"] * 2
    assert late_deadlines() == [], "nobody is told twice"
    with create_session() as session:
        session.delete(session.get(DagRun, run.id))


def test_each_recipe_may_have_its_own_deadline(alerts_file, load_dags):
    alerts_file(
        "on_late: [{notifier: notifiers.FileNotifier, arguments: {path: a, text: b}}]\nlate_after_hours_of: {demo: 2}\n"
    )
    dags = load_dags()
    (deadline,) = dags["corpus_refresh_demo"].deadline
    assert deadline.interval == timedelta(hours=2)
    (deadline,) = dags["corpus_refresh_pruning_paper"].deadline
    assert deadline.interval == timedelta(hours=72)
