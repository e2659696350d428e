"""The bench: `servers` and `trees` are measured, by `timing`, as `measures` lists them; `report` shows it."""
