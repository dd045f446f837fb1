"""How steep networks are that fit noise: memorization, and Lipschitz constants."""
