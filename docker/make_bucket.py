"""Creates the bucket of CORPUSMILL_WAREHOUSE on the S3 server of CORPUSMILL_S3_ENDPOINT, once.

Called by the service "init". Does nothing for a warehouse in a folder, and nothing on Amazon's own S3, where a bucket
needs a region and a policy that a person decides on.
"""

import os
import sys
from urllib.parse import urlsplit


def main() -> int:
    """Returns 0 once the bucket is there."""
    from pyarrow.fs import FileType, S3FileSystem

    warehouse, endpoint = os.environ["CORPUSMILL_WAREHOUSE"], os.environ.get("CORPUSMILL_S3_ENDPOINT")
    if not warehouse.startswith("s3://") or not endpoint:
        return 0
    bucket = urlsplit(warehouse).netloc
    region = os.environ.get("CORPUSMILL_S3_REGION") or "us-east-1"
    store = S3FileSystem(endpoint_override=endpoint, region=region, allow_bucket_creation=True)
    if store.get_file_info(bucket).type == FileType.NotFound:
        store.create_dir(bucket)
    return 0


if __name__ == "__main__":
    sys.exit(main())
