"""Run the command line as `python -m rsupres`."""

from rsupres.cli import main

if __name__ == "__main__":
    main(prog_name="rsupres")
