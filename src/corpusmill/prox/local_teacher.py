"""A causal language model in this process as a teacher, over its chat template or as plain text.

The template is rendered with marks in place of the messages, and its own text is encoded apart from theirs: what a page
says stays plain text, even where it spells the model's special tokens.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from corpusmill.batches import replace_surrogates
from corpusmill.errors import ModelError, PermanentDataError
from corpusmill.prox.annotation_config import TeacherConfig
from corpusmill.prox.annotator import Answer
from corpusmill.prox.causal_model import CausalModel, fetched_model
from corpusmill.prox.config import ChunkRefinementConfig
from corpusmill.prox.greedy_decoding import greedy

_MARK = "\ue000{}\ue001"
_MARKS = re.compile("\ue000([0-9]+)\ue001")


class LocalTeacher:
    """Answers greedily, in batches of similar length.

    Raises:
        ModelError: The model cannot be loaded, or its chat template cannot be used.
    """

    concurrency = 1
    n_retries = 0

    def __init__(self, config: TeacherConfig) -> None:
        model_config = ChunkRefinementConfig(
            model=config.model,
            revision=config.revision,
            dtype=config.dtype,
            device=config.device,
            batch_tokens=config.batch_tokens,
        )
        self._folder, resolved = fetched_model(model_config)
        self.config = config
        self.name = resolved.model_id
        self.batch_requests = config.batch_requests
        self._causal = CausalModel(self._folder, model_config)

    def ask(self, conversations: Sequence[Sequence[Mapping[str, str]]]) -> list[Answer | Exception]:
        """Returns the model's answers, in order; a conversation that leaves no room for an answer fails for good."""
        prompts = [self.prompt_ids(conversation) for conversation in conversations]
        written = greedy(self._causal, prompts, self.config.max_new_tokens)
        return [self._answer(ids, *new) for ids, new in zip(prompts, written, strict=True)]

    def close(self) -> None:
        """Frees the model's memory."""
        del self._causal

    def prompt_ids(self, conversation: Sequence[Mapping[str, str]]) -> list[int]:
        """Returns the ids of a conversation up to where the answer begins."""
        encode = self._causal.tokenizer.encoder.encode
        contents = [replace_surrogates(message["content"].strip())[0] for message in conversation]
        if self._template is None:
            bos = self._causal.tokenizer.encoder.bos
            return ([] if bos is None else [bos]) + encode("\n\n".join(contents) + "\n\n")
        ids: list[int] = []
        for index, part in enumerate(_MARKS.split(self._rendered(conversation))):  # frame, number, frame, number, ...
            ids += encode(contents[int(part)]) if index % 2 else self._frame_ids(part)
        return ids

    def _rendered(self, conversation: Sequence[Mapping[str, str]]) -> str:
        marked = [{"role": m["role"], "content": _MARK.format(i)} for i, m in enumerate(conversation)]
        try:
            rendered = str(self._template.apply_chat_template(marked, tokenize=False, add_generation_prompt=True))
        except Exception as error:  # jinja has a dozen of its own
            raise ModelError(
                f"the chat template of model {self._folder.name!r} cannot be rendered: {type(error).__name__}: "
                f"{str(error)[:200]}; mend it in the folder's tokenizer files"
            ) from error
        found = _MARKS.findall(rendered)
        if found != [str(i) for i in range(len(conversation))]:
            raise ModelError(
                f"the chat template of model {self._folder.name!r} does not write each of {len(conversation)} messages "
                "once and in order; expected a template for conversations"
            )
        return rendered

    def _frame_ids(self, frame: str) -> list[int]:
        return list(self._template.encode(frame, add_special_tokens=False)) if frame else []

    @cached_property
    def _template(self) -> Any:
        """The transformers tokenizer that holds the chat template, None where the model has none."""
        return _tokenizer_with_template(self._folder)

    def _answer(self, prompt: list[int], ids: list[int], truncated: bool) -> Answer | Exception:
        if self._causal.room(len(prompt), 1) < 1:
            return PermanentDataError(
                f"a question of {len(prompt)} tokens leaves no room for an answer in the {self._causal.context} tokens "
                f"of model {self.name!r}; expected a smaller window_characters"
            )
        text = replace_surrogates(self._causal.tokenizer.decode(ids))[0]
        return Answer(text, "length" if truncated else "stop", len(prompt), len(ids))


def _tokenizer_with_template(folder: Path) -> Any:
    """Returns the tokenizer whose folder has a chat template, else None."""
    files = [folder / "chat_template.jinja", folder / "chat_template.json", folder / "tokenizer_config.json"]
    if not any(path.is_file() and "chat_template" in path.name + path.read_text(encoding="utf-8") for path in files):
        return None
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
    except Exception as error:  # transformers raises a dozen types for a damaged folder
        raise ModelError(
            f"the tokenizer of model {folder.name!r} cannot be loaded with its chat template: {str(error)[:300]}"
        ) from error
    return tokenizer if tokenizer.chat_template else None
