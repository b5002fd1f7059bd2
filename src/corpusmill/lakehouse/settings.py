"""Where the lakehouse lies: catalog, warehouse, S3 endpoint. Imports pydantic only, so that DAG files can import it."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, SecretStr

from corpusmill.config import StageConfig
from corpusmill.errors import ConfigError

DEFAULT_S3_REGION = "us-east-1"
"""Region where an own endpoint (MinIO and others) is given without one; such servers ignore it, the client needs it."""


class LakehouseSettings(StageConfig):
    """Where catalog and warehouse lie. Passwords and keys are never shown, logged or fingerprinted."""

    catalog_uri: str = Field(repr=False, exclude=True)
    """SQLAlchemy URI of the catalog database: ``sqlite:////folder/catalog.db`` or ``postgresql://user:password@host/db``."""
    warehouse: str
    """Folder of all tables: ``file:///folder`` or ``s3://bucket/prefix``."""
    s3_endpoint: str | None = None
    """Endpoint URL of an S3-compatible server; None means Amazon's own."""
    s3_region: str | None = None
    """Region of the bucket; None means the environment's, or ``us-east-1`` where an endpoint is given."""
    s3_credentials: Mapping[str, SecretStr] | None = Field(default=None, repr=False, exclude=True)
    """``access_key``, ``secret_key``, optionally ``session_token``; None means AWS's standard environment and files."""

    @classmethod
    def from_environment(cls, home: Path, environ: Mapping[str, str] | None = None) -> "LakehouseSettings":
        """Returns the embedded lakehouse below a folder, or what CORPUSMILL_* variables name instead.

        Args:
            home: Folder of the embedded catalog and warehouse; not created here.
            environ: Variables: CORPUSMILL_CATALOG_URI, CORPUSMILL_WAREHOUSE, CORPUSMILL_S3_ENDPOINT,
                CORPUSMILL_S3_REGION, AWS_REGION, AWS_DEFAULT_REGION. None means the process environment.

        Raises:
            ConfigError: The folder's name holds characters that a URI gives another meaning.
        """
        given = os.environ if environ is None else environ
        folder = str(home.expanduser().absolute())
        if bad := sorted(set("%?#") & set(folder)):
            raise ConfigError(f"home={folder!r} holds {bad}, which a file URI cannot carry; choose another folder")
        region = given.get("CORPUSMILL_S3_REGION") or given.get("AWS_REGION") or given.get("AWS_DEFAULT_REGION")
        return cls.load(
            {
                "catalog_uri": given.get("CORPUSMILL_CATALOG_URI") or f"sqlite:///{folder}/catalog.db",
                "warehouse": (given.get("CORPUSMILL_WAREHOUSE") or f"file://{folder}/warehouse").rstrip("/"),
                "s3_endpoint": given.get("CORPUSMILL_S3_ENDPOINT") or None,
                "s3_region": region or None,
            }
        )

    @property
    def shown_catalog_uri(self) -> str:
        """The catalog URI with its password blotted out, for messages."""
        shown = re.sub(r"//([^:/@]*):.*@", r"//\1:***@", self.catalog_uri)  # greedy: a password may hold an @
        return re.sub(r"(?i)([?&][^=&]*(?:password|secret|token|key)[^=&]*)=[^&]*", r"\1=***", shown)

    @property
    def sqlite_path(self) -> Path | None:
        """File of an SQLite catalog, None for a database server."""
        if not self.catalog_uri.startswith("sqlite"):
            return None
        return Path(self.catalog_uri.split(":///", 1)[-1].split("?", 1)[0])

    def catalog_properties(self) -> dict[str, str]:
        """Returns the properties that open the catalog; holds secrets, so never log it.

        Raises:
            ConfigError: The catalog is neither SQLite nor PostgreSQL, or the warehouse neither a folder nor S3.
        """
        if not self.catalog_uri.startswith(("sqlite:///", "postgresql", "postgres:")):
            raise ConfigError(
                f"catalog_uri={self.shown_catalog_uri!r} is not supported; expected sqlite:///FILE or postgresql://..."
            )
        if not self.warehouse.startswith(("file:///", "s3://")):
            raise ConfigError(
                f"warehouse={self.warehouse!r} is not supported; expected file:///FOLDER or s3://BUCKET/PREFIX"
            )
        # the driver that pyiceberg's extra installs; SQLAlchemy 2.1 would look for another one
        uri = re.sub(r"^postgres(ql)?://", "postgresql+psycopg2://", self.catalog_uri)
        if self.sqlite_path is not None and "?" not in uri:
            uri += "?timeout=60"  # seconds to wait for another process's write; the driver's own default is 5
        properties = {
            "uri": uri,
            "warehouse": self.warehouse,
            "py-io-impl": "corpusmill.lakehouse.storage.WarehouseFileIO",
            "pool_pre_ping": "true",
        }
        if self.warehouse.startswith("s3://"):
            properties |= self._s3_properties()
        return properties

    def _s3_properties(self) -> dict[str, str]:
        properties = {}
        if self.s3_endpoint:
            properties["s3.endpoint"] = self.s3_endpoint
        if region := self.s3_region or (DEFAULT_S3_REGION if self.s3_endpoint else None):
            properties["s3.region"] = region
        names = {
            "access_key": "s3.access-key-id",
            "secret_key": "s3.secret-access-key",
            "session_token": "s3.session-token",
        }
        for name, secret in (self.s3_credentials or {}).items():
            if name not in names:
                raise ConfigError(f"s3_credentials has key {name!r}; expected {sorted(names)}")
            properties[names[name]] = secret.get_secret_value()
        return properties


def corpusmill_home() -> Path:
    """Returns the folder of all local state: CORPUSMILL_HOME, else ``.corpusmill`` below the current directory."""
    return Path(os.environ.get("CORPUSMILL_HOME") or ".corpusmill").absolute()
