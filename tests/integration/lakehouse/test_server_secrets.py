"""Keys and passwords: where they may come from, and that none of them is ever stored."""

import pytest
from sqlalchemy import text

from corpusmill.lakehouse.storage import list_files, read_whole

pytestmark = pytest.mark.integration


@pytest.fixture
def server(backend, worlds):
    if "s3_endpoint" not in backend:
        pytest.skip("an embedded lakehouse has no secrets")
    return backend


@pytest.mark.parametrize("backend", ["server"], indirect=True)
def test_s3_keys_come_from_the_standard_variables_where_none_are_given(server, worlds, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    world = worlds.World({name: value for name, value in server.items() if name != "s3_credentials"}).create()
    world.stage(world.token("A", "k1", world.epoch("A")), {"0": 5})
    assert world.count() == 5
    world.lake.close()


@pytest.mark.parametrize("backend", ["server"], indirect=True)
def test_neither_files_nor_the_catalog_hold_a_password_or_key(server, worlds):
    key = "AKIDONOTSTOREME"
    world = worlds.World(server | {"s3_credentials": {"access_key": key, "secret_key": key}}).create()
    world.publish(world.token("A", "k1", world.epoch("A")), {"0": 5})
    stored = list(list_files(world.lake.io, world.settings.warehouse))
    assert len(stored) > 10
    held = [read_whole(world.lake.io, f.location) or b"" for f in stored]
    with world.lake.catalog.engine.connect() as connection:
        for table in ("iceberg_tables", "iceberg_namespace_properties"):
            held += [repr(row).encode() for row in connection.execute(text(f"SELECT * FROM {table}"))]
    assert not [data for data in held if key.encode() in data or b"postgres:secret" in data]
    world.lake.close()
