"""What a service accepts, and the one form in which it refuses."""

from dataclasses import dataclass

from starlette.responses import JSONResponse

from textladder.errors import ConfigError
from textladder.wording import counted


@dataclass(frozen=True)
class Limits:
    """What a service accepts.

    Attributes:
        body: bytes of a request body.
        texts: texts of a request.
        characters: characters of a text.
        waiting: texts that may wait for each classifier, in requests of one text and, apart from these, in larger ones;
            a larger request is accepted when none is waiting.
        seconds: until an answer.

    Raises:
        ConfigError: a limit below 1.
    """

    body: int = 1_000_000
    texts: int = 256
    characters: int = 20_000
    waiting: int = 64
    seconds: int = 60

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ConfigError(f"The limit on {name} must be 1 or more; received {value}.")

    def check(self, texts: list[str]) -> None:
        """Refuse too many texts or a text that is too long.

        Raises:
            Refused: with the limit and what was received.
        """
        if len(texts) > self.texts:
            message = f"A request may contain at most {counted(self.texts, 'text')}; received {len(texts):,}."
            raise Refused(422, "too_many_texts", message)
        if (longest := max(map(len, texts))) > self.characters:
            message = f"A text may have at most {counted(self.characters, 'character')}; received {longest:,}."
            raise Refused(400, "text_too_long", message)


class Refused(Exception):  # noqa: N818, an answer and not an error
    """A request that gets a refusal for an answer.

    Args:
        status: the HTTP status.
        error: a name for programs.
        message: a sentence for people.
        headers: of the response.
    """

    def __init__(self, status: int, error: str, message: str, headers: dict[str, str] | None = None) -> None:
        self.status, self.error, self.message, self.headers = status, error, message, headers

    def response(self) -> JSONResponse:
        """The refusal as a response."""
        return JSONResponse({"error": self.error, "message": self.message}, self.status, self.headers)


def body_too_large(limit: int) -> Refused:
    """The refusal of a body over the limit."""
    return Refused(413, "body_too_large", f"A request body may have at most {counted(limit, 'byte')}.")
