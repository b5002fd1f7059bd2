"""Crawls on S3, against moto's server."""

import boto3
import pytest
from moto.server import ThreadedMotoServer

from corpusmill.errors import ConfigError, TransientDataError
from corpusmill.ingest.backoff import FetchPolicy, MissingFileError
from corpusmill.ingest.config import IngestConfig
from corpusmill.ingest.crawl import list_files, list_releases
from corpusmill.ingest.fetch import open_file
from corpusmill.ingest.stage import IngestStage

pytestmark = pytest.mark.integration
CRAWL = "CC-DEMO-2024-33"


@pytest.fixture(scope="module")
def bucket(shared_data):
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    patch = pytest.MonkeyPatch()
    for name, value in (
        ("AWS_ACCESS_KEY_ID", "k"),
        ("AWS_SECRET_ACCESS_KEY", "s"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ):
        patch.setenv(name, value)
    client = boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1")
    client.create_bucket(Bucket="crawls")
    root = shared_data / "crawls"
    for path in [f"crawl-data/{CRAWL}/wet.paths.gz", *list_files(str(root), CRAWL, "wet")]:
        client.upload_file(str(root / path), "crawls", f"copy/{path}")
    client.put_object(Bucket="crawls", Key="copy/page.warc.gz", Body=b"<html>an error page</html>")
    yield f"s3://crawls/copy?endpoint_override={host}:{port}&scheme=http&region=us-east-1"
    server.stop()
    patch.undo()


def test_a_crawl_is_listed_and_read(bucket, tmp_path):
    assert [release.id for release in list_releases(bucket)] == [CRAWL]
    stage = IngestStage(IngestConfig(kind="wet"))
    outputs = [o for path in list_files(bucket, CRAWL, "wet") for o in stage.read_file(bucket, path, CRAWL, tmp_path)]
    assert sum(o.kept.num_rows for o in outputs) == 545
    assert list(tmp_path.iterdir()) == []


def test_missing_objects_and_error_pages_are_quarantined(bucket, tmp_path):
    with pytest.raises(ConfigError, match=f"known: {CRAWL}"):
        list_files(bucket, CRAWL, "warc")
    with pytest.raises(MissingFileError), open_file(bucket, "none.warc.gz", tmp_path):
        pass
    stage = IngestStage(IngestConfig())
    (output,) = stage.read_file(bucket, "page.warc.gz", CRAWL, tmp_path)
    assert [fault.reason for fault in output.quarantine] == ["ingest.bad_file"]


@pytest.mark.slow
def test_a_server_that_is_not_there_is_a_transient_error(bucket, tmp_path):
    waits = []
    gone = "s3://crawls/copy?endpoint_override=127.0.0.1:9&scheme=http&region=us-east-1"
    with (
        pytest.raises(TransientDataError, match="could not be downloaded"),
        open_file(gone, "a.warc.gz", tmp_path, policy=FetchPolicy(max_attempts=2), sleep=waits.append),
    ):
        pass
    assert len(waits) == 1
