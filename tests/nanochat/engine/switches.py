"""The switches of a small model that has everything that `modern` has."""

MODERN = {
    "residual_scalars": True,
    "value_embeds": True,
    "window_pattern": "SL",
    "window": 8,
    "qk_scale": 1.2,
    "smear": True,
    "backout": True,
}
