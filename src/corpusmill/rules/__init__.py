"""Rule cleaning: language, URL lists, C4, Gopher and FineWeb rules, masking of personal data."""
