"""Airflow on one machine, for `make demo` and `make up`: ``python -m corpusmill_operators.local demo|up|init``."""
