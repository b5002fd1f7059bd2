"""The bundled demo crawl, its builder, and the measure of a refiner on it."""
