"""`python -m deploy.generate`: write every generated file of deploy/."""

from pathlib import Path

from deploy.generate.files import generated


def main() -> None:
    for path, text in generated(Path(__file__).parents[1]).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


if __name__ == "__main__":
    main()
