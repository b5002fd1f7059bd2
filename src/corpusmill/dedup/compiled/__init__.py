"""Deduplication by kernels: simplification, shingles and signatures, bucket joins, union-find."""
