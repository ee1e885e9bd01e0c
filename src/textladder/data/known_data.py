"""Data sets known by name: the embedded sample, Amazon Reviews Polarity, and those on the Hugging Face Hub."""

from pathlib import Path
from typing import Any

from textladder.errors import PretrainedError, first_line, import_extra

KNOWN_DATA = ("sample", "amazon-polarity")
SAVED_DATA_SET = ("dataset_dict.json", "state.json")  # files that `save_to_disk` writes


def find_data_set(name: str) -> tuple[Any, Any]:
    """Find the training and the test split of a known data set, or of one on the Hugging Face Hub.

    Returns:
        Each split as a path or a `datasets.Dataset`; None for the test split if there is none.

    Raises:
        PretrainedError: the data set could not be fetched, or has no split named `train`.
    """
    if name == "sample":
        folder = Path(__file__).parents[1] / "sample"
        return folder / "train.csv", folder / "test.csv"
    if name == "amazon-polarity":
        return _amazon_polarity()
    return _hub_data_set(name)


def _amazon_polarity() -> tuple[Path, Path]:
    """Amazon Reviews Polarity (Zhang, Zhao & LeCun 2015), 3.6 million and 400,000 rows, downloaded by fastai."""
    external = import_extra("fastai.data.external", "train")
    try:
        folder = external.untar_data(external.URLs.AMAZON_REVIEWS_POLARITY)
    except Exception as error:  # fastai's downloader raises many kinds, a bare Exception among them
        raise PretrainedError(
            f"amazon-polarity could not be downloaded from {external.URLs.AMAZON_REVIEWS_POLARITY} "
            f"({first_line(error)}); without a network, give a train.csv as the data and a test.csv as the test rows."
        ) from None
    return folder / "train.csv", folder / "test.csv"


def _hub_data_set(name: str) -> tuple[Any, Any]:
    datasets = import_extra("datasets", "train")
    datasets.disable_progress_bars()
    try:
        splits = datasets.load_dataset(name)
    except Exception as error:  # the library's errors have no common base
        raise PretrainedError(
            f"{name!r} is neither a file nor a known data set ({', '.join(KNOWN_DATA)}), and could not be loaded from "
            f"the Hugging Face Hub ({first_line(error)}); without a network, give a file."
        ) from None
    if "train" not in splits:
        raise PretrainedError(f"{name!r} has no split named 'train'. Its splits: {', '.join(splits)}.")
    return splits["train"], splits.get("test", None)


def load_saved(folder: Path) -> Any:
    """Load what `save_to_disk` of the `datasets` library wrote: a `Dataset` or a `DatasetDict`.

    Raises:
        PretrainedError: it is damaged.
    """
    datasets = import_extra("datasets", "train")
    try:
        return datasets.load_from_disk(str(folder))
    except Exception as error:  # the library's errors have no common base
        raise PretrainedError(f"{folder}: the saved data set could not be loaded ({first_line(error)}).") from None
