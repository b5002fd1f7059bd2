"""The published ProX refiners (``gair-prox/*``): their shape, and what to verify once their weights are at hand.

No weights could be reached while this project was made. What is known of them from code, paper and file listings stands
here; `verify_public_refiner` compares a model with it, and measures what is not known. The checklist with the reasons
is docs/how-to/public-refiners.md.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from corpusmill.errors import ConfigError, PermanentDataError
from corpusmill.modeling.load import choose_device
from corpusmill.prox.causal_model import fetched_model
from corpusmill.prox.chunking import Chunk
from corpusmill.prox.config import ChunkRefinementConfig, DocRefinementConfig
from corpusmill.prox.json_lines import read_json_lines
from corpusmill.prox.prompt_tokenizer import RefinerTokenizer, load_tokenizer
from corpusmill.prox.prompts import render_prompt
from corpusmill.prox.refiner import local_place

Stage = Literal["documents", "chunks"]
Outcome = Literal["passed", "failed", "measured", "skipped"]
PAGE_ROW = "an object with 'text' (a string) or 'lines' (strings)"
"""What a line of a file of pages is."""

PUBLIC_CONFIG: Mapping[str, Any] = {
    "vocab_size": 32000,
    "hidden_size": 1280,
    "intermediate_size": 2048,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "num_key_value_heads": 1,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
"""Settings of ``LlamaConfig`` with which the public refiners were made, rotary base 10,000 as by default.

Source: GAIR-NLP/ProX `train/lit_gpt/config.py` (TLM-XS), arXiv 2409.17115 table 8."""
N_PARAMETERS, N_COUNTED_PARAMETERS = 354_284_800, 313_324_800
"""Parameters of that shape, with and without the input embedding; the second is the N of the paper's operations."""

LLAMA_IDS: Mapping[str, tuple[int, ...]] = {
    "drop_doc()": (5768, 29918, 1514, 580),
    "keep_doc()": (3013, 29918, 1514, 580),
    "keep_chunk()": (3013, 29918, 29812, 580),
    "skip_chunk()": (14383, 29918, 29812, 580),
    "untouch_doc()": (443, 16747, 29918, 1514, 580),
    "a  b": (263, 29871, 289),
}
"""Ids by Llama's SentencePiece model. Source: the official tokenizer files, encoded with transformers 4.39."""
LLAMA_PROMPT_START = (518, 25580, 29962, 3532, 14816, 29903, 6778, 13)
"""First ids of every prompt, behind BOS; the document stage has the plain bracket, 29961, in the first place."""
OFFICIAL_TEXT = "  leading and trailing blanks  \n\n"
OFFICIAL_IDS = (
    *(1, 29961, 25580, 29962, 3532, 14816, 29903, 6778, 13, 3492, 526, 263, 8444, 29892, 3390, 1319, 322, 15993, 20255),
    *(29889, 13, 29966, 829, 14816, 29903, 6778, 13, 13, 29871, 8236, 322, 25053, 1999, 1331, 518, 29914, 25580, 29962),
)
"""A document and its ids by the official stack (transformers 4.39.1, vllm 0.4.0)."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What.
        outcome: ``passed`` or ``failed`` against an expectation; ``measured`` where nothing is known to compare with;
            ``skipped`` where it could not be looked at, ``value`` says why.
        value: What was found; numbers, strings, or plain containers of them.
        expected: What is known, None where nothing is.
    """

    name: str
    outcome: Outcome
    value: Any
    expected: Any = None

    def line(self) -> str:
        """Returns the check as a line of text."""
        known = "" if self.expected is None or self.outcome == "passed" else f" (known: {_short(self.expected)})"
        return f"{self.outcome}: {self.name}: {_short(self.value)}{known}"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 200 else f"{text[:200]} ..."


def compared(name: str, value: Any, expected: Any) -> Check:
    """Returns a check that passes where both are equal."""
    return Check(name, "passed" if value == expected else "failed", value, expected)


