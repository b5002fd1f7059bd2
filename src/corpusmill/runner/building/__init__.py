"""Building a refiner: from sampled documents through labels and training to a registered model."""
