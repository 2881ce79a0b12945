"""Retrievers, topics to run: BM25, dense encoders with an index, and an LLM that draws."""
