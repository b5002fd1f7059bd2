"""Prints datatrove's MinHash signatures: one JSON line a document.

Runs in the peers' environment (benchmarks/peers.txt), never in ours:

    .venv-peers/bin/python tests/conformance/minhash_oracle.py [--values] < documents > signatures

A document is ``{"id": ..., "text": ...}``, one a line. A line of the answer holds the id and the signature: all values
with ``--values``, else 16 hex digits over them; null where datatrove makes none.
"""

import argparse
import hashlib
import json
import sys
import tempfile
import warnings

import numpy as np
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--values", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        step = MinhashDedupSignature(folder, MinhashConfig())
        for line in sys.stdin:
            record = json.loads(line)
            shingles = step.get_shingles(record["text"])
            found = [value for band in step.get_signature(shingles) for value in band] if shingles.size else None
            if found is not None and not options.values:
                found = hashlib.blake2b(np.array(found, "<u8").tobytes(), digest_size=8).hexdigest()
            sys.stdout.write(json.dumps({"id": record["id"], "signature": found}) + "\n")
