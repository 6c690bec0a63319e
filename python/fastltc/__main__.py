"""``python -m fastltc`` is ``fastltc``."""

from importlib.util import find_spec


def main() -> None:
    """Run the command; of ``fastltc-runtime``, the one that needs no torch."""
    if find_spec("fastltc.cli") is None:
        from fastltc.command import main as run

        run()
    else:
        from fastltc.cli.main import main as run_all

        run_all(prog_name="fastltc")


if __name__ == "__main__":
    main()
