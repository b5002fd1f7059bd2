"""Finds and loads causal language models and their tokenizers: safetensors only, no remote code, pinned by content."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

from corpusmill.errors import CorruptModelError, DeviceError, ModelError
from corpusmill.failures import sorted_error

BUNDLED = "bundled:"
"""Prefix of models that ship inside this package (``corpusmill/demo/models``)."""
DTYPES = ("float32", "bfloat16", "float16")
HUB_FILES = ["*.safetensors", "*.json", "*.model", "*.txt"]


def model_folder(path_or_id: str, revision: str | None = None) -> Path:
    """Returns the local folder of a model; a hub model is fetched into the hub's cache.

    Args:
        path_or_id: A folder, ``bundled:NAME``, or a Hugging Face id such as ``EleutherAI/pythia-160m``.
        revision: Commit, tag or branch of a hub model; not used for folders.

    Raises:
        ModelError: There is no such folder, or the hub has no such model or cannot be reached.
    """
    if path_or_id.startswith(BUNDLED):
        folder = Path(str(resources.files("corpusmill") / "demo" / "models" / path_or_id.removeprefix(BUNDLED)))
        if not folder.is_dir():
            known = sorted(p.name for p in folder.parent.glob("*") if p.is_dir())
            raise ModelError(f"model {path_or_id!r} is not bundled; bundled models: {known}")
        return folder
    folder = Path(path_or_id).expanduser()
    if folder.is_dir():
        return folder
    if path_or_id.startswith(("/", ".", "~")) or path_or_id.count("/") > 1:
        raise ModelError(f"model folder {path_or_id!r} does not exist; give a folder, a hub id, or {BUNDLED}NAME")
    return _hub_folder(path_or_id, revision)


def _hub_folder(model_id: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download  # type: ignore[import-not-found, unused-ignore]  # comes with models
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError  # type: ignore[import-not-found, unused-ignore]

    try:
        return Path(snapshot_download(model_id, revision=revision, allow_patterns=HUB_FILES))
    except (OSError, ValueError, HfHubHTTPError, HFValidationError) as error:
        raise ModelError(
            f"model {model_id!r} (revision {revision!r}) is neither a folder nor could it be fetched from the hub: "
            f"{type(error).__name__}: {str(error).partition(chr(10))[0]}. Check the id, the network and "
            "HF_TOKEN, or download it once and give its folder"
        ) from error


def model_sha256(folder: Path) -> str:
    """Returns the sha256 over names and bytes of a model folder's files; Markdown is left out.

    Raises:
        ModelError: The folder holds no file.
    """
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix != ".md")
    if not files:
        raise CorruptModelError(
            f"model folder {str(folder)!r} is empty; expected config.json, safetensors and tokenizer.json"
        )
    return _sha256(folder, files)


def _sha256(folder: Path, files: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def choose_device(device: str) -> str:
    """Returns the torch device of a setting: ``auto`` is the first GPU, else the CPU.

    Raises:
        ModelError: A GPU was asked for and torch sees none.
    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise DeviceError(
            f"device={device!r} but torch {torch.__version__} sees no GPU; look at nvidia-smi on that worker, or use "
            "'auto' or 'cpu'"
        )
    return device


