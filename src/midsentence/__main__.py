"""``python -m midsentence``, which is also what ``torchrun -m midsentence`` runs."""

from .cli import main

if __name__ == "__main__":
    main()
