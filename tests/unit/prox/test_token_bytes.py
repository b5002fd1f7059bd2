"""The bytes of tokens are those that the tokenizer decodes."""

import json

import pytest

from corpusmill.prox.prompt_tokenizer import load_tokenizer
from corpusmill.prox.token_bytes import token_bytes

TEXT = 'remove_lines(start=10, end=12)\nnormalize(source_str="caf\u00e9 \u4f60\u597d \U0001f600\t", target_str="")'


def joined(folder, ids):
    pieces = token_bytes(folder)
    return b"".join(pieces[i] or b"" for i in ids).decode()


def test_bytes_of_a_sentencepiece_model(tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([f"remove_lines(start={i}, end={i})" for i in range(40)] * 5),
        model_prefix=str(tmp_path / "tokenizer"),
        vocab_size=300,
        model_type="bpe",
        byte_fallback=True,
        minloglevel=2,
    )
    tokenizer = load_tokenizer(tmp_path)
    ids = tokenizer.encoder.encode("remove_lines(start=10, end=12) caf\u00e9 \u4f60")
    assert joined(tmp_path, ids) == " remove_lines(start=10, end=12) caf\u00e9 \u4f60"
    pieces = token_bytes(tmp_path)
    assert pieces[tokenizer.eos] is None
    assert len(pieces) == tokenizer.n_vocab


def write(folder, tokenizer, **special):
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"} | special))


def test_bytes_of_a_byte_level_tokenizer(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=330, special_tokens=["</s>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator([TEXT] * 5, trainer)
    tokenizer.add_tokens(["<plain>"])
    write(tmp_path, tokenizer)
    ids = load_tokenizer(tmp_path).encoder.encode(TEXT)
    assert joined(tmp_path, ids) == TEXT
    pieces = token_bytes(tmp_path)
    assert pieces[tokenizer.token_to_id("</s>")] is None
    assert pieces[tokenizer.token_to_id("<plain>")] == b"<plain>"
    assert {bytes([i]) for i in range(256)} <= set(pieces)


def test_bytes_of_a_converted_sentencepiece_tokenizer(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = {"<unk>": 0, "</s>": 1, "\u2581a": 2, "b": 3, "<0xC3>": 4, "<0xA9>": 5, "\u2581": 6, "a": 7}
    model = tokenizers.models.BPE(vocabulary, [("\u2581", "a")], byte_fallback=True, unk_token="<unk>")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.decoder = tokenizers.decoders.Sequence(
        [
            tokenizers.decoders.Replace("\u2581", " "),
            tokenizers.decoders.ByteFallback(),
            tokenizers.decoders.Fuse(),
            tokenizers.decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens(["<unk>", "</s>"])
    write(tmp_path, tokenizer)
    assert token_bytes(tmp_path) == (None, None, b" a", b"b", b"\xc3", b"\xa9", b" ", b"a")
    assert tokenizer.decode([2, 3, 4, 5]) == "ab\u00e9"


def test_other_tokenizers_are_not_known(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece({"[UNK]": 0, "a": 1, "##b": 2}, unk_token="[UNK]"))
    tokenizer.decoder = tokenizers.decoders.WordPiece()
    write(tmp_path, tokenizer)
    assert token_bytes(tmp_path) is None
    assert token_bytes(tmp_path / "nothing") is None
