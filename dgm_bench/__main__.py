"""``python -m dgm_bench`` is ``dgm-bench``."""

from dgm_bench.cli import main

if __name__ == "__main__":
    main()
