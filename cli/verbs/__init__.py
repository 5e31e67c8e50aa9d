"""One module for each verb of the first level, imported when the verb is used."""
