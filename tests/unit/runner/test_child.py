"""Child processes: results, errors by class, death, progress."""

import threading
from pathlib import Path

import pytest

from corpusmill.errors import ConfigError, ModelError, Permanent, Transient, WorkerDiedError
from corpusmill.runner.child import ChildJob


def test_the_result_and_the_progress_lines_come_back():
    lines: list[str] = []
    job = ChildJob("json:loads", {"s": '{"a": [1, 2]}'})
    assert job.run(lines.append) == {"a": [1, 2]}


def test_progress_lines_of_the_child_reach_the_log():
    lines: list[str] = []
    assert ChildJob("builtins:print", {"sep": "", "end": "half\n"}).run(lines.append) is None
    assert lines == ["half"]


def test_an_error_of_ours_keeps_its_class_and_message():
    with pytest.raises(ConfigError, match="cannot run alone") as caught:
        ChildJob("corpusmill.runner.alone:configured", {"stage": "sing", "config": {}}).run(print)
    assert isinstance(caught.value, Permanent)


def test_an_unexpected_error_names_its_class_and_traceback():
    with pytest.raises(ModelError, match=r"ZeroDivisionError|JSONDecodeError"):
        ChildJob("json:loads", {"s": "{"}).run(print)


def killed_after_a_second(job: ChildJob) -> None:
    timer = threading.Timer(1.0, job.kill)
    timer.start()
    try:
        job.run(print)
    finally:
        timer.cancel()


def test_a_killed_child_is_a_transient_error_that_names_the_signal():
    with pytest.raises(WorkerDiedError, match="SIGKILL") as caught:
        killed_after_a_second(ChildJob("subprocess:check_call", {"args": ["sleep", "60"]}))
    assert isinstance(caught.value, Transient)


def test_killing_a_job_kills_what_it_started(tmp_path: Path):
    marker = tmp_path / "pid"
    job = ChildJob("subprocess:check_call", {"args": ["sh", "-c", f"echo $$ > {marker}; exec sleep 60"]})
    with pytest.raises(WorkerDiedError):
        killed_after_a_second(job)
    status = Path(f"/proc/{marker.read_text().strip()}/status")
    assert not status.exists() or "Z (zombie)" in status.read_text()
