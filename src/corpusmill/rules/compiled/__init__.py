"""The rules compiled: one scan over UTF-8 bytes, a lexicon of whitespace chunks, and a kernel a rule set.

The modules beside this package (`corpusmill.rules.gopher_repetition` and so on) are the specification; everything here
must give the same measures and texts, bit for bit. Importing this package imports numba; nothing else does.
"""
