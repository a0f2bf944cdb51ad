"""Tables for the terminal."""


def table(header: list[str], rows: list[list[str]]) -> str:
    """Columns as wide as their widest cell; a column of numbers to the right."""
    columns = list(zip(header, *rows, strict=True))
    padded = []
    for column in columns:
        width = max(len(cell) for cell in column)
        to_right = all(not cell or cell[0].isdigit() for cell in column[1:])
        padded.append([cell.rjust(width) if to_right else cell.ljust(width) for cell in column])
    return "\n".join("  ".join(row).rstrip() for row in zip(*padded, strict=True))
