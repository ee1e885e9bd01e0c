"""A spaCy tokenizer as data: its patterns and special cases, kept as JSON and applied in plain Python.

So that a saved classifier splits texts as they were split in training, whatever spaCy is installed, or none. The
order in which rules are applied is spaCy's (its documentation, "Linguistic features", "How spaCy's tokenizer works"); a
test holds the words to spaCy's own.
"""

import re
from typing import Any

from textladder.errors import BundleError

PATTERNS = ("prefix_search", "suffix_search", "infix_finditer", "token_match", "url_match")
NEVER = "(?!)"


class WordRules:
    """Splits pieces of text, between which there was white space, into words.

    Args:
        patterns: regular expressions by the names that spaCy has for them; None for what is not looked for.
        special_cases: the words of pieces that no pattern is asked about.
    """

    def __init__(self, patterns: dict[str, str | None], special_cases: dict[str, list[str]]) -> None:
        self.patterns, self.special_cases = patterns, special_cases
        compiled = {name: re.compile(patterns[name] or NEVER) for name in PATTERNS}
        self._prefix, self._suffix = compiled["prefix_search"].search, compiled["suffix_search"].search
        self._infixes = compiled["infix_finditer"].finditer
        self._kept, self._url = compiled["token_match"].match, compiled["url_match"].match
        # the patterns take some special cases apart, which are put together again where their parts stand side by side
        self._apart: dict[tuple[str, ...], list[str]] = {}
        self._longest: dict[str, int] = {}  # how many parts such a case has at most, by its first part
        for piece, words in special_cases.items():
            if self._prefix(piece) or self._suffix(piece) or next(self._infixes(piece), None) is not None:
                parts = tuple(self._by_patterns(piece, {}))
                self._apart[parts] = words
                self._longest[parts[0]] = max(len(parts), self._longest.get(parts[0], 0))

    @classmethod
    def of_spacy(cls, tokenizer: Any) -> "WordRules":
        """The rules of a `spacy.tokenizer.Tokenizer`."""
        from spacy.symbols import ORTH

        methods = {name: getattr(tokenizer, name) for name in PATTERNS}
        patterns = {name: None if method is None else method.__self__.pattern for name, method in methods.items()}
        cases = {
            piece: [str(word.get(ORTH, word.get("ORTH"))) for word in words] for piece, words in tokenizer.rules.items()
        }
        return cls(patterns, cases)

    @classmethod
    def from_json(cls, kept: Any) -> "WordRules":
        """What `as_json` gave.

        Raises:
            BundleError: it is something else.
        """
        try:
            patterns = {name: kept["patterns"][name] for name in PATTERNS}
            if not all(pattern is None or isinstance(pattern, str) for pattern in patterns.values()):
                raise TypeError("a pattern is no text")
            cases = {piece: list(words) for piece, words in kept["special_cases"].items()}
            if any("".join(words) != piece or not all(words) for piece, words in cases.items()):
                raise ValueError("a special case's words are not the piece")
            return cls(patterns, cases)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, re.error) as error:
            raise BundleError(f"The rules that split texts into words cannot be read ({error}).") from None

    def as_json(self) -> dict[str, Any]:
        """Everything, for `json.dumps`."""
        return {"patterns": self.patterns, "special_cases": self.special_cases}

    def split(self, piece: str) -> list[str]:
        """The words of a piece in which there is no white space, or nothing else."""
        words = self._by_patterns(piece, self.special_cases)
        if self._longest.keys().isdisjoint(words):
            return words
        return self._put_together(words)

    def _by_patterns(self, piece: str, special_cases: dict[str, list[str]]) -> list[str]:
        before: list[str] = []
        behind: list[str] = []
        left = 0
        while piece and len(piece) != left and piece not in special_cases and not self._kept(piece):
            left = len(piece)
            prefix = _length(self._prefix(piece))
            if prefix and piece[prefix:] in special_cases:
                before.append(piece[:prefix])
                piece = piece[prefix:]
                break
            suffix = _length(self._suffix(piece[prefix:]))
            if suffix and piece[:-suffix] in special_cases:
                behind.append(piece[-suffix:])
                piece = piece[:-suffix]
                break
            if prefix:
                before.append(piece[:prefix])
            if suffix:
                behind.append(piece[-suffix:])
            piece = piece[prefix : len(piece) - suffix]
        if piece in special_cases:
            within = special_cases[piece]
        elif not piece or self._kept(piece) or self._url(piece):
            within = [piece] if piece else []
        else:
            within = self._by_infixes(piece)
        return [*before, *within, *reversed(behind)]

    def _by_infixes(self, piece: str) -> list[str]:
        words, place = [], 0
        for found in self._infixes(piece):
            if found.start() == 0:  # it was not taken for a prefix
                continue
            words += [piece[place : found.start()], found[0]]
            place = found.end()
        return [word for word in (*words, piece[place:]) if word]

    def _put_together(self, words: list[str]) -> list[str]:
        """Special cases in the place of their parts, the longest first, of equals the first."""
        found = []
        for start, word in enumerate(words):
            for size in range(1, self._longest.get(word, 0) + 1):
                if tuple(words[start : start + size]) in self._apart and start + size <= len(words):
                    found.append((-size, start))
        taken: set[int] = set()
        cases: dict[int, int] = {}
        for size, start in sorted(found):
            places = range(start, start - size)
            if places[0] not in taken and places[-1] not in taken:
                cases[start] = -size
            taken.update(places)
        put: list[str] = []
        place = 0
        while place < len(words):
            size = cases.get(place, 0)
            put += self._apart[tuple(words[place : place + size])] if size else [words[place]]
            place += size or 1
        return put


def _length(found: re.Match[str] | None) -> int:
    return 0 if found is None else len(found[0])
