"""Downloads from real servers that misbehave on purpose."""

import gzip
import random
import socket
import threading
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from corpusmill.errors import ConfigError, PermanentDataError, TransientDataError
from corpusmill.ingest.backoff import FetchPolicy, MissingFileError
from corpusmill.ingest.config import IngestConfig
from corpusmill.ingest.crawl import list_files, list_releases
from corpusmill.ingest.fetch import open_file
from corpusmill.ingest.stage import IngestStage

pytestmark = pytest.mark.integration
DATA = gzip.compress(random.Random(1).randbytes(300_000), mtime=0)
OTHER = gzip.compress(random.Random(2).randbytes(300_000), mtime=0)
HTML = b"<!doctype html><html><body>Please enable JavaScript</body></html>"
SLOW_DOWN = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>SlowDown</Code><Message>Reduce rate</Message></Error>'
)
DENIED = b"<Error><Code>AccessDenied</Code></Error>"


class Answer:
    """One scripted answer; None for a header leaves the server's own."""

    def __init__(
        self, body=DATA, status=200, *, ranges=True, tag='"v1"', send=None, length=None, stall=False, **headers
    ):
        self.body, self.status, self.ranges, self.tag = body, status, ranges, tag
        self.send, self.length, self.stall = send, length, stall
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Server:
    """Serves scripted answers in order, the last one for ever, and keeps the requests' headers."""

    def __init__(self):
        self.script, self.requests, self.release = [Answer()], [], threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                outer.requests.append(dict(self.headers) | {"path": self.path})
                answer = outer.script.pop(0) if len(outer.script) > 1 else outer.script[0]
                if callable(answer):
                    answer = answer(self.path)
                outer.reply(self, answer)

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()
        self.base = f"http://127.0.0.1:{self.http.server_port}"

    def reply(self, handler, answer):
        body, status = answer.body, answer.status
        asked = handler.headers.get("Range")
        headers = dict(answer.headers)
        if answer.tag:
            headers.setdefault("ETag", answer.tag)
        matches = handler.headers.get("If-Range") in (None, answer.tag)
        if asked and answer.ranges and status == 200 and matches:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
            body, status = body[start:], 206
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body) if answer.length is None else answer.length))
        handler.end_headers()
        handler.wfile.write(body if answer.send is None else body[: answer.send])
        handler.wfile.flush()
        if answer.stall:
            self.release.wait(20)
        if answer.send is not None or answer.length is not None:
            handler.close_connection = True
            handler.connection.shutdown(socket.SHUT_RDWR)

    def close(self):
        self.release.set()
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def server():
    running = Server()
    yield running
    running.close()


class Waits(list):
    def __call__(self, seconds):
        self.append(seconds)


@pytest.fixture
def waits():
    return Waits()


def fetch(server, tmp_path, waits, path="a.warc.gz", jitter=0.5, **policy):
    with open_file(
        server.base,
        path,
        tmp_path / "scratch",
        policy=FetchPolicy(**{"max_attempts": 4, "timeout": 20.0} | policy),
        sleep=waits,
        jitter=lambda: jitter,
    ) as file:
        return file.read()


def test_a_whole_file_takes_one_request_and_leaves_nothing_in_scratch(server, tmp_path, waits):
    assert fetch(server, tmp_path, waits) == DATA
    assert (len(server.requests), waits) == (1, [])
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_cut_download_goes_on_where_it_ended(server, tmp_path, waits):
    server.script = [Answer(send=100_000), Answer(send=50_000), Answer()]
    assert fetch(server, tmp_path, waits) == DATA
    assert [r.get("Range") for r in server.requests] == [None, "bytes=100000-", "bytes=150000-"]
    assert [r.get("If-Range") for r in server.requests] == [None, '"v1"', '"v1"']


def test_a_server_that_ignores_ranges_is_read_from_the_start(server, tmp_path, waits):
    server.script = [Answer(send=100_000), Answer(ranges=False)]
    assert fetch(server, tmp_path, waits) == DATA


def test_a_file_that_changed_between_attempts_is_never_a_mixture(server, tmp_path, waits):
    server.script = [Answer(send=100_000), Answer(OTHER, tag='"v2"')]
    assert fetch(server, tmp_path, waits) == OTHER


def test_a_part_of_another_version_is_refused(server, tmp_path, waits):
    lying = Answer(OTHER[100_000:], 206, tag='"v2"', Content_Range=f"bytes 100000-{len(OTHER) - 1}/{len(OTHER)}")
    server.script = [Answer(send=100_000), lying, Answer(OTHER, tag='"v2"')]
    assert fetch(server, tmp_path, waits) == OTHER


def test_another_part_than_asked_for_is_refused(server, tmp_path, waits):
    wrong = Answer(DATA[50_000:], 206, Content_Range=f"bytes 50000-{len(DATA) - 1}/{len(DATA)}")
    server.script = [Answer(send=100_000), wrong, Answer()]
    assert fetch(server, tmp_path, waits) == DATA


def test_without_a_validator_a_cut_download_starts_again(server, tmp_path, waits):
    server.script = [Answer(send=100_000, tag=None), Answer(tag=None)]
    assert fetch(server, tmp_path, waits) == DATA
    assert [r.get("Range") for r in server.requests] == [None, None]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again_after_growing_waits(server, tmp_path, waits, status):
    server.script = [Answer(SLOW_DOWN, status)] * 3 + [Answer()]
    assert fetch(server, tmp_path, waits) == DATA
    assert waits == [0.75, 1.5, 3.0]


