"""Both refiners over a server of the OpenAI completions protocol: vLLM, SGLang, TGI.

Prompts go as token ids, so that they are the official ones whatever the server's tokenizer does; a server that takes
text only (TGI) gets the decoded prompt, puts its own BOS in front and may encode it otherwise, which is told once in
the log. The first token's odds come from the server's log probabilities: exact where it reports tokens by id and on
request (vLLM), else from the likeliest 20, where a watched token that is not among them counts at most as much as the
least of them.

A request that fails for good raises for its batch, and so does a server that stops answering; what else the batch had
brought is remembered, so that trying its parts again (`corpusmill.prox.failures`) asks for nothing twice.
"""

import hashlib
import logging
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from corpusmill.config import fingerprint
from corpusmill.errors import ConfigError, ModelError, PermanentDataError
from corpusmill.modeling.completions import (
    TOKEN_ID,
    Completion,
    CompletionsClient,
    ServedModel,
    ServerUnavailableError,
    resolve_endpoint,
)
from corpusmill.modeling.load import BUNDLED, model_folder
from corpusmill.prox.config import ChunkRefinementConfig, DocRefinementConfig
from corpusmill.prox.engine_refiners import (
    EngineChunkRefiner,
    EngineDocRefiner,
    EngineModel,
    FirstToken,
    Written,
    check_settings,
    readable,
    share_of_first,
    stated_context,
    written_ids,
)
from corpusmill.prox.prompt_tokenizer import RefinerTokenizer, load_tokenizer
from corpusmill.prox.refiner import resolve_model
from corpusmill.prox.token_bytes import token_bytes

log = logging.getLogger(__name__)

LOGPROBS = (20, 5)
"""Alternatives to ask for at the first token: the most that vLLM gives by default, then what hosted servers give."""

PROBED = 8
"""New tokens of the first request to a server, which shows its manners."""

HELD_BACK = 8
"""Characters at most that a server keeps back of a text whose last token ends inside a character."""

KEPT = 4096
"""Answers of failed batches that are remembered; about 2 KB each."""

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "config.json")
"""What is needed of a model to build its prompts; ``config.json`` names the context and BOS."""

_EXACT = {"return_tokens_as_token_ids": True, "return_token_ids": True, "repetition_penalty": 1.0}
"""Tokens by id; and vLLM would take a penalty from the checkpoint's generation settings."""


