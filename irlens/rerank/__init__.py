"""Rerankers, run to run, and judges, run to qrels: rewards, votes, likelihood, verifiers."""
