"""Data sets known by name: the embedded sample, Amazon Reviews Polarity, and those of the Hugging Face Hub."""

from pathlib import Path
from typing import Any

from textladder.errors import PretrainedError, first_line, import_extra

KNOWN_DATA = ("sample", "amazon-polarity")


def find_data_set(name: str) -> tuple[Any, Any]:
    """The training and the held-out part of a known data set or of one on the Hugging Face Hub.

    Returns:
        Each a path or a `datasets.Dataset`; the held-out part is None where there is none.

    Raises:
        PretrainedError: it cannot be fetched; the message says how to go on.
    """
    if name == "sample":
        folder = Path(__file__).parents[1] / "sample"
        return folder / "train.csv", folder / "test.csv"
    if name == "amazon-polarity":
        return _amazon_polarity()
    return _hub_data_set(name)


def _amazon_polarity() -> tuple[Path, Path]:
    """Amazon Reviews Polarity (Zhang, Zhao, LeCun 2015), 3.6 million and 400,000 rows, through fastai."""
    external = import_extra("fastai.data.external", "train")
    try:
        folder = external.untar_data(external.URLs.AMAZON_REVIEWS_POLARITY)
    except Exception as error:  # fastai raises whatever its downloader met, a bare Exception among them
        raise PretrainedError(
            f"amazon-polarity could not be fetched from {external.URLs.AMAZON_REVIEWS_POLARITY} ({first_line(error)}): "
            "without a network, give the path of a train.csv and with --test that of a test.csv."
        ) from None
    return folder / "train.csv", folder / "test.csv"


def _hub_data_set(name: str) -> tuple[Any, Any]:
    datasets = import_extra("datasets", "train")
    datasets.disable_progress_bars()
    try:
        found = datasets.load_dataset(name)
    except Exception as error:  # the library's errors have no common base
        raise PretrainedError(
            f"{name!r} is no file here, none of the known data sets ({', '.join(KNOWN_DATA)}), and could not be "
            f"loaded from the Hugging Face Hub ({first_line(error)}); without a network, give a file."
        ) from None
    if "train" not in found:
        raise PretrainedError(f"{name!r} has no part named 'train'. Its parts: {', '.join(found)}.")
    return found["train"], found.get("test", None)
