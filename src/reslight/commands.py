"""The commands that are not a Trainer's, as plain functions. They print; heavy imports are local."""


def models(pattern: str = "*") -> None:
    """Print the architectures whose names match, with their size, their cost and where they come from.

    Raises:
        ValueError: None matches.
    """
    from reslight.models import SOURCES, VARIANTS, cost_of, list_models

    names = list_models(pattern)
    if not names:
        raise ValueError(f"no architecture matches {pattern!r}; `reslight models` lists all, and * stands for any letters")
    rows = []
    for name in names:
        config = VARIANTS[name]
        cost = cost_of(config)
        rows.append([name, f"{cost.parameters:,}", f"{cost.macs / 1e6:,.1f}", f"{config.input_size}", SOURCES[name]])
    print(table(["name", "parameters", "MACs (M)", "at", "source"], rows))


def table(header: list[str], rows: list[list[str]]) -> str:
    """Columns as wide as their widest cell; a column of numbers to the right."""
    columns = list(zip(header, *rows, strict=True))
    padded = []
    for column in columns:
        width = max(len(cell) for cell in column)
        to_right = all(cell[:1].isdigit() for cell in column[1:])
        padded.append([cell.rjust(width) if to_right else cell.ljust(width) for cell in column])
    return "\n".join("  ".join(row).rstrip() for row in zip(*padded, strict=True))
