"""The experiment of "When Less is More" (arXiv 2309.04564v1) in small, and the paper's numbers beside ours.

Ours: four books and presidents' speeches with templates (0.6 of the clean characters) and junk (0.4) mixed in, passages
of 256 bytes, a tiny reference trained for 200 steps on a disjoint split of the same mixture, and a Witten-Bell trigram
student, which is deterministic. The recipe is ``dags/ablations/proof.yaml``; what differs from the paper and why stands
in ``docs/how-to/ablation.md``.
"""

import json
import math
import statistics

import pytest
import yaml

from corpusmill.ablation.config import parse_ablation
from corpusmill.ablation.experiment import ablate

# Section 4: how much lower the test perplexity is, in percent. No table gives them; these are all that the text says.
PAPER_GAINS = {
    ("perplexity", "middle", 50, "no pruning"): 0.97,
    ("perplexity", "middle", 30, "no pruning"): 0.80,
    ("perplexity", "middle", 50, "el2n"): 1.33,
    ("perplexity", "middle", 50, "memorization"): 1.77,
    ("perplexity", "middle", 30, "el2n"): 2.1,
    ("perplexity", "middle", 30, "memorization"): 1.6,
    ("perplexity, 1.5B", "middle", 50, "no pruning"): 1.5,
    ("perplexity", "52B reference", 50, "124M reference"): 2.2,
    ("perplexity", "middle 70, Wikipedia reference", 70, "CommonCrawl reference"): 0.69,
}
# Table 2: mean accuracy of five fine-tunings. Columns: SST2, MRPC, QQP, QNLI, RTE, WNLI.
PAPER_NO_PRUNING = (78.15, 64.32, 76.55, 65.40, 49.69, 51.56)
PAPER_TABLE_2 = {
    ("random", 70): (77.92, 65.21, 76.58, 65.11, 49.69, 48.44),
    ("random", 50): (78.19, 65.16, 76.40, 65.44, 49.92, 49.69),
    ("random", 30): (77.29, 66.04, 76.36, 65.22, 51.33, 50.31),
    ("random", 10): (76.44, 65.83, 75.91, 64.40, 50.70, 50.62),
    ("memorization bottom", 70): (77.29, 64.38, 76.42, 66.03, 49.06, 49.06),
    ("memorization bottom", 50): (77.89, 65.47, 76.51, 65.99, 49.77, 50.31),
    ("memorization bottom", 30): (78.52, 65.89, 76.48, 65.91, 50.31, 54.38),
    ("memorization bottom", 10): (76.64, 65.16, 76.11, 64.61, 50.39, 51.88),
    ("el2n middle", 70): (78.61, 66.46, 76.93, 67.00, 48.67, 50.00),
    ("el2n middle", 50): (79.17, 65.42, 76.35, 62.43, 51.41, 51.56),
    ("el2n middle", 30): (78.98, 65.41, 77.47, 68.63, 49.69, 55.31),
    ("el2n middle", 10): (78.31, 63.38, 76.93, 65.34, 51.95, 51.25),
    ("perplexity middle", 70): (78.40, 64.43, 76.68, 66.74, 50.16, 49.06),
    ("perplexity middle", 50): (78.01, 64.37, 76.82, 66.00, 50.62, 50.31),
    ("perplexity middle", 30): (77.34, 64.84, 76.76, 65.89, 50.86, 50.94),
    ("perplexity middle", 10): (77.66, 65.36, 76.40, 66.52, 51.17, 53.44),
}


@pytest.fixture(scope="module")
def rows(shared_data, repository, tmp_path_factory):
    """Rows of the report by (column, part, percent) after the whole experiment, with the shipped recipe's own pool."""
    text = shared_data / "text" / "clean_books_speeches.jsonl.gz"
    if not text.is_file():
        pytest.skip(f"no clean text at {text}")
    values = yaml.safe_load((repository / "dags" / "ablations" / "proof.yaml").read_text())
    values["pool"]["files"] = [str(text)]
    values["scores"][0] |= {"columns": ["bits_per_byte", "el2n"], "which": ["bottom", "middle"]}
    folder = tmp_path_factory.mktemp("proof")
    ablate(parse_ablation(values).model_dump(mode="json"), str(folder), lambda _: None)
    found = json.loads((folder / "report.json").read_text())["rows"]
    return {row["arm"]["label"].removesuffix(" by crawl"): row for row in found}


def nll(rows, label):
    return rows[label]["test"]["clean"]["nll"]["mean"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("percent", [30, 50])
@pytest.mark.parametrize("column", ["bits_per_byte", "el2n"])
def test_middle_beats_random_beats_bottom(rows, column, percent):
    """The paper's order (figures 2 to 5); measured margins in nats: 0.23 to 0.25 and 0.56 to 2.95."""
    middle, bottom = (nll(rows, f"{column} {which} {percent}%") for which in ("middle", "bottom"))
    chance = nll(rows, f"random {percent}%")
    assert middle < chance - 0.15
    assert chance < bottom - 0.15


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("column", ["bits_per_byte", "el2n"])
def test_the_middle_holds_the_clean_text_and_the_bottom_the_templates(rows, column):
    base = rows["no pruning"]["purity"]
    assert base == pytest.approx(0.49, abs=0.02)
    assert rows[f"{column} middle 30%"]["purity"] > base + 0.15 > rows[f"{column} bottom 30%"]["purity"] + 0.3
    assert abs(rows["random 30%"]["purity"] - base) < 0.05


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_half_of_the_pool_is_as_good_as_all_of_it(rows):
    """The paper: the middle half by perplexity has 0.97 % lower perplexity than no pruning, EL2N never beats it. Ours:
    1.5 % lower by bits per byte, 0.7 % higher by EL2N."""
    gains = {column: rows[f"{column} middle 50%"]["gain_over_all"]["clean"] for column in ("bits_per_byte", "el2n")}
    assert gains["bits_per_byte"] > 0
    assert -0.05 < gains["el2n"] < gains["bits_per_byte"]


def test_the_papers_gains_are_far_below_our_margins():
    """Its largest gain, 2.2 %, is 0.022 nats a token; our margins are 0.15 and more, since a third of our pool is noise
    that was made to be found, and its crawl was filtered by rules before."""
    assert max(PAPER_GAINS.values()) == 2.2
    assert -math.log(1 - max(PAPER_GAINS.values()) / 100) < 0.15 / 6


def test_table_2_does_not_order_the_methods():
    """EL2N has the top number of every column of the table, though it never beats the baseline in perplexity; and no
    method is above no pruning in all columns. GLUE is no evidence for pruning there, so ours has no margin on it."""
    for column in range(6):
        best = max(PAPER_TABLE_2, key=lambda key, column=column: PAPER_TABLE_2[key][column])
        assert best[0] == "el2n middle"
    better = {key: sum(a > b for a, b in zip(row, PAPER_NO_PRUNING, strict=True)) for key, row in PAPER_TABLE_2.items()}
    assert max(better.values()) < 6
    spread = statistics.pstdev(statistics.fmean(row) for row in PAPER_TABLE_2.values())
    assert spread < 1.0
