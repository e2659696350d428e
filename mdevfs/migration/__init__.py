"""The handshake: strings, device models, verdicts and their reasons, the catalogue of codes."""
