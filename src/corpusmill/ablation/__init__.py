"""The proof: what pruning and refinement do to a model that is trained on what they keep."""
