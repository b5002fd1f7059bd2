"""The chunk stage over any causal language model of transformers, from a local folder or a hub id."""

from collections.abc import Sequence

from corpusmill.batches import replace_surrogates
from corpusmill.prox.causal_model import CausalModel, fetched_model
from corpusmill.prox.chunk_prompts import ChunkPrompts
from corpusmill.prox.chunking import Chunk
from corpusmill.prox.config import ChunkRefinementConfig
from corpusmill.prox.decoding_row import Decoded, Decoding
from corpusmill.prox.failures import error_reason
from corpusmill.prox.greedy_decoding import decode
from corpusmill.prox.program_execution import LOOPED
from corpusmill.prox.program_grammar import ChunkGrammar
from corpusmill.prox.refiner import TOO_LONG_PROMPT, ChunkOutput


class TransformersChunkRefiner:
    """Writes editing programs with a causal language model.

    Raises:
        ConfigError: The model's digest is not the expected one.
        ModelError: The model cannot be loaded.
    """

    def __init__(self, config: ChunkRefinementConfig) -> None:
        folder, resolved = fetched_model(config)
        self.model_id, self.fingerprint = resolved.model_id, resolved.fingerprint
        self.config = config
        self.causal = CausalModel(folder, config)
        self.prompts = ChunkPrompts(self.causal.tokenizer, config)

    def split(self, text: str) -> list[Chunk]:
        """Returns windows of at most ``window_tokens`` ids, each line counted with its number and one BOS."""
        return self.prompts.split(text)

    def write_programs(self, chunks: Sequence[Chunk]) -> list[ChunkOutput]:
        """Returns one output for each chunk, in order; a prompt over the limit is not sent.

        An output that repeats a call is cut in front of the repetition (``looped``), where the settings say so. A
        chunk that does not fit into memory even alone is ``error.<what>``. Lines of more than 64 characters per prompt
        id are counted up to there only.
        """
        prompts = [self.prompts.ids(chunk) for chunk in chunks]
        sent = [i for i, ids in enumerate(prompts) if self.prompts.fits(chunks[i], ids, self.causal.context)]
        settings = Decoding(self.config.max_new_tokens, self.config.drafting, self.config.stops_loops)
        grammars = [ChunkGrammar(chunks[index]) for index in sent] if self.config.is_constrained else None
        written = decode(self.causal, [prompts[index] for index in sent], settings, grammars)
        outputs = {
            index: self._output(decoded, len(prompts[index])) for index, decoded in zip(sent, written, strict=True)
        }
        return [
            outputs.get(index, ChunkOutput("", len(ids), truncated=False, reason=TOO_LONG_PROMPT))
            for index, ids in enumerate(prompts)
        ]

    def _output(self, decoded: Decoded, n_prompt: int) -> ChunkOutput:
        if decoded.error is not None:
            return ChunkOutput("", n_prompt, truncated=False, reason=error_reason(decoded.error))
        text = self._decode(decoded.ids)
        if decoded.looped:  # the last token may reach into the call that was cut
            return ChunkOutput(text[: text.rfind(")") + 1] or text, n_prompt, decoded.truncated, LOOPED)
        return ChunkOutput(text, n_prompt, decoded.truncated)

    def _decode(self, ids: list[int]) -> str:
        return replace_surrogates(self.causal.tokenizer.decode(ids))[0].strip(" ")
