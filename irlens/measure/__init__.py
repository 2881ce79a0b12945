"""Runs and qrels to results: measures, intervals, paired tests, best-of-N, and their figures."""
