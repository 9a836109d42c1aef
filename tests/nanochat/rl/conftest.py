import pytest

from nanochat.train import meter


@pytest.fixture(autouse=True, scope="session")
def _every_step_is_reported():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(meter, "QUIET_S", 0.0)
        yield
