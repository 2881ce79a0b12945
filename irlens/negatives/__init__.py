"""Candidate lists: hard negatives in tiers, false negatives filtered, lists cut, merged and exported."""
