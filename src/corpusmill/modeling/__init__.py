"""Loading, batching and training of language models, shared by refinement and pruning."""
