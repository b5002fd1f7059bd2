"""Deduplication within a crawl and across published crawls."""
