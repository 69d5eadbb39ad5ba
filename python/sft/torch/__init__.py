from sft.torch._crossing import Crossing, Plan
from sft.torch._split import split
