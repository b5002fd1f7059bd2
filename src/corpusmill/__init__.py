"""corpusmill turns web crawls into language-model pretraining corpora."""

__version__ = "0.1.0"