def load_causal_lm(
    path_or_id: str, revision: str | None = None, dtype: str = "float32", device: str = "auto", **options: Any
) -> Any:
    """Returns a causal language model in evaluation mode.

    Args:
        path_or_id: As for `model_folder`.
        revision: Revision of a hub model.
        dtype: ``float32``, ``bfloat16`` or ``float16``; weights are converted to it.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        options: Further arguments of ``AutoModelForCausalLM.from_pretrained``.

    Raises:
        ModelError: No safetensors, an unknown architecture, damaged or missing weights, or no such device.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # it would fill task logs

    if dtype not in DTYPES:
        raise ModelError(f"dtype={dtype!r} is not supported; expected one of {DTYPES}")
    folder = model_folder(path_or_id, revision)
    _check_files(folder)
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            str(folder),
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            **options,
        )
    except Exception as error:  # safetensors and transformers raise a dozen types for a damaged folder
        if (meant := sorted_error(error)) is not None:  # the model may be sound: memory, disk or GPU failed
            raise meant from error
        raise CorruptModelError(
            f"model {path_or_id!r} in {str(folder)!r} cannot be loaded: {type(error).__name__}: {str(error)[:500]}. "
            "Expected a decoder known to transformers, with whole safetensors files; code from a model is never run"
        ) from error
    missing = sorted(info.get("missing_keys", ())) + [str(k) for k in sorted(info.get("mismatched_keys", ()))]
    if missing:
        raise CorruptModelError(
            f"model {path_or_id!r} lacks {len(missing)} weights of its architecture, for instance {missing[:3]}; they "
            "would be random numbers. Fetch the whole checkpoint again, or check config.json"
        )
    return model.to(choose_device(device)).eval()


def _check_files(folder: Path) -> None:
    names = sorted(p.name for p in folder.iterdir())
    if "config.json" not in names:
        raise CorruptModelError(f"model folder {str(folder)!r} has no config.json; it holds {names[:12]}")
    if not any(name.endswith(".safetensors") for name in names):
        raise CorruptModelError(
            f"model folder {str(folder)!r} has no .safetensors file; it holds {names[:12]}. Pickled weights (.bin, "
            ".pt) can run code and are refused: convert them with save_pretrained(safe_serialization=True)"
        )


@dataclass(frozen=True)
class TextTokenizer:
    """A tokenizer that turns text into ids and nothing else: no special tokens, no truncation, no padding.

    Special tokens that are spelled in a text (``<|endoftext|>`` on a page) are encoded as ordinary characters.

    Attributes:
        backend: A `tokenizers.Tokenizer`, or a slow transformers tokenizer.
        sha256: Digest of the tokenizer's files.
        eod_id: Id of the end-of-document token, None where the model names none.
    """

    backend: Any
    sha256: str
    eod_id: int | None

    @cached_property
    def n_vocab(self) -> int:
        """Number of ids, added tokens included: the highest id plus one."""
        vocab = self.backend.get_vocab()
        return max(vocab.values()) + 1

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """Returns token ids for each text."""
        if hasattr(self.backend, "encode_batch_fast"):
            return [e.ids for e in self.backend.encode_batch_fast(texts, add_special_tokens=False)]
        return [self.backend.encode(text, add_special_tokens=False, split_special_tokens=True) for text in texts]

    def decode(self, ids: list[int]) -> str:
        """Returns the text of ids, special tokens included."""
        return str(self.backend.decode(ids, skip_special_tokens=False))


def load_tokenizer(path_or_id: str, revision: str | None = None) -> TextTokenizer:
    """Returns the tokenizer of a model folder: ``tokenizer.json`` where there is one, else through transformers.

    Raises:
        ModelError: There is no tokenizer, or it cannot be read.
    """
    folder = model_folder(path_or_id, revision)
    files = sorted(
        p
        for p in folder.iterdir()
        if p.is_file() and (p.name.startswith(("tokenizer", "vocab", "merges", "spiece")) or p.suffix == ".model")
    )
    if not files:
        raise CorruptModelError(
            f"model folder {str(folder)!r} has no tokenizer; expected tokenizer.json or tokenizer.model"
        )
    try:
        backend = _tokenizer_backend(folder)
        eod = _eod_id(folder, backend)
    except Exception as error:  # tokenizers raises bare Exception
        raise CorruptModelError(
            f"tokenizer in {str(folder)!r} cannot be loaded: {type(error).__name__}: {str(error)[:300]}; "
            "expected a valid tokenizer.json"
        ) from error
    return TextTokenizer(backend, _sha256(folder, files), eod)


def _tokenizer_backend(folder: Path) -> Any:
    if (folder / "tokenizer.json").is_file():
        from tokenizers import Tokenizer

        backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True
        return backend
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True, use_fast=False)


def _eod_id(folder: Path, backend: Any) -> int | None:
    """Returns the first end-of-sequence id of the tokenizer's or the model's settings."""
    vocab = backend.get_vocab()
    for name, key in (("tokenizer_config.json", "eos_token"), ("config.json", "eos_token_id")):
        path = folder / name
        value = json.loads(path.read_text(encoding="utf-8")).get(key) if path.is_file() else None
        if isinstance(value, list):
            value = value[0] if value else None
        if isinstance(value, dict):
            value = value.get("content")
        if isinstance(value, str):
            value = vocab.get(value)
        if value is not None:
            return int(value)
    return None
