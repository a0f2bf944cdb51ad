"""Format tables for the terminal."""


def table(header: list[str], rows: list[list[str]]) -> str:
    """Return a table as text: each column as wide as its widest cell, columns of numbers aligned to the right."""
    columns = list(zip(header, *rows, strict=True))
    padded = []
    for column in columns:
        width = max(len(cell) for cell in column)
        is_numeric = all(not cell or cell[0].isdigit() for cell in column[1:])
        padded.append([cell.rjust(width) if is_numeric else cell.ljust(width) for cell in column])
    return "\n".join("  ".join(row).rstrip() for row in zip(*padded, strict=True))
