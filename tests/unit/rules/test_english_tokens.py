"""The tokenizer is loaded without the libraries of spaCy's models."""

import subprocess
import sys

LOAD = """
import sys
from corpusmill.rules.english_tokens import EnglishTokenizer
assert EnglishTokenizer().tokens("(don't") == [("(", True), ("do", False), ("n't", False)]
print(sorted({"torch", "cupy", "tensorflow"} & sys.modules.keys()))
import torch
print(torch.ones(2).sum().item())
"""


def test_loading_the_tokenizer_imports_no_torch_and_leaves_it_importable():
    done = subprocess.run([sys.executable, "-c", LOAD], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n") == ["[]", "2.0", ""]
