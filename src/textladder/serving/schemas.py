"""The JSON that the service returns, as models that the API reference is made from."""

from typing import Any

from pydantic import BaseModel, Field


class Refusal(BaseModel):
    """Why a request was refused."""

    error: str = Field(description="a name for programs", examples=["queue_full"])
    message: str = Field(description="a sentence for people")


class PredictionOut(BaseModel):
    """The prediction for one text."""

    label: str | int | float | bool = Field(description="the most probable label, of the type that it has in the data")
    name: str = Field(description="the label's name for people")
    probability: float = Field(description="probability of the label, 0 to 1")
    probabilities: dict[str, float] = Field(description="probability of every label, as text")


class Answer(BaseModel):
    """Which model answered, and how long it computed."""

    model: str
    level: str
    form: str = Field(description="which form of the network predicted", examples=["onnx-int8"])
    milliseconds: float = Field(description="computation of the batches that contained the texts, without queueing")


class Predictions(Answer):
    """Predictions in the order of the texts."""

    predictions: list[PredictionOut]


class WordOut(BaseModel):
    """A word of the text."""

    word: str
    start: int = Field(description="offset of its first character, in code points")
    stop: int = Field(description="offset after its last character")
    weight: float = Field(description="drop in the label's log-odds without it, or its contribution to the logit")


class Explained(Answer, PredictionOut):
    """A prediction and the weights of the text's words."""

    text: str = Field(description="the text as it was read")
    exact: bool = Field(
        description="whether the weights are contributions to a linear logit, not measured by occlusion"
    )
    words: list[WordOut]


class Model(BaseModel):
    """A model that is served."""

    model: str
    level: str
    form: str
    labels: list[str]
    label_names: list[str]
    valid: dict[str, Any] | None = Field(description="metrics on the validation rows")
    test: dict[str, Any] | None = Field(description="metrics on the test rows, if it was tested")


class Models(BaseModel):
    """All models; the first one is the default."""

    models: list[Model]


class Health(BaseModel):
    """Whether the service is up."""

    status: str = Field(examples=["ok"])
