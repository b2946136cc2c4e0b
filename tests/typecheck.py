"""beartype, with an int allowed where a float is meant (as Python's own type checkers have it)."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