def test_waits_are_spread_at_random(server, tmp_path, waits):
    server.script = [Answer(b"", 503)] * 2 + [Answer()]
    fetch(server, tmp_path, waits, jitter=0.0)
    assert waits == [0.5, 1.0]


def test_retry_after_in_seconds_and_as_a_date_is_honoured(server, tmp_path, waits):
    date = formatdate(time.time() + 100, usegmt=True)
    server.script = [Answer(b"", 429, Retry_After="30"), Answer(b"", 503, Retry_After=date), Answer()]
    assert fetch(server, tmp_path, waits) == DATA
    assert waits[0] == 30.75
    assert 60 < waits[1] < 110


def test_retry_after_is_bounded(server, tmp_path, waits):
    server.script = [Answer(b"", 429, Retry_After="999999"), Answer()]
    fetch(server, tmp_path, waits, max_delay=40.0)
    assert waits == [40.0]


def test_a_slow_down_page_with_status_200_is_waited_out(server, tmp_path, waits):
    server.script = [Answer(SLOW_DOWN), Answer()]
    assert fetch(server, tmp_path, waits) == DATA
    assert len(waits) == 1


def test_a_refusal_that_says_slow_down_is_waited_out(server, tmp_path, waits):
    server.script = [Answer(SLOW_DOWN, 403), Answer()]
    assert fetch(server, tmp_path, waits) == DATA


@pytest.mark.parametrize("path", ["a.warc.gz", "a.warc"])
def test_an_error_page_is_never_taken_for_the_file(server, tmp_path, waits, path):
    server.script = [Answer(HTML)]
    with pytest.raises(PermanentDataError, match=r"Please enable.*gives this for the file"):
        fetch(server, tmp_path, waits, path)
    assert len(server.requests) == 4


def test_an_empty_answer_is_never_taken_for_the_file(server, tmp_path, waits):
    server.script = [Answer(b"")]
    with pytest.raises(PermanentDataError, match="empty"):
        fetch(server, tmp_path, waits)


def test_slow_down_without_end_is_a_transient_error(server, tmp_path, waits):
    server.script = [Answer(SLOW_DOWN)]
    with pytest.raises(TransientDataError, match="after 4 attempts"):
        fetch(server, tmp_path, waits)
    assert len(waits) == 3


def test_a_missing_file_is_a_permanent_error_at_once(server, tmp_path, waits):
    server.script = [Answer(b"no", 404)]
    with pytest.raises(MissingFileError, match=r"a\.warc\.gz does not exist"):
        fetch(server, tmp_path, waits)
    assert (len(server.requests), waits) == (1, [])


def test_a_refused_file_is_a_permanent_error_at_once(server, tmp_path, waits):
    server.script = [Answer(DENIED, 403)]
    with pytest.raises(PermanentDataError, match=r"403.*AccessDenied"):
        fetch(server, tmp_path, waits)
    assert len(server.requests) == 1


def test_a_length_that_the_body_never_reaches_is_a_transient_error(server, tmp_path, waits):
    server.script = [Answer(length=len(DATA) + 10, tag=None)]
    with pytest.raises(TransientDataError, match=f"{len(DATA)} of {len(DATA) + 10} bytes|IncompleteRead"):
        fetch(server, tmp_path, waits)


def test_a_stalled_connection_is_given_up_and_resumed(server, tmp_path, waits):
    server.script = [Answer(send=100_000, stall=True), Answer()]
    assert fetch(server, tmp_path, waits, timeout=0.5) == DATA
    assert server.requests[1]["Range"] == "bytes=100000-"


def test_a_server_that_is_not_there_is_a_transient_error(tmp_path, waits):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (
        pytest.raises(TransientDataError, match="refused"),
        open_file(f"http://127.0.0.1:{port}", "a.gz", tmp_path, policy=FetchPolicy(max_attempts=2), sleep=waits),
    ):
        pass


def test_a_416_starts_again(server, tmp_path, waits):
    server.script = [Answer(send=100_000), Answer(b"", 416), Answer()]
    assert fetch(server, tmp_path, waits) == DATA


def test_a_whole_crawl_is_read_over_http(server, shared_data, tmp_path):
    root = shared_data / "crawls"

    def page(path):
        place = root / path.lstrip("/")
        return Answer(place.read_bytes()) if place.is_file() else Answer(b"no", 404)

    server.script = [page]
    assert [release.id for release in list_releases(server.base)] == ["CC-DEMO-2024-10", "CC-DEMO-2024-33"]
    paths = list_files(server.base, "CC-DEMO-2024-10", "wet")
    stage = IngestStage(IngestConfig(kind="wet"))
    outputs = [o for path in paths for o in stage.read_file(server.base, path, "CC-DEMO-2024-10", tmp_path)]
    assert sum(o.kept.num_rows for o in outputs) == 496
    with pytest.raises(ConfigError, match="known: CC-DEMO-2024-10, CC-DEMO-2024-33"):
        list_files(server.base, "CC-DEMO-2024-11")


def test_the_stage_quarantines_a_missing_file_and_passes_transient_errors_on(server, tmp_path, waits):
    stage = IngestStage(IngestConfig(max_seconds=None))
    server.script = [Answer(b"no", 404)]
    (output,) = stage.read_file(server.base, "a.warc.gz", "C", tmp_path)
    assert [fault.reason for fault in output.quarantine] == ["ingest.bad_file"]
    server.script = [Answer(b"", 503)]
    stage = IngestStage(IngestConfig(max_seconds=None), sleep=waits)
    with pytest.raises(TransientDataError, match="503"):
        list(stage.read_file(server.base, "a.warc.gz", "C", tmp_path))
