"""host.toml -> Host: the whole machine."""
