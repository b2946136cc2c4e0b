"""beartype, with an int allowed where a float is meant (as Python's own type checkers have it), and
while a model is traced a size that is a symbol where an int is meant."""

import torch
from beartype import BeartypeConf, FrozenDict, beartype

SIZES = FrozenDict({int: int | torch.SymInt})
check = beartype(conf=BeartypeConf(is_pep484_tower=True, hint_overrides=SIZES))
