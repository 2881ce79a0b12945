"""The public names of `irlens`, each with its own documentation: a mark in a page becomes one entry per name."""

MARK = "<!-- public names -->"


def fill(text: str) -> str:
    """Puts an entry for every name of `irlens.__all__` in the place of `<!-- public names -->`."""
    if MARK not in text:
        return text
    import irlens

    names = [name for name in irlens.__all__ if not name.startswith("_")]
    return text.replace(MARK, "\n\n".join(f"::: irlens.{name}" for name in names))
