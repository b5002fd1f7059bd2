import pytest
from transformers import GPT2Config, LlamaConfig

from corpusmill.errors import ConfigError
from corpusmill.modeling.flops import (
    BreakEven,
    affordable_tokens,
    break_even,
    inference_flops,
    model_from_config,
    n_parameters,
    n_without_embeddings,
    refining_flops,
    stage_flops,
    training_flops,
    utilisation,
)
from corpusmill.modeling.train_lm import new_model
from corpusmill.report import StageReport, merge_reports


def llama(tied):
    return LlamaConfig(
        vocab_size=100, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        intermediate_size=16, tie_word_embeddings=tied,
    )  # fmt: skip


def test_the_output_layer_counts_and_the_looked_up_tables_do_not():
    block = 8 * 8 * 2 + 8 * 4 * 2 + 3 * 8 * 16 + 2 * 8  # attention with one key-value head, feed-forward, two norms
    body = 2 * block + 8
    tied, untied = (model_from_config(llama(tied)) for tied in (True, False))
    assert n_without_embeddings(tied) == n_without_embeddings(untied) == body + 800
    assert [n_parameters(tied), n_parameters(untied)] == [body + 800, body + 1600]
    assert all(parameter.is_meta for parameter in untied.parameters())


def test_learned_positions_are_looked_up_too():
    config = GPT2Config(vocab_size=50, n_embd=8, n_layer=1, n_head=2, n_positions=16, n_inner=16)
    model = model_from_config(config)
    assert n_without_embeddings(model) == n_parameters(model) - 16 * 8


def test_a_model_in_memory_and_its_config_json_give_the_same_count():
    model = new_model("test", 64, 0, 0)
    assert n_without_embeddings(model_from_config(model.config.to_dict())) == n_without_embeddings(model)
    assert n_parameters(model_from_config(model.config.to_dict())) == sum(p.numel() for p in model.parameters())


def test_the_formulas():
    assert training_flops(10, 7) == 420
    assert inference_flops(10, 7, 3) == 200
    assert refining_flops(10, 20, 100, 40) == 2 * 10 * 100 + 2 * 20 * 40
    assert affordable_tokens(10, training_flops(10, 7)) == 7
    assert utilisation(50.0, 2.0, 100.0) == 0.25
    found = break_even(10, raw_tokens=100, refined_tokens=50, refining_flops_per_token=30)
    assert found == BreakEven(6000, 3000 + 1500)
    assert found.ratio == 0.75


def test_a_stages_operations_follow_from_its_report_and_add_up_over_shards():
    shards = [StageReport("refine_chunks", "T", f"s{i}", metrics={"prompt_tokens": 100.0 * (i + 1)}) for i in range(2)]
    whole = merge_reports("refine_chunks", "T", shards)
    assert stage_flops(whole, 5, new_tokens=10) == 2 * 5 * 310
    assert stage_flops(whole, 5) == sum(stage_flops(shard, 5) for shard in shards)
    with pytest.raises(ConfigError, match=r"stage 'clean' counts no prompt_tokens, only \['bytes'\]"):
        stage_flops(StageReport("clean", "T", metrics={"bytes": 1.0}), 5)
