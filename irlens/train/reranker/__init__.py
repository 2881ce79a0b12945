"""Training a reranker: a sequence classifier with one score, on lists of judged responses, by the losses of a policy.

A policy's loss reads gamma(y) = beta * log-ratio of each response of a list; here beta * the classifier's score of prompt
and response stands in that place.
"""
