"""A tiny real model, trained in about a second on text that repeats, so that it knows some continuations by heart."""

import random

import pytest
import torch

from corpusmill.pruning.reference_models import train_reference_model

TEXT = "the old mill grinds the grain of the whole valley and nobody asks how long the river will carry it"
WORDS = TEXT.split(" ")


def sentences(n: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(3, 60))) + "." for _ in range(n)]


@pytest.fixture(scope="session")
def repeated_text() -> str:
    return (" ".join(WORDS) + ". ") * 12


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory, repeated_text):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("tiny_model")
    texts = sentences(80, 1) + [repeated_text] * 8
    train_reference_model(texts, folder, preset="test", steps=120, seed=3, n_vocab=320)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tiny_folder):
    from corpusmill.modeling.load import load_causal_lm

    return load_causal_lm(str(tiny_folder), device="cpu")


@pytest.fixture(scope="session")
def tiny_tokenizer(tiny_folder):
    from corpusmill.modeling.load import load_tokenizer

    return load_tokenizer(str(tiny_folder))
