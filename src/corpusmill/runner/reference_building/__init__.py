"""Building a reference model: from a corpus through tokenizer and packed text to registered models of several seeds."""
