"""Write digits.bin from scikit-learn's copy of the UCI optical digits.

Run with scikit-learn 1.x installed: python make_digits.py
"""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

digits = load_digits()
records = np.concatenate([digits.target[:, None], digits.data], axis=1)
path = Path(__file__).with_name("digits.bin")
path.write_bytes(records.astype(np.uint8).tobytes())
print(f"{path.name}: {len(records)} records of {records.shape[1]} bytes")
