"""The command `hypercrl` and python -m hypercrl: an interrupt is answered from here on."""

from hypercrl.base.interrupts import answered


def main() -> None:
    """`hypercrl.cli.main` on the words of the command line."""
    with answered():
        from hypercrl.cli import main as command

        command()


if __name__ == "__main__":
    main()
