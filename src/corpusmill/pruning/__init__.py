"""Pruning by model scores: perplexity, EL2N, memorization, selection ("When Less is More", arXiv 2309.04564)."""
