"""The learning rate finder's curve as a picture."""

from pathlib import Path

from textladder.atomic_files import atomic_path
from textladder.errors import ConfigError
from textladder.training.stages import LearningRateCurve


def plot_learning_rates(curve: LearningRateCurve, path: Path) -> None:
    """Draw the finder's curve, its suggestion and the level's range as `.png`, `.svg` or `.pdf`, by the file's name.

    Raises:
        ConfigError: the file cannot be written.
    """
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    axes.plot(curve.rates, curve.losses, color="#2b6cb0")
    axes.axvspan(curve.lowest, curve.highest, color="#2b6cb0", alpha=0.1, label="usual range of this level")
    axes.axvline(curve.suggested, color="#c05621", linestyle="--", label=f"suggested, {curve.suggested:.2g}")
    if curve.learning_rate != curve.suggested:
        axes.axvline(curve.learning_rate, color="#2f855a", label=f"clipped to {curve.learning_rate:.2g}")
    axes.set(xscale="log", xlabel="learning rate", ylabel="training loss (smoothed)", title="Learning-rate finder")
    axes.set_ylim(min(curve.losses) * 0.95, curve.losses[0] * 1.5)
    axes.legend(loc="upper left")
    try:
        with atomic_path(path) as part:
            figure.savefig(part, dpi=120, format=path.suffix.removeprefix(".") or "png")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{path}: the plot could not be written ({reason}).") from None
    finally:
        plt.close(figure)
