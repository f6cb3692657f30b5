"""The command line: thin commands over the package, each imported when it is used."""
