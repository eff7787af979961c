"""The embedder that the configuration names. What an embedder needs is imported only if it is chosen."""

from __future__ import annotations

from palegreen.evaluators.embed.embedder import Embedder, EmbedderError

ALLOWED = "minilm, static, none, sentence-transformers:MODEL"
_OTHER = "sentence-transformers:"


def embedder(name: str, threads: int) -> Embedder | None:
    """The embedder of that name, ready; None for `none`. Raises EmbedderError, one line.

    `threads` is the most that one call uses.
    """
    extra = "sentence-transformers" if name.startswith(_OTHER) else "evaluators"
    try:
        return _made(name, threads)
    except ModuleNotFoundError as missing:
        raise EmbedderError(
            f"the embedder {name} needs the package {missing.name}: pip install 'palegreen[{extra}]'"
        ) from missing


def _made(name: str, threads: int) -> Embedder | None:
    if name == "none":
        return None
    if name == "minilm":
        from palegreen.evaluators.embed.minilm import MiniLM

        return MiniLM(threads)
    if name == "static":
        from palegreen.evaluators.embed.static import Static

        return Static()
    if name.startswith(_OTHER) and len(name) > len(_OTHER):
        from palegreen.evaluators.embed.sentences import Sentences

        return Sentences(name.removeprefix(_OTHER), threads)
    raise EmbedderError(f"there is no embedder {name!r}; allowed: {ALLOWED}")
