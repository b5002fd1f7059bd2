"""Initialising a lakehouse and planning need no crawl reader, model or validation library: the small image has none."""

import subprocess
import sys

HEAVY = (
    "fastwarc resiliparse trafilatura spacy fasttext tldextract torch transformers tokenizers safetensors "
    "great_expectations"
)
CODE = "import sys, corpusmill.runner.chain; print(sorted(set(sys.argv[1].split()) & set(sys.modules)))"


def test_the_front_of_the_runner_loads_no_heavy_library():
    done = subprocess.run([sys.executable, "-c", CODE, HEAVY], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
