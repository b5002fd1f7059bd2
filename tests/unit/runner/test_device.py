"""Device slots: one worker per device, freed when its holder dies."""

import multiprocessing as mp
import os
import signal
import time
from pathlib import Path

import pytest

from corpusmill.runner.device import device_slot


def hold(folder: Path, queue, seconds: float) -> None:
    with device_slot(lambda _: None, folder) as device:
        queue.put((device, os.environ["CUDA_VISIBLE_DEVICES"], time.monotonic()))
        time.sleep(seconds)
        queue.put((device, "left", time.monotonic()))


def test_without_devices_nobody_waits(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("CORPUSMILL_DEVICES", raising=False)
    with device_slot(lambda _: None, tmp_path) as device:
        assert device is None


@pytest.mark.slow
def test_four_workers_share_two_fake_devices_one_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setenv("CORPUSMILL_DEVICES", "fake0,fake1")
    context = mp.get_context("fork")
    queue = context.Queue()
    workers = [context.Process(target=hold, args=(tmp_path, queue, 0.3)) for _ in range(4)]
    for w in workers:
        w.start()
    events = sorted((queue.get(timeout=60) for _ in range(8)), key=lambda e: e[2])
    for w in workers:
        w.join()
    for name in ("fake0", "fake1"):
        states = [e[1] for e in events if e[0] == name]
        assert states == [name, "left"] * (len(states) // 2), "two workers held one device at the same time"
    assert {e[0] for e in events} == {"fake0", "fake1"}


@pytest.mark.slow
def test_a_killed_worker_frees_its_device(tmp_path, monkeypatch):
    monkeypatch.setenv("CORPUSMILL_DEVICES", "fake0")
    context = mp.get_context("fork")
    queue = context.Queue()
    worker = context.Process(target=hold, args=(tmp_path, queue, 600))
    worker.start()
    assert queue.get(timeout=60)[0] == "fake0"
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    with device_slot(lambda _: None, tmp_path) as device:
        assert device == "fake0"
