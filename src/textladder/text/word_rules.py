"""A spaCy tokenizer as data: its patterns and special cases, stored as JSON and applied in plain Python.

A saved classifier thus tokenizes texts as in training, whichever spaCy is installed, or none. Rules are applied in
spaCy's order (its documentation, "Linguistic features", "How spaCy's tokenizer works"); a test compares the words with
spaCy's own.
"""

import re
from typing import Any

from textladder.errors import BundleError

PATTERNS = ("prefix_search", "suffix_search", "infix_finditer", "token_match", "url_match")
MATCHES_NOTHING = "(?!)"


class WordRules:
    """Splits chunks of text, the parts between white space, into words.

    Args:
        patterns: regular expressions by spaCy's names for them; None for those that are not used.
        special_cases: chunks that no pattern applies to, with their words.
        unspaced: whether `fastai_words` then splits the words of scripts that do not separate them, such as Chinese.
    """

    def __init__(
        self, patterns: dict[str, str | None], special_cases: dict[str, list[str]], unspaced: bool = False
    ) -> None:
        self.patterns, self.special_cases, self.unspaced = patterns, special_cases, unspaced
        compiled = {name: re.compile(patterns[name] or MATCHES_NOTHING) for name in PATTERNS}
        self._prefix, self._suffix = compiled["prefix_search"].search, compiled["suffix_search"].search
        self._infixes = compiled["infix_finditer"].finditer
        self._is_token, self._is_url = compiled["token_match"].match, compiled["url_match"].match
        # the patterns split some special cases; where their parts are adjacent, they are merged again
        self._split_cases: dict[tuple[str, ...], list[str]] = {}
        self._max_parts: dict[str, int] = {}  # the most parts of such a case, by its first part
        for chunk, words in special_cases.items():
            if self._prefix(chunk) or self._suffix(chunk) or next(self._infixes(chunk), None) is not None:
                parts = tuple(self._apply_patterns(chunk, {}))
                self._split_cases[parts] = words
                self._max_parts[parts[0]] = max(len(parts), self._max_parts.get(parts[0], 0))

    @classmethod
    def from_spacy(cls, tokenizer: Any, unspaced: bool = False) -> "WordRules":
        """Take the rules of a `spacy.tokenizer.Tokenizer`."""
        from spacy.symbols import ORTH

        methods = {name: getattr(tokenizer, name) for name in PATTERNS}
        patterns = {name: None if method is None else method.__self__.pattern for name, method in methods.items()}
        cases = {
            chunk: [str(word.get(ORTH, word.get("ORTH"))) for word in words] for chunk, words in tokenizer.rules.items()
        }
        return cls(patterns, cases, unspaced)

    @classmethod
    def from_json(cls, content: Any) -> "WordRules":
        """Take what `as_json` gave.

        Raises:
            BundleError: it is something else.
        """
        try:
            patterns = {name: content["patterns"][name] for name in PATTERNS}
            if not all(pattern is None or isinstance(pattern, str) for pattern in patterns.values()):
                raise TypeError("a pattern is not a string")
            cases = {chunk: list(words) for chunk, words in content["special_cases"].items()}
            if any("".join(words) != chunk or not all(words) for chunk, words in cases.items()):
                raise ValueError("the words of a special case do not add up to it")
            unspaced = content.get("unspaced", False)  # bundles of earlier versions do not have it
            if not isinstance(unspaced, bool):
                raise TypeError("'unspaced' is neither true nor false")
            return cls(patterns, cases, unspaced)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, re.error) as error:
            raise BundleError(f"The rules that split texts into words cannot be read ({error}).") from None

    def as_json(self) -> dict[str, Any]:
        """The arguments of `WordRules` by name, for `json.dumps`."""
        return {"patterns": self.patterns, "special_cases": self.special_cases, "unspaced": self.unspaced}

    def split(self, chunk: str) -> list[str]:
        """The words of a chunk, which contains either no white space or nothing else."""
        words = self._apply_patterns(chunk, self.special_cases)
        if self._max_parts.keys().isdisjoint(words):
            return words
        return self._merge_special_cases(words)

    def _apply_patterns(self, chunk: str, special_cases: dict[str, list[str]]) -> list[str]:
        before: list[str] = []
        after: list[str] = []
        last_length = 0
        while chunk and len(chunk) != last_length and chunk not in special_cases and not self._is_token(chunk):
            last_length = len(chunk)
            prefix = _length(self._prefix(chunk))
            if prefix and chunk[prefix:] in special_cases:
                before.append(chunk[:prefix])
                chunk = chunk[prefix:]
                break
            suffix = _length(self._suffix(chunk[prefix:]))
            if suffix and chunk[:-suffix] in special_cases:
                after.append(chunk[-suffix:])
                chunk = chunk[:-suffix]
                break
            if prefix:
                before.append(chunk[:prefix])
            if suffix:
                after.append(chunk[-suffix:])
            chunk = chunk[prefix : len(chunk) - suffix]
        if chunk in special_cases:
            middle = special_cases[chunk]
        elif not chunk or self._is_token(chunk) or self._is_url(chunk):
            middle = [chunk] if chunk else []
        else:
            middle = self._split_at_infixes(chunk)
        return [*before, *middle, *reversed(after)]

    def _split_at_infixes(self, chunk: str) -> list[str]:
        words, position = [], 0
        for found in self._infixes(chunk):
            if found.start() == 0:  # otherwise it would have been a prefix
                continue
            words += [chunk[position : found.start()], found[0]]
            position = found.end()
        return [word for word in (*words, chunk[position:]) if word]

    def _merge_special_cases(self, words: list[str]) -> list[str]:
        """Replace the parts of special cases by their words; where cases overlap, the longest wins, then the first."""
        candidates = []  # minus the number of parts, and where they start
        for start, word in enumerate(words):
            for size in range(1, self._max_parts.get(word, 0) + 1):
                if tuple(words[start : start + size]) in self._split_cases and start + size <= len(words):
                    candidates.append((-size, start))
        taken: set[int] = set()
        sizes: dict[int, int] = {}  # of the chosen cases, by where they start
        for minus_size, start in sorted(candidates):
            positions = range(start, start - minus_size)
            if positions[0] not in taken and positions[-1] not in taken:
                sizes[start] = -minus_size
            taken.update(positions)
        merged: list[str] = []
        position = 0
        while position < len(words):
            size = sizes.get(position, 0)
            merged += self._split_cases[tuple(words[position : position + size])] if size else [words[position]]
            position += size or 1
        return merged


def _length(found: re.Match[str] | None) -> int:
    return 0 if found is None else len(found[0])
