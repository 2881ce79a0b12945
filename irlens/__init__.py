"""irlens: language-model alignment through the eyes of information retrieval."""
