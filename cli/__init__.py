"""The command line: one module per group of verbs, imported when the verb is used."""
