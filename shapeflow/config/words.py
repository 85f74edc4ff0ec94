"""Override strings, as they come through one argument of a command line."""

from __future__ import annotations

from shapeflow.errors import ConfigError


def split_words(text: str, stripped: bool = False) -> list[str]:
    """Words of an override string; brackets and quotes keep their spaces: 'a=[1, 2] b="x y"' is two words, quotes kept for Hydra's grammar.

    `stripped`: quotes were taken off the text's ends, as Snakemake does with a value; the one that closed the last word is put back.
    """
    words, word, depth, quote = [], "", 0, ""
    for c in text:
        if quote:
            quote = "" if c == quote else quote
        elif c in "\"'":
            quote = c
        elif c in "[{(":
            depth += 1
        elif c in "]})":
            depth -= 1
        if c.isspace() and not quote and depth <= 0:
            if word:
                words.append(word)
            word = ""
        else:
            word += c
    if quote and stripped:
        word, quote = word + quote, ""
    if quote or depth > 0:
        raise ConfigError(f"a quote or a bracket is not closed in the overrides {text!r}")
    return [*words, word] if word else words
