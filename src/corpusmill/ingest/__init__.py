"""Reading crawls: manifests, downloads, WARC, WET and ARC files, and extraction of text from pages."""
