"""The attention back end that a GPU should use, and the message when it uses another one."""

import pytest

from nanochat.train.backend import Facts, complaint

H100, B200, A100, ADA, V100 = (9, 0), (10, 0), (8, 0), (8, 9), (7, 0)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (Facts(H100, 91900), None),
        (Facts(B200, 91900), None),
        (Facts(H100, 91501), None),
        (Facts(H100, 91500), ("runs on flash, not on cuDNN", "cuDNN 9.15 was loaded")),
        (Facts(H100, 91002), ("cuDNN 9.10 was loaded", "LD_LIBRARY_PATH")),
        (Facts(H100, None), ("cuDNN none was loaded",)),
        (Facts(H100, 91900, cudnn_enabled=False), ("enable_cudnn_sdp",)),
        (Facts(B200, 91900, cudnn_deprioritized=True), ("unset TORCH_CUDNN_SDPA_DEPRIORITIZED",)),
        (Facts(H100, 91002, flash_enabled=False), ("a slow back end", "enable_flash_sdp")),
        (Facts(H100, 91900, flash_enabled=False), None),  # cuDNN is used anyway
        (Facts(H100, 91900, deterministic=True), None),  # torch must use flash
        (Facts(H100, 91900, deterministic=True, flash_enabled=False), ("does not run on flash",)),
        (Facts(A100, 91002), None),
        (Facts(A100, 91900, flash_enabled=False), ("does not run on flash", "enable_flash_sdp")),
        (Facts(ADA, None), None),
        (Facts((12, 0), 91002), None),
        (Facts(V100, 91900, flash_enabled=False), None),  # it has no flash kernel
    ],
)
def test_a_slow_back_end_is_reported_with_its_remedy(facts, words):
    text = complaint(facts)
    if words is None:
        assert text is None
        return
    for word in words:
        assert word in text