@dataclass(frozen=True)
class VerificationReport:
    """All checks of a model.

    Attributes:
        model_id: Name and version.
        stage: What the model was taken for.
        n_pages: Pages that it was asked about.
        checks: In the order in which they were made.
    """

    model_id: str
    stage: Stage
    n_pages: int
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """True where no check failed."""
        return all(check.outcome != "failed" for check in self.checks)

    def as_dict(self) -> dict[str, Any]:
        """Returns the report for JSON: counts of outcomes, then all checks."""
        outcomes = [check.outcome for check in self.checks]
        counts = {outcome: outcomes.count(outcome) for outcome in ("passed", "failed", "measured", "skipped")}
        head = {"model_id": self.model_id, "stage": self.stage, "n_pages": self.n_pages}
        return {**head, **counts, "checks": [asdict(check) for check in self.checks]}


def verify_public_refiner(
    model: str,
    revision: str | None = None,
    pages: Path | None = None,
    *,
    n_pages: int = 200,
    stage: Stage | None = None,
    device: str = "auto",
    dtypes: Sequence[str] | None = None,
    prompt_cases: Path | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> VerificationReport:
    """Returns what agrees with the published facts, what does not, and what could only be measured.

    Args:
        model: Hub id or folder.
        revision: Revision of a hub model.
        pages: JSON lines with ``text`` or ``lines``, plain or gzip: raw pages, best some thousand of which some hundred
            are over 2,000 tokens long. None: only files and tokenizer are looked at.
        n_pages: Pages of the file that are used, from its beginning.
        stage: What the model was made for; None: by its name (``...-doc-refining-lm``, ``...-chunk-refining-lm``).
        device: Torch device.
        dtypes: The first one is the reference that the others' answers are compared with. None: float32 and bfloat16,
            and float16 too on a GPU.
        prompt_cases: ``prox_conformance.jsonl``; its prompt cases hold further official ids.
        progress: Called with a line of text for each check as it is made.

    Raises:
        ConfigError: The stage is neither given nor in the name.
        ModelError: The model cannot be fetched or loaded.
        PermanentDataError: The file of pages cannot be read.
    """
    from corpusmill.prox.public_refiner_answers import answer_checks

    local_place(model)  # a folder that is not there is told first
    stage = stage or stage_of(model)
    used = choose_device(device)
    dtypes = dtypes or ("float32", "bfloat16", *(["float16"] if used != "cpu" else []))
    settings = {"model": model, "revision": revision, "device": used, "mode": "compat", "dtype": dtypes[0]}
    config = (DocRefinementConfig if stage == "documents" else ChunkRefinementConfig).model_validate(settings)
    texts = [] if pages is None else read_texts(pages, n_pages)
    folder, resolved = fetched_model(config)
    tokenizer = load_tokenizer(folder)
    checks: list[Check] = []
    answers = answer_checks(config, dtypes, texts) if texts else [Check("answers", "skipped", "no pages were given")]
    for check in chain(file_checks(folder), tokenizer_checks(tokenizer, prompt_cases), answers):
        checks.append(check)
        progress(check.line())
    return VerificationReport(resolved.model_id, stage, len(texts), tuple(checks))


def read_texts(path: Path, n: int) -> list[str]:
    """Returns the first texts of a file of JSON lines with ``text`` or ``lines``, those without words left out.

    Raises:
        PermanentDataError: The file cannot be read, or a row has neither field.
    """
    texts: list[str] = []
    for number, row in read_json_lines(path, PAGE_ROW):
        try:
            text = row["text"] if "text" in row else "\n".join(row["lines"])
            texts += [text] if text.split() else []
        except (KeyError, TypeError, AttributeError) as error:
            raise PermanentDataError(f"{path} line {number}: {error!r}; expected {PAGE_ROW}") from error
        if len(texts) >= n:
            break
    return texts


def stage_of(model: str) -> Stage:
    """Returns the stage that a public model's name tells.

    Raises:
        ConfigError: It tells none.
    """
    name = model.rstrip("/").rpartition("/")[2]
    if "doc" in name:
        return "documents"
    if "chunk" in name:
        return "chunks"
    raise ConfigError(
        f"model={model!r}: its name holds neither 'doc' nor 'chunk'; give the stage (--stage documents or chunks)"
    )


def file_checks(folder: Path) -> list[Check]:
    """Returns checks of a model folder: its files, settings, and the size and dtype of its weights."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    config = json.loads((folder / "config.json").read_text(encoding="utf-8")) if "config.json" in names else {}
    needed = ("config.json", "model.safetensors", "tokenizer.model")
    absent = ("tokenizer.json", "chat_template.jinja", "chat_template.json")
    shape = {name: config.get(name) for name in PUBLIC_CONFIG}
    n_parameters, dtypes = _weights(folder)
    return [
        compared("files that the public models have", [name for name in needed if name in names], list(needed)),
        compared("files that they lack", [name for name in absent if name in names], []),
        compared("model type", config.get("model_type"), "llama"),
        compared("shape", shape, dict(PUBLIC_CONFIG)),
        compared("parameters", n_parameters, N_PARAMETERS),
        compared("dtype of the stored weights", dtypes, ["F32"]),
    ]


def _weights(folder: Path) -> tuple[int, list[str]]:
    """Returns the number of stored parameters and their dtypes, from the headers alone."""
    from safetensors import safe_open

    n, dtypes = 0, set()
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  # the object is no mapping
                part = file.get_slice(name)
                size = 1
                for extent in part.get_shape():
                    size *= extent
                n += size
                dtypes.add(str(part.get_dtype()))
    return n, sorted(dtypes)


def tokenizer_checks(tokenizer: RefinerTokenizer, prompt_cases: Path | None) -> list[Check]:
    """Returns checks of the vocabulary, of ids known from Llama's tokenizer, and of whole prompts."""
    encoder = tokenizer.encoder
    found = {text: tuple(encoder.encode(text)) for text in LLAMA_IDS}
    start = tuple(encoder.encode(render_prompt("x"))[: len(LLAMA_PROMPT_START)])
    named = {"bos": encoder.bos, "eos": tokenizer.eos, "newline": encoder.newline}
    named |= {"[ behind a space": encoder.marked_bracket, "[": encoder.plain_bracket}
    known = {"bos": 1, "eos": 2, "newline": 13, "[ behind a space": 518, "[": 29961}
    checks = [
        compared("vocabulary", tokenizer.n_vocab, PUBLIC_CONFIG["vocab_size"]),
        compared("named ids", named, known),
        compared("ids of calls", found, dict(LLAMA_IDS)),
        compared("first ids of a prompt", start, LLAMA_PROMPT_START),
        compared("ids of a document", tuple(encoder.document_ids(OFFICIAL_TEXT, "compat", 2000)[0]), OFFICIAL_IDS),
        compared("prompts put together from lines", encoder.assembles(), True),
    ]
    if prompt_cases is None:
        return [*checks, Check("official prompts", "skipped", "no file of prompt cases was given")]
    return [*checks, _official_prompts(tokenizer, prompt_cases)]


def _official_prompts(tokenizer: RefinerTokenizer, prompt_cases: Path) -> Check:
    with prompt_cases.open(encoding="utf-8") as file:
        cases = [case for case in map(json.loads, file) if case["stage"].startswith("prompt_")]
    different = [case["id"] for case in cases if _prompt_ids(tokenizer, case) != case["ids"]]
    return compared(f"official ids of {len(cases)} prompts: cases that differ", different, [])


def _prompt_ids(tokenizer: RefinerTokenizer, case: Mapping[str, Any]) -> list[int]:
    if case["stage"] == "prompt_doc":
        return tokenizer.encoder.document_ids(case["input"], "compat", 2000)[0]
    _, *lines, _ = case["input"].split("\n")  # "[doc]", numbered lines, "[/doc]"
    chunk = Chunk(0, tuple(line.removeprefix(f"[{number:03d}]") for number, line in enumerate(lines)))
    return tokenizer.encoder.chunk_ids(tokenizer.encode_batch(lines), chunk, "compat")
