"""The command line: one file per command, thin; what is heavy is imported where it is used."""
