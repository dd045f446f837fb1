"""The old import paths, which stay: each module exports what it exported before."""

import importlib

import pytest

EXPORTED = {
    "information": """
        Blocks CONDITIONINGS Interval MOST_LABELINGS Sample code_lengths
        collision_lower_bound decoded effective_parameters entropy
        exact_information fano_lower_bound flip_blocks irreproducible
        label_entropy log_binomial make_masks mask_information
        noisy_label_probabilities random_labels sample_entropy_lower_bound
        sample_masks
    """,
    "training": """
        Batch Data Examples LossFn Metrics NO_LIMIT Progress StopFn TrainResult
        TrainState Training classification_metrics label_metrics
        logits_in_chunks make_training pad padded_size run_training
        stop_as_paper stop_when_fitted stop_when_settled stop_when_still train
    """,
    "ensemble": """
        Job ShrinkJob Stats run use_all_cores use_compilation_cache workers Networks
    """,
    "scores": """
        Batch LossFn ScoreFn classification_loss grasp invert magnitude random
        snip synflow
    """,
    "pruning": """
        FreezePrunedState ImpRound NanScores SelectFn Ticket TrainFn exponential
        freeze_pruned imp imp_rounds imp_tickets linear magnitude_after_training
        one_shot_round prune prune_many reinitialize replace_mask
    """,
    "capacity": """
        Gap Search epochs_to fits memorization_area memorization_capacity
        memorized_bits memorized_points noise_correlation noise_power paired_gap
    """,
    "robustness": """
        LipschitzUpper excess in_unit_norm lipschitz_lower lipschitz_required
        lipschitz_upper squared_error
    """,
}


@pytest.mark.parametrize("name", EXPORTED)
def test_a_face_exports_what_its_module_did(name):
    module = importlib.import_module(f"nfp_jax.{name}")
    expected = set(EXPORTED[name].split())
    assert expected <= set(module.__all__)
    assert all(hasattr(module, exported) for exported in expected)
