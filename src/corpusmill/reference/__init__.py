"""Reference pages made from the code: ``python -m corpusmill.reference FOLDER``."""
