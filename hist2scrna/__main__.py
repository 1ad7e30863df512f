"""`python -m hist2scrna`: the command line, where its script is not on the path."""

from hist2scrna.cli import app

if __name__ == "__main__":
    app()
