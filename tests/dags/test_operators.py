"""What all operators share: retries by exception type, messages, settings checked at parse."""

from pathlib import Path

import pytest
from airflow.sdk.exceptions import AirflowNotFoundException

from corpusmill.errors import (
    CommitConflict,
    ConfigError,
    CorruptModelError,
    DataError,
    DeviceError,
    DiskFullError,
    PermanentDataError,
    SupersededError,
    TransientDataError,
    ValidationFailedError,
    WorkerDiedError,
)
from corpusmill.lakehouse.catalog import LakehouseUnavailableError

pytestmark = [pytest.mark.airflow, pytest.mark.filterwarnings("default")]


@pytest.mark.parametrize(
    ("error", "action", "seconds"),
    [
        (ConfigError("x"), "fail", None),
        (ValidationFailedError("x"), "fail", None),
        (SupersededError("x"), "fail", None),
        (PermanentDataError("x"), "fail", None),
        (CommitConflict("x"), "retry", 10),
        (TransientDataError("x"), "retry", 300),
        (WorkerDiedError("x"), "retry", 60),
        (DeviceError("x"), "retry", 120),
        (DiskFullError("x"), "retry", 600),
        (CorruptModelError("x"), "fail", None),
        (LakehouseUnavailableError("x"), "retry", 60),
        (AirflowNotFoundException("x"), "fail", None),
        (DataError("x"), "default", None),
        (OSError("x"), "default", None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_the_type_of_an_error_decides_whether_and_when_it_is_retried(error, action, seconds):
    from corpusmill_operators.retries import RETRY_POLICY

    decision = RETRY_POLICY.evaluate(error, try_number=1, max_tries=3)
    assert decision.action.value == action
    assert (decision.retry_delay and decision.retry_delay.total_seconds()) == seconds


@pytest.mark.slow
def test_a_permanent_error_of_a_mapped_task_is_tried_once_and_its_message_is_kept(airflow_db, load_dags, tmp_path):
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    run = load_dags(Path(__file__).parent / "foreign")["wrong_use"].test(logical_date=None)
    assert run.state == "failed"
    (task,) = run.get_task_instances()
    assert (task.map_index, task.try_number, task.max_tries) == (0, 1, 3)
    with create_session() as session:
        left = session.scalars(select(XComModel).where(XComModel.run_id == run.run_id, XComModel.key == "error")).one()
    assert "ConfigError: task 'ingest': plan=''" in str(left.value)
    assert "expected 'plan' and 'shard'" in str(left.value)


def test_a_message_is_one_line_with_its_place_and_what_happens_next():
    from corpusmill_operators.failure_message import failure_message
    from corpusmill_operators.retries import RETRY_POLICY

    def message(error, where="A-2024-10/00001", attempt=1):
        return failure_message(error, where, RETRY_POLICY.evaluate(error, attempt, 3), attempt=attempt, attempts=4)

    assert message(TransientDataError("busy")) == (
        "TransientDataError: A-2024-10/00001: busy [may pass: attempt 1 of 4, tried again after 300 s]"
    )
    assert message(ValueError("odd"), "") == "ValueError: odd [may pass: attempt 1 of 4, tried again]"
    assert message(WorkerDiedError("A-2024-10/00001 died"), attempt=4) == (
        "WorkerDiedError: A-2024-10/00001 died "
        "[may pass: attempt 4 of 4, the last; clear the task once the cause is gone]"
    )
    first, *rest = message(ConfigError("Recipe is not valid:\n  a=1: no"), "").splitlines()
    assert first.startswith(
        "ConfigError: Recipe is not valid: a=1: no [permanent: not tried again, a retry cannot help"
    )
    assert rest == ["Recipe is not valid:", "  a=1: no"]
    assert len(message(ValueError("x" * 9_999)).splitlines()[0]) < 1_700


def test_wrong_settings_are_refused_when_the_dag_is_parsed_and_templates_only_when_they_run():
    from corpusmill_operators import CleanRulesOperator

    with pytest.raises(ConfigError, match=r"RulesConfig is not valid:\n  langages="):
        CleanRulesOperator(task_id="clean", source="a.b", target="a.c", config={"langages": ["en"]})
    CleanRulesOperator(task_id="clean", source="a.b", target="a.c", config={"languages": "{{ params.languages }}"})


def test_settings_are_shown_as_rendered_templates():
    from corpusmill_operators import CleanRulesOperator, PlanRunOperator

    assert {"config", "source", "target", "crawl"} <= set(CleanRulesOperator.template_fields)
    assert {"recipe", "crawl", "source"} == set(PlanRunOperator.template_fields)


def test_the_summary_is_one_line_with_counts_and_the_commonest_reasons():
    from corpusmill_operators.base import summary_line

    report = {
        "stage": "clean", "crawl": "A-2024-10", "shard": "00001", "documents_in": 20, "documents_kept": 3,
        "removed": {f"r.{n}": n for n in range(1, 7)}, "quarantined": {"ingest.no_text": 2}, "seconds": 1.25,
    }  # fmt: skip
    assert summary_line("clean", report) == (
        "clean A-2024-10/00001: 20 documents in, 3 kept, 21 removed (6 r.6, 5 r.5, 4 r.4, 3 r.3, 2 r.2), "
        "2 quarantined (2 ingest.no_text), 1.2 s"
    )
    assert summary_line("clean", {**report, "skipped": True}) == (
        "clean A-2024-10/00001: the same content is there already, nothing to do"
    )
    assert summary_line("publish", {"published": 7, "tag": "demo/A/1", "retracted": {}}) == (
        "publish: published=7, tag=demo/A/1"
    )


def test_the_data_docs_link_is_the_address_that_the_task_left(tmp_path):
    from corpusmill_operators import DataDocsLink, ValidateTableOperator
    from corpusmill_operators.validate_table import _address

    (tmp_path / "index.html").write_text("<html></html>")
    operator = ValidateTableOperator(task_id="validate", plan="p")
    assert DataDocsLink().get_link(operator, ti_key=None) == ""
    operator.data_docs_url = _address(str(tmp_path))
    assert DataDocsLink().get_link(operator, ti_key=None) == (tmp_path / "index.html").as_uri()
    assert _address("https://docs.example/site") == "https://docs.example/site"
