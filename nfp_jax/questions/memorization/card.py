"""How much a masked network memorizes, how fast, and how it follows the noise."""

from nfp_jax.questions.contract import Question

COLUMNS = {
    "train_accuracy": "float",
    "test_accuracy": "float",
    "memorized_points": "float",
    "memorized_bits": "float",
    "noise_correlation": "float",
    "noise_correlation_normalized": "float",
    "loss": "float",
    "memorization_area": "float",
    "epochs": "int",
    "epochs_to_50": "int",
    "epochs_to_90": "int",
    "epochs_to_99": "int",
    "epochs_to_100": "int",
    "pruning_gradients": "int",
    "converged": "bool",
    "settled": "bool",
    "layers": "list[str]",
    "kept_by_layer": "list[int]",
    "size_by_layer": "list[int]",
    "history_epochs": "list[int]",
    "loss_by_epoch": "list[float]",
    "train_accuracy_by_epoch": "list[float]",
    "noise_correlation_by_epoch": "list[float]",
}

CARD = Question(
    name="memorization",
    column="train_accuracy",
    columns=COLUMNS,
)
