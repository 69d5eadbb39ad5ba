"""What several files of tests share."""

from pathlib import Path

import pytest

import sft


@pytest.fixture(scope="session")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with certificates for a server and two devices."""
    folder = tmp_path_factory.mktemp("certs")
    sft.make_certificates(folder, 2)
    return folder
