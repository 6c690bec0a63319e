"""``python -m fastltc`` is ``fastltc``."""

from fastltc.cli.main import main

if __name__ == "__main__":
    main(prog_name="fastltc")
