"""Figures: curves, dots and panels in one style, each beside the table that it shows."""
