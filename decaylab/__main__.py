"""python -m decaylab, and torchrun -m decaylab."""

from decaylab.cli import main

if __name__ == "__main__":
    main()