class CompletionsEngine:
    """Runs prompts on a server.

    Args:
        client: The server's client.
        tokenizer: The model's tokenizer.
        context: Tokens that prompt and output may have together, None where it is not known.
        odds: Whether first tokens are wanted, for which log probabilities are looked for.

    Raises:
        ConfigError: The server refuses the key, the address or the model.
        ModelError: The server takes prompts neither as ids nor as text, or its tokenizer is another one.
        ServerUnavailableError: It does not answer.
    """

    def __init__(
        self, client: CompletionsClient, tokenizer: RefinerTokenizer, context: int | None, *, odds: bool
    ) -> None:
        self.client = client
        self.tokenizer = tokenizer
        self.context = context
        self._kept: dict[bytes, Completion | Exception] = {}
        self.takes_ids, self.logprobs = self._manners(odds)
        if not self.takes_ids:
            log.warning(
                "%r takes prompts as text only: its own tokenizer makes their ids, which may differ from the "
                "refiner's at BOS and at odd characters",
                client,
            )

    def _manners(self, odds: bool) -> tuple[bool, int | None]:
        """Returns whether the server takes token ids, and how many alternatives it reports, None for none."""
        prompt = self.tokenizer.encoder.document_ids("a", "sft", 64)[0]
        refusal: Completion | Exception | None = None
        for takes_ids in (True, False):
            self.takes_ids = takes_ids
            for logprobs in (*LOGPROBS, None) if odds else (None,):
                [answer] = self.client.complete(
                    [self._sent(prompt)], max_tokens=PROBED, logprobs=logprobs, extra=_EXACT if takes_ids else None
                )
                if isinstance(answer, Completion):
                    self._check_tokenizer(answer)
                    return takes_ids, logprobs if answer.top_logprobs else None
                refusal = answer
        raise ModelError(f"{self.client!r} takes a prompt neither as token ids nor as text: {refusal}")

    def _check_tokenizer(self, answer: Completion) -> None:
        """Compares ids and text of an answer, but for its end, which may stand inside a character."""
        if answer.token_ids is None:
            return
        read = written_ids(self.tokenizer, answer.token_ids, truncated=False).text
        said = readable(answer.text)
        shorter, longer = sorted(("".join(text.split()).rstrip("\ufffd") for text in (read, said)), key=len)
        if not longer.startswith(shorter) or len(longer) - len(shorter) > HELD_BACK:
            raise ModelError(
                f"{self.client!r} wrote {said!r}, which the tokenizer that the settings name as model reads as "
                f"{read!r}; it belongs to another model. Set model to the folder or hub id of the served one"
            )

    def _sent(self, prompt: Sequence[int]) -> str | Sequence[int]:
        return prompt if self.takes_ids else self.tokenizer.decode(list(prompt))

    def first_tokens(self, prompts: Sequence[Sequence[int]], watched: tuple[int, int]) -> list[FirstToken]:
        """Returns the first new token of each prompt, in order, with the odds of two watched tokens."""
        more = {"logprob_token_ids": list(watched)} if self.takes_ids and self.logprobs is not None else {}
        answers = self._ask(prompts, 1, self.logprobs, more)
        return [first_token(answer, watched, self.tokenizer) for answer in answers]

    def write(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[Written]:
        """Returns the greedy output of each prompt, in order."""
        return [self._written(answer) for answer in self._ask(prompts, max_new_tokens, None, {})]

    def _written(self, answer: Completion) -> Written:
        truncated = answer.finish_reason == "length"
        if answer.token_ids is None:
            return Written(readable(answer.text), truncated, None)
        return written_ids(self.tokenizer, answer.token_ids, truncated=truncated)

    def _ask(
        self, prompts: Sequence[Sequence[int]], max_tokens: int, logprobs: int | None, more: dict[str, Any]
    ) -> list[Completion]:
        """Returns the answer to each prompt, kept ones without a request.

        Raises:
            PermanentDataError: A request failed for good.
            ServerUnavailableError: The server stopped answering.
        """
        keys = [_key(ids, max_tokens, logprobs) for ids in prompts]
        new = [index for index, key in enumerate(keys) if key not in self._kept]
        extra = _EXACT | more if self.takes_ids else None
        try:
            asked = self.client.complete(
                [self._sent(prompts[index]) for index in new], max_tokens=max_tokens, logprobs=logprobs, extra=extra
            )
        except ServerUnavailableError as error:
            self._keep([keys[index] for index in new], error.answers)
            raise
        fresh = dict(zip(new, asked, strict=True))
        answers = [fresh[index] if index in fresh else self._kept[key] for index, key in enumerate(keys)]
        failed = [answer for answer in answers if isinstance(answer, Exception)]
        if failed:
            self._keep(keys, answers)
            more_failed = f" (and {len(failed) - 1} more of {len(answers)} requests)" if len(failed) > 1 else ""
            raise PermanentDataError(f"{failed[0]}{more_failed}")
        return [answer for answer in answers if isinstance(answer, Completion)]

    def _keep(self, keys: Sequence[bytes], answers: Sequence[Completion | Exception | None]) -> None:
        """Remembers the answers of a batch that failed as a whole."""
        self._kept |= {key: answer for key, answer in zip(keys, answers, strict=True) if answer is not None}
        for key in list(self._kept)[: max(0, len(self._kept) - KEPT)]:
            del self._kept[key]


def _key(ids: Sequence[int], max_tokens: int, logprobs: int | None) -> bytes:
    digest = hashlib.blake2b(array("q", ids).tobytes(), digest_size=16, salt=f"{max_tokens}/{logprobs}".encode()[:16])
    return digest.digest()


def first_token(answer: Completion, watched: tuple[int, int], tokenizer: RefinerTokenizer) -> FirstToken:
    """Returns the first new token that an answer tells of, and the odds of two watched tokens.

    A server that names tokens by text cannot tell a word from the same word behind a blank; the likelier one counts.
    """
    place = answer.top_logprobs[0] if answer.top_logprobs else {}
    by_id = any(name.startswith(TOKEN_ID) for name in place)
    names = (_name(watched[0], by_id, tokenizer), _name(watched[1], by_id, tokenizer))
    if not by_id:
        place = {_plain(name): place[name] for name in sorted(place, key=lambda name: place[name])}
    distinct = names[0] != names[1]
    share = share_of_first(place, names) if distinct else None
    if answer.token_ids:
        return FirstToken(answer.token_ids[0], share)
    best = max(place, key=lambda name: place[name]) if place else _plain(answer.text)
    return FirstToken(watched[names.index(best)] if distinct and best in names else None, share)


def _name(token: int, by_id: bool, tokenizer: RefinerTokenizer) -> str:
    return f"{TOKEN_ID}{token}" if by_id else _plain(tokenizer.decode([token]))


def _plain(token: str) -> str:
    return token.strip(" \u2581")  # SentencePiece's mark of a space


def _tokenizer_folder(config: DocRefinementConfig | ChunkRefinementConfig) -> Path:
    """Returns a folder with the tokenizer; of a hub model nothing else is fetched, since the server has the weights."""
    if config.sha256 is not None:
        resolve_model(config)
    if Path(config.model).expanduser().is_dir() or config.model.startswith((BUNDLED, "/", ".", "~")):
        return model_folder(config.model)
    from huggingface_hub import snapshot_download  # type: ignore[import-not-found, unused-ignore]  # comes with models
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError  # type: ignore[import-not-found, unused-ignore]

    try:
        return Path(snapshot_download(config.model, revision=config.revision, allow_patterns=list(TOKENIZER_FILES)))
    except (OSError, ValueError, HfHubHTTPError, HFValidationError) as error:
        raise ModelError(
            f"the tokenizer of model={config.model!r} (revision {config.revision!r}) could not be fetched from the "
            f"hub: {type(error).__name__}: {str(error).partition(chr(10))[0]}. Check the id, the network and HF_TOKEN, "
            "or give a folder with tokenizer.model or tokenizer.json, and the model's name on the server as served_name"
        ) from error


def _tokenizer_digest(folder: Path) -> str:
    """Returns the sha256 (64 hex digits) over names and bytes of the files that make prompts."""
    digest = hashlib.sha256()
    for name in TOKENIZER_FILES:
        if (folder / name).is_file():
            digest.update(name.encode() + b"\0" + (folder / name).read_bytes())
    return digest.hexdigest()


def _served(client: CompletionsClient) -> ServedModel:
    served = client.models()
    for model in served:
        if model.name == client.model:
            return model
    names = ", ".join(repr(model.name) for model in served[:20])
    raise ConfigError(
        f"the server at {client.endpoint.base_url} does not serve {client.model!r}; it serves {names or 'nothing'}. "
        "Set served_name to one of these"
    )


def _served_model(config: DocRefinementConfig | ChunkRefinementConfig, *, odds: bool) -> EngineModel:
    """Returns the settings' server and model, after a look at what the server offers."""
    check_settings(config)
    if config.endpoint is None:
        raise ConfigError(
            "backend='completions' needs endpoint: an address such as 'http://host:8000/v1', or the name of an "
            "endpoint from the environment"
        )
    folder = _tokenizer_folder(config)
    tokenizer = load_tokenizer(folder)
    client = CompletionsClient(resolve_endpoint(config.endpoint), config.served_name or config.model)
    contexts = [n for n in (_served(client).context, stated_context(folder)) if n is not None]
    engine = CompletionsEngine(client, tokenizer, min(contexts, default=None), odds=odds)
    digest = _tokenizer_digest(folder)
    manner = "ids" if engine.takes_ids else "text"
    return EngineModel(
        engine,
        tokenizer,
        token_bytes(folder),
        model_id=f"{Path(client.model).name if client.model.startswith('/') else client.model}@{digest[:12]}",
        fingerprint=fingerprint([client.model, digest, config.output_fingerprint(), manner]),
    )


class CompletionsDocRefiner(EngineDocRefiner):
    """Decides keep or drop of whole documents with a model on a server.

    Raises:
        ConfigError: No endpoint, a wrong key, a model that the server lacks, or a threshold without log probabilities.
        ModelError: No tokenizer, or a server that takes no completions.
        ServerUnavailableError: The server does not answer.
    """

    def __init__(self, config: DocRefinementConfig) -> None:
        model = _served_model(config, odds=True)
        assert isinstance(model.engine, CompletionsEngine)
        if config.threshold is not None and model.engine.logprobs is None:
            raise ConfigError(
                f"threshold={config.threshold!r} needs the odds of the first token, and the server at "
                f"{model.engine.client.endpoint.base_url} gives no log probabilities; leave threshold out"
            )
        super().__init__(config, model)


class CompletionsChunkRefiner(EngineChunkRefiner):
    """Writes editing programs with a model on a server.

    Raises:
        ConfigError: No endpoint, a wrong key, a model that the server lacks, or decoding under the grammar.
        ModelError: No tokenizer, or a server that takes no completions.
        ServerUnavailableError: The server does not answer.
    """

    def __init__(self, config: ChunkRefinementConfig) -> None:
        super().__init__(config, _served_model(config, odds=False))
